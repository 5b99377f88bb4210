package firstboot

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/slot"
	"github.com/kbuild/kbuild/images"
)

// checksDir is where an administrator puts checks of his own, beside those that
// are baked.
const checksDir = "/var/lib/kbuild/checks.d"

// checkLimit is how long one check may take.
const checkLimit = time.Minute

// stepHealth judges the first boots of a new slot, when all else of the list
// holds: the boot loader keeps the slot only then (systemd-bless-boot.service). Beside what the other steps have seen, every
// static pod must answer its own liveness probe, and every check of the user's
// end well.
func stepHealth() Step {
	return Step{
		Name: "health",
		Done: func(ctx context.Context, r *Run) (bool, error) {
			if r.Host.Trial == nil || !r.Host.Trial() {
				return true, nil
			}
			if err := podsAlive(ctx, r); err != nil {
				return false, outcome.Retry{After: 2 * time.Second, Why: err.Error()}
			}
			if err := userChecks(ctx, r); err != nil {
				return false, outcome.Retry{After: 10 * time.Second, Why: err.Error()}
			}
			return true, nil
		},
		Do: func(context.Context, *Run) error { return errors.New("nothing can be done about it") },
	}
}

// podsAlive asks the static pods as the kubelet does.
func podsAlive(ctx context.Context, r *Run) error {
	names, err := r.Host.Entries(manifestDir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if path.Ext(name) != ".yaml" {
			continue
		}
		b, err := r.Host.ReadFile(path.Join(manifestDir, name))
		if err != nil {
			return err
		}
		var pod corev1.Pod
		if err := yaml.Unmarshal(b, &pod); err != nil {
			return fmt.Errorf("cannot read %s: %w", path.Join(manifestDir, name), err)
		}
		for _, c := range pod.Spec.Containers {
			if c.LivenessProbe == nil || c.LivenessProbe.HTTPGet == nil {
				continue
			}
			if err := probe(ctx, c.LivenessProbe.HTTPGet); err != nil {
				return fmt.Errorf("%s does not answer its liveness probe: %w", c.Name, err)
			}
		}
	}
	return nil
}

// probe makes one request of a liveness probe, as the kubelet does: whoever
// answers is not asked for a certificate.
func probe(ctx context.Context, get *corev1.HTTPGetAction) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	host := get.Host
	if host == "" {
		host = "127.0.0.1"
	}
	at := strings.ToLower(string(get.Scheme)) + "://" + net.JoinHostPort(host, get.Port.String()) + get.Path
	if get.Scheme == "" {
		at = "http" + at
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return fmt.Errorf("%s: %s: %s", at, resp.Status, firstLine(string(b)))
	}
	return nil
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// userChecks runs the checks one after another: no arguments, the status says
// how it went and what is printed why.
func userChecks(ctx context.Context, r *Run) error {
	for _, dir := range []string{images.BakedChecks, checksDir} {
		names, err := r.Host.Entries(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			file := path.Join(dir, name)
			info, err := r.Host.Root.Stat(strings.TrimPrefix(file, "/"))
			if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0 {
				continue
			}
			ctx, cancel := context.WithTimeout(ctx, checkLimit)
			_, err = r.Host.Run(ctx, file)
			cancel()
			if err != nil {
				return fmt.Errorf("check %s does not end well: %w", file, err)
			}
		}
	}
	return nil
}

