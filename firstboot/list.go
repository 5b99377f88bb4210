// Package firstboot makes a machine a Kubernetes node: the list of what must hold
// on a node of each role, and the steps of the list, one file each.
//
// What always holds: the list reads in the order in which things come about, and
// says itself what each step waits for; a step decides by the disk, the cluster,
// the image and the node's frozen configuration alone; and where kubeadm has the
// phase, the step has its name.
package firstboot

import (
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/upgrade"
)

// row is a step and its place: the earlier steps, with a space between, that
// must hold before it may start. Steps that do not need each other run side by
// side. One that names none needs all before it.
type row struct {
	step  converge.Step
	needs string
}

// List is what must hold on a node of a role, in the order in which it reads.
// The role "" is that of a node that does not know its role yet; its list is the
// beginning of every other one. A role that has no list gets that only.
func List(role string) []converge.Step {
	rows := first()
	switch config.Role(role) {
	case config.RoleInit:
		rows = slices.Concat(rows, firstControlPlane(), last())
	case config.RoleControlPlane:
		rows = slices.Concat(rows, controlPlane(), last())
	case config.RoleWorker:
		rows = slices.Concat(rows, worker(), last())
	}
	var steps []converge.Step
	for _, r := range rows {
		if r.needs != "" {
			r.step.Needs = strings.Fields(r.needs)
		}
		steps = append(steps, r.step)
	}
	return steps
}

// first is how every list begins: what the machine is to be.
func first() []row {
	return []row{
		{stepClock(), ""},
		{upgrade.VersionPolicyStep(), ""},
		{stepMetadata(), ""},
		{stepHostname(), ""},
	}
}

func firstControlPlane() []row {
	return []row{
		{stepServiceRoute(), "hostname"},
		{stepPreflight(), "hostname"},
		{stepImages(), "hostname"},
		{stepCertsCA(), "preflight"},
		{stepKubeconfigKubelet(), "certs/ca"},
		{stepKubeletStart(), "kubeconfig/kubelet"},
		{stepCerts(), "certs/ca"},
		{stepKubeconfig(), "certs kubeconfig/kubelet"},
		{stepEtcd(), "certs images"},
		{stepControlPlane(), "kubeconfig images"},
		{stepWaitControlPlane(), "kubelet-start control-plane etcd"},
		{stepClusterAdmins(), "wait-control-plane"},
		{ifLeader(stepUploadConfig()), "cluster-admins"},
		{stepUploadCerts(), "cluster-admins"},
		{stepMarkControlPlane(), "cluster-admins"},
		{ifLeader(stepBootstrapToken()), "cluster-admins"},
		{stepKubeletFinalize(), "kubelet-start"},
		{ifLeader(stepAddon()), "cluster-admins"},
	}
}

// controlPlane is for one that joins. It starts its API server after its etcd
// has a vote: one that starts before finds an etcd that refuses it, and the
// kubelet waits longer each time that it ends.
func controlPlane() []row {
	return []row{
		{stepPreflight(), "hostname"},
		{stepImages(), "hostname"},
		{stepDiscovery(), "preflight"},
		{stepServiceRoute(), "discovery"},
		{stepPreflightControlPlane(), "discovery"},
		{stepDownloadCerts(), "preflight/control-plane"},
		{stepTLSBootstrap(), "discovery download-certs"},
		{stepKubeletStart(), "kubelet-start/tls-bootstrap service-route"},
		{stepCerts(), "download-certs"},
		{stepKubeconfig(), "certs"},
		{stepCheckEtcd(), "kubeconfig"},
		{stepEtcdJoin(), "check-etcd kubelet-start images"},
		{stepControlPlane(), "kubeconfig images etcd-join"},
		{stepWaitControlPlane(), "kubelet-start control-plane"},
		{stepClusterAdmins(), "wait-control-plane"},
		{stepCRISocket(), "kubelet-start cluster-admins"},
		{stepUpdateStatus(), "cluster-admins"},
		{stepUpgradeCluster(), "cluster-admins update-status"},
		{stepMarkControlPlane(), "cluster-admins"},
	}
}

func worker() []row {
	return []row{
		{stepPreflight(), "hostname"},
		{stepImages(), "hostname"},
		{stepDiscovery(), "preflight"},
		{stepServiceRoute(), "discovery"},
		{stepTLSBootstrap(), "discovery"},
		{stepKubeletStart(), "kubelet-start/tls-bootstrap service-route images"},
		{stepCRISocket(), "kubelet-start"},
	}
}

// last is how the list of every role ends: the node is well, and what an image
// swap or a boot has left open is settled.
func last() []row {
	return []row{
		{stepNodeReady(), ""},
		{upgrade.StalePodsStep(), "node-ready"},
		{stepScrubSecrets(), ""},
		{upgrade.HealthStep(), ""},
		{upgrade.UncordonStep(), "node-ready health"},
		{upgrade.TellFallbackStep(), "node-ready"},
	}
}
