package testvm

import (
	"strings"
	"testing"

	"github.com/kbuild/kbuild/images"
)

// otherImage is the image that a scenario moves to, of another version.
func otherImage(t *testing.T) Image {
	t.Helper()
	return imageIn(t, "KBUILD_OTHER_IMAGE", " for the next minor version")
}

// swap boots a machine from another image, on the disk that it has.
func swap(t *testing.T, m Machine, to Image) {
	t.Helper()
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.SetImage(to); err != nil {
		t.Fatal(err)
	}
	logf("%s: boots %s", m.Places().Dir, to.Version)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestScenarioUpgrade moves a single control plane to the next minor version
// and back: what was written to the cluster is there all the time, and so is a
// pod.
func TestScenarioUpgrade(t *testing.T) {
	containers(t)
	old, next := imageOf(t), otherImage(t)
	m := boot(t, Options{Name: "node1", UserData: userData(t, initDoc(t, ""))})
	waitReady(t, m)
	waitPod(t, m, corednsOf(t, baked(t, m)))
	write := func(version string) {
		t.Helper()
		waitSh(t, m, "a ConfigMap", configMap("of-"+version, "--from-literal=from="+version))
	}
	certificate := func() string { return sh(t, m, "cat /etc/kubernetes/pki/apiserver.crt") }
	write(old.Version)
	first := certificate()

	swap(t, m, next)
	waitReady(t, m)
	checkVersion(t, m, next.Version)
	waitPod(t, m, corednsOf(t, baked(t, m)))
	checkImages(t, m, baked(t, m))
	write(next.Version)
	sh(t, m, adminKubectl+"get configmap of-"+old.Version)
	if certificate() == first {
		t.Error("the API server's certificate is not renewed")
	}

	swap(t, m, old)
	waitReady(t, m)
	checkVersion(t, m, old.Version)
	waitPod(t, m, corednsOf(t, baked(t, m)))
	checkImages(t, m, baked(t, m))
	sh(t, m, adminKubectl+"get configmap of-"+old.Version+" of-"+next.Version)
	if certificate() != first {
		t.Error("the API server's certificate is not the one from before")
	}
}

// TestScenarioUpgradeNodes moves three control planes and a worker to the next
// minor version, one after another and one that has joined first, while pods of
// all nodes go on answering; a control plane that comes up in the old version
// in between takes nothing back.
func TestScenarioUpgradeNodes(t *testing.T) {
	containers(t)
	old, next := imageOf(t), otherImage(t)
	n := wire(t)
	id := newIdentity(t)
	endpoint := balancer(t, n)
	cp := controlPlanes(t, n, id, endpoint)
	cp1, cp2, cp3 := boot(t, cp(1)), boot(t, cp(2)), boot(t, cp(3))
	worker := boot(t, on(n, 14, "worker", metadata(t, n, 14, "worker", "worker", joinFields(endpoint, pin(t, id.cert))...)))
	for _, m := range []Machine{cp1, cp2, cp3, worker} {
		waitReady(t, m)
	}
	pods := func() { waitPods(t, cp1, corednsOf(t, baked(t, cp1)), 4) }
	pods()
	versionOf := func(node string) string {
		return strings.TrimSpace(sh(t, cp1, adminKubectl+"get node "+node+" --output=jsonpath={.status.nodeInfo.kubeletVersion}"))
	}
	clusterIs := func(version string) {
		t.Helper()
		got := sh(t, cp1, adminKubectl+"--namespace=kube-system get configmap kubeadm-config --output=jsonpath={.data.ClusterConfiguration} | sed -n 's/^kubernetesVersion: //p'")
		if strings.TrimSpace(got) != version {
			t.Errorf("the cluster keeps version %q, want %s", got, version)
		}
	}

	swap(t, cp2, next)
	waitReady(t, cp2)
	clusterIs(next.Version)
	pods()
	if err := cp1.Reboot(t.Context()); err != nil { // still of the old version
		t.Fatal(err)
	}
	waitReady(t, cp1)
	clusterIs(next.Version)
	for name, m := range map[string]Machine{"cp1": cp1, "cp3": cp3, "worker": worker} {
		swap(t, m, next)
		waitReady(t, m)
		if got := versionOf(name); got != next.Version {
			t.Errorf("%s is of version %q, want %s", name, got, next.Version)
		}
		pods()
	}
	if got, want := members(t, cp1, "cp1"), []string{"cp1=started", "cp2=started", "cp3=started"}; !sameSet(got, want) {
		t.Errorf("etcd's members are %q, want %q", got, want)
	}
	got := strings.Fields(sh(t, cp1, adminKubectl+"--namespace=kube-system get pods --selector=k8s-app=kube-proxy --output=jsonpath='{.items[*].spec.containers[0].image}'"))
	if len(got) != 4 || strings.Contains(strings.Join(got, " "), old.Version) {
		t.Errorf("the images of kube-proxy are %q, want four of %s", got, next.Version)
	}
}

// checkVersion holds that node, API server and what the cluster keeps are of a
// version.
func checkVersion(t *testing.T, m Machine, version string) {
	t.Helper()
	rel, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	for what, script := range map[string]string{
		"node":           "get nodes --output=jsonpath={.items[*].status.nodeInfo.kubeletVersion}",
		"API server":     "version --output=yaml | sed -n '/^serverVersion/,$s/^  gitVersion: //p'",
		"kubeadm-config": "--namespace=kube-system get configmap kubeadm-config --output=jsonpath={.data.ClusterConfiguration} | sed -n 's/^kubernetesVersion: //p'",
		"kube-proxy":     "--namespace=kube-system get pods --selector=k8s-app=kube-proxy --output=jsonpath={.items[*].spec.containers[0].image} | sed s/.*://",
		"API server pod": "--namespace=kube-system get pods --selector=component=kube-apiserver --output=jsonpath={.items[*].spec.containers[0].image} | sed s/.*://",
	} {
		if got := strings.TrimSpace(sh(t, m, adminKubectl+script)); got != version {
			t.Errorf("%s: %q, want %s", what, got, version)
		}
	}
	for _, label := range rel.Labels {
		sh(t, m, adminKubectl+"get node --selector="+label+" --output=name | grep .")
	}
	sh(t, m, adminKubectl+"--namespace=kube-system get configmap "+rel.KubeletConfigMap)
}