// stepTellFallback tells the cluster that an update of this node was given up,
// as an Event on its Node. A machine without slots has none to tell of.
func stepTellFallback() Step {
	return Step{
		Name:  "tell-fallback",
		Needs: []string{"node-ready"},
		Done: func(ctx context.Context, r *Run) (bool, error) {
			rec, news, err := slot.Settled(ctx, r.Host)
			return err == nil && !news && rec.Untold == "", err
		},
		Do: func(ctx context.Context, r *Run) error {
			unlock, err := slot.Lock(r.Host)
			if err != nil {
				return outcome.Retry{After: 2 * time.Second, Why: err.Error()}
			}
			defer unlock()
			rec, err := slot.Settle(ctx, r.Host)
			if err != nil || rec.Untold == "" {
				return err
			}
			r.Host.Log.Error(rec.Untold, slog.String("MESSAGE_ID", FallbackID))
			err = r.Host.Do("tell of the fallback", func() error { return cluster.RetryIfTemporary(nodeEvent(ctx, r, cluster.FellBackReason, rec.Untold)) })
			if _, refused := errors.AsType[*apierrors.StatusError](err); refused { // by a quota, or a policy
				r.Host.Log.Warn("the cluster takes no Event about the fallback; the journal has told of it", slog.Any("error", err))
			} else if err != nil {
				return err
			}
			rec.Untold = ""
			return rec.Write(r.Host)
		},
	}
}

// FallbackID is the journal's MESSAGE_ID of the line that says why an update
// was given up.
const FallbackID = "b5c4d0a2f0d04c1c9a6b0f8f6f4e1d37"

// nodeEvent makes a warning about this machine's Node.
func nodeEvent(ctx context.Context, r *Run, reason, message string) error {
	c, n, err := thisNode(ctx, r)
	if err != nil {
		return err
	}
	const longest = 1024 // the API's limit for a message
	if len(message) > longest {
		message = message[:longest-4] + " ..."
	}
	now := metav1.NewTime(r.Host.Now())
	e := corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%x", n.Name, now.UnixNano()), Namespace: metav1.NamespaceDefault},
		// The kubelet's own Events name a Node's UID like this, and are found by it.
		InvolvedObject: corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: n.Name, UID: types.UID(n.Name)},
		Reason:         reason, Message: message, Type: corev1.EventTypeWarning,
		Source:         corev1.EventSource{Component: "kbuild-firstboot", Host: n.Name},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	_, err = c.CoreV1().Events(metav1.NamespaceDefault).Create(ctx, &e, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("cannot make an Event about node %s: %w", n.Name, err)
	}
	return nil
}

// GiveUp writes down why this boot of a new slot ends before its time.
func GiveUp(ctx context.Context, r *Run) error {
	s, err := ReadStatus(r.Host)
	if err != nil {
		return err
	}
	why := s.Summary() + kubeletSaid(ctx, r)
	if s.State == StateDone {
		why = "every step holds, but the boot was not complete in time (systemctl list-dependencies boot-complete.target)"
	}
	return slot.Fail(r.Host, why)
}

// MayTry says why this machine cannot try a new image; nil is that it can. One
// that is no node yet would become one of the new version, with no way back.
func MayTry(r *Run) error {
	switch {
	case Resetting(r.Host):
		return outcome.Refuse("this machine is being reset; let it become a new node first")
	case !r.Host.Exists(nodeFile):
		return outcome.Refuse("this machine is no node yet, so nothing could tell whether the new image is healthy; give it user-data first, or install the new image")
	}
	return nil
}

// MayRollBack says why this node cannot go back to the version that its other
// slot holds; nil is that it can.
func MayRollBack(r *Run, other string) error {
	own := r.Baked.Release.Version
	if other == own || !r.Host.Exists(nodeFile) {
		return nil // nothing was moved, or there is no node yet
	}
	k, err := readKept(r)
	if err != nil {
		return err
	}
	if k.Version != other || k.To != own {
		return outcome.Refuse("cannot go back to %s: this node was made in %s, and has kept nothing of that version; stage an image of this version or a newer one", other, own)
	}
	old, err := images.Lookup(k.Version)
	if err != nil {
		return outcome.Refuse("%w", err)
	}
	if k.Data != "" && !old.ReadsEtcd(k.Etcd) {
		return outcome.Refuse("cannot go back to %s: etcd %s has used this node's data, and %s's etcd %s does not read it", k.Version, k.Etcd, k.Version, old.Etcd.Tag)
	}
	return nil
}
