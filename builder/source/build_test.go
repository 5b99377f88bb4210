package source

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/images"
)

// Each minor of the table has a version with locks of Kubernetes and all that
// goes with it.
func TestLocks(t *testing.T) {
	have := map[int]bool{}
	for _, name := range lockNames(t) {
		version, ok := strings.CutPrefix(name, "kubernetes-")
		if !ok {
			continue
		}
		r, err := images.Lookup(version)
		if err != nil {
			t.Fatal(err)
		}
		all, err := builds(Want{Release: r, CNI: "flannel"}, time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range all {
			if b.Module != "" {
				checkLock(t, b)
			}
		}
		have[r.Minor()] = true
	}
	for _, known := range images.Known() {
		r, err := images.Lookup(known.Newest)
		if err != nil {
			t.Fatal(err)
		}
		if !have[r.Minor()] {
			t.Errorf("no version of the minor of %s has a lock", known.Newest)
		}
	}
}

// Every release of the table has builds, with a lock or without one, but for
// v1.19.0, whose etcd is of no known family.
func TestBuilds(t *testing.T) {
	for _, known := range images.Known() {
		r, err := images.Lookup(known.Newest)
		for err == nil {
			if _, err := builds(Want{Release: r, CNI: "flannel"}, time.Unix(0, 0)); err != nil && r.Version != "v1.19.0" {
				t.Errorf("%s: %v", r.Version, err)
			}
			at := strings.LastIndex(r.Version, ".") + 1
			var patch int
			if patch, err = strconv.Atoi(r.Version[at:]); err != nil || patch == 0 {
				break
			}
			r, err = images.Lookup(r.Version[:at] + strconv.Itoa(patch-1))
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// lockNames are the names of the builds that have a lock.
func lockNames(t *testing.T) []string {
	entries, err := lockFiles.ReadDir("lock")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".mod"); ok {
			names = append(names, name)
		}
	}
	return names
}

// Each lock is that of a build, and says what the build says.
func TestLockFiles(t *testing.T) {
	for _, name := range lockNames(t) {
		if b, ok := lockedBuild(t, name); ok {
			checkLock(t, b)
		}
	}
}

// lockedBuild is the build that a lock is of; those of the pod network
// (TestLocks has them) are not found.
func lockedBuild(t *testing.T, name string) (b build, ok bool) {
	t.Helper()
	kind, version, _ := strings.Cut(name, "-")
	var err error
	switch {
	case kind == "kubernetes":
		b, err = kubeBuild(images.Release{Version: version}, time.Unix(0, 0))
	case kind == "etcd":
		b, err = etcdBuild(images.Image{Tag: version + "-0"})
	case name == "coredns-1.7.0":
		b, err = corednsBuild(images.Image{Tag: version})
	case kind == "coredns":
		b, err = corednsBuild(images.Image{Tag: "v" + version})
	default:
		return b, false
	}
	if err != nil || b.Name != name {
		t.Errorf("%s.mod is the lock of the build %q (%v)", name, b.Name, err)
		return b, false
	}
	return b, true
}

// checkLock checks that a build has a committed lock, and that it names the
// modules that the build wants.
func checkLock(t *testing.T, b build) {
	t.Helper()
	if !strings.HasPrefix(b.sum(), "h1:") {
		t.Errorf("the lock of %s is missing, or has no sum of %s %s", b.Name, b.Module, b.Version)
		return
	}
	pair, err := compiler{}.lock(t.Context(), b, nil)
	if err != nil {
		t.Errorf("%s: %v", b.Name, err)
	}
	for _, want := range append(b.Require, b.Module+" "+b.Version) {
		if !strings.Contains(pair.Mod, want) {
			t.Errorf("the lock of %s does not require %s", b.Name, want)
		}
	}
	for _, want := range b.Replace {
		if !strings.Contains(pair.Mod, want) {
			t.Errorf("the lock of %s does not replace %s", b.Name, want)
		}
	}
}

func TestResolveModules(t *testing.T) {
	src, err := Open("modules", Config{Cache: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	r, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	cs, err := src.Resolve(t.Context(), Want{Release: r, Arch: "amd64", CNI: "flannel", Images: []string{"busybox:1.36", r.Flannel, "reg.example/k8s/pause:3.2"}, Config: images.ListConfig{ImageRepository: "reg.example/k8s"}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Component{}
	for _, c := range cs {
		if _, ok := got[c.Name]; ok {
			t.Errorf("%s twice", c.Name)
		}
		if got[c.Name] = c; c.Digest == "" && c.Name != "docker.io/library/busybox:1.36" {
			t.Errorf("%s has no digest", c.Name)
		}
	}
	kube := Component{Name: "kube-proxy", Version: "v1.19.12", Source: "module k8s.io/kubernetes", Toolchain: toolchain(),
		Digest: "h1:bPWIAsOA/CnUwGdcvqPVfMxsZyjwg9MLO/eujisgMNg=", Image: "reg.example/k8s/kube-proxy:v1.19.12"}
	if g := got["kube-proxy"]; g != kube {
		t.Errorf("kube-proxy: %+v", g)
	}
	if g := got["coredns"]; g.Image != "reg.example/k8s/coredns:1.7.0" || g.Version != "v1.7.0" {
		t.Errorf("coredns: %+v", g)
	}
	if g := got["docker.io/library/busybox:1.36"]; g.Source != "registry docker.io" || g.Version != "1.36" {
		t.Errorf("busybox: %+v", g)
	}
	if g := got["cni/flannel"]; g.Source != "module github.com/containernetworking/plugins" || g.Image != "" {
		t.Errorf("cni/flannel: %+v", g)
	}
	r.Etcd.Tag = "9.9.9-0"
	if _, err := src.Resolve(t.Context(), Want{Release: r, Arch: "amd64", CNI: "none"}); err == nil || !strings.Contains(err.Error(), "etcd:9.9.9-0") {
		t.Errorf("an unknown tag: %v", err)
	}
	if _, err := src.Resolve(t.Context(), Want{Release: r, CNI: "weave"}); err == nil {
		t.Error("an unknown pod network will do")
	}
}

// goMain is a build module without dependencies.
func goMain(text string) build {
	return build{Name: "test-1", Programs: map[string]string{"program": "."}, Files: map[string]string{"main.go": text}}
}

func TestCompileError(t *testing.T) {
	c := compiler{store{t.TempDir()}, hostArch}
	_, err := c.compile(t.Context(), goMain("package main\n\nfunc main() { missing() }\n"), progress.To(new(strings.Builder)))
	if err == nil {
		t.Fatal("it compiles")
	}
	for _, want := range []string{"cannot compile program", "go build -trimpath", "main.go:3:15: undefined: missing"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestCompileTwice(t *testing.T) {
	b := goMain("package main\n\nfunc main() { println(\"hello\") }\n")
	var sums []string
	for range 2 { // in two caches: the bytes are the same
		c := compiler{store{t.TempDir()}, hostArch}
		var said strings.Builder
		dir, err := c.compile(t.Context(), b, progress.To(&said))
		if err != nil {
			t.Fatal(err)
		}
		sum, err := fileDigest(filepath.Join(dir, "program"))
		if err != nil {
			t.Fatal(err)
		}
		sums = append(sums, sum)
		said.Reset()
		if _, err := c.compile(t.Context(), b, progress.To(&said)); err != nil || said.String() != "" {
			t.Errorf("the second time: %q, %v", said.String(), err)
		}
		// A byte of the program is flipped: it is compiled again.
		if err := os.WriteFile(filepath.Join(dir, "program"), []byte("broken"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := c.compile(t.Context(), b, progress.To(&said)); err != nil || !strings.Contains(said.String(), "damaged") {
			t.Errorf("after damage: %q, %v", said.String(), err)
		}
		if again, err := fileDigest(filepath.Join(dir, "program")); again != sum {
			t.Errorf("after damage: digest %s instead of %s, %v", again, sum, err)
		}
	}
	if sums[0] != sums[1] {
		t.Error("two compiles differ")
	}
}

// When the context ends, a command dies with all that it started.
func TestRunCommandKilled(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	asked := errors.New("asked to stop")
	done := make(chan error, 1)
	go func() {
		_, err := runCommand(ctx, dir, os.Environ(), "sh", "-c", "sleep 1000 & echo $! > pid.new; mv pid.new pid; wait")
		done <- err
	}()
	var pid int
	for pid == 0 {
		if b, err := os.ReadFile(filepath.Join(dir, "pid")); err == nil {
			if pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Millisecond)
	}
	cancel(asked)
	if err := <-done; !errors.Is(err, asked) {
		t.Errorf("got %v", err)
	}
	for i := 0; ; i++ {
		// Gone, or dead and not yet waited for by whoever inherited it.
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		if i == 1000 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the command's child lives on")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// pause is compiled as for an image, and runs as the first process of a PID
// namespace: it reaps a child that it inherits, and ends on SIGTERM.
func TestPause(t *testing.T) {
	b, err := pauseBuild(images.Image{Repo: "pause", Tag: "3.2"})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := compiler{store{t.TempDir()}, hostArch}.compile(t.Context(), b, progress.To(new(strings.Builder)))
	if err != nil {
		t.Fatal(err)
	}
	pause := filepath.Join(dir, "pause")
	if out, err := exec.Command(pause, "-v").Output(); string(out) != "pause 3.2\n" {
		t.Errorf("pause -v says %q, %v", out, err)
	}
	cmd := exec.Command("sh", "-c", `sleep 0.1 & echo started; exec "$0"`, pause)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("no PID namespace for us here: %v", err)
	}
	defer func() { _ = cmd.Process.Kill() }()
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	children := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "task", strconv.Itoa(cmd.Process.Pid), "children")
	for i := 0; ; i++ {
		exe, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "exe"))
		b, err := os.ReadFile(children)
		if err != nil {
			t.Skipf("this kernel does not list children: %v", err)
		}
		if exe == pause && len(b) == 0 {
			break
		}
		if i == 1000 {
			t.Fatalf("%s still has the children %q", exe, b)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}
