package firstboot

import "github.com/kbuild/kbuild/firstboot/config"

// Roles are the roles that a list exists for.
func Roles() []string {
	return []string{"", string(config.RoleInit), string(config.RoleControlPlane), string(config.RoleWorker)}
}

// List is what must hold on a node of a role, in the order in which it reads.
// Steps that name what they need may run beside others. The role "" is that
// of a node that does not know its role yet; its list is the beginning of
// every other one. A role that has no list gets the empty one's only.
//
// A control plane that joins starts its API server after its etcd has a vote:
// one that starts before finds an etcd that refuses it, and the kubelet waits
// longer each time that it ends.
func List(role string) []Step {
	head := []Step{
		stepClock(),
		stepVersionPolicy(),
		stepMetadata(),
		stepHostname(),
	}
	switch config.Role(role) {
	case config.RoleInit:
		return append(head,
			stepServiceRoute(),
			stepPreflight(),
			stepImages(),
			stepCertsCA(),
			stepKubeconfigKubelet(),
			stepKubeletStart(),
			stepCerts(),
			stepKubeconfig(),
			stepEtcd(),
			stepControlPlane(),
			stepWaitControlPlane(),
			whereEdits(stepUploadConfig()),
			stepUploadCerts(),
			stepMarkControlPlane(),
			whereEdits(stepBootstrapToken()),
			stepKubeletFinalize(),
			whereEdits(stepAddon()),
			stepNodeReady(),
			stepStalePods(),
			stepForgetSecrets(),
			stepHealth(),
			stepUncordon(),
			stepTellFallback(),
		)
	case config.RoleControlPlane:
		return append(head,
			stepPreflight(),
			stepImages(),
			stepDiscovery(),
			stepServiceRoute().after("discovery"),
			stepPreflightControlPlane(),
			stepDownloadCerts(),
			stepTLSBootstrap(),
			stepKubeletStart().after("kubelet-start/tls-bootstrap", "service-route"),
			stepCerts().after("download-certs"),
			stepKubeconfig(),
			stepCheckEtcd(),
			stepEtcdJoin(),
			stepControlPlane().after("kubeconfig", "images", "etcd-join"),
			stepWaitControlPlane(),
			stepCRISocket(),
			stepUpdateStatus(),
			stepUpgradeCluster(),
			stepMarkControlPlane(),
			stepNodeReady(),
			stepStalePods(),
			stepForgetSecrets(),
			stepHealth(),
			stepUncordon(),
			stepTellFallback(),
		)
	case config.RoleWorker:
		return append(head,
			stepPreflight(),
			stepImages(),
			stepDiscovery(),
			stepServiceRoute().after("discovery"),
			stepTLSBootstrap(),
			stepKubeletStart().after("kubelet-start/tls-bootstrap", "service-route", "images"),
			stepCRISocket(),
			stepNodeReady(),
			stepStalePods(),
			stepForgetSecrets(),
			stepHealth(),
			stepUncordon(),
			stepTellFallback(),
		)
	default:
		return head
	}
}
