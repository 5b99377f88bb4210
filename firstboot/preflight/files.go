package preflight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// label makes a check's name of a path as kubeadm does.
func label(kind, p string) string { return kind + "-" + strings.ReplaceAll(p, "/", "-") }

func rel(p string) string { return strings.TrimPrefix(path.Clean(p), "/") }

// absent checks that a file is not there yet.
func (m machine) absent(name string) Check {
	return Check{label("FileAvailable", name), func(_ context.Context, f *Findings) {
		if m.Host.Exists(name) {
			f.fail("it is not this node's: wipe the var partition to set the node up anew", "%s is there already", name)
		}
	}}
}

// empty checks that a directory is missing or empty.
func (m machine) empty(dir string) Check {
	return Check{label("DirAvailable", dir), func(_ context.Context, f *Findings) {
		d, err := m.Host.Root.Open(rel(dir))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			f.fail("", "cannot look into %s: %v", dir, err)
			return
		}
		defer d.Close()
		if _, err := d.Readdirnames(1); !errors.Is(err, io.EOF) {
			f.fail("it holds data of another cluster: wipe the var partition, or set etcd.local.dataDir", "%s is not empty", dir)
		}
	}}
}

// exists checks that a file is there.
func (m machine) exists(f *Findings, name string) {
	if !m.Host.Exists(name) {
		f.fail("put it there, or bake it into the image", "%s does not exist", name)
	}
}

// is1 checks that a kernel setting is on.
func (m machine) is1(name string) Check {
	return Check{label("FileContent", name), func(_ context.Context, f *Findings) {
		b, err := m.Host.ReadFile(name)
		switch {
		case err != nil:
			f.fail("load the kernel module behind it (br_netfilter for net.bridge)", "%s does not exist", name)
		case len(b) == 0 || b[0] != '1':
			f.fail("set it with sysctl.d", "%s is not 1", name)
		}
	}}
}

// executable checks that a program is where a service finds it.
func (m machine) executable(name string, must bool) Check {
	return Check{"FileExisting-" + name, func(_ context.Context, f *Findings) {
		for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
			// Not Stat: links such as /etc/alternatives are absolute.
			if st, err := m.Host.Root.Lstat(rel(dir + "/" + name)); err == nil && (st.Mode()&os.ModeSymlink != 0 || st.Mode().IsRegular() && st.Mode()&0o111 != 0) {
				return
			}
		}
		const remedy = "build the image with the package that holds it"
		if must {
			f.fail(remedy, "program %s is not there", name)
		} else {
			f.warn(remedy, "program %s is not there", name)
		}
	}}
}

func (m machine) swap(_ context.Context, f *Findings) {
	b, err := m.Host.ReadFile("/proc/swaps")
	if err != nil {
		return // a kernel without swap
	}
	if lines := strings.Split(strings.TrimSpace(string(b)), "\n"); len(lines) > 1 {
		f.fail("switch it off; the kubelet does not start with it unless failSwapOn is false", "swap is on (%d in use)", len(lines)-1)
	}
}

// minVarSpace is what etcd, logs and images that are pulled later need at the
// very least.
const (
	minVarSpace  = 512 << 20
	warnVarSpace = 2 << 30
)

func (m machine) space(_ context.Context, f *Findings) {
	free, err := m.Host.Probe.Space(m.Host.Path("/var"))
	switch {
	case err != nil:
		f.warn("", "%v", err)
	case free < minVarSpace:
		f.fail("give the machine a larger disk: var grows to its end on boot", "%d MiB are free on /var, a control plane needs %d", free>>20, minVarSpace>>20)
	case free < warnVarSpace:
		f.warn("give the machine a larger disk: var grows to its end on boot", "only %d MiB are free on /var", free>>20)
	}
}

func (m machine) memory(_ context.Context, f *Findings) {
	b, err := m.Host.ReadFile("/proc/meminfo")
	if err != nil {
		f.warn("", "cannot ask for the machine's memory: %v", err)
		return
	}
	var kib uint64
	for _, line := range strings.Split(string(b), "\n") {
		if _, err := fmt.Sscanf(line, "MemTotal: %d kB", &kib); err == nil {
			break
		}
	}
	if kib<<10 >= minMemory {
		return
	}
	const remedy = "give the machine more"
	if m.Baked.Release.Has(factMem) {
		f.fail(remedy, "the machine has %d MB of memory, a control plane needs %d", kib>>10, minMemory>>20)
	} else {
		f.warn(remedy, "the machine has %d MB of memory; %d are recommended for a control plane", kib>>10, minMemory>>20)
	}
}
