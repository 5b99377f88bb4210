package testvm

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// TestScenarioIgnition is an operating system that is not kbuild's: an ordinary
// Debian with a root that is written to, and no container runtime. On its first
// boot the real Ignition engine takes a config from fw_cfg, which merges
// node.ign of `kbuild image --format ignition`, which merges a user's Butane
// config; the system extension comes from a server, and the machine becomes a
// cluster.
//
// KBUILD_IGNITION names the output directory of `kbuild image`, made with
// --sysext-url http://10.0.2.100/ and testdata/ignition/site.bu; KBUILD_DEBIAN_TREE
// what `kbuild tree debian` prints. `make test-ignition` sets both.
func TestScenarioIgnition(t *testing.T) {
	dir, tree := os.Getenv("KBUILD_IGNITION"), os.Getenv("KBUILD_DEBIAN_TREE")
	if dir == "" || tree == "" {
		t.Skip("KBUILD_IGNITION or KBUILD_DEBIAN_TREE is not set: make test-ignition sets them")
	}
	ign, err := os.ReadFile(filepath.Join(dir, "node.ign"))
	if err != nil {
		t.Fatal(err)
	}
	hash, err := os.ReadFile(filepath.Join(dir, "sysext.roothash"))
	if err != nil {
		t.Fatal(err)
	}
	requests := serve(t, dir)
	kernel, disk := mutableDebian(t, tree)
	m := bootWith(t, VM, Options{
		Image: Image{Dir: dir, Disk: disk}, Name: "node1", Serve: requests.addr,
		Kernel:  kernel,
		Cmdline: "root=/dev/nvme0n1 rootwait rw init=/usr/lib/kbuild-test/initrd console=ttyS0,115200 loglevel=4 systemd.firstboot=no systemd.default_device_timeout_sec=600 panic=10",
		FwCfgFiles: map[string]string{"opt/com.coreos/config": fmt.Sprintf(`{
			"ignition": {"version": "3.4.0", "config": {"merge": [{"source": "http://%s/node.ign", "verification": {"hash": "sha256-%x"}}]}},
			"storage": {"files": [{"path": "/etc/kbuild-test/fwcfg", "contents": {"source": "data:,merged"}}]}
		}`, strings.TrimSuffix(ServedAt, ":80"), sha256.Sum256(ign))},
	})
	waitReadyIn(t, m, VM)
	checkImages(t, m, baked(t, m))

	sh := func(script string) string {
		t.Helper()
		e := ask[guest.Exec](t, m, guest.CmdExec, guest.ExecArgs{Argv: []string{"sh", "-c", script}, Seconds: 60})
		return e.Stdout + e.Stderr
	}
	for _, f := range []string{"butane", "fwcfg"} {
		if got := sh("cat /etc/kbuild-test/" + f); got != "merged" {
			t.Errorf("the config of %s was not merged: %q", f, got)
		}
	}
	if got := sh("systemd-sysext status --no-pager --no-legend"); !strings.Contains(got, "kbuild") {
		t.Errorf("the extension is not merged: %s", got)
	}
	if got := sh("ls /usr/bin/containerd; command -v dpkg"); !strings.Contains(got, "No such file") || !strings.Contains(got, "dpkg") {
		t.Errorf("this is not a Debian without a runtime: %s", got)
	}
	if got := sh("touch /usr/bin/x; touch /etc/x && echo written"); !strings.Contains(got, "ead-only") || !strings.Contains(got, "written") {
		t.Errorf("want /usr read-only and the root not: %s", got)
	}
	// The mount's source is a file descriptor's name; the device says what it is.
	want := strings.TrimSpace(string(hash)) + "-verity"
	if got := sh("d=/sys/dev/block/$(findmnt -no MAJ:MIN /run/kbuild/sysext | tr -d ' ')/dm; cut -d- -f1,2 $d/uuid; cat $d/name"); got != "CRYPT-VERITY\n"+want+"\n" {
		t.Errorf("container images are on %q, want %s: dm-verity", got, want)
	}
	if got := requests.count("/sysext.raw"); got != 1 {
		t.Errorf("the extension was fetched %d times, want once", got)
	}
}

// server is a file server on the loopback that counts.
type server struct {
	addr string
	got  chan string
}

func serve(t *testing.T, dir string) server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := server{l.Addr().String(), make(chan string, 100)}
	files := http.FileServer(http.Dir(dir))
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		logf("served %s %s", r.Method, r.URL.Path)
		select {
		case s.got <- r.URL.Path:
		default:
		}
		files.ServeHTTP(w, r)
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return s
}

// count takes what was asked for so far.
func (s server) count(path string) (n int) {
	for {
		select {
		case p := <-s.got:
			if p == path {
				n++
			}
		default:
			return n
		}
	}
}

// mutableDebian makes a disk that is one ext4 file system of the tree, with the
// Ignition engine and a network in it; and returns it and its kernel.
func mutableDebian(t *testing.T, tree string) (kernel, disk string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("cannot make a Debian's disk: its files belong to many: run as root")
	}
	kernels, err := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		t.Fatalf("want one kernel in %s/boot, have %v, %v", tree, kernels, err)
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := run("cp", "-a", "--reflink=auto", tree, root); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/ignition/initrd.sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"usr/lib/kbuild-test/initrd":                 string(script),
		"etc/systemd/network/lan.network":            "[Match]\nType=ether\nKind=!*\n[Network]\nDHCP=yes\n",
		"etc/hostname":                               "debian\n",
		"etc/machine-id":                             "uninitialized\n", // its first boot
		"etc/hosts":                                  "127.0.0.1 localhost\n",
		"etc/systemd/system-preset/90-debian.preset": "enable systemd-networkd.service\nenable systemd-resolved.service\ndisable *\n",
	} {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	buildEngine(t, filepath.Join(root, "usr/bin/ignition"))
	disk = filepath.Join(dir, "debian.raw")
	if err := run("mkfs.ext4", "-q", "-L", "root", "-d", root, disk, "8G"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(root); err != nil {
		t.Fatal(err)
	}
	return kernels[0], disk
}

// buildEngine compiles Ignition's engine, at the version that .ci/tools pins,
// for a distribution without SELinux. It needs a C compiler and libblkid's
// headers.
func buildEngine(t *testing.T, out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", out,
		"-ldflags=-s -w -X github.com/coreos/ignition/v2/internal/distro.selinuxRelabel=false", "github.com/coreos/ignition/v2/internal")
	cmd.Dir = "../.ci/tools"
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cannot compile Ignition: %v\n%s\nIt needs gcc and libblkid-dev.", err, msg)
	}
}

func waitReadyIn(t *testing.T, m Machine, lane Lane) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limitOf(lane))
	defer cancel()
	if err := WaitReady(ctx, m, logf); err != nil {
		t.Fatal(err)
	}
}
