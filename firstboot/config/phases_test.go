package config

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// kubeadmPhases are the phases that kubeadm v1.19 and v1.20 list in `kubeadm
// init --help` and `kubeadm join --help`.
const (
	kubeadmInit = `preflight certs certs/ca certs/apiserver certs/apiserver-kubelet-client certs/front-proxy-ca certs/front-proxy-client
		certs/etcd-ca certs/etcd-server certs/etcd-peer certs/etcd-healthcheck-client certs/apiserver-etcd-client certs/sa
		kubeconfig kubeconfig/admin kubeconfig/kubelet kubeconfig/controller-manager kubeconfig/scheduler kubelet-start
		control-plane control-plane/apiserver control-plane/controller-manager control-plane/scheduler etcd etcd/local
		upload-config upload-config/kubeadm upload-config/kubelet upload-certs mark-control-plane bootstrap-token
		kubelet-finalize kubelet-finalize/experimental-cert-rotation addon addon/coredns addon/kube-proxy`
	kubeadmJoin = `preflight control-plane-prepare control-plane-prepare/download-certs control-plane-prepare/certs
		control-plane-prepare/kubeconfig control-plane-prepare/control-plane kubelet-start control-plane-join
		control-plane-join/etcd control-plane-join/update-status control-plane-join/mark-control-plane`
)

// Each name of kubeadm's is one that leaves something out, or is refused with
// the reason; what no phase is called is refused.
func TestPhases(t *testing.T) {
	for role, names := range map[Role]string{RoleInit: kubeadmInit, RoleControlPlane: kubeadmJoin} {
		all := phasesOf(role)
		for _, name := range strings.Fields(names) {
			i := slices.IndexFunc(all, func(p phase) bool { return p.name == name })
			if i < 0 || (len(all[i].steps) == 0) == (all[i].kept == "") {
				t.Errorf("%s: kubeadm's phase %s neither leaves a step out nor says why not", role, name)
			}
		}
		for i, p := range all {
			if slices.IndexFunc(all, func(q phase) bool { return q.name == p.name }) != i {
				t.Errorf("%s: %s twice", role, p.name)
			}
		}
	}
	for _, c := range []struct {
		role       Role
		name, want string
	}{
		{RoleInit, "addon/coredns", ""},
		{RoleInit, "etcd/local", ""},
		{RoleInit, "addon/foo", `a node of role init has no phase "addon/foo"; phases that it can leave out are preflight, certs`},
		{RoleInit, "certs/apiserver", `phase "certs/apiserver" cannot be left out; a certificate or key that is there and valid is kept`},
		{RoleInit, "control-plane-join", `a node of role init has no phase "control-plane-join"`},
		{RoleControlPlane, "control-plane-join/update-status", ""},
		{RoleControlPlane, "addon", `a node of role control-plane has no phase "addon"`},
		{RoleWorker, "kubelet-start", ""},
		{RoleWorker, "mark-control-plane", `a node of role worker has no phase "mark-control-plane"; phases that it can leave out are preflight, kubelet-start`},
	} {
		what, remedy := checkPhase(c.role, c.name)
		if got := what + "; " + remedy; c.want == "" && what != "" || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %s: %q, want %q", c.role, c.name, got, c.want)
		}
	}
	n := &Node{Role: RoleControlPlane, Init: InitConfiguration{SkipPhases: []string{"control-plane-join", "control-plane-prepare/certs"}}}
	if got, want := n.SkippedSteps(), []string{"certs", "etcd-join", "update-status", "mark-control-plane"}; !slices.Equal(got, want) {
		t.Errorf("skipped %q, want %q", got, want)
	}
}

// The lists above are those of real kubeadm, where one is there.
func TestOraclePhases(t *testing.T) {
	dir := os.Getenv("KBUILD_ORACLE")
	if dir == "" {
		t.Skip("KBUILD_ORACLE is not set: make kubeadms, then make oracle")
	}
	line := regexp.MustCompile(`(?m)^( +/)?([a-z-]+) {2,}\S`)
	for _, version := range []string{"v1.19.12", "v1.20.15"} {
		for command, names := range map[string]string{"init": kubeadmInit, "join": kubeadmJoin} {
			out, err := exec.Command(filepath.Join(dir, "kubeadm-"+version), command, "--help").Output()
			if err != nil {
				t.Fatal(err)
			}
			_, list, _ := strings.Cut(string(out), "executes the following phases:\n```\n")
			list, _, _ = strings.Cut(list, "```")
			var got []string
			top := ""
			for _, m := range line.FindAllStringSubmatch(list, -1) {
				if m[1] == "" {
					top = m[2]
					got = append(got, top)
				} else {
					got = append(got, top+"/"+m[2])
				}
			}
			if !slices.Equal(got, strings.Fields(names)) {
				t.Errorf("kubeadm %s %s lists %q", version, command, got)
			}
		}
	}
}
