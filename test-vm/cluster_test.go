package testvm

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// Secrets of the scenarios' clusters. They are told by the test, so that it can
// look for them afterwards.
const (
	token          = "kbuild.4aekgvwh7qkms9kr"
	certificateKey = "5b1f4a0c8e2d7396a5d0c4b3f2e1089769584736251403f2e1d0c9b8a7968574"
)

// containers skips a scenario that cannot be of VMs.
func containers(t *testing.T) {
	t.Helper()
	if Lane(*lane) != Container {
		t.Skip("this scenario is the container lane's")
	}
}

// wire makes a network that ends with the test, after its machines.
func wire(t *testing.T) *Network {
	t.Helper()
	return wireOf(t, Lane(*lane))
}

func wireOf(t *testing.T, lane Lane) *Network {
	t.Helper()
	imageOf(t)
	n, err := NewNetwork(lane, os.Getenv("KEEP") == "1", logf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// metadata is the user-data of a network's k-th machine; fields are further
// lines of its NodeMetadata.
func metadata(t *testing.T, n *Network, k int, role, name string, fields ...string) string {
	t.Helper()
	docs := []string{"apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: " + role + "\nname: " + name +
		"\naddress: " + n.Address(k) + "\n" + strings.Join(fields, "\n") + "\n"}
	if Lane(*lane) == VM && role != "worker" {
		docs = append(docs, SlowControlPlane(configAPI(t)))
	}
	if Lane(*lane) == VM && n.lane == Container {
		docs = append(docs, ContainerUserData(imageRelease(t)))
	}
	return userData(t, docs...)
}

// amongContainers is user-data of a VM that joins containers: on a host with
// cgroup v1 the cluster's kubelets do not ask systemd for cgroups, and the VM's
// has to.
func amongContainers(t *testing.T, data string) string {
	t.Helper()
	doc := "apiVersion: kubeadm.k8s.io/" + configAPI(t) + "\nkind: JoinConfiguration\nnodeRegistration:\n  kubeletExtraArgs:\n    cgroup-driver: systemd\n"
	if strings.Contains(data, "role: control-plane\n") {
		doc += "controlPlane: {}\n"
	}
	return data + "---\n" + doc
}

// on is a machine's place in a network.
func on(n *Network, k int, name, userData string) Options {
	return Options{Name: name, Network: n, Address: n.Address(k), UserData: userData}
}

// balancer makes a TCP balancer before the API servers of the network's first
// three control planes, which ends with the test, and returns its address.
func balancer(t *testing.T, n *Network) string {
	t.Helper()
	b, err := n.NewBalancer(6443, n.Address(11)+":6443", n.Address(12)+":6443", n.Address(13)+":6443")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b.Address()
}

// controlPlanes are the control planes cp1, cp2, … of a cluster: the first one
// makes it, the others join.
func controlPlanes(t *testing.T, n *Network, id identity, endpoint string) func(k int) Options {
	key := "certificateKey: " + certificateKey
	return func(k int) Options {
		t.Helper()
		role, fields := "init", []string{"endpoint: " + endpoint, "token: " + token, key, id.field()}
		if k > 1 {
			role, fields = "control-plane", append(joinFields(endpoint, pin(t, id.cert)), key)
		}
		name := fmt.Sprint("cp", k)
		return on(n, 10+k, name, metadata(t, n, 10+k, role, name, fields...))
	}
}

// adminKubectl begins a command of the cluster's administrator on a control
// plane.
const adminKubectl = "kubectl --kubeconfig=/etc/kubernetes/admin.conf --request-timeout=10s "

// configMap is a script that makes a ConfigMap of the namespace default. It may
// be run again: a first time may have done it and not heard so.
func configMap(name, flags string) string {
	return "{ " + adminKubectl + "get configmap " + name + " || " + adminKubectl + "create configmap " + name + " " + flags + "; }"
}

// bootKubeadm boots a machine of the network on which kubeadm is to do what
// kbuild-firstboot does elsewhere.
func bootKubeadm(t *testing.T, n *Network, k int, name, kubeadm string) Machine {
	t.Helper()
	// It serves to hand over images, for which the node's role does not matter.
	o := options(t, on(n, k, name, metadata(t, n, k, "init", name)))
	m, err := NewKubeadm(t.Context(), o, kubeadm)
	if err != nil {
		t.Fatal(err)
	}
	watch(t, m, o)
	return m
}

// kubeadmOf compiles kubeadm of the image's version.
func kubeadmOf(t *testing.T) string {
	t.Helper()
	path, err := CompileKubeadm(t.Context(), imageOf(t).Version)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// sh runs a shell script in the machine and ends the test when it fails.
func sh(t *testing.T, m Machine, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	out, err := Sh(ctx, m, script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// waitSh waits until a shell script succeeds in the machine.
func waitSh(t *testing.T, m Machine, what, script string) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit(), errors.New("time is up"))
	defer cancel()
	err := Wait(ctx, m, logf, what, func(ctx context.Context) (string, error) {
		_, err := Sh(ctx, m, script)
		return "", err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// podNetwork copies the pod network's CNI configuration from a kbuild node to a
// kubeadm one. kbuild's pod network counts on it being on each node, as other
// clusters' operators install it with their packages.
func podNetwork(t *testing.T, from, to Machine) {
	t.Helper()
	const file = "/etc/cni/net.d/10-flannel.conflist"
	conf := sh(t, from, "cat "+file)
	e := ask[guest.Exec](t, to, guest.CmdExec, guest.ExecArgs{Argv: []string{"tee", file}, Stdin: conf})
	if e.Code != 0 {
		t.Fatalf("%s: %s", file, e.Stderr)
	}
}

// waitPods waits until pods on that many nodes, and a Service before them,
// answer to the pod on this machine.
func waitPods(t *testing.T, m Machine, image string, nodes int) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit(), errors.New("time is up"))
	defer cancel()
	var p guest.Pods
	err := Wait(ctx, m, logf, "pods of all nodes", func(ctx context.Context) (string, error) {
		p = guest.Pods{}
		err := m.Ask(ctx, guest.CmdPods, guest.PodsArgs{Image: image, Nodes: nodes}, &p)
		return p.Waiting, err
	})
	if err != nil {
		t.Fatal(err)
	}
	for node, said := range p.Answers {
		if said != "OK" {
			t.Errorf("the pod on %s answers %q, want OK", node, said)
		}
	}
	if p.Service != "OK" {
		t.Errorf("the Service answers %q, want OK", p.Service)
	}
}

// members lists etcd's members by name, as the etcd of a control plane sees
// them: "cp1=started".
func members(t *testing.T, m Machine, node string) []string {
	t.Helper()
	out := sh(t, m, "kubectl --kubeconfig=/etc/kubernetes/admin.conf --namespace=kube-system exec etcd-"+node+
		" -- etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt"+
		" --cert=/etc/kubernetes/pki/etcd/server.crt --key=/etc/kubernetes/pki/etcd/server.key member list")
	var all []string
	for line := range strings.Lines(out) {
		// ID, status, name, peer URLs, client URLs, is a learner
		if f := strings.Split(strings.TrimSpace(line), ", "); len(f) == 6 {
			s := f[2] + "=" + f[1]
			if f[5] == "true" {
				s += ", a learner"
			}
			all = append(all, s)
		}
	}
	return all
}

// identity is a cluster's authority made before any node, as an operator makes
// it who powers all machines on at once.
type identity struct{ cert, key []byte } // PEM

func newIdentity(t *testing.T) identity {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kubernetes"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		IsCA:     true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return identity{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	}
}

// field is the identity as a field of NodeMetadata.
func (i identity) field() string {
	indent := func(b []byte) string {
		return "    " + strings.ReplaceAll(strings.TrimSpace(string(b)), "\n", "\n    ")
	}
	return "pki:\n  ca.crt: |\n" + indent(i.cert) + "\n  ca.key: |\n" + indent(i.key)
}

// pin is the hash by which kubeadm and kbuild know an authority: of its public
// key (RFC 7469, section 2.4).
func pin(t *testing.T, cert []byte) string {
	t.Helper()
	b, _ := pem.Decode(cert)
	if b == nil {
		t.Fatalf("no certificate in %q", cert)
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(c.RawSubjectPublicKeyInfo))
}

// joinFields are what NodeMetadata needs for joining.
func joinFields(endpoint, pin string) []string {
	return []string{"endpoint: " + endpoint, "token: " + token, "caCertHashes: [" + pin + "]"}
}
