package testvm

import (
	"os"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/images"
)

// otherImage is the image that a scenario moves to, of another version.
func otherImage(t *testing.T) Image {
	t.Helper()
	dir := os.Getenv("KBUILD_OTHER_IMAGE")
	if dir == "" {
		t.Skip("KBUILD_OTHER_IMAGE is not set: want the output directory of `kbuild image` for the next minor version")
	}
	image, err := OpenImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	return image
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

const adminKubectl = "kubectl --kubeconfig=/etc/kubernetes/admin.conf "

// TestScenarioUpgrade moves a single control plane to the next minor version
// and back: what was written to the cluster is there all the time, and so is a
// pod.
func TestScenarioUpgrade(t *testing.T) {
	containers(t)
	old, next := imageOf(t), otherImage(t)
	m := boot(t, Options{Name: "node1", UserData: userData(initDoc(t, ""))})
	waitReady(t, m)
	waitPod(t, m, corednsOf(t, baked(t, m)))
	write := func(version string) {
		t.Helper()
		waitSh(t, m, "a ConfigMap", adminKubectl+"create configmap of-"+version+" --from-literal=from="+version)
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
