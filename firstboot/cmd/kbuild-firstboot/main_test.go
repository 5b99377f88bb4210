package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/slot"
	"github.com/kbuild/kbuild/images"
)

// execute runs a command line on the machine at root.
func execute(t *testing.T, root string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("JOURNAL_STREAM", "")
	var out, errs bytes.Buffer
	code = Execute(t.Context(), append([]string{"--root", root}, args...), &out, &errs)
	return code, out.String(), errs.String()
}

// machine is the root of an image that has not booted.
func machine(t *testing.T) (string, images.Baked) {
	t.Helper()
	release, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	baked := images.Baked{Kbuild: "test", Arch: "amd64", Source: "modules", CNI: "none", Release: release, BuildTime: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)}
	write(t, root, images.BakedFile, baked)
	return root, baked
}

func write(t *testing.T, root, name string, v any) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestUsage(t *testing.T) {
	root, _ := machine(t)
	for _, line := range []string{"bogus", "run extra", "run --bogus", "run --until nope", "run --skip-phases certs,nope", "phase", "phase a b", "phase nope",
		"plan extra", "plan -o xml", "status -o xml", "version -o xml", "reset extra",
		"upgrade extra", "upgrade stage", "upgrade stage a b", "upgrade apply now", "upgrade status -o xml", "upgrade nope"} {
		code, out, errs := execute(t, root, strings.Fields(line)...)
		if code != cli.ExitUsage || out != "" || !strings.Contains(errs, "--help") {
			t.Errorf("%s: exit code %d, want %d and where help is:\n%s%s", line, code, cli.ExitUsage, out, errs)
		}
	}
	for _, name := range []string{"run", "phase", "plan", "status", "version", "reset", "upgrade", "upgrade stage", "upgrade apply", "upgrade cancel", "upgrade rollback", "upgrade status"} {
		code, out, _ := execute(t, root, append(strings.Fields(name), "--help")...)
		if code != cli.ExitOK || !strings.Contains(out, "Examples:\n  kbuild-firstboot "+name) {
			t.Errorf("%s --help: exit code %d:\n%s", name, code, out)
		}
	}
	if code, _, errs := execute(t, t.TempDir(), "version"); code != cli.ExitFailed || !strings.Contains(errs, "no kbuild image") {
		t.Errorf("no image: exit code %d: %s", code, errs)
	}
}

func TestVersion(t *testing.T) {
	root, baked := machine(t)
	if _, out, _ := execute(t, root, "version"); !strings.Contains(out, "kbuild       test\nGo           "+runtime.Version()+"\nKubernetes   v1.19.12\n") {
		t.Errorf("as text:\n%s", out)
	}
	if _, out, _ := execute(t, root, "version", "-o", "yaml"); !strings.Contains(out, "\ngo: "+runtime.Version()+"\n") || !strings.Contains(out, "\nkbuild: test\n") {
		t.Errorf("as YAML:\n%s", out)
	}
	code, out, _ := execute(t, root, "version", "-o", "json")
	var got images.Baked
	if err := json.Unmarshal([]byte(out), &got); code != cli.ExitOK || err != nil || got.Release.Version != baked.Release.Version {
		t.Errorf("exit code %d, %v: %s", code, err, out)
	}
}

