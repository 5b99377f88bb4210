package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	ctrimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

// runtime is a containerd that images have, or one like it.
type runtime struct {
	name   string
	bin    string
	config string // of the images that have it, in templates
	lacks  string // why it cannot be run; empty where it can
}

// debians is Debian's containerd: the one in PATH, or KBUILD_CONTAINERD.
func debians() runtime {
	r := runtime{name: "Debian's", bin: os.Getenv("KBUILD_CONTAINERD"), config: "config-1.toml"}
	if r.bin == "" {
		var err error
		if r.bin, err = exec.LookPath("containerd"); err != nil {
			r.lacks = "containerd is not installed"
		}
	}
	return r
}

// compiled is the containerd 2 that kbuild compiles: `make programs` links it.
func compiled() runtime {
	dir := os.Getenv("KBUILD_TEST_BIN")
	r := runtime{name: "compiled", bin: filepath.Join(dir, "containerd"), config: "config-2.toml"}
	if _, err := os.Stat(r.bin); dir == "" || err != nil {
		r.lacks = "KBUILD_TEST_BIN names no directory with a containerd"
	}
	return r
}

// eachRuntime runs a test against every containerd that images have.
func eachRuntime(t *testing.T, test func(t *testing.T, d *daemon)) {
	for _, r := range []runtime{debians(), compiled()} {
		t.Run(r.name, func(t *testing.T) { test(t, startContainerd(t, r)) })
	}
}

// daemon is a containerd of the test's own.
type daemon struct {
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

func startContainerd(t *testing.T, r runtime) *daemon {
	t.Helper()
	if os.Getuid() != 0 {
		needs(t, "containerd needs root")
	}
	dir, err := os.MkdirTemp("", "kbc") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, dir: dir}
	t.Cleanup(func() { d.stop(); os.RemoveAll(dir) })
	d.start(r)
	return d
}

// configure writes the image's configuration of the containerd r, with the
// daemon's own directories.
func (d *daemon) configure(r runtime) {
	d.t.Helper()
	b, err := os.ReadFile("../../templates/containerd/" + r.config)
	if err != nil {
		d.t.Fatal(err)
	}
	head, tables, ok := strings.Cut(string(b), "\n[")
	if !ok {
		d.t.Fatalf("%s has no tables", r.config)
	}
	write(d.t, d.dir+"/config.toml", fmt.Sprintf(`%s
root = %q
state = %q
disabled_plugins = ["io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
[grpc]
  address = %q
[%s`, head, d.dir+"/root", d.dir+"/state", d.dir+"/s", tables))
}

