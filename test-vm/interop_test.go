package testvm

import (
	"slices"
	"strings"
	"testing"
)

// TestScenarioKubeadmJoins lets machines join a kbuild cluster with kubeadm
// join, as worker and as control plane, and has kubeadm read what kbuild wrote.
func TestScenarioKubeadmJoins(t *testing.T) {
	containers(t)
	n := wire(t)
	kubeadm := kubeadmOf(t)
	endpoint := n.Address(11) + ":6443"
	first := boot(t, on(n, 11, "cp1", metadata(t, n, 11, "init", "cp1",
		"endpoint: "+endpoint, "token: "+token, "certificateKey: "+certificateKey)))
	waitReady(t, first)
	join := KubeadmProgram + " join " + endpoint + " --skip-phases=preflight --cri-socket=/run/containerd/containerd.sock --token=" + token +
		" --discovery-token-ca-cert-hash=" + pin(t, []byte(sh(t, first, "cat /etc/kubernetes/pki/ca.crt")))

	worker := bootKubeadm(t, n, 12, "w1", kubeadm)
	podNetwork(t, first, worker)
	logf("%s", sh(t, worker, join))
	waitReady(t, worker)

	second := bootKubeadm(t, n, 13, "cp2", kubeadm)
	podNetwork(t, first, second)
	logf("%s", sh(t, second, join+" --control-plane --certificate-key="+certificateKey+" --apiserver-advertise-address="+n.Address(13)))
	waitReady(t, second)
	waitReady(t, first)
	if got, want := members(t, first, "cp1"), []string{"cp1=started", "cp2=started"}; !sameSet(got, want) {
		t.Errorf("etcd's members are %q, want %q", got, want)
	}

	coredns := corednsOf(t, baked(t, first))
	waitPods(t, first, coredns, 3)
	waitPods(t, worker, coredns, 3)
	kubeadmReads(t, first, kubeadm)
	kubeadmReads(t, second, kubeadm)
}

// TestScenarioJoinsKubeadm lets kbuild nodes join a cluster that kubeadm init
// made, as worker and as control plane, and has kubeadm read what they wrote.
func TestScenarioJoinsKubeadm(t *testing.T) {
	containers(t)
	n := wire(t)
	kubeadm := kubeadmOf(t)
	endpoint := n.Address(11) + ":6443"
	first := bootKubeadm(t, n, 11, "cp1", kubeadm)
	sh(t, first, "cat >/run/kubeadm.yaml <<'EOF'\n"+kubeadmInit(t, n.Address(11), endpoint)+"EOF\n"+
		KubeadmProgram+" init --skip-phases=preflight --upload-certs --config=/run/kubeadm.yaml")
	fields := joinFields(endpoint, pin(t, []byte(sh(t, first, "cat /etc/kubernetes/pki/ca.crt"))))

	worker := boot(t, on(n, 12, "w1", metadata(t, n, 12, "worker", "w1", fields...)))
	waitReady(t, worker)
	podNetwork(t, worker, first)
	waitNodes(t, first, "cp1", "w1")

	second := boot(t, on(n, 13, "cp2", metadata(t, n, 13, "control-plane", "cp2", append(fields, "certificateKey: "+certificateKey)...)))
	waitSh(t, second, "the end of kbuild-firstboot", "systemctl is-active --quiet kbuild-firstboot.service")
	waitNodes(t, second, "cp1", "cp2", "w1")
	waitReady(t, worker)
	if got, want := members(t, second, "cp2"), []string{"cp1=started", "cp2=started"}; !sameSet(got, want) {
		t.Errorf("etcd's members are %q, want %q", got, want)
	}
	kubeadmReads(t, first, kubeadm)
	kubeadmReads(t, second, kubeadm)
}

// waitNodes waits until a control plane says that nodes are Ready: all that can
// be in a kubeadm cluster whose pod network has no agent, for CoreDNS needs one.
func waitNodes(t *testing.T, m Machine, names ...string) {
	t.Helper()
	waitSh(t, m, "nodes "+strings.Join(names, ", "), "kubectl --kubeconfig=/etc/kubernetes/admin.conf wait --for=condition=Ready --timeout=20s node "+strings.Join(names, " "))
}

// kubeadmInit is a configuration for kubeadm init.
func kubeadmInit(t *testing.T, address, endpoint string) string {
	api := "apiVersion: kubeadm.k8s.io/" + configAPI(t) + "\n"
	image := imageOf(t)
	return api + "kind: InitConfiguration\nlocalAPIEndpoint:\n  advertiseAddress: " + address +
		"\nnodeRegistration:\n  criSocket: /run/containerd/containerd.sock\nbootstrapTokens:\n- token: " + token +
		"\ncertificateKey: " + certificateKey +
		"\n---\n" + api + "kind: ClusterConfiguration\nkubernetesVersion: " + image.Version + "\ncontrolPlaneEndpoint: " + endpoint +
		"\nnetworking:\n  podSubnet: 10.244.0.0/16\n---\n" + ContainerUserData(imageRelease(t))
}

// kubeadmReads has kubeadm on a control plane read the cluster's tokens and
// configuration and the node's certificates.
func kubeadmReads(t *testing.T, m Machine, kubeadm string) {
	t.Helper()
	if err := LayKubeadm(m, kubeadm); err != nil {
		t.Fatal(err)
	}
	id, _, _ := strings.Cut(token, ".")
	for args, want := range map[string][]string{
		"token list":  {id, "authentication,signing", "system:bootstrappers:kubeadm:default-node-token"},
		"config view": {"kind: ClusterConfiguration", "kubernetesVersion: " + imageOf(t).Version},
		"alpha certs check-expiration": {"admin.conf", "apiserver-etcd-client", "apiserver-kubelet-client", "controller-manager.conf", "etcd-healthcheck-client",
			"etcd-peer", "etcd-server", "front-proxy-client", "scheduler.conf", "etcd-ca", "front-proxy-ca"},
	} {
		out := sh(t, m, KubeadmProgram+" --kubeconfig=/etc/kubernetes/admin.conf "+args)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: kubeadm %s does not mention %q:\n%s", m.Places().Dir, args, w, out)
			}
		}
		if strings.Contains(out, "MISSING") {
			t.Errorf("%s: kubeadm %s misses something:\n%s", m.Places().Dir, args, out)
		}
	}
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}
