package firstboot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/metadata"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/pki"
)

const (
	// nodeFile is the frozen configuration of the node, a config.Node.
	nodeFile = "/var/lib/kbuild/node.json"
	// hostsFile is what /etc/hosts links to.
	hostsFile = "/run/kbuild/hosts"
	// metadataRetry is how often user-data is looked for again, and
	// metadataSlow how seldom at most where it must be fetched.
	metadataRetry = 5 * time.Second
	metadataSlow  = 30 * time.Second
	// metadataGlance is how long a node that has its configuration may look
	// whether its user-data is still the same.
	metadataGlance = time.Second
	// udevQueue is there while udev has not looked at all devices yet.
	udevQueue = "/run/udev/queue"
	// userDataSource is the key in Node.Sources under which the frozen
	// user-data's name and digest stand.
	userDataSource = "userdata"
	// bakedSource is the key under which the digest of the image's own
	// configuration stands that the rest was made with.
	bakedSource = "image"
)

// stepMetadata finds the node's configuration, makes it whole and valid, and
// freezes it on the disk. From then on the frozen one counts: a token must not
// be made anew at each boot, nor a node change its name because a DHCP server
// does. Without user-data, or with a bad one, the node waits. What an image
// bakes is the image's: another image lays its own under the user-data.
func stepMetadata() Step {
	return Step{Name: "metadata", Done: metadataDone, Do: freezeMetadata}
}

// metadataDone loads the frozen configuration.
func metadataDone(ctx context.Context, r *Run) (bool, error) {
	if !r.Host.Exists(nodeFile) {
		return false, nil
	}
	n, err := frozenNode(r)
	if err != nil {
		return false, err
	}
	if _, err := config.Validate(n, r.Baked); err != nil {
		return false, fmt.Errorf("cannot use the frozen configuration %s: %w", nodeFile, err)
	}
	if r.Node == nil && noteChange(ctx, r, n) {
		return false, nil
	}
	if other, err := otherBaked(r, n); other || err != nil {
		return false, err
	}
	r.Node = n
	if n.Role.Joins() {
		_, err = loadCluster(r)
	}
	return err == nil, err
}

// noteChange says in the log when the machine is given other user-data than
// the node was made of, and whether the new one is to be taken: by a machine
// that waits to join and may have been given a better token, pin or name.
func noteChange(ctx context.Context, r *Run, n *config.Node) (taken bool) {
	ctx, cancel := context.WithTimeout(ctx, metadataGlance)
	defer cancel()
	found, err := metadata.Find(ctx, r.Host)
	if err != nil || found.Source == "" {
		return false // it has done its work; it may be gone
	}
	now := userDataDigest(found)
	switch {
	case now == n.Sources[userDataSource]:
	case n.Role.Joins() && !joined(r):
		r.Host.Log.Info("user-data has changed before this node has joined: the new one is taken", slog.String("source", found.Source))
		return true
	default:
		r.Host.Log.Warn("user-data has changed since this node was set up; the change is not applied. Reset the node to apply it",
			slog.String("source", found.Source), slog.String("frozen", n.Sources[userDataSource]), slog.String("now", now))
	}
	return false
}

// userDataDigest names user-data without telling what is in it.
func userDataDigest(f metadata.Found) string {
	if f.Source == "" {
		return "none"
	}
	return fmt.Sprintf("%s, sha256:%x", f.Source, sha256.Sum256(f.UserData()))
}

// otherBaked says whether n was made with another image's configuration than
// this one's.
func otherBaked(r *Run, n *config.Node) (bool, error) {
	doc, err := metadata.Baked(r.Host)
	return err == nil && bakedDigest(doc) != n.Sources[bakedSource], err
}

// bakedDigest names the image's own configuration; empty where it has none.
func bakedDigest(doc config.Document) string {
	if doc.Data == nil {
		return ""
	}
	return fmt.Sprintf("%s, sha256:%x", doc.Source, sha256.Sum256(doc.Data))
}

// noteBaked writes down what n was made with.
func noteBaked(n *config.Node, doc config.Document) {
	if n.Sources[bakedSource] = bakedDigest(doc); n.Sources[bakedSource] == "" {
		delete(n.Sources, bakedSource)
	}
}

// rebake gives a node what this image's own configuration says.
func rebake(ctx context.Context, r *Run, n *config.Node) error {
	doc, err := metadata.Baked(r.Host)
	if err != nil {
		return err
	}
	m, err := machineFacts(ctx, r.Host)
	if err != nil {
		return err
	}
	rebaked, changed, kept, err := n.Rebake(r.Baked, m, doc)
	if err == nil && !n.Role.Joins() {
		_, err = config.Validate(rebaked, r.Baked)
	}
	if err != nil {
		return outcome.Refuse("this image's own configuration does not go with this node: %w", err)
	}
	if len(kept) > 0 {
		r.Host.Log.Warn("this image's own configuration says what a node keeps for good; reset the node to apply it", slog.String("fields", strings.Join(kept, ", ")))
	}
	if len(changed) > 0 {
		r.Host.Log.Info("this image's own configuration differs from that of the image before", slog.String("fields", strings.Join(changed, ", ")))
	}
	noteBaked(rebaked, doc)
	return freeze(r, rebaked)
}

