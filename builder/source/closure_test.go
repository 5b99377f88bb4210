package source

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The judge is ldd: what it finds for a program of this machine is what the
// closure must hold.
func TestClosure(t *testing.T) {
	ldd, err := exec.LookPath("ldd")
	if err != nil {
		t.Skip("no ldd")
	}
	if _, err := os.Stat("/usr/bin/ls"); err != nil {
		t.Skip("no /usr/bin/ls")
	}
	c := closure{"/", map[string]file{}}
	if err := c.add("usr/bin/ls"); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(ldd, "/usr/bin/ls").Output()
	if err != nil {
		t.Fatal(err)
	}
	paths := regexp.MustCompile(`(?m)(?:=> |^\s)(/\S+)`).FindAllStringSubmatch(string(out), -1)
	if len(paths) < 2 {
		t.Fatalf("cannot read ldd: %s", out)
	}
	for _, p := range paths {
		real, err := filepath.EvalSymlinks(p[1])
		if err != nil {
			t.Fatal(err)
		}
		if f := c.files[real[1:]]; f.From != real {
			t.Errorf("%s is not in the closure: %+v", real, f)
		}
	}
}

func TestResolve(t *testing.T) {
	tree := t.TempDir()
	for _, d := range []string{"usr/sbin", "etc/alternatives"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "usr/sbin/xtables-nft-multi"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	for at, to := range map[string]string{
		"sbin": "usr/sbin", "usr/sbin/iptables": "/etc/alternatives/iptables",
		"etc/alternatives/iptables": "/usr/sbin/iptables-nft", "usr/sbin/iptables-nft": "xtables-nft-multi",
		"out": "../../../../usr/sbin/xtables-nft-multi", "loop": "loop", "gone": "nowhere",
	} {
		if err := os.Symlink(to, filepath.Join(tree, at)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"sbin/iptables": "usr/sbin/xtables-nft-multi", "out": "usr/sbin/xtables-nft-multi",
		"loop": "too many links", "gone": "no such file", "usr/./sbin/../sbin": "usr/sbin",
	} {
		got, err := resolve(tree, name)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestToolLayerLacks(t *testing.T) {
	_, err := toolLayer(t.TempDir())
	if err == nil {
		t.Fatal("an empty tree will do")
	}
	for _, want := range []string{"/usr/sbin/iptables,", "/usr/sbin/conntrack", "/usr/bin/ip", "iproute2"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}
