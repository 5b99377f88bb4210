package testvm

// SlowControlPlane is a document of user-data that gives a control plane twenty
// minutes in place of kubeadm's four, which is also what the probes of its
// static pods go by: an emulated API server on a busy host takes longer than
// four. It is empty where api, a version of kubeadm's configuration
// ("v1beta2"), has no field for it.
func SlowControlPlane(api string) string {
	if api != "v1beta2" && api != "v1beta3" {
		return ""
	}
	return "apiVersion: kubeadm.k8s.io/" + api + "\nkind: ClusterConfiguration\napiServer:\n  timeoutForControlPlane: 20m0s\n"
}
