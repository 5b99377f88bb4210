package preflight

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/images"
)

type runtime struct {
	cri.UnimplementedRuntimeServiceServer
}

func (runtime) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	return &cri.VersionResponse{RuntimeName: "fake"}, nil
}

// bench is a machine that passes, in a directory; tests break it.
type bench struct {
	*node.Machine
	dir  string
	stop func() // the container runtime
}

func newBench(t *testing.T, version, userdata string) *bench {
	t.Helper()
	release, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	baked := images.Baked{Release: release, CNI: "flannel", PodCIDR: "10.244.0.0/16"}
	links := []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/24")}}}
	n, _, err := config.Load(baked, config.Machine{Hostname: "n1", Links: links}, config.Document{Source: "test",
		Data: []byte("apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: init\n" + userdata)})
	if err != nil {
		t.Fatal(err)
	}
	// A socket's path has little room: not t.TempDir.
	dir, err := os.MkdirTemp("", "pf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{dir: dir}
	for name, text := range map[string]string{
		"/proc/sys/net/bridge/bridge-nf-call-iptables":  "1\n",
		"/proc/sys/net/bridge/bridge-nf-call-ip6tables": "1\n",
		"/proc/sys/net/ipv4/ip_forward":                 "1\n",
		"/proc/sys/net/ipv6/conf/default/forwarding":    "1\n",
		"/proc/swaps":                       "Filename\tType\tSize\tUsed\tPriority\n",
		"/proc/meminfo":                     "MemTotal:        4038292 kB\nMemFree: 1 kB\n",
		"/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n",
		"/usr/lib/modules/6.12.48-cloud-amd64/modules.dep":     "kernel/net/netfilter/ipvs/ip_vs.ko.xz: x\nk/ip_vs_rr.ko.xz:\nk/ip_vs_wrr.ko.xz:\nk/ip_vs_sh.ko.xz:\n",
		"/usr/lib/modules/6.12.48-cloud-amd64/modules.builtin": "kernel/net/netfilter/nf_conntrack.ko\n",
		"/var/lib/etcd/.keep":                                  "",
		"/run/containerd/.keep":                                "",
	} {
		b.write(t, name, text)
	}
	os.Remove(filepath.Join(dir, "/var/lib/etcd/.keep"))
	for _, ns := range namespaces() {
		b.write(t, "/proc/self/ns/"+ns, "")
	}
	for _, x := range []string{"conntrack", "ip", "mount", "nsenter", "ethtool", "socat", "touch"} {
		b.write(t, "/usr/bin/"+x, "")
		if err := os.Chmod(filepath.Join(dir, "/usr/bin", x), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "usr/sbin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/alternatives/iptables", filepath.Join(dir, "usr/sbin/iptables")); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	l, err := net.Listen("unix", filepath.Join(dir, "run/containerd/containerd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(srv, runtime{})
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	b.stop = srv.Stop
	b.Machine = &node.Machine{Node: n, Baked: baked, Host: &host.Host{
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
		Root:  root,
		Run: func(context.Context, string, ...string) ([]byte, error) {
			return []byte("Kubernetes " + version + "\n"), nil
		},
		Systemd: host.Systemd{Active: func(context.Context, string) (string, error) { return "inactive", nil }},
		Now:     time.Now,
		Log:     slog.New(slog.DiscardHandler),
		Probe: host.Probe{
			CPUs: func() int { return 2 }, UID: func() int { return 0 }, Free: func(int) error { return nil },
			Kernel:     func() (string, error) { return "6.12.48-cloud-amd64", nil },
			Space:      func(string) (uint64, error) { return 10 << 30, nil },
			LookupHost: func(context.Context, string) ([]string, error) { return []string{"192.0.2.5"}, nil },
		},
	}}
	if b.Baked.Images, err = Images(b.Machine); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) write(t *testing.T, name, text string) {
	t.Helper()
	file := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(b.dir, name)); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) run(ignore ...string) Findings {
	return Run(context.Background(), Init(b.Machine), ignore)
}

// names are the checks that found something, without repetition.
func names(f []Finding) []string {
	var out []string
	for _, x := range f {
		if !slices.Contains(out, x.Check) {
			out = append(out, x.Check)
		}
	}
	return out
}

const external = "---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\netcd: {external: {endpoints: [%s]%s}}\n"

func TestPasses(t *testing.T) {
	for _, version := range []string{"v1.19.12", "v1.20.15"} {
		for name, userdata := range map[string]string{
			"plain": "",
			"ipvs":  "---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n",
			"IPv6":  "advertiseAddress: 2001:db8::5\nserviceSubnet: fd00:20::/112\npodSubnet: fd00:10::/56\n",
		} {
			f := newBench(t, version, userdata).run()
			if len(f.Errors) > 0 || len(f.Warnings) > 0 || f.Err() != nil {
				t.Errorf("%s %s: %v", version, name, f)
			}
		}
	}
}

// Each case breaks one thing; the check of kubeadm's name finds it.
func TestFinds(t *testing.T) {
	const proxyIPVS = "---\napiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n"
	const v6 = "advertiseAddress: 2001:db8::5\nserviceSubnet: fd00:20::/112\npodSubnet: fd00:10::/56\n"
	through := func(to string) func(*http.Request) (*url.URL, error) {
		return func(r *http.Request) (*url.URL, error) {
			if !strings.HasPrefix(r.URL.Host, to) {
				return nil, nil
			}
			return url.Parse("http://u:secret@proxy.example.org:3128")
		}
	}
	for _, c := range []struct {
		check, userdata string
		warn            bool
		broken          func(b *bench)
	}{
		{"IsPrivilegedUser", "", false, func(b *bench) { b.Host.Probe.UID = func() int { return 1000 } }},
		{"NumCPU", "", false, func(b *bench) { b.Host.Probe.CPUs = func() int { return 1 } }},
		{"Mem", "", true, func(b *bench) { b.write(t, "/proc/meminfo", "MemTotal: 1000000 kB\n") }},
		{"VarSpace", "", false, func(b *bench) { b.Host.Probe.Space = func(string) (uint64, error) { return 1 << 20, nil } }},
		{"VarSpace", "", true, func(b *bench) { b.Host.Probe.Space = func(string) (uint64, error) { return 1 << 30, nil } }},
		{"BootTime", "", false, func(b *bench) { b.Baked.BuildTime = time.Now().Add(time.Hour) }},
		{"Firewalld", "", true, func(b *bench) {
			b.Host.Systemd.Active = func(_ context.Context, unit string) (string, error) { return "active", nil }
		}},
		{"Port-6443", "", false, busy(6443)},
		{"Port-7443", "bindPort: 7443\n", false, busy(7443)},
		{"Port-10250", "", false, busy(10250)},
		{"Port-10257", "", false, busy(10257)},
		{"Port-10259", "", false, busy(10259)},
		{"Port-2379", "", false, busy(2379)},
		{"Port-2380", "", false, busy(2380)},
		{"FileAvailable--etc-kubernetes-manifests-kube-apiserver.yaml", "", false, func(b *bench) { b.write(t, "/etc/kubernetes/manifests/kube-apiserver.yaml", "x") }},
		{"FileAvailable--etc-kubernetes-manifests-kube-controller-manager.yaml", "", false, func(b *bench) { b.write(t, "/etc/kubernetes/manifests/kube-controller-manager.yaml", "x") }},
		{"FileAvailable--etc-kubernetes-manifests-kube-scheduler.yaml", "", false, func(b *bench) { b.write(t, "/etc/kubernetes/manifests/kube-scheduler.yaml", "x") }},
		{"FileAvailable--etc-kubernetes-manifests-etcd.yaml", "", false, func(b *bench) { b.write(t, "/etc/kubernetes/manifests/etcd.yaml", "x") }},
		{"HTTPProxy", "", true, func(b *bench) { b.Host.Proxy = through("192.0.2.5") }},
		{"HTTPProxyCIDR", "", true, func(b *bench) { b.Host.Proxy = through("10.96.0.1") }},
		{"HTTPProxyCIDR", "", true, func(b *bench) { b.Host.Proxy = through("10.244.0.1") }},
		{"HTTPProxyCIDR", v6, true, func(b *bench) { b.Host.Proxy = through("[fd00:10::1]") }},
		{"FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", "", false, func(b *bench) { b.remove(t, "/proc/sys/net/bridge/bridge-nf-call-iptables") }},
		{"FileContent--proc-sys-net-ipv4-ip_forward", "", false, func(b *bench) { b.write(t, "/proc/sys/net/ipv4/ip_forward", "0\n") }},
		{"FileContent--proc-sys-net-bridge-bridge-nf-call-ip6tables", v6, false, func(b *bench) { b.write(t, "/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0\n") }},
		{"FileContent--proc-sys-net-ipv6-conf-default-forwarding", v6, false, func(b *bench) { b.write(t, "/proc/sys/net/ipv6/conf/default/forwarding", "0\n") }},
		{"Swap", "", false, func(b *bench) { b.write(t, "/proc/swaps", "Filename\n/dev/vdb partition 1 0 -2\n") }},
		{"FileExisting-conntrack", "", false, func(b *bench) { b.remove(t, "/usr/bin/conntrack") }},
		{"FileExisting-ip", "", false, func(b *bench) { b.remove(t, "/usr/bin/ip") }},
		{"FileExisting-iptables", "", false, func(b *bench) { b.remove(t, "/usr/sbin/iptables") }},
		{"FileExisting-mount", "", false, func(b *bench) { os.Chmod(filepath.Join(b.dir, "usr/bin/mount"), 0o644) }},
		{"FileExisting-nsenter", "", false, func(b *bench) { b.remove(t, "/usr/bin/nsenter") }},
		{"FileExisting-ethtool", "", true, func(b *bench) { b.remove(t, "/usr/bin/ethtool") }},
		{"FileExisting-socat", "", true, func(b *bench) { b.remove(t, "/usr/bin/socat") }},
		{"FileExisting-touch", "", true, func(b *bench) { b.remove(t, "/usr/bin/touch") }},
		{"SystemVerification", "", false, func(b *bench) { b.Host.Probe.Kernel = func() (string, error) { return "3.2.0", nil } }},
		{"SystemVerification", "", false, func(b *bench) { b.remove(t, "/proc/self/ns/pid") }},
		{"SystemVerification", "", false, func(b *bench) { b.write(t, "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu io hugetlb pids\n") }},
		{"SystemVerification", "", true, func(b *bench) { b.write(t, "/sys/fs/cgroup/cgroup.controllers", "cpuset cpu memory hugetlb\n") }},
		{"SystemVerification", "", false, func(b *bench) { b.remove(t, "/sys/fs/cgroup/cgroup.controllers") }},
		{"SystemVerification", "", false, func(b *bench) {
			b.remove(t, "/sys/fs/cgroup/cgroup.controllers")
			b.write(t, "/proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu 1 1 1\ncpuacct 1 1 1\ncpuset 1 1 1\ndevices 1 1 1\nfreezer 1 1 1\nmemory 0 1 0\npids 1 1 1\nhugetlb 1 1 1\n")
		}},
		{"Hostname", "", true, func(b *bench) {
			b.Host.Probe.LookupHost = func(context.Context, string) ([]string, error) { return nil, errors.New("no such host") }
		}},
		{"KubeletVersion", "", false, func(b *bench) {
			b.Host.Run = func(context.Context, string, ...string) ([]byte, error) { return []byte("Kubernetes v1.20.0\n"), nil }
		}},
		{"KubeletVersion", "", false, func(b *bench) {
			b.Host.Run = func(context.Context, string, ...string) ([]byte, error) { return nil, errors.New("no such file") }
		}},
		{"IPVS", proxyIPVS, false, func(b *bench) { b.write(t, "/usr/lib/modules/6.12.48-cloud-amd64/modules.dep", "") }},
		{"DirAvailable--var-lib-etcd", "", false, func(b *bench) { b.write(t, "/var/lib/etcd/member/x", "") }},
		{"ImagePull", "", false, func(b *bench) { b.Baked.Images = b.Baked.Images[1:] }},
		{"ImagePull", "imageRepository: registry.example.org\n", false, func(b *bench) { b.Baked.Images = []string{"k8s.gcr.io/pause:3.2"} }},
		{"ExternalEtcdClientCertificates", strings.NewReplacer("%s]%s", `"https://192.0.2.9:2379"], caFile: /a, certFile: /b, keyFile: /c`).Replace(external), false, func(b *bench) {}},
	} {
		t.Run(c.check, func(t *testing.T) {
			b := newBench(t, "v1.19.12", c.userdata)
			c.broken(b)
			f := b.run("ExternalEtcdVersion")
			found, clean := f.Errors, f.Warnings
			if c.warn {
				found, clean = clean, found
			}
			if got := names(found); len(got) != 1 || got[0] != c.check {
				t.Errorf("found %v", f)
			}
			if got := names(clean); len(got) != 0 && got[0] != "ExternalEtcdVersion" {
				t.Errorf("found besides %v", got)
			}
			if (f.Err() == nil) != c.warn {
				t.Errorf("error %v", f.Err())
			}
			for _, x := range found {
				if x.Remedy == "" && c.check != "SystemVerification" {
					t.Errorf("without a remedy: %s", x)
				}
				if strings.Contains(x.String(), "secret") {
					t.Errorf("it shows the proxy's password: %s", x)
				}
			}
			// Ignored, by a name in other letters, it only warns.
			if f := b.run(strings.ToUpper(c.check), "ExternalEtcdVersion"); f.Err() != nil || len(names(f.Warnings)) == 0 {
				t.Errorf("ignored: %v", f)
			}
		})
	}
}

func busy(port int) func(*bench) {
	return func(b *bench) {
		b.Host.Probe.Free = func(p int) error {
			if p == port {
				return errors.New("port is in use")
			}
			return nil
		}
	}
}

func TestMemoryByVersion(t *testing.T) {
	b := newBench(t, "v1.20.15", "")
	b.write(t, "/proc/meminfo", "MemTotal: 1000000 kB\n")
	if f := b.run(); len(f.Errors) != 1 || f.Errors[0].Check != "Mem" {
		t.Errorf("%v", f)
	}
}

func TestCRI(t *testing.T) {
	b := newBench(t, "v1.19.12", "")
	b.stop()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if f := Run(ctx, Init(b.Machine), nil); !slices.Equal(names(f.Errors), []string{"CRI"}) {
		t.Errorf("%v", f)
	}
}

func TestExternalEtcd(t *testing.T) {
	version := "3.4.13"
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/version" {
			http.NotFound(w, r)
			return
		}
		w.Write([]byte(`{"etcdserver":"` + version + `","etcdcluster":"3.4.0"}`))
	}))
	defer s.Close()
	b := newBench(t, "v1.19.12", strings.NewReplacer("%s]%s", `"`+s.URL+`/"]`).Replace(external))
	for v, ok := range map[string]bool{"3.4.13": true, "3.2.18": true, "3.2.17": false, "2.9.99": false, "4.0.0": true, "?": false} {
		version = v
		f := b.run()
		if ok != (f.Err() == nil) || !ok && !slices.Equal(names(f.Errors), []string{"ExternalEtcdVersion"}) {
			t.Errorf("version %s: %v", v, f)
		}
	}
	s.Close()
	if f := b.run(); !slices.Equal(names(f.Errors), []string{"ExternalEtcdVersion"}) {
		t.Errorf("no etcd: %v", f)
	}
}
