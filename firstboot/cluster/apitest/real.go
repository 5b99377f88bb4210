// Package apitest gives tests an API server: a real one of the version under
// test, or a small one in memory that keeps objects and nothing more.
package apitest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// BinEnv names the directory that holds kube-apiserver, etcd and, for some
// tests, kube-controller-manager and kubeadm, all of one release.
const BinEnv = "KBUILD_TEST_BIN"

// Server is an API server that ends with the test.
type Server struct {
	URL       string
	AdminConf []byte // kubeconfig of an administrator
	Dir       string // of a real server: its pki/ is laid out as in /etc/kubernetes
}

// Bin returns the path of a program of the release under test. The test is
// skipped where there is none.
func Bin(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv(BinEnv)
	if dir == "" {
		t.Skipf("%s is not set: it names a directory with %s", BinEnv, name)
	}
	file := filepath.Join(dir, name)
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("%s: %v", BinEnv, err)
	}
	return file
}

// Real starts etcd and kube-apiserver on loopback. Nothing else runs: no
// controller touches what a test creates.
func Real(t testing.TB) *Server {
	t.Helper()
	etcd, apiserver := Bin(t, "etcd"), Bin(t, "kube-apiserver")
	dir := t.TempDir()
	pki := filepath.Join(dir, "pki")
	host, port := ownAddress(t)
	p := makePKI(t, pki, host)
	at := func(k int) string { return net.JoinHostPort(host.String(), strconv.Itoa(port+k)) }
	etcdURL, peerURL := "http://"+at(0), "http://"+at(1)
	start(t, dir, etcd, "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync",
		"--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL)
	file := func(name string) string { return filepath.Join(pki, name) }
	start(t, dir, apiserver, "--etcd-servers="+etcdURL, "--bind-address="+host.String(), "--secure-port="+strconv.Itoa(port+2), "--insecure-port=0",
		"--advertise-address=192.0.2.10", // TEST-NET-1; endpoints may not be loopback
		"--service-cluster-ip-range=10.96.0.0/12", "--allow-privileged=true",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--enable-bootstrap-token-auth=true",
		"--client-ca-file="+file("ca.crt"), "--tls-cert-file="+file("apiserver.crt"), "--tls-private-key-file="+file("apiserver.key"),
		"--service-account-key-file="+file("sa.pub"), "--service-account-signing-key-file="+file("sa.key"), "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--cert-dir="+filepath.Join(dir, "cert"))
	s := &Server{URL: "https://" + at(2), Dir: dir}
	s.AdminConf = kubeconfig(t, s.URL, p)
	if err := os.WriteFile(filepath.Join(dir, "admin.conf"), s.AdminConf, 0o600); err != nil {
		t.Fatal(err)
	}
	s.waitReady(t)
	return s
}

// Client is an administrator's client.
func (s *Server) Client(t testing.TB) kubernetes.Interface {
	t.Helper()
	return s.ClientThrough(t, nil)
}

// ClientThrough is an administrator's client whose requests go through wrap.
func (s *Server) ClientThrough(t testing.TB, wrap func(http.RoundTripper) http.RoundTripper) kubernetes.Interface {
	t.Helper()
	cfg, err := clientcmd.RESTConfigFromKubeConfig(s.AdminConf)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS, cfg.WrapTransport = -1, wrap
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ControllerManager runs the given controllers against a real server, with
// further flags.
func (s *Server) ControllerManager(t testing.TB, controllers []string, flags ...string) {
	t.Helper()
	pki := filepath.Join(s.Dir, "pki")
	conf := filepath.Join(s.Dir, "admin.conf")
	start(t, s.Dir, Bin(t, "kube-controller-manager"), append(flags, "--kubeconfig="+conf, "--controllers="+strings.Join(controllers, ","),
		"--leader-elect=false", "--port=0", "--secure-port=0", "--cluster-signing-cert-file="+filepath.Join(pki, "ca.crt"), "--cluster-signing-key-file="+filepath.Join(pki, "ca.key"))...)
}

func (s *Server) waitReady(t testing.TB) {
	t.Helper()
	c := s.Client(t)
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		err = c.Discovery().RESTClient().Get().AbsPath("/readyz").Do(context.Background()).Error()
		if err == nil {
			return
		}
	}
	t.Fatalf("the API server is not ready after 2 minutes: %v; its log is in %s", err, s.Dir)
}

// start runs a program until the test ends, and shows its log if that failed.
func start(t testing.TB, dir, program string, args ...string) {
	t.Helper()
	name := filepath.Base(program)
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start %s: %v", name, err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("%s, the end of its log:\n%s", name, b[max(0, len(b)-4000):])
		}
	})
}

// ownAddress is an address of the loopback network (127.64.0.0/10) and the first
// of nine ports there that no other server of this machine's tests has until the
// test ends. The address is made of the process's ID, which has 22 bits at most;
// in it, whoever listens at the tenth port has the nine. They are below the ports
// that the kernel gives to clients. A port that is looked for and found free can
// be another's before it is used.
func ownAddress(t testing.TB) (net.IP, int) {
	t.Helper()
	pid := os.Getpid()
	host := net.IPv4(127, byte(64|pid>>16&63), byte(pid>>8), byte(pid))
	for first := 20000; first < 30000; first += 10 {
		if l, err := net.Listen("tcp", net.JoinHostPort(host.String(), strconv.Itoa(first+9))); err == nil {
			t.Cleanup(func() { l.Close() })
			return host, first
		}
	}
	t.Fatalf("no ports are left at %s", host)
	return nil, 0
}

// kubeconfig names the one user and cluster as kubeadm's admin.conf does.
func kubeconfig(t testing.TB, url string, p *pki) []byte {
	t.Helper()
	ca, cert, key := "", "", ""
	if p != nil {
		ca = fmt.Sprintf("certificate-authority-data: %s, ", base64of(p.ca))
		cert = fmt.Sprintf("client-certificate-data: %s, ", base64of(p.admin))
		key = fmt.Sprintf("client-key-data: %s", base64of(p.adminKey))
	}
	return []byte(`apiVersion: v1
kind: Config
clusters:
- {name: kubernetes, cluster: {` + ca + `server: "` + url + `"}}
users:
- {name: kubernetes-admin, user: {` + cert + key + `}}
contexts:
- {name: kubernetes-admin@kubernetes, context: {cluster: kubernetes, user: kubernetes-admin}}
current-context: kubernetes-admin@kubernetes
`)
}
