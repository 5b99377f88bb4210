package config

import (
	"fmt"
	"slices"
	"strings"
)

// phase is a name that skipPhases may hold: one of kubeadm's, or of a step that
// kubeadm does not list.
type phase struct {
	name string
	// steps are what does not run then: steps of kbuild-firstboot, or a part of
	// one after a slash.
	steps []string
	// kept is why this phase cannot be left out; steps is empty then.
	kept string
}

const (
	keptCertificate = "a certificate or key that is there and valid is kept as it is, and later steps need each: give your own in `pki` of NodeMetadata"
	keptKubeconfig  = "a later step of the node needs it, and one that is there and valid is kept as it is"
)

// initPhases are those of a first control plane, as `kubeadm init --help` lists
// them.
func initPhases() []phase {
	ps := []phase{itself("preflight"), itself("certs"), itself("certs/ca")}
	for _, name := range []string{"apiserver", "apiserver-kubelet-client", "front-proxy-ca", "front-proxy-client", "etcd-ca", "etcd-server", "etcd-peer", "etcd-healthcheck-client", "apiserver-etcd-client", "sa"} {
		ps = append(ps, phase{name: "certs/" + name, kept: keptCertificate})
	}
	ps = append(ps, itself("kubeconfig"), itself("kubeconfig/kubelet"))
	for _, name := range []string{"admin", "controller-manager", "scheduler"} {
		ps = append(ps, phase{name: "kubeconfig/" + name, kept: keptKubeconfig})
	}
	return append(ps,
		itself("kubelet-start"),
		itself("control-plane"), itself("control-plane/apiserver"), itself("control-plane/controller-manager"), itself("control-plane/scheduler"),
		itself("etcd"), phase{name: "etcd/local", steps: []string{"etcd"}},
		itself("upload-config"), itself("upload-config/kubeadm"), itself("upload-config/kubelet"),
		itself("upload-certs"), itself("mark-control-plane"), itself("bootstrap-token"),
		itself("kubelet-finalize"), phase{name: "kubelet-finalize/experimental-cert-rotation", steps: []string{"kubelet-finalize"}},
		itself("addon"), itself("addon/coredns"), itself("addon/kube-proxy"))
}

// workerPhases are those of a worker, as `kubeadm join --help` lists them.
func workerPhases() []phase { return []phase{itself("preflight"), itself("kubelet-start")} }

// controlPlanePhases are those of a control plane that joins, as `kubeadm join
// --help` lists them, and the steps that they are made of.
func controlPlanePhases() []phase {
	return append(workerPhases(),
		phase{name: "control-plane-prepare", steps: []string{"download-certs", "certs", "kubeconfig", "control-plane"}},
		phase{name: "control-plane-prepare/download-certs", steps: []string{"download-certs"}},
		phase{name: "control-plane-prepare/certs", steps: []string{"certs"}},
		phase{name: "control-plane-prepare/kubeconfig", steps: []string{"kubeconfig"}},
		phase{name: "control-plane-prepare/control-plane", steps: []string{"control-plane"}},
		phase{name: "control-plane-join", steps: []string{"etcd-join", "update-status", "mark-control-plane"}},
		phase{name: "control-plane-join/etcd", steps: []string{"etcd-join"}},
		phase{name: "control-plane-join/update-status", steps: []string{"update-status"}},
		phase{name: "control-plane-join/mark-control-plane", steps: []string{"mark-control-plane"}},
		itself("download-certs"), itself("certs"), itself("kubeconfig"), itself("control-plane"),
		itself("check-etcd"), itself("etcd-join"), itself("update-status"), itself("mark-control-plane"))
}

// itself is a phase that is one step, or part of one, of the same name.
func itself(name string) phase { return phase{name: name, steps: []string{name}} }

func phasesOf(r Role) []phase {
	switch r {
	case RoleInit:
		return initPhases()
	case RoleControlPlane:
		return controlPlanePhases()
	}
	return workerPhases()
}

// checkPhase says why a node of the role cannot leave a phase out; both are
// empty where it can.
func checkPhase(r Role, name string) (what, remedy string) {
	all := phasesOf(r)
	i := slices.IndexFunc(all, func(p phase) bool { return p.name == name })
	if i >= 0 && all[i].kept == "" {
		return "", ""
	}
	if i >= 0 {
		return fmt.Sprintf("phase %q cannot be left out", name), all[i].kept
	}
	var can []string
	for _, p := range all {
		if p.kept == "" {
			can = append(can, p.name)
		}
	}
	return fmt.Sprintf("a node of role %s has no phase %q", r, printable(name)), "phases that it can leave out are " + strings.Join(can, ", ")
}

// SkippedSteps are the steps that skipPhases leaves out, and the parts of steps
// ("addon/coredns").
func (n *Node) SkippedSteps() []string {
	var steps []string
	for _, p := range phasesOf(n.Role) {
		if slices.Contains(n.Init.SkipPhases, p.name) {
			steps = append(steps, p.steps...)
		}
	}
	return steps
}

// Skips says whether skipPhases leaves out a part of a step.
func (n *Node) Skips(part string) bool { return slices.Contains(n.SkippedSteps(), part) }