func freezeMetadata(ctx context.Context, r *Run) error {
	if r.Host.Exists(nodeFile) {
		n, err := frozenNode(r)
		if err != nil {
			return err
		}
		other, err := otherBaked(r, n)
		if err != nil {
			return err
		}
		// A machine that waits to join is made anew below.
		if other && (!n.Role.Joins() || joined(r)) {
			return rebake(ctx, r, n)
		}
	}
	wait := func(err error) error { return outcome.Retry{After: metadataRetry, Why: err.Error()} }
	found, err := metadata.Find(ctx, r.Host)
	if late, ok := errors.AsType[outcome.Retry](err); ok {
		return outcome.Retry{After: max(late.After, backoff(r.Host)), Why: err.Error()}
	}
	if err != nil {
		return wait(err)
	}
	if found.Source == "" && r.Host.Exists(udevQueue) {
		return outcome.Retry{After: 200 * time.Millisecond, Why: "the machine's devices, on one of which user-data may be"}
	}
	m, err := machineFacts(ctx, r.Host)
	if err != nil {
		return err
	}
	if found.Hostname != "" {
		m.Hostname = found.Hostname
	}
	n, warnings, err := config.Load(r.Baked, m, found.Documents...)
	switch {
	case errors.Is(err, config.ErrNoRole) && found.Source == "":
		return wait(errors.New("user-data: " + noUserData))
	case errors.Is(err, config.ErrNoAddress):
		return outcome.Retry{After: time.Second, Why: err.Error()}
	case err != nil:
		return wait(err)
	}
	for _, w := range append(found.Warnings, warnings...) {
		r.Host.Log.Warn("configuration: " + w)
	}
	n.Sources[userDataSource] = userDataDigest(found)
	doc, err := metadata.Baked(r.Host)
	if err != nil {
		return err
	}
	noteBaked(n, doc)
	if err := forgetEarlier(r); err != nil {
		return err
	}
	if err := freeze(r, n); err != nil {
		return err
	}
	r.Host.Log.Info("node configured", slog.Any("node", *n), slog.String("source", n.Sources[userDataSource]))
	return nil
}

// forgetEarlier removes what a machine that has not joined yet has found and made
// with other user-data: none of it is of use with this one. What it cannot make
// again stays.
func forgetEarlier(r *Run) error {
	files := []string{clusterFile, bootstrapKubeconfig, preflightFile, preflightControlPlaneFile}
	if r.Host.Exists(nodeFile) {
		n, err := frozenNode(r)
		if err != nil {
			return err
		}
		with := *r
		with.Node = n
		known, err := loadCluster(&with)
		if err != nil {
			return err
		}
		if known && n.Role == config.RoleControlPlane {
			made, err := pki.Renewable(r.Host, with.Node, r.Baked.Release)
			if err != nil {
				return err
			}
			if n.Init.CertificateKey != "" { // with it they came from the cluster
				for _, file := range sharedCerts(with.Node) {
					if file != "" {
						made = append(made, file)
					}
				}
			}
			files = append(made, files...)
		}
	}
	for _, file := range files {
		if err := r.Host.Remove(file); err != nil {
			return err
		}
	}
	return nil
}

// backoff is how long to leave a service alone that does not answer yet: about
// a tenth of the time that the machine is up, so that one that boots along with
// it is seen at once, and many machines do not hammer one that is gone.
func backoff(h *host.Host) time.Duration {
	b, _ := h.ReadFile("/proc/uptime") // seconds, idle seconds
	seconds, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	up, err := strconv.ParseFloat(seconds, 64)
	if err != nil || !(up > 0) {
		up = 0
	}
	tenth := time.Duration(min(up, 3600) / 10 * float64(time.Second))
	return min(max(tenth, time.Second/2), metadataSlow) * time.Duration(90+rand.IntN(20)) / 100
}

const noUserData = "there is none yet. Give this machine the systemd credential " + metadata.Credential +
	" (SMBIOS type 11 io.systemd.credential.binary:" + metadata.Credential + "=BASE64, or fw_cfg opt/io.systemd.credentials/" + metadata.Credential +
	"), a volume labelled cidata with a file user-data, user-data of its platform (docs/user-data.md), or kbuild.userdata=https://HOST/PATH on the kernel command line; the least of it is `apiVersion: kbuild.dev/v1alpha1`, `kind: NodeMetadata`, `role: init`"

// stepHostname gives the machine the node's name, and makes that name resolve
// without a DNS server: a static pod would wait ten seconds for it otherwise.
// Both live in memory, so it has work on every boot.
func stepHostname() Step {
	return Step{Name: "hostname", Done: hostnameDone, Do: setHostname}
}

func hostnameDone(_ context.Context, r *Run) (bool, error) {
	name, err := r.Host.Hostname()
	if err != nil {
		return false, fmt.Errorf("cannot ask for the host name: %w", err)
	}
	hosts, err := r.Host.ReadFile(hostsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("cannot read %s: %w", hostsFile, err)
	}
	return name == r.Node.Init.NodeRegistration.Name && string(hosts) == hostsText(r.Node), nil
}

func setHostname(_ context.Context, r *Run) error {
	if err := r.Host.WriteFile(hostsFile, []byte(hostsText(r.Node)), 0o644); err != nil {
		return err
	}
	want := r.Node.Init.NodeRegistration.Name
	if name, err := r.Host.Hostname(); err == nil && name == want {
		return nil
	}
	if err := r.Host.BeforeChange("set host name"); err != nil {
		return err
	}
	if err := r.Host.SetHostname(want); err != nil {
		return fmt.Errorf("cannot set the host name to %q: %w", want, err)
	}
	return nil
}

func hostsText(n *config.Node) string {
	name := n.Init.NodeRegistration.Name
	names := name
	if short, _, ok := strings.Cut(name, "."); ok {
		names += " " + short
	}
	return "# Written by kbuild-firstboot on every boot.\n" +
		"127.0.0.1 localhost\n" +
		"::1 localhost ip6-localhost ip6-loopback\n" +
		n.Init.LocalAPIEndpoint.AdvertiseAddress + " " + names + "\n"
}
