package preflight

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kbuild/kbuild/images"
)

const factMem = images.FactMemCheck

const (
	// timeout is how long whoever is asked by a check may take to answer. A
	// machine that is emulated, or starts everything at once, is slow and not
	// broken.
	timeout = 30 * time.Second
	// listenTimeout is how long the runtime may take to listen at its socket; the
	// step asks again if it was only on its way.
	listenTimeout = 2 * time.Second
)

// cri asks the container runtime for its version.
func (m machine) cri(ctx context.Context, f *Findings) {
	socket := strings.TrimPrefix(m.Node.Init.NodeRegistration.CRISocket, "unix://")
	const remedy = "look at containerd.service: journalctl -u containerd"
	if err := listens(ctx, m.Host.Path(socket), listenTimeout); err != nil {
		f.fail(remedy, "cannot reach the container runtime at %s: %v", socket, err)
		return
	}
	conn, err := grpc.NewClient("unix://"+m.Host.Path(socket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		f.fail(remedy, "cannot talk to the container runtime at %s: %v", socket, err)
		return
	}
	defer conn.Close()
	f.ask(ctx, "the container runtime at "+socket, func(ctx context.Context) {
		if _, err := cri.NewRuntimeServiceClient(conn).Version(ctx, &cri.VersionRequest{}); err != nil {
			f.fail(remedy, "the container runtime at %s does not tell its version: %v", socket, err)
		}
	})
}

// listens returns nil as soon as somebody listens at a unix socket, and why
// nobody does when limit is over.
func listens(ctx context.Context, socket string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		c, err := net.Dial("unix", socket) // does not block: a full queue is an error
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (m machine) hostname(ctx context.Context, f *Findings) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	name := m.Node.Init.NodeRegistration.Name
	addrs, err := m.Host.Probe.LookupHost(ctx, name)
	switch {
	case ctx.Err() != nil:
		f.warn("see that the machine's name servers answer", "looking up the node's name %q took longer than %s: each static pod may wait for DNS", name, timeout)
	case err != nil || len(addrs) == 0:
		f.warn("the step hostname writes it to /run/kbuild/hosts; /etc/hosts must link there", "the node's name %q does not resolve: each static pod may wait for DNS", name)
	}
}

// namespaces of the kernel that containers need (the kernel settings NET_NS,
// PID_NS, IPC_NS, UTS_NS of kubeadm's list).
func namespaces() []string { return []string{"ipc", "mnt", "net", "pid", "uts"} }

// kernel is kubeadm's SystemVerification: the kernel's version, namespaces and
// cgroup controllers.
func (m machine) kernel(_ context.Context, f *Findings) {
	release, err := m.Host.Probe.Kernel()
	if err != nil {
		f.fail("", "%v", err)
	} else if !atLeast(release, 3, 10) {
		f.fail("boot a newer kernel", "kernel %s is older than 3.10", release)
	}
	for _, ns := range namespaces() {
		if _, err := m.Host.Root.Lstat("proc/self/ns/" + ns); err != nil {
			f.fail("boot a kernel that has them", "the kernel has no %s namespaces", ns)
		}
	}
	if b, err := m.Host.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		// cgroup v2, where devices and freezer are no controllers.
		m.controllers(f, strings.Fields(string(b)), []string{"cpu", "cpuset", "memory"}, []string{"hugetlb", "pids"})
		return
	}
	b, err := m.Host.ReadFile("/proc/cgroups")
	if err != nil {
		f.fail("boot a kernel with cgroups", "the kernel has no cgroups: %v", err)
		return
	}
	var on []string
	for _, line := range strings.Split(string(b), "\n") {
		// subsys_name hierarchy num_cgroups enabled
		if c := strings.Fields(line); len(c) == 4 && c[3] == "1" {
			on = append(on, c[0])
		}
	}
	m.controllers(f, on, []string{"cpu", "cpuacct", "cpuset", "devices", "freezer", "memory"}, []string{"hugetlb", "pids"})
}

func (m machine) controllers(f *Findings, have, must, may []string) {
	for _, c := range must {
		if !slices.Contains(have, c) {
			f.fail("boot without cgroup_disable= on the kernel's command line", "cgroup controller %s is not there", c)
		}
	}
	for _, c := range may {
		if !slices.Contains(have, c) {
			f.warn("", "cgroup controller %s is not there", c)
		}
	}
}

var number = regexp.MustCompile(`\d+`)

// atLeast compares the first two numbers of a version.
func atLeast(version string, major, minor int) bool {
	n := number.FindAllString(version, 2)
	if len(n) < 2 {
		return false
	}
	a, erra := strconv.Atoi(n[0])
	b, errb := strconv.Atoi(n[1])
	return erra == nil && errb == nil && (a > major || a == major && b >= minor)
}

func (m machine) kubelet(ctx context.Context, f *Findings) {
	f.ask(ctx, "/usr/bin/kubelet --version", func(ctx context.Context) {
		out, err := m.Host.Run(ctx, "/usr/bin/kubelet", "--version")
		if err != nil {
			f.fail("build the image anew", "cannot ask the kubelet for its version: %v", err)
			return
		}
		if got, want := strings.TrimSpace(string(out)), "Kubernetes "+m.Baked.Release.Version; got != want {
			f.fail("build the image anew", "the kubelet says %q, this image is of %q", got, want)
		}
	})
}

// ipvs checks for the kernel modules of kube-proxy's mode ipvs.
func (m machine) ipvs(_ context.Context, f *Findings) {
	release, err := m.Host.Probe.Kernel()
	if err != nil {
		f.warn("", "%v", err)
		return
	}
	index := ""
	for _, name := range []string{"modules.dep", "modules.builtin"} {
		b, _ := m.Host.ReadFile(fmt.Sprintf("/usr/lib/modules/%s/%s", release, name))
		index += string(b)
	}
	for _, mod := range []string{"ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh", "nf_conntrack"} {
		if !m.Host.Exists("/sys/module/"+mod) && !strings.Contains(index, "/"+mod+".ko") {
			f.fail("remove `mode: ipvs`, or build the image with a kernel that has it", "kube-proxy's mode ipvs needs kernel module %s", mod)
		}
	}
}

// clock: certificates made on a machine whose clock is years off are of no
// use. No clock may be earlier than the image's build.
func (m machine) clock(_ context.Context, f *Findings) {
	if now := m.Host.Now(); now.Before(m.Baked.BuildTime) {
		f.fail("set the machine's clock", "it is %s by the machine's clock, before this image was built (%s)", now.UTC().Format(time.RFC3339), m.Baked.BuildTime.UTC().Format(time.RFC3339))
	}
}
