package source

import (
	"strings"
	"testing"

	"github.com/kbuild/kbuild/images"
)

// A tag of a known family stands for one version of a module, any other tag
// for none.
func TestFamilies(t *testing.T) {
	for tag, want := range map[string]string{
		"3.4.13-0": "go.etcd.io/etcd@v0.5.0-alpha.5.0.20200824191128-ae9734ed278b",
		"3.5.0-0":  "go.etcd.io/etcd/server/v3@v3.5.0 go.etcd.io/etcd/etcdctl/v3 v3.5.0",
		"3.5.24-0": "go.etcd.io/etcd/server/v3@v3.5.24 go.etcd.io/etcd/etcdctl/v3 v3.5.21",
		"3.6.8-0":  "go.etcd.io/etcd/server/v3@v3.6.8 go.etcd.io/etcd/etcdctl/v3 v3.6.8",
		"3.7.0-0":  "go.etcd.io/etcd/server/v3@v3.7.0 go.etcd.io/etcd/etcdctl/v3 v3.7.0",
	} {
		b, err := etcdBuild(images.Image{Repo: "etcd", Tag: tag})
		if got := strings.Join(append([]string{b.Module + "@" + b.Version}, b.Require...), " "); err != nil || got != want {
			t.Errorf("etcd:%s is %q (%v), want %q", tag, got, err, want)
		}
	}
	for _, tag := range []string{"", "3.4.3-0", "3.4.13", "3.4.13-1", "3.5.6", "3.5.6-1", "3.5.06-0", "3.5.-0", "3.5.+1-0", "3.5.-1-0", "v3.5.6-0", "3.8.0-0", "4.0.0-0"} {
		if b, err := etcdBuild(images.Image{Repo: "etcd", Tag: tag}); err == nil || !strings.Contains(err.Error(), "etcd:"+tag) {
			t.Errorf("etcd:%s is %s %s (%v)", tag, b.Module, b.Version, err)
		}
	}
	for tag, want := range map[string]string{"1.7.0": "v1.7.0", "v1.8.6": "v1.8.6", "v1.11.3": "v1.11.3", "v1.14.6": "v1.14.6"} {
		if b, err := corednsBuild(images.Image{Repo: "coredns/coredns", Tag: tag}); err != nil || b.Version != want || b.Name != "coredns-"+want[1:] {
			t.Errorf("coredns:%s is %s, %s (%v)", tag, b.Name, b.Version, err)
		}
	}
	for _, tag := range []string{"", "1.6.9", "v1.7.0", "1.8.0", "v1.8", "v1.8.0-0", "v1.15.0", "v2.0.0"} {
		if b, err := corednsBuild(images.Image{Repo: "coredns/coredns", Tag: tag}); err == nil || !strings.Contains(err.Error(), "coredns:"+tag) {
			t.Errorf("coredns:%s is %s %s (%v)", tag, b.Module, b.Version, err)
		}
	}
}
