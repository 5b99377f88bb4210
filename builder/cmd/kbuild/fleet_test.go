package main

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/builder/fleet"
	"github.com/kbuild/kbuild/cli"
)

// addFleet makes a control plane and two workers, as the API shows them.
func addFleet(t *testing.T, c kubernetes.Interface) {
	t.Helper()
	_, err := c.CoreV1().ConfigMaps("kube-system").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "kubeadm-config", Namespace: "kube-system"},
		Data:       map[string]string{"ClusterConfiguration": "kubernetesVersion: v1.19.12\n"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cp1", "w1", "w2"} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{
			NodeInfo:   corev1.NodeSystemInfo{KubeletVersion: "v1.19.12"},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		}}
		if name == "cp1" {
			n.Labels = map[string]string{"node-role.kubernetes.io/master": ""}
		}
		if name == "w2" {
			n.Status.Conditions[0].Status = corev1.ConditionUnknown
		}
		if _, err := c.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUpgradePlan(t *testing.T) {
	c, _ := apiServer(t)
	addFleet(t, c)
	out := mustKbuild(t, "upgrade", "plan")
	for _, want := range []string{"it can be upgraded to v1.19.16 or v1.20.15", "Upgrading to v1.20.15", "cp1   control-plane  v1.19.12  yes    stage the image in its other slot; cordon it; drain it; reboot into v1.20.15", "Rollback: possible: etcd 3.4.13-0", "Note: whether APIs are in use that v1.20.15 does not serve is not known", "Blocked: node w2 is not Ready"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	var p fleet.Plan
	if err := json.Unmarshal([]byte(mustKbuild(t, "upgrade", "plan", "--to", "v1.19.16", "-o", "json")), &p); err != nil {
		t.Fatal(err)
	}
	if p.To != "v1.19.16" || len(p.Nodes) != 3 || p.Nodes[0].Role != "control-plane" || len(p.Nodes[2].Do) != 5 {
		t.Errorf("%+v", p)
	}
	if code, _, stderr := kbuild(t, "upgrade", "plan", "--to", "v1.37.2"); code != cli.ExitFailed || !strings.Contains(stderr, "v1.20 first") || !strings.Contains(stderr, "it can be upgraded to") {
		t.Errorf("a minor version is skipped: %d %s", code, stderr)
	}
	if code, _, stderr := kbuild(t, "upgrade", "apply", "--to", "v1.20.15", "--source", "https://images.example.com/", "--yes"); code != cli.ExitFailed || !strings.Contains(stderr, "node w2 is not Ready") {
		t.Errorf("a node is not Ready: %d %s", code, stderr)
	}
}

func TestPrintPlan(t *testing.T) {
	var out strings.Builder
	err := printPlan(&out, fleet.Plan{Cluster: "v1.24.17", To: "v1.25.16", Removed: []fleet.RemovedAPI{{
		DeprecatedAPI: fleet.DeprecatedAPI{API: "policy/v1beta1", Resource: "poddisruptionbudgets", Removed: "1.25", Use: "policy/v1"},
		Remedy:        "make its clients use policy/v1",
	}}})
	want := "Removed API: policy/v1beta1 poddisruptionbudgets is in use, and Kubernetes v1.25 does not serve it: make its clients use policy/v1.\n"
	if err != nil || !strings.Contains(out.String(), want) {
		t.Errorf("no %q in\n%s%v", want, out.String(), err)
	}
}

func TestResetRefusals(t *testing.T) {
	c, _ := apiServer(t)
	addFleet(t, c)
	for name, want := range map[string]string{
		"cp1": "last control plane", "w2": "not Ready", "w9": "no such node, only cp1, w1, w2",
	} {
		if code, out, stderr := kbuild(t, "reset", name, "--yes"); code != cli.ExitFailed || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: %d %q %s", name, code, out, stderr)
		}
	}
	if code, _, stderr := kbuild(t, "reset", "w1"); code != cli.ExitFailed || !strings.Contains(stderr, "not confirmed") {
		t.Errorf("not confirmed: %d %s", code, stderr)
	}
}

func TestFleetUsage(t *testing.T) {
	apiServer(t)
	const to, source = " --to v1.20.15", " --source https://images.example.com/v1.20.15/"
	for args, want := range map[string]string{
		"upgrade everything":                                "everything",
		"upgrade plan --to newest":                          "newest",
		"upgrade plan -o yaml":                              "yaml",
		"upgrade plan --to v1.38.0":                         "v1.38.0",
		"upgrade diff --to newest":                          "newest",
		"upgrade diff -o yaml":                              "yaml",
		"upgrade apply" + source:                            "--to is missing",
		"upgrade apply" + to:                                "--source is missing",
		"upgrade apply --source images" + to:                "--source",
		"upgrade apply --source https://x/{{version}}" + to: "template",
		"upgrade apply --max-unavailable 0" + to + source:   "--max-unavailable",
		"upgrade apply --node-timeout 0s" + to + source:     "--node-timeout",
		"upgrade apply -o json" + to + source:               "--yes",
		"upgrade apply now" + to + source:                   "now",
		"reset":                                             "the node's name",
		"reset a b":                                         "the node's name",
		"reset a -o json":                                   "--yes",
		"reset a -o table":                                  "table",
		"reset a --kubeconfig x":                            "kubeconfig x",
	} {
		code, out, stderr := kbuild(t, strings.Fields(args)...)
		if code != cli.ExitUsage || out != "" || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, output %q, %s", args, code, out, stderr)
		}
	}
	for _, args := range []string{"upgrade", "upgrade plan", "upgrade diff", "upgrade apply", "reset"} {
		if out := mustKbuild(t, append(strings.Fields(args), "--help")...); args != "upgrade" && !strings.Contains(out, "Examples:") {
			t.Errorf("%s --help has no examples:\n%s", args, out)
		}
	}
}

func TestView(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.Local)
	var lines strings.Builder
	v := newView(&lines, "text")
	v.report(fleet.Event{Time: at, Node: "w1", Step: fleet.Drain, Message: "its pods leave\nall of them"})
	v.end(nil)
	if got := lines.String(); got != "12:00:00 w1: drain: its pods leave\n12:00:00 w1: drain: all of them\nDone.\n" {
		t.Errorf("lines: %q", got)
	}
	var objects strings.Builder
	v = newView(&objects, "json")
	v.report(fleet.Event{Time: at, Node: "w1", Step: fleet.Drain})
	v.end(errors.New("not there"))
	dec := json.NewDecoder(strings.NewReader(objects.String()))
	var e, end map[string]any
	if dec.Decode(&e) != nil || dec.Decode(&end) != nil || e["node"] != "w1" || e["step"] != "drain" || end["result"] != "failed" || end["error"] != "not there" {
		t.Errorf("JSON: %s", objects.String())
	}
	var table strings.Builder
	v = &view{out: &table, width: 40}
	v.node("w1", "v1.19.12")
	v.node("w2", "v1.19.12")
	v.report(fleet.Event{Time: at, Node: "w2", Step: fleet.Stage, Message: "a message that is longer than the terminal is wide"})
	v.report(fleet.Event{Time: at, Node: "w1", Step: fleet.Done})
	last := table.String()[strings.LastIndex(table.String(), "\x1b[3A"):]
	if rows := strings.Split(last, "\n"); len(rows) != 4 || !strings.Contains(rows[1], "done") || !strings.HasSuffix(rows[2], "  a m") || strings.Contains(last, "terminal") {
		t.Errorf("table: %q", last)
	}
}