func needs(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func (d *daemon) start(r runtime) {
	d.t.Helper()
	if r.lacks != "" {
		needs(d.t, r.lacks)
	}
	d.configure(r)
	d.run(r.bin)
}

func (d *daemon) run(bin string) {
	d.t.Helper()
	log, err := os.OpenFile(d.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(bin, "--config", d.dir+"/config.toml")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	for {
		c, err := containerd.New(d.dir+"/s", containerd.WithTimeout(time.Second))
		if err == nil {
			ok, _ := c.IsServing(ctx)
			c.Close()
			if ok {
				return
			}
		}
		if ctx.Err() != nil {
			b, _ := os.ReadFile(d.dir + "/log")
			d.t.Fatalf("containerd does not answer:\n%s", b)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (d *daemon) stop() {
	if d.cmd != nil && d.cmd.Process != nil {
		d.cmd.Process.Signal(syscall.SIGTERM)
		d.cmd.Wait()
	}
}

func (d *daemon) restart() {
	d.stop()
	d.run(d.cmd.Path)
}

func (d *daemon) client() (*containerd.Client, context.Context) {
	c, err := containerd.New(d.dir + "/s")
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c, namespaces.WithNamespace(d.t.Context(), "k8s.io")
}

// wipe forgets every image and collects the garbage.
func (d *daemon) wipe() {
	c, ctx := d.client()
	leases, err := c.LeasesService().List(ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, l := range leases {
		if err := c.LeasesService().Delete(ctx, l); err != nil {
			d.t.Fatal(err)
		}
	}
	list, err := c.ImageService().List(ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	for i, img := range list {
		var opts []ctrimages.DeleteOpt
		if i == len(list)-1 {
			opts = append(opts, ctrimages.SynchronousDelete())
		}
		if err := c.ImageService().Delete(ctx, img.Name, opts...); err != nil {
			d.t.Fatal(err)
		}
	}
}

// layered is a store with a pause image, and one of three layers and one more
// that comes twice, in which upper layers hide what lower ones hold.
func layered(t *testing.T) *storeWriter {
	w := newStore(t)
	w.image([]digest.Digest{w.layer("pause", func(d string) { write(t, d+"/pause", "x") })}, "k8s.gcr.io/pause:3.2")
	low := w.layer("low", func(d string) {
		write(t, d+"/etc/keep", "low")
		write(t, d+"/etc/hidden", "low")
		write(t, d+"/dir/old", "low")
	})
	mid := w.layer("mid", func(d string) {
		write(t, d+"/etc/own", "mid")
		if err := unix.Mknod(d+"/etc/hidden", unix.S_IFCHR, 0); err != nil {
			t.Fatal(err)
		}
		write(t, d+"/dir/new", "mid")
		if err := unix.Setxattr(d+"/dir", "trusted.overlay.opaque", []byte("y"), 0); err != nil {
			t.Fatal(err)
		}
	})
	top := w.layer("top", func(d string) { write(t, d+"/etc/keep", "top") })
	w.image([]digest.Digest{low, mid, top, low}, "k8s.gcr.io/etcd:3.4.13-0", "registry.k8s.io/etcd:3.4.13-0")
	return w
}

func testHandover(t *testing.T, d *daemon, w *storeWriter) Handover {
	t.Helper()
	rel, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	h := slash(t)
	h.Log = slog.New(slog.DiscardHandler)
	return Handover{host: h, release: rel, socket: d.dir + "/s", store: w.dir, snapshotter: "overlayfs"}
}

// settle does the step once, and waits as the runner does.
func settle(t *testing.T, o Handover) {
	t.Helper()
	if err := o.Hand(t.Context()); err != nil {
		t.Fatal(err)
	}
	holds(t, o)
}

func holds(t *testing.T, o Handover) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		done, err := o.Done(t.Context())
		if wait, ok := errors.AsType[outcome.Retry](err); ok && time.Now().Before(end) {
			time.Sleep(wait.After)
			continue
		}
		if !done || err != nil {
			t.Fatalf("does not hold: %v, %v", done, err)
		}
		return
	}
}

func lacks(t *testing.T, o Handover, why string) {
	t.Helper()
	if done, err := o.Done(t.Context()); done || err != nil {
		t.Fatalf("%s: done is %v, %v; want false", why, done, err)
	}
}

// contents lists the files below a mounted chain.
func contents(t *testing.T, d *daemon, chain string) map[string]string {
	t.Helper()
	c, ctx := d.client()
	sn := c.SnapshotService("overlayfs")
	mounts, err := sn.View(ctx, "test-view", chain)
	if err != nil {
		t.Fatal(err)
	}
	defer sn.Remove(ctx, "test-view")
	files := map[string]string{}
	err = mount.WithReadonlyTempMount(ctx, mounts, func(root string) error {
		return filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			b, err := os.ReadFile(p)
			files[strings.TrimPrefix(p, root)] = string(b)
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// holdings is what containerd holds, for comparison.
func holdings(t *testing.T, d *daemon) map[string]string {
	t.Helper()
	c, ctx := d.client()
	inv := map[string]string{}
	list, err := c.ImageService().List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list {
		inv["image "+i.Name] = fmt.Sprint(i.Target.Digest, i.Labels)
	}
	err = c.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		link := i.Labels[labelLink]
		to, _ := os.Readlink(link)
		inv["snapshot "+i.Name] = fmt.Sprint(i.Kind, i.Parent, to)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestImages(t *testing.T) { eachRuntime(t, handsOver) }

func handsOver(t *testing.T, d *daemon) {
	// What containerd takes from its configuration, without what it does not know.
	if b, err := exec.Command(d.cmd.Path, "--config", d.dir+"/config.toml", "config", "dump").Output(); err != nil || !strings.Contains(string(b), SandboxImage) {
		t.Errorf("the sandbox's image is not %s: %v\n%s", SandboxImage, err, b)
	}
	w := layered(t)
	o := testHandover(t, d, w)
	lacks(t, o, "an empty containerd")
	settle(t, o)

	list, err := o.want()
	if err != nil {
		t.Fatal(err)
	}
	etcd := list[1]
	want := map[string]string{"/etc/keep": "low", "/etc/hidden": "low", "/etc/own": "mid", "/dir/new": "mid", "/dir/old": "low"}
	if got := contents(t, d, etcd.chain()); !maps.Equal(got, want) {
		t.Errorf("four layers hold %v, want %v", got, want)
	}
	want = map[string]string{"/etc/keep": "top", "/etc/own": "mid", "/dir/new": "mid"}
	if got := contents(t, d, etcd.layers[2].chain.String()); !maps.Equal(got, want) {
		t.Errorf("three layers hold %v, want %v: whiteouts and opaque directories must hide", got, want)
	}
	c, ctx := d.client()
	img, err := c.GetImage(ctx, "registry.k8s.io/etcd:3.4.13-0")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := img.IsUnpacked(ctx, "overlayfs"); !ok || err != nil {
		t.Errorf("unpacked: %v, %v", ok, err)
	}
	if n := copied(t, d); n > 3 { // the layer that comes twice has three files
		t.Errorf("%d files of layers were written", n)
	}

	t.Run("as the kubelet sees it", func(t *testing.T) { seenByKubelet(t, o, list) })
	t.Run("survives", func(t *testing.T) {
		before := holdings(t, d)
		// A deletion that waits for the garbage collection shows what it spares.
		if _, err := c.ImageService().Create(ctx, ctrimages.Image{Name: "example.org/other:1", Target: list[0].manifest.Descriptor, Labels: map[string]string{"io.cri-containerd.image": "managed"}}); err != nil {
			t.Fatal(err)
		}
		if err := c.ImageService().Delete(ctx, "example.org/other:1", ctrimages.SynchronousDelete()); err != nil {
			t.Fatal(err)
		}
		d.restart()
		holds(t, o)
		if after := holdings(t, d); !maps.Equal(before, after) {
			t.Errorf("before %v\nafter %v", before, after)
		}
		seenByKubelet(t, o, list)
	})
	t.Run("heals", func(t *testing.T) { heals(t, d, o, etcd) })
	t.Run("forgets", func(t *testing.T) {
		c, ctx := d.client()
		if _, err := c.ImageService().Create(ctx, ctrimages.Image{Name: "example.org/mine:1", Target: list[0].manifest.Descriptor}); err != nil {
			t.Fatal(err)
		}
		w.forget("k8s.gcr.io/etcd:3.4.13-0")
		w.forget("registry.k8s.io/etcd:3.4.13-0")
		lacks(t, o, "a record that the store does not name")
		settle(t, o)
		var names []string
		for k := range holdings(t, d) {
			if name, ok := strings.CutPrefix(k, "image "); ok && !strings.HasPrefix(name, "sha256:") {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		if want := []string{"example.org/mine:1", "k8s.gcr.io/pause:3.2", SandboxImage}; !slices.Equal(names, want) {
			t.Errorf("images %q, want %q", names, want)
		}
		if _, err := os.Stat(etcd.layers[0].dir); err != nil {
			t.Errorf("the baked layer must stay: %v", err)
		}
	})
}

// seenByKubelet asks the CRI for what kubelet and kubeadm ask: that the images are
// there and not to be collected, and what makes cgroups.
func seenByKubelet(t *testing.T, o Handover, want []bakedImage) {
	c, err := o.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rt := cri.NewRuntimeServiceClient(c.conn)
	version, err := rt.Version(t.Context(), &cri.VersionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("containerd %s", version.RuntimeVersion)
	for _, img := range want {
		for _, ref := range img.refs {
			resp, err := cri.NewImageServiceClient(c.conn).ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: ref}})
			if err != nil {
				t.Fatal(err)
			}
			if got := resp.GetImage(); got.GetId() != img.config.Digest.String() {
				t.Errorf("%s has ID %q, want %s", ref, got.GetId(), img.config.Digest)
			} else if !got.Pinned && !strings.HasPrefix(version.RuntimeVersion, "1.6.") { // it does not know that
				t.Errorf("%s is not pinned", ref)
			}
		}
	}
	status, err := rt.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := rt.RuntimeConfig(t.Context(), &cri.RuntimeConfigRequest{})
	if status.RuntimeHandlers == nil && grpcstatus.Code(err) == codes.Unimplemented {
		return // containerd 1
	}
	if err != nil || config.GetLinux().GetCgroupDriver() != cri.CgroupDriver_SYSTEMD {
		t.Errorf("the cgroup driver is %v, %v", config, err)
	}
}

// An upgrade brings another containerd, and a rollback the one before: each finds
// what the other was given, on the same disk, or has it given again.
func TestImagesOtherRuntime(t *testing.T) {
	old, next := debians(), compiled()
	d := startContainerd(t, old)
	o := testHandover(t, d, layered(t))
	settle(t, o)
	want := holdings(t, d)
	for _, r := range []runtime{next, old, next} {
		d.stop()
		d.start(r)
		settle(t, o)
		if got := holdings(t, d); !maps.Equal(got, want) {
			t.Errorf("%s:\ngot %v\nwant %v", r.name, got, want)
		}
		if n := copied(t, d); n > 3 {
			t.Errorf("%s: %d files of layers were written", r.name, n)
		}
	}
}

// heals harms what was handed over, in each way, and expects it to be put back.
func heals(t *testing.T, d *daemon, o Handover, etcd bakedImage) {
	c, ctx := d.client()
	sn := c.SnapshotService("overlayfs")
	// What earlier tests have left, layers on top of these among it, goes first.
	lease, err := c.LeasesService().Create(ctx, leases.WithRandomID())
	if err == nil {
		err = c.LeasesService().Delete(ctx, lease, leases.SynchronousDelete) // it collects garbage
	}
	if err != nil {
		t.Fatal(err)
	}
	before := holdings(t, d)
	// link is where containerd keeps the second layer; what was collected and
	// made again lies elsewhere.
	link := func() string {
		info, err := sn.Stat(ctx, etcd.layers[1].chain.String())
		if err != nil {
			t.Fatal(err)
		}
		return info.Labels[labelLink]
	}
	for name, harm := range map[string]func() error{
		"image record": func() error { return c.ImageService().Delete(ctx, etcd.refs[0]) },
		"label": func() error {
			_, err := c.ImageService().Update(ctx, ctrimages.Image{Name: etcd.refs[0], Labels: map[string]string{"io.cri-containerd.pinned": ""}}, "labels.io.cri-containerd.pinned")
			return err
		},
		"other image of that name": func() error {
			list, err := o.want()
			if err != nil {
				return err
			}
			_, err = c.ImageService().Update(ctx, ctrimages.Image{Name: etcd.refs[0], Target: list[0].manifest.Descriptor}, "target")
			return err
		},
		"config blob": func() error { return c.ContentStore().Delete(ctx, etcd.config.Digest) },
		"top snapshot": func() error {
			// A view of it that the step has removed may still be on its way out.
			for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
				err := sn.Remove(ctx, etcd.chain())
				if !errdefs.IsFailedPrecondition(err) || time.Now().After(end) {
					return err
				}
			}
		},
		"link":             func() error { return os.Remove(link()) },
		"link to nowhere":  func() error { return errors.Join(os.Remove(link()), os.Symlink("/nowhere", link())) },
		"link a directory": func() error { return errors.Join(os.Remove(link()), os.Mkdir(link(), 0o755)) },
	} {
		if err := harm(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		lacks(t, o, name)
		settle(t, o)
		if after := holdings(t, d); !maps.Equal(before, after) {
			t.Errorf("%s:\nbefore %v\nafter %v", name, before, after)
		}
	}
}

// The power may go at any change: the next boot ends where an uninterrupted
// one does.
func TestImagesCrash(t *testing.T) { eachRuntime(t, handsOverAfterCrash) }

func handsOverAfterCrash(t *testing.T, d *daemon) {
	o := testHandover(t, d, layered(t))
	n := 0
	o.host.Effect = func(string) error { n++; return nil }
	settle(t, o)
	want := holdings(t, d)
	cut := errors.New("power cut")
	for k := range n {
		d.wipe()
		i := 0
		o.host.Effect = func(string) error {
			if i++; i > k {
				return cut
			}
			return nil
		}
		if err := o.Hand(t.Context()); !errors.Is(err, cut) {
			t.Fatalf("cut at %d: error %v", k, err)
		}
		o.host.Effect = nil
		settle(t, o)
		if got := holdings(t, d); !maps.Equal(got, want) {
			t.Errorf("cut at change %d of %d:\ngot %v\nwant %v", k+1, n, got, want)
		}
	}
}

// Where links do not work the layers are copied, and the images are the same.
func TestImagesCopied(t *testing.T) { eachRuntime(t, handsOverCopies) }

func handsOverCopies(t *testing.T, d *daemon) {
	o := testHandover(t, d, layered(t))
	c, err := o.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	want, err := o.want()
	if err != nil {
		t.Fatal(err)
	}
	have, err := c.have(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, release, err := c.client.WithLease(namespaces.WithNamespace(t.Context(), "k8s.io"))
	if err != nil {
		t.Fatal(err)
	}
	defer release(ctx)
	if err := c.makeCopies(ctx, c.compare(want, have)); err != nil {
		t.Fatal(err)
	}
	holds(t, o)
	files := map[string]string{"/etc/keep": "top", "/etc/own": "mid", "/dir/new": "mid"}
	if got := contents(t, d, want[1].layers[2].chain.String()); !maps.Equal(got, files) {
		t.Errorf("three layers hold %v, want %v", got, files)
	}
}

// While containerd is not there the step waits, and wakes when it comes.
func TestImagesWaits(t *testing.T) {
	w := layered(t)
	dir := t.TempDir()
	o := testHandover(t, &daemon{dir: dir}, w)
	done, err := o.Done(t.Context())
	wait, ok := errors.AsType[outcome.Retry](err)
	if done || !ok || !strings.Contains(wait.Why, "containerd's socket") {
		t.Fatalf("done %v, error %v", done, err)
	}
	woken := make(chan struct{})
	go func() { wait.Wake(t.Context()); close(woken) }()
	for {
		write(t, dir+"/s", "")
		select {
		case <-woken:
			return
		case <-time.After(10 * time.Millisecond):
			os.Remove(dir + "/s")
		}
	}
}

// copied counts the regular files that lie in snapshots' own directories.
func copied(t *testing.T, d *daemon) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(d.dir+"/root/io.containerd.snapshotter.v1.overlayfs/snapshots", func(_ string, e os.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a view that containerd removes meanwhile
		}
		if err == nil && e.Type().IsRegular() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
