package firstboot

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/firstboot/slot"
	"github.com/kbuild/kbuild/images"
)

// TestHealth: a new slot is kept only when the static pods answer as their
// manifests ask, and the user's checks end well.
func TestHealth(t *testing.T) {
	h, err := host.Local(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Root.Close()
	run := h.Run
	h.Run = func(ctx context.Context, name string, args ...string) ([]byte, error) {
		return run(ctx, h.Path(name), args...)
	}
	h.Trial = func() bool { return true }
	r := &Run{Host: h}
	healthy := false
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !healthy || req.URL.Path != "/healthz" {
			http.Error(w, "etcd failed: reason withheld\nand more", http.StatusInternalServerError)
		}
	}))
	defer s.Close()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := h.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(manifestDir+"/kube-scheduler.yaml", "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: kube-scheduler\n    livenessProbe:\n      httpGet: {host: "+u.Hostname()+", port: "+u.Port()+", path: /healthz, scheme: HTTPS}\n", 0o600)
	holds := func(why string) {
		t.Helper()
		ok, err := stepHealth().Done(t.Context(), r)
		wait, waits := errors.AsType[outcome.Retry](err)
		if why == "" && (!ok || err != nil) || why != "" && (ok || !waits || !strings.Contains(wait.Why, why)) {
			t.Errorf("%v, %v; want %q", ok, err, why)
		}
	}
	holds("kube-scheduler does not answer its liveness probe: " + s.URL + "/healthz: 500 Internal Server Error: etcd failed: reason withheld")
	healthy = true
	holds("")
	write(checksDir+"/10-disk", "#!/bin/sh\necho disk is slow >&2\nexit 3\n", 0o755)
	holds("/var/lib/kbuild/checks.d/10-disk does not end well")
	holds("disk is slow")
	write(checksDir+"/10-disk", "#!/bin/sh\nexit 0\n", 0o755)
	write(checksDir+"/README", "no program", 0o644)
	holds("")
	write("/usr/lib/kbuild/checks.d/site", "#!/bin/sh\nexit 1\n", 0o755)
	holds("/usr/lib/kbuild/checks.d/site")
	h.Trial = func() bool { return false } // an ordinary boot is nobody's trial
	holds("")
}

// TestTellFallback: an update that fell back is told once, as an Event by which
// `kubectl describe node` finds it, with the last boot's reason.
func TestTellFallback(t *testing.T) {
	j := newJoinable(t)
	r := j.first
	n, err := j.admin.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
	if err != nil {
		n, err = j.admin.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	metav1.SetMetaDataLabel(&n.ObjectMeta, corev1.LabelHostname, "node-1")
	if _, err := j.admin.CoreV1().Nodes().Update(t.Context(), n, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	step := stepTellFallback()
	if ok, err := step.Done(t.Context(), r); !ok || err != nil {
		t.Errorf("a node without an update: %v, %v", ok, err)
	}
	// Another one has been begun meanwhile.
	rec := slot.Record{From: "v1.19.12", Begun: time.Now(), Untold: "the update to v1.20.15 fell back to v1.19.12: node-ready: waiting: node node-1 is not Ready"}
	if err := rec.Write(r.Host); err != nil {
		t.Fatal(err)
	}
	if err := converge(t.Context(), r, step); err != nil {
		t.Fatal(err)
	}
	if err := converge(t.Context(), r, step); err != nil {
		t.Fatal(err)
	}
	list, err := j.admin.CoreV1().Events("default").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("%d Events, %v; want one", len(list.Items), err)
	}
	e := list.Items[0]
	if want := rec.Untold; e.Reason != "UpgradeFellBack" || e.Message != want || e.InvolvedObject.Name != "node-1" || string(e.InvolvedObject.UID) != "node-1" || e.Type != "Warning" {
		t.Errorf("%s: %s, of %+v", e.Reason, e.Message, e.InvolvedObject)
	}

	// A cluster that takes no Events does not keep a node from its work.
	j.forbids = "/events"
	if err := rec.Write(r.Host); err != nil {
		t.Fatal(err)
	}
	if err := converge(t.Context(), r, step); err != nil {
		t.Error(err)
	}
	if now, err := slot.ReadRecord(r.Host); err != nil || now.Untold != "" {
		t.Errorf("%q is still to be told, %v", now.Untold, err)
	}
}

// TestMayRollBack: a node goes back only to what it has kept a copy of, and a
// machine that is no node yet tries nothing.
func TestMayRollBack(t *testing.T) {
	h, err := host.Local(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Root.Close()
	r := &Run{Host: h}
	if r.Baked.Release, err = images.Lookup("v1.20.15"); err != nil {
		t.Fatal(err)
	}
	if err := MayTry(r); err == nil || !strings.Contains(err.Error(), "no node yet") {
		t.Errorf("a machine that is no node yet: %v", err)
	}
	check := func(what, other, want string) {
		t.Helper()
		err := MayRollBack(r, other)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	check("no node yet", "v1.19.12", "")
	if err := h.WriteFile(nodeFile, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MayTry(r); err != nil {
		t.Errorf("a node: %v", err)
	}
	check("another image of the version", "v1.20.15", "")
	check("made in this version", "v1.19.12", "has kept nothing of that version")
	if err := writeState(r, keptRecord, kept{Version: "v1.19.12", To: "v1.20.15", Etcd: "3.4.13-0", Data: "/var/lib/etcd"}); err != nil {
		t.Fatal(err)
	}
	check("moved", "v1.19.12", "")
	if err := writeState(r, keptRecord, kept{Version: "v1.19.12", To: "v1.20.15", Etcd: "3.5.0-0", Data: "/var/lib/etcd"}); err != nil {
		t.Fatal(err)
	}
	check("etcd moved on", "v1.19.12", "does not read it")
	if err := writeState(r, resetFile, resetting{}); err != nil {
		t.Fatal(err)
	}
	if err := MayTry(r); err == nil || !strings.Contains(err.Error(), "being reset") {
		t.Errorf("a machine that is reset: %v", err)
	}
}
