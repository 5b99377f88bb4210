package firstboot

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/metadata"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/pki"
)

const (
	// metadataRetry is how often user-data is looked for again, and
	// metadataSlow how seldom at most where it must be fetched.
	metadataRetry = 5 * time.Second
	metadataSlow  = 30 * time.Second
	// metadataGlance is how long a node that has its configuration may look
	// whether its user-data is still the same.
	metadataGlance = time.Second
	// udevQueue is there while udev has not looked at all devices yet.
	udevQueue = "/run/udev/queue"
)

// stepMetadata finds the node's configuration, makes it whole and valid, and
// freezes it on the disk. From then on the frozen one counts: a token must not
// be made anew at each boot, nor a node change its name because a DHCP server
// does. Without user-data, or with a bad one, the node waits. What an image
// bakes is the image's: another image lays its own under the user-data.
func stepMetadata() converge.Step {
	return converge.Step{Name: "metadata", Loads: true, Done: metadataDone, Do: freezeMetadata}
}

// metadataDone says whether the frozen configuration is there, good, and still
// what this machine is to be.
func metadataDone(ctx context.Context, m *node.Machine) (bool, error) {
	if !m.Host.Exists(node.ConfigFile) {
		return false, nil
	}
	n, err := node.Frozen(m.Host)
	if err != nil {
		return false, err
	}
	if _, err := config.Validate(n, m.Baked); err != nil {
		return false, fmt.Errorf("cannot use the frozen configuration %s: %w", node.ConfigFile, err)
	}
	if other, err := otherImage(m, n); other || err != nil {
		return false, err
	}
	// Once it is loaded, in this pass, it is known.
	return m.Node != nil || !noteChange(ctx, m, n), nil
}

// noteChange says in the log when the machine is given other user-data than
// the node was made of, and whether the new one is to be taken: by a machine
// that waits to join and may have been given a better token, pin or name.
func noteChange(ctx context.Context, m *node.Machine, n *config.Node) (taken bool) {
	ctx, cancel := context.WithTimeout(ctx, metadataGlance)
	defer cancel()
	found, err := metadata.Find(ctx, m.Host)
	if err != nil || found.Source == "" {
		return false // it has done its work; it may be gone
	}
	now := userDataDigest(found)
	switch {
	case now == n.Sources[node.UserDataSource]:
	case n.Role.Joins() && !m.Joined():
		m.Host.Log.Info("user-data has changed before this node has joined: the new one is taken", slog.String("source", found.Source))
		return true
	default:
		m.Host.Log.Warn("user-data has changed since this node was set up; the change is not applied. Reset the node to apply it",
			slog.String("source", found.Source), slog.String("frozen", n.Sources[node.UserDataSource]), slog.String("now", now))
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

func freezeMetadata(ctx context.Context, m *node.Machine) error {
	if m.Host.Exists(node.ConfigFile) {
		n, err := node.Frozen(m.Host)
		if err != nil {
			return err
		}
		other, err := otherImage(m, n)
		if err != nil {
			return err
		}
		// A machine that waits to join is made anew below.
		if other && (!n.Role.Joins() || m.Joined()) {
			return applyImageConfig(ctx, m, n)
		}
	}
	wait := func(err error) error { return outcome.Retry{After: metadataRetry, Why: err.Error()} }
	found, err := metadata.Find(ctx, m.Host)
	if late, ok := errors.AsType[outcome.Retry](err); ok {
		return outcome.Retry{After: max(late.After, backoff(m.Host)), Why: err.Error()}
	}
	if err != nil {
		return wait(err)
	}
	if found.Source == "" && m.Host.Exists(udevQueue) {
		return outcome.Retry{After: 200 * time.Millisecond, Why: "the machine's devices, on one of which user-data may be"}
	}
	facts, err := node.Facts(ctx, m.Host)
	if err != nil {
		return err
	}
	if found.Hostname != "" {
		facts.Hostname = found.Hostname
	}
	n, warnings, err := config.Load(m.Baked, facts, found.Documents...)
	switch {
	case errors.Is(err, config.ErrNoRole) && found.Source == "":
		return wait(errors.New("user-data: " + noUserData))
	case errors.Is(err, config.ErrNoAddress):
		return outcome.Retry{After: time.Second, Why: err.Error()}
	case err != nil:
		return wait(err)
	}
	for _, w := range append(found.Warnings, warnings...) {
		m.Host.Log.Warn("configuration: " + w)
	}
	n.Sources[node.UserDataSource] = userDataDigest(found)
	doc, err := metadata.Baked(m.Host)
	if err != nil {
		return err
	}
	noteImageConfig(n, doc)
	if err := removeMade(m); err != nil {
		return err
	}
	if err := m.Freeze(n); err != nil {
		return err
	}
	m.Host.Log.Info("node configured", slog.Any("node", *n), slog.String("source", n.Sources[node.UserDataSource]))
	return nil
}

// removeMade removes the credentials that a machine which has not joined yet has
// made, or was given, with other user-data: they are of another token, name or
// cluster, and secret. What it cannot get again stays. Everything else that was
// made from it says so (see node.MadeFrom), and does not count.
func removeMade(m *node.Machine) error {
	if err := m.Host.Remove(node.BootstrapKubeconfig); err != nil {
		return err
	}
	n, is, err := node.Load(m.Host)
	if err != nil || !is || !n.KnowsCluster() || n.Role != config.RoleControlPlane {
		return err
	}
	files, err := pki.Renewable(m.Host, n, m.Baked.Release)
	if err != nil {
		return err
	}
	if n.Init.CertificateKey != "" { // with it they came from the cluster
		for _, file := range sharedCerts(n) {
			if file != "" {
				files = append(files, file)
			}
		}
	}
	for _, file := range files {
		if err := m.Host.Remove(file); err != nil {
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
