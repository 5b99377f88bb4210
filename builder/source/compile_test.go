package source

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
)

// TestCompile compiles a whole release and runs what came out:
//
//	KBUILD_COMPILE=v1.19.12 KBUILD_OSTREE=DIR go test -timeout 60m -run TestCompile ./builder/source
//
// DIR is a Debian tree with iptables, conntrack, ipset, kmod and iproute2.
func TestCompile(t *testing.T) {
	version, tree := os.Getenv("KBUILD_COMPILE"), os.Getenv("KBUILD_OSTREE")
	if version == "" || tree == "" {
		t.Skip("KBUILD_COMPILE and KBUILD_OSTREE name no version and tree")
	}
	r, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	src, err := Open("modules", Config{Epoch: time.Unix(1700000000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	w := Want{Release: r, Arch: hostArch, CNI: "flannel"}
	out, err := src.Fetch(t.Context(), w, tree, progress.To(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	again, err := src.Fetch(t.Context(), w, tree, func(format string, args ...any) { t.Errorf("the second fetch: "+format, args...) })
	if err != nil || again.Images != out.Images {
		t.Fatalf("the second fetch: %v, %v, %v", again, out, err)
	}
	t.Logf("the second fetch took %v; images are in %s", time.Since(start), out.Images)

	names := t.TempDir()
	run := func(name, program string, args ...string) string {
		link := filepath.Join(names, name)
		if err := os.Symlink(program, link); err != nil {
			t.Fatal(err)
		}
		b, err := exec.Command(link, args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s %v: %v\n%s", name, args, err, b)
		}
		return string(b)
	}
	kube := out.Binaries["kubelet"]
	for _, name := range []string{"kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		if s := run(name, kube, "--version"); !strings.Contains(s, "Kubernetes "+version) {
			t.Errorf("%s --version says %q", name, s)
		}
	}
	if s := run("kubectl", kube, "version", "--client"); !strings.Contains(s, version) {
		t.Errorf("kubectl version says %q", s)
	}
	for name := range out.Binaries {
		if strings.HasPrefix(name, "cni/") {
			if _, err := os.Stat(out.Binaries[name]); err != nil {
				t.Error(err)
			}
		}
	}
}