func TestPlan(t *testing.T) {
	root, baked := machine(t)
	plan := func() map[string]converge.Planned {
		t.Helper()
		before := tree(t, root)
		code, out, errs := execute(t, root, "plan", "-o", "json")
		var list []converge.Planned
		if err := json.Unmarshal([]byte(out), &list); code != cli.ExitOK || err != nil {
			t.Fatalf("exit code %d, %v: %s%s", code, err, out, errs)
		}
		if now := tree(t, root); now != before {
			t.Errorf("plan changed the disk from\n%s\nto\n%s", before, now)
		}
		m := map[string]converge.Planned{}
		for _, p := range list {
			m[p.Name] = p
		}
		return m
	}

	p := plan()
	if p["clock"].State != converge.PlanHolds || p["metadata"].State != converge.PlanToDo || p["hostname"].State != converge.PlanUnknown || len(p) != len(firstboot.List("")) {
		t.Errorf("without a configuration: %v", p)
	}
	if _, out, _ := execute(t, root, "plan"); !strings.Contains(out, "no role yet") {
		t.Errorf("it does not say that there is more:\n%s", out)
	}

	data := "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nnodeRegistration: {name: node-1}\nlocalAPIEndpoint: {advertiseAddress: 192.0.2.10}\n"
	m := config.Machine{Hostname: "node-1", Links: []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}}}}
	node, _, err := config.Load(baked, m, config.Document{Source: "test", Data: []byte(data)})
	if err != nil {
		t.Fatal(err)
	}
	node.Init.SkipPhases = []string{"addon"}
	write(t, root, "var/lib/kbuild/node.json", node)
	p = plan()
	for name, want := range map[string]converge.PlanState{
		"metadata": converge.PlanHolds, "certs": converge.PlanToDo, "preflight": converge.PlanToDo, "kubeconfig": converge.PlanUnknown,
		"images": converge.PlanUnknown, "addon": converge.PlanSkipped, "node-ready": converge.PlanUnknown,
	} {
		if p[name].State != want {
			t.Errorf("%s: %q (%s), want %q", name, p[name].State, p[name].Why, want)
		}
	}
	if len(p) != len(firstboot.List("init")) {
		t.Errorf("%d steps, want all of the role's", len(p))
	}
}

func TestStatus(t *testing.T) {
	root, _ := machine(t)
	if code, out, _ := execute(t, root, "status"); code != cli.ExitFailed || !strings.Contains(out, "no run since boot") {
		t.Errorf("before a run: exit code %d:\n%s", code, out)
	}
	begun := time.Now().Add(-time.Minute)
	s := converge.Status{State: converge.StateRunning, Step: "certs", Why: "the right time", Started: begun,
		Steps:   []converge.StepStatus{{Name: "metadata", State: converge.StepDone, Seconds: 1.26}, {Name: "certs", State: converge.StepWaiting, Why: "the right time\nand more"}, {Name: "addon", State: converge.StepPending}},
		Sources: map[string]string{"cluster.clusterName": "default", "init.nodeRegistration.name": "credential kbuild.userdata, line 4"}}
	write(t, root, converge.StatusFile, s)
	code, out, _ := execute(t, root, "status")
	if code != cli.ExitFailed {
		t.Errorf("exit code %d of a run that goes on, want %d", code, cli.ExitFailed)
	}
	for _, want := range []string{"certs: waiting: the right time", "metadata", "1.3s", "the right time …", "credential kbuild.userdata, line 4", "init.nodeRegistration.name"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	rec := slot.Record{Outcome: slot.FellBack, Ended: begun, Failures: []slot.Failure{{Reason: "etcd is not healthy"}}}
	rec.Update.Release.Version = "v1.20.15"
	write(t, root, "var/lib/kbuild/upgrade.json", rec)
	if _, out, _ := execute(t, root, "status"); !strings.Contains(out, "the update to v1.20.15 of ") || !strings.Contains(out, "fell back: etcd is not healthy") {
		t.Errorf("it does not tell of the fallback:\n%s", out)
	}
	s.State, s.Step, s.Why = converge.StateDone, "", ""
	write(t, root, converge.StatusFile, s)
	code, out, _ = execute(t, root, "status", "-o", "json")
	var got converge.Status
	if err := json.Unmarshal([]byte(out), &got); code != cli.ExitOK || err != nil || got.Sources["cluster.clusterName"] != "default" {
		t.Errorf("exit code %d, %v:\n%s", code, err, out)
	}
}

// tree is every file below root with its mode, size and time.
func tree(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err == nil {
			b.WriteString(p + " " + st.Mode().String() + " " + st.ModTime().String() + "\n")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
