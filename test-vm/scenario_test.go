package testvm

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/test-vm/guest"
)

var lane = flag.String("lane", string(Container), "kind of machine that scenarios run in: container or vm")

// limit is how long one wait of a scenario may take. An emulated machine on
// two busy cores needs minutes for what a container does in seconds.
func limit() time.Duration { return limitOf(Lane(*lane)) }

func limitOf(lane Lane) time.Duration {
	if lane == VM {
		return 30 * time.Minute
	}
	return 10 * time.Minute
}

// boot makes a machine of the lane and boots it. It skips the test where there
// is no image.
func boot(t *testing.T, o Options) Machine {
	t.Helper()
	return bootWith(t, Lane(*lane), options(t, o))
}

// bootWith is boot for a machine of a given lane and image.
func bootWith(t *testing.T, lane Lane, o Options) Machine {
	t.Helper()
	o.Keep, o.Log = os.Getenv("KEEP") == "1", logf
	m, err := New(t.Context(), lane, o)
	if err != nil {
		t.Fatal(err)
	}
	watch(t, m, o)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// options adds to o what every machine of a scenario has. It skips the test
// where there is no image.
func options(t *testing.T, o Options) Options {
	t.Helper()
	o.Keep, o.Log = os.Getenv("KEEP") == "1", logf
	if image := imageOf(t); o.Image.Dir == "" {
		o.Image = image
	}
	return o
}

func imageOf(t *testing.T) Image {
	t.Helper()
	return imageIn(t, "KBUILD_IMAGE", "")
}

// imageIn opens the image that a variable of the environment names. It skips the
// test where that is not set.
func imageIn(t *testing.T, variable, which string) Image {
	t.Helper()
	dir := os.Getenv(variable)
	if dir == "" {
		t.Skipf("%s is not set: want the output directory of `kbuild image`%s", variable, which)
	}
	image, err := OpenImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// watch closes a machine at the end of the test, and before that shows what
// there is to see of it when the test failed.
func watch(t *testing.T, m Machine, o Options) {
	t.Cleanup(func() {
		if t.Failed() {
			show(t, m)
		}
		if p := m.Places(); o.Keep {
			t.Logf("kept: process %d, directory %s\nconsole %s\ndisk %s\njournal: %s\nremove it with: go run ./test-vm/cmd/vm clean", p.PID, p.Dir, p.Console, p.Disk, p.Journal)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

// logf writes progress at once; testing's own log comes at the end.
func logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func show(t *testing.T, m Machine) {
	t.Logf("console:\n%s", ConsoleTail(m, 150))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, argv := range [][]string{
		{"cat", "/run/kbuild/status.json"},
		{"systemctl", "--no-pager", "--failed"},
		{"journalctl", "--no-pager", "--boot", "--lines=80", "--unit=kbuild-firstboot.service"},
		{"journalctl", "--no-pager", "--boot", "--lines=60", "--unit=kubelet.service"},
		{"journalctl", "--no-pager", "--boot", "--lines=40", "--unit=containerd.service"},
	} {
		var e guest.Exec
		if err := m.Ask(ctx, guest.CmdExec, guest.ExecArgs{Argv: argv, Seconds: 20}, &e); err != nil {
			t.Logf("%s: %v", strings.Join(argv, " "), err)
			continue
		}
		t.Logf("%s:\n%s%s", strings.Join(argv, " "), e.Stdout, e.Stderr)
	}
}

// userData is the user-data of a scenario's node; docs are added to it.
func userData(t *testing.T, docs ...string) string {
	t.Helper()
	switch Lane(*lane) {
	case Container:
		docs = append(docs, ContainerUserData(imageRelease(t)))
	case VM:
		if api, ok := strings.CutPrefix(docs[0], "apiVersion: kubeadm.k8s.io/"); ok {
			api, _, _ = strings.Cut(api, "\n")
			docs = append(docs, SlowControlPlane(api))
		}
	}
	docs = slices.DeleteFunc(docs, func(d string) bool { return d == "" })
	return strings.Join(docs, "---\n")
}

// imageRelease is the release of the image that scenarios boot.
func imageRelease(t *testing.T) images.Release {
	t.Helper()
	version := "v1.19.12"
	if image, err := OpenImage(os.Getenv("KBUILD_IMAGE")); err == nil {
		version = image.Version
	}
	r, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// configAPI is the version of kubeadm's configuration that the image's
// Kubernetes has.
func configAPI(t *testing.T) string {
	t.Helper()
	return imageRelease(t).ConfigAPI
}

// initDoc is a kubeadm InitConfiguration in the API version of the image's
// Kubernetes; lines are indented below it.
func initDoc(t *testing.T, lines string) string {
	t.Helper()
	return "apiVersion: kubeadm.k8s.io/" + configAPI(t) + "\nkind: InitConfiguration\nnodeRegistration:\n  name: node1\n" + lines
}

// ask asks the checker and ends the test when it fails.
func ask[R any](t *testing.T, m Machine, cmd string, args any) R {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var r R
	if err := m.Ask(ctx, cmd, args, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func waitReady(t *testing.T, m Machine) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit(), errors.New("time is up"))
	defer cancel()
	if err := WaitReady(ctx, m, logf); err != nil {
		t.Fatal(err)
	}
}

// baked reads what the image in the machine says of itself.
func baked(t *testing.T, m Machine) images.Baked {
	t.Helper()
	e := ask[guest.Exec](t, m, guest.CmdExec, guest.ExecArgs{Argv: []string{"cat", images.BakedFile}})
	b, err := images.ReadBaked([]byte(e.Stdout))
	if err != nil {
		t.Fatalf("%v: %s", err, e.Stderr)
	}
	return b
}

func corednsOf(t *testing.T, b images.Baked) string {
	t.Helper()
	for _, ref := range b.Images {
		if strings.Contains(ref, "coredns") {
			return ref
		}
	}
	t.Fatalf("the image names no CoreDNS image: %v", b.Images)
	return ""
}

// waitPod waits until a pod answers behind a Service.
func waitPod(t *testing.T, m Machine, image string) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit(), errors.New("time is up"))
	defer cancel()
	err := Wait(ctx, m, logf, "a pod's answer over a Service", func(ctx context.Context) (string, error) {
		var p guest.Pod
		err := m.Ask(ctx, guest.CmdPod, guest.PodArgs{Image: image}, &p)
		if err == nil && p.Waiting == "" && p.Answer != "OK" {
			return "", fmt.Errorf("the Service %s answers %q, want OK", p.ClusterIP, p.Answer)
		}
		return p.Waiting, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestScenarioInit is the main way: a fresh image without a network becomes a
// cluster, runs a pod, and is the same after a reboot.
func TestScenarioInit(t *testing.T) {
	logf("%s", initNode(t))
}

// booted is how long a machine took to become a node, from its start on.
type booted struct {
	version    string
	api, ready time.Duration
	root       int64 // bytes of the root file system
}

// String is a row of a table.
func (b booted) String() string {
	return fmt.Sprintf("| %s | %.1f s | %.1f s | %d MB |", b.version, b.api.Seconds(), b.ready.Seconds(), b.root/1e6)
}

func initNode(t *testing.T) booted {
	t.Helper()
	m := boot(t, Options{Name: "node1", UserData: userData(t, initDoc(t, ""))})
	begun := time.Now()
	waitTimes(t, m) // begins to look
	waitReady(t, m)
	times := waitTimes(t, m)
	image := imageOf(t)
	r := booted{image.Version, times.API.Sub(begun), times.Ready.Sub(begun), 0}
	if st, err := os.Stat(image.Root); err == nil {
		r.root = st.Size()
	}
	b := baked(t, m)
	coredns := corednsOf(t, b)
	waitPod(t, m, coredns)
	checkDisk(t, m)
	checkImages(t, m, b)

	before := ask[guest.Tree](t, m, guest.CmdTree, nil)
	first := ask[guest.Ping](t, m, guest.CmdPing, nil)
	ctx, cancel := context.WithTimeout(t.Context(), limit())
	defer cancel()
	if err := m.Reboot(ctx); err != nil {
		t.Fatal(err)
	}
	logf("%s: rebooted", m.Places().Dir)
	waitReady(t, m)
	if second := ask[guest.Ping](t, m, guest.CmdPing, nil); !second.Boot.After(first.Boot) {
		t.Fatalf("the machine did not reboot: it has been up since %s, before the reboot since %s", second.Boot, first.Boot)
	}
	waitPod(t, m, coredns)
	sameTree(t, before, ask[guest.Tree](t, m, guest.CmdTree, nil))
	checkImages(t, m, b)
	return r
}

// waitTimes asks the machine's stopwatch, which the first request starts.
func waitTimes(t *testing.T, m Machine) (times guest.Times) {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit(), errors.New("time is up"))
	defer cancel()
	err := Wait(ctx, m, logf, "the checker", func(ctx context.Context) (string, error) {
		return "", m.Ask(ctx, guest.CmdTimes, nil, &times)
	})
	if err != nil {
		t.Fatal(err)
	}
	return times
}

// sameTree fails for everything that a reboot changed.
func sameTree(t *testing.T, before, after guest.Tree) {
	t.Helper()
	if len(before) < 20 {
		t.Errorf("only %d things to compare: %v", len(before), slices.Sorted(maps.Keys(before)))
	}
	for _, k := range slices.Sorted(maps.Keys(before)) {
		if before[k] == "missing" {
			t.Errorf("%s is missing", k)
		}
		if after[k] != before[k] {
			t.Errorf("%s changed:\nbefore %q\nafter  %q", k, before[k], after[k])
		}
	}
	for _, k := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[k]; !ok {
			t.Errorf("%s is new after the reboot: %s", k, after[k])
		}
	}
}

// checkImages holds that the baked images are all there, pinned, and that no
// layer was written for them.
func checkImages(t *testing.T, m Machine, b images.Baked) {
	t.Helper()
	got := ask[guest.Images](t, m, guest.CmdImages, nil)
	pinned := map[string]bool{}
	for _, i := range got.Images {
		for _, tag := range i.Tags {
			pinned[tag] = i.Pinned
		}
	}
	for _, ref := range b.Images {
		if p, ok := pinned[ref]; !ok || !p {
			t.Errorf("image %s: known to the runtime: %v, pinned: %v", ref, ok, p)
		}
	}
	// Manifests and configurations are a few KiB each; a layer is megabytes.
	if got.ContentBytes > int64(len(b.Images))*64<<10 {
		t.Errorf("containerd's content store holds %d bytes for %d images: layers were written", got.ContentBytes, len(b.Images))
	}
	if got.Linked == 0 || got.LayerBytes > 1<<20 {
		t.Errorf("snapshots: %d linked, %d bytes written; want all linked, next to nothing written", got.Linked, got.LayerBytes)
	}
	logf("images: %d pinned, %d snapshots linked, %d bytes of blobs, %d bytes in snapshots", len(b.Images), got.Linked, got.ContentBytes, got.LayerBytes)
}

// checkDisk holds what must be so of the machine's disk: in the VM lane all of
// it, in the container lane what a container can see.
func checkDisk(t *testing.T, m Machine) {
	t.Helper()
	d := ask[guest.Disk](t, m, guest.CmdDisk, nil)
	if len(d.Routes) > 0 {
		t.Errorf("the machine has a default route: %v", d.Routes)
	}
	if !d.RootReadOnly || !strings.Contains(d.RootWrite, "read-only") {
		t.Errorf("the root can be written: mounted read-only: %v; writing: %q", d.RootReadOnly, d.RootWrite)
	}
	if Lane(*lane) != VM {
		return
	}
	if d.RootType != "erofs" || !d.Verity {
		t.Errorf("root is %s on %s, verity: %v; want erofs on dm-verity", d.RootType, d.RootSource, d.Verity)
	}
	if d.VarType != "ext4" {
		t.Errorf("/var is %s on %s, want ext4", d.VarType, d.VarSource)
	}
	parts := map[string]int64{}
	var used int64
	for _, p := range d.Partitions {
		parts[p.Label] = p.Bytes
		used += p.Bytes
	}
	slots := 0
	for _, p := range d.Partitions {
		// An empty slot of systemd-sysupdate's is labelled _empty.
		if p.Label == "_empty" || strings.HasPrefix(p.Label, "root-b") {
			slots++
		}
	}
	if slots != 2 {
		t.Errorf("slot B: %d partitions, want 2 (root and verity): %+v", slots, d.Partitions)
	}
	if spare := d.DiskBytes - used; spare > 16<<20 {
		t.Errorf("%d MiB of the disk belong to no partition: var has not grown: %+v", spare>>20, d.Partitions)
	}
	// ext4 keeps some per cent for itself.
	if v := parts["var"]; v == 0 || d.VarBytes < v*9/10 {
		t.Errorf("the file system on /var has %d MiB of a partition of %d MiB", d.VarBytes>>20, v>>20)
	}
}

// Names in progress lines and machines' directories must not be too long for
// sockets, wherever tests run.
func TestScratchFits(t *testing.T) {
	if n := len(filepath.Join(Scratch(), "node1-abcdef", "share", "checker.sock")); n > 107 {
		t.Errorf("%d bytes", n)
	}
}
