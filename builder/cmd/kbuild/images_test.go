package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/images/pull"
)

// run drives the command line as main does.
func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = Execute(t.Context(), args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

func TestImagesList(t *testing.T) {
	code, out, stderr := run(t, "", "images", "list", "--version", "v1.19.12")
	want := `k8s.gcr.io/kube-apiserver:v1.19.12
k8s.gcr.io/kube-controller-manager:v1.19.12
k8s.gcr.io/kube-scheduler:v1.19.12
k8s.gcr.io/kube-proxy:v1.19.12
k8s.gcr.io/pause:3.2
k8s.gcr.io/etcd:3.4.13-0
k8s.gcr.io/coredns:1.7.0
`
	if code != cli.ExitOK || out != want || stderr != "" {
		t.Errorf("%d\n%s%s", code, out, stderr)
	}
	const config = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"
	for _, c := range []struct {
		stdin, args string
		code        int
		want        string // part of stdout, or of stderr where the code is not 0
	}{
		{"", "images list --version v1.37.2 --image-repository r.example.com/k8s", cli.ExitOK, "r.example.com/k8s/coredns:v1.14.6\n"},
		{config + "imageRepository: r.example.com\n", "images list --version v1.37.2 --config -", cli.ExitOK, "r.example.com/etcd:3.7.0-0\n"},
		{config, "images list --version v1.37.2 --config - --image-repository r.example.com", cli.ExitOK, "r.example.com/etcd:3.7.0-0\n"},
		{config + "imageRepository: r.example.com\n", "images list --version v1.37.2 --config - --image-repository s.example.com", cli.ExitUsage, "remove one of them"},
		{config + "imageRepo: x\n", "images list --version v1.37.2 --config -", cli.ExitUsage, "kbuild: standard input:3: ClusterConfiguration has no field \"imageRepo\""},
		{"", "images list --version v1.37.2 --config /does/not/exist", cli.ExitUsage, "cannot read the config: open /does/not/exist"},
		{"", "images list", cli.ExitUsage, "--version is missing"},
		{"", "images list --version v1.38.0", cli.ExitUsage, "this kbuild knows v1.19.0-v1.19.16, v1.20.0-v1.20.15"},
		{"", "images list --version v1.37.2 -o xml", cli.ExitUsage, "use text, json or yaml"},
		{"", "images list --verson v1.37.2", cli.ExitUsage, "unknown flag: --verson\nSee 'kbuild images list --help'."},
		{"", "images list v1.37.2", cli.ExitUsage, "unknown argument \"v1.37.2\" for kbuild images list"},
		{"", "images lits", cli.ExitUsage, "unknown argument \"lits\" for kbuild images"},
		{"", "images list --help", cli.ExitOK, "kbuild images list --version v1.37.2 --config cluster.yaml -o json"},
		{"", "images", cli.ExitOK, "Available Commands:"},
		{"", "images pull --version v1.37.2", cli.ExitUsage, "--out is missing"},
		{"", "images pull --version v1.37.2 --out x --platform amd64", cli.ExitUsage, "OS/ARCH"},
		{"", "images pull --version v1.37.2 --out x --mirror a", cli.ExitUsage, "FROM=TO"},
		{"", "images pull --version v1.37.2 --out x --parallel 0", cli.ExitUsage, "use 1 or more"},
		{"", "images pull --version v1.37.2 --out x -o yaml", cli.ExitUsage, "use text or json"},
		{"", "images pull --version v1.37.2 --out x --include-image A", cli.ExitUsage, "image name \"A\""},
	} {
		code, out, stderr := run(t, c.stdin, strings.Fields(c.args)...)
		got := out
		if c.code != cli.ExitOK {
			got = stderr
		}
		if code != c.code || !strings.Contains(got, c.want) {
			t.Errorf("%s: %d\n%s%s\nwant %d with %q", c.args, code, out, stderr, c.code, c.want)
		}
	}
}

// TestOracleOutput holds every output format against real kubeadm, where
// $KBUILD_ORACLE is the directory that holds kubeadm-VERSION.
func TestOracleOutput(t *testing.T) {
	dir := os.Getenv("KBUILD_ORACLE")
	if dir == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("KBUILD_ORACLE names no directory with kubeadm-VERSION binaries")
		}
		t.Skip("KBUILD_ORACLE names no directory with kubeadm-VERSION binaries")
	}
	for _, v := range []string{"v1.19.12", "v1.20.15", "v1.37.2"} {
		for _, format := range []string{"text", "json", "yaml"} {
			theirs, err := exec.CommandContext(t.Context(), filepath.Join(dir, "kubeadm-"+v), "config", "images", "list",
				"--kubernetes-version", v, "--image-repository", "r.example.com/x", "-o", format).Output()
			if err != nil {
				t.Fatal(err)
			}
			code, ours, stderr := run(t, "", "images", "list", "--version", v, "--image-repository", "r.example.com/x", "-o", format)
			if code != cli.ExitOK || ours != string(theirs) {
				t.Errorf("%s as %s: kubeadm\n%s\nwe (%d)\n%s%s", v, format, theirs, code, ours, stderr)
			}
		}
	}
}

// mirror is a registry on loopback with all images of a version below k8s/.
func mirror(t *testing.T, version string) (host string) {
	t.Helper()
	h := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(h.Close)
	host = strings.TrimPrefix(h.URL, "http://")
	r, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	list, err := images.List(r, images.ListConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, full := range append(list, "k8s.gcr.io/extra:v1") {
		ref, err := name.ParseReference(strings.Replace(full, r.Registry, host+"/k8s", 1))
		if err != nil {
			t.Fatal(err)
		}
		img, err := random.Image(2000, 2)
		if err != nil {
			t.Fatal(err)
		}
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		c = c.DeepCopy()
		c.OS, c.Architecture = "linux", "amd64"
		if img, err = mutate.ConfigFile(img, c); err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(ref, img); err != nil {
			t.Fatal(err)
		}
	}
	return host
}

func TestImagesPull(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	host, dir := mirror(t, "v1.19.12"), t.TempDir()
	out, lock := filepath.Join(dir, "images"), filepath.Join(dir, "images.lock")
	args := []string{"images", "pull", "--version", "v1.19.12", "--out", out, "--mirror", "registry.k8s.io=" + host + "/k8s",
		"--include-image", "k8s.gcr.io/extra:v1", "--lock", lock}
	code, stdout, stderr := run(t, "", append(args, "-o", "json")...)
	if code != cli.ExitOK {
		t.Fatalf("%d\n%s%s", code, stdout, stderr)
	}
	var got struct {
		Layout string
		Images []pull.Image
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || got.Layout != out || len(got.Images) != 8 {
		t.Errorf("%v\n%s", err, stdout)
	}
	if !strings.Contains(stderr, "pulled k8s.gcr.io/etcd:3.4.13-0 (") || !strings.Contains(stderr, "8 of 8 images") {
		t.Errorf("progress:\n%s", stderr)
	}
	if names := layoutNames(t, out); len(names) != 8 || !strings.HasPrefix(names[0], "k8s.gcr.io/coredns:1.7.0 ") {
		t.Errorf("the layout holds %q", names)
	}
	locked, err := os.ReadFile(lock)
	if err != nil || !strings.Contains(string(locked), "k8s.gcr.io/pause:3.2 sha256:") {
		t.Errorf("the lock file: %v\n%s", err, locked)
	}

	// Again, as text, with the lock: what is printed is what is locked.
	if code, stdout, stderr = run(t, "", args...); code != cli.ExitOK || stdout != string(locked) {
		t.Errorf("%d\n%s%s", code, stdout, stderr)
	}
	// Another version is not in the lock, and nothing is pulled.
	if code, _, stderr = run(t, "", append(args, "--version", "v1.20.15")...); code != cli.ExitFailed || !strings.Contains(stderr, "it is not in the lock file") {
		t.Errorf("%d\n%s", code, stderr)
	}
	if err := os.WriteFile(lock, []byte("nonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr = run(t, "", args...); code != cli.ExitUsage || !strings.Contains(stderr, lock+":1: want NAME DIGEST") {
		t.Errorf("%d\n%s", code, stderr)
	}
}

// layoutNames are the images in the index, "NAME DIGEST".
func layoutNames(t *testing.T, dir string) (names []string) {
	t.Helper()
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	var m *v1.IndexManifest
	if m, err = idx.IndexManifest(); err != nil {
		t.Fatal(err)
	}
	for _, d := range m.Manifests {
		names = append(names, d.Annotations[images.RefAnnotation]+" "+d.Digest.String())
	}
	return names
}

func TestInterrupted(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	code := Execute(ctx, []string{"images", "pull", "--version", "v1.19.12", "--out", t.TempDir(), "--mirror", "registry.k8s.io=127.0.0.1:1"}, strings.NewReader(""), &stdout, &stderr)
	if code != exitInterrupted || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("%d\n%s%s", code, stdout.String(), stderr.String())
	}
}
