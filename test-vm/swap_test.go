package testvm

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/test-vm/guest"
)

// slots is what `kbuild-firstboot upgrade status -o json` says.
type slots struct {
	Running struct {
		Slot, Version, RootHash string
		OnTrial                 bool
	}
	Other struct {
		Slot, State, Version string
	}
	Update struct {
		Outcome  string
		Failures []struct{ Reason string }
	}
}

func (s slots) String() string {
	b, _ := json.Marshal(s)
	return string(b)
}

// upgrader is a machine with real slots, and the server that its updates come
// from.
type upgrader struct {
	Machine
	t   *testing.T
	web *updates
}

// swapper boots the image of KBUILD_IMAGE in a VM that reaches the updates: that
// of KBUILD_OTHER_IMAGE as "next", and those in KBUILD_SWAP_IMAGES by name.
func swapper(t *testing.T, o Options, names ...string) *upgrader {
	t.Helper()
	if Lane(*lane) != VM {
		t.Skip("this scenario is the VM lane's: a container has no slots")
	}
	dirs := map[string]string{"next": otherImage(t).Dir}
	for _, name := range names {
		dirs[name] = swapImage(t, name).Dir
	}
	web := serveUpdates(t, dirs)
	o.Name, o.Serve = "node1", web.addr
	o.UserData = userData(t, initDoc(t, ""))
	u := &upgrader{boot(t, o), t, web}
	waitReady(t, u)
	return u
}

// swapImage opens an image of the next minor version by its name in the
// directory KBUILD_SWAP_IMAGES; `make swap-images` says what each is.
func swapImage(t *testing.T, name string) Image {
	t.Helper()
	dir := os.Getenv("KBUILD_SWAP_IMAGES")
	if dir == "" {
		t.Skip("KBUILD_SWAP_IMAGES is not set: want the directory that `make swap-images` writes")
	}
	image, err := OpenImage(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// updates serves images' output directories, each by its name. Spoil, when it
// is set, may answer a request in another way.
type updates struct {
	addr string
	mu   sync.Mutex
	// spoil says that it has answered a request.
	spoil func(w http.ResponseWriter, r *http.Request) bool
}

func serveUpdates(t *testing.T, dirs map[string]string) *updates {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &updates{addr: l.Addr().String()}
	mux := http.NewServeMux()
	for name, dir := range dirs {
		files := http.StripPrefix("/"+name+"/", http.FileServer(http.Dir(dir)))
		mux.HandleFunc("/"+name+"/", func(w http.ResponseWriter, r *http.Request) {
			u.mu.Lock()
			spoil := u.spoil
			u.mu.Unlock()
			logf("asked for %s %s", r.URL.Path, r.Header.Get("Range"))
			if spoil == nil || !spoil(w, r) {
				files.ServeHTTP(w, r)
			}
		})
	}
	srv := &http.Server{Handler: mux}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return u
}

func (u *updates) set(spoil func(w http.ResponseWriter, r *http.Request) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.spoil = spoil
}

// instead answers with other contents of files, by name.
func instead(files map[string][]byte) func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		b, ok := files[filepath.Base(r.URL.Path)]
		if ok {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
		}
		return ok
	}
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signed are the files that say what an update is, signed by the key that the
// images know.
func signed(t *testing.T, u images.Update) map[string][]byte {
	t.Helper()
	b, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(read(t, os.Getenv("KBUILD_SWAP_IMAGES"), "update.key"))
	if block == nil {
		t.Fatal("update.key holds no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sums := fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(b), images.UpdateFile)
	return map[string][]byte{images.UpdateFile: b, images.UpdateSums: sums, images.UpdateSignature: ed25519.Sign(key.(ed25519.PrivateKey), sums)}
}

// url is where a machine finds an update.
func url(name string) string {
	return "http://" + strings.TrimSuffix(ServedAt, ":80") + "/" + name + "/"
}

func (u *upgrader) slots(ctx context.Context) (slots, error) {
	var s slots
	out, err := Sh(ctx, u.Machine, "kbuild-firstboot upgrade status -o json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	return s, err
}

// waitSlots waits until the slots stand as want says.
func (u *upgrader) waitSlots(what string, want func(slots) bool) slots {
	u.t.Helper()
	ctx, cancel := context.WithTimeoutCause(u.t.Context(), 2*limit(), errors.New("time is up"))
	defer cancel()
	var s slots
	err := Wait(ctx, u, logf, what, func(ctx context.Context) (string, error) {
		var err error
		if s, err = u.slots(ctx); err != nil || want(s) {
			return "", err
		}
		last, _ := Sh(ctx, u.Machine, "journalctl --no-pager --output=cat --lines=1 --identifier=kbuild-firstboot")
		return s.String() + " " + strings.TrimSpace(last), nil
	})
	if err != nil {
		u.t.Fatal(err)
	}
	return s
}

// stage stages an update, and returns what the command said and its status.
func (u *upgrader) stage(source string) (string, int) {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), limit())
	defer cancel()
	sh(u.t, u, "rm -f /run/staged; systemctl reset-failed stage.service 2>/dev/null; systemd-run --quiet --unit=stage sh -c 'kbuild-firstboot upgrade stage "+source+" >/run/stage.log 2>&1; echo $? >/run/staged'")
	err := Wait(ctx, u, logf, "the update to be staged", func(ctx context.Context) (string, error) {
		out, err := Sh(ctx, u.Machine, "tail -n1 /run/stage.log; test -s /run/staged")
		if err != nil {
			return strings.TrimSpace(out) + err.Error(), nil
		}
		return "", nil
	})
	if err != nil {
		u.t.Fatal(err)
	}
	out := sh(u.t, u, "cat /run/staged /run/stage.log")
	code, said, _ := strings.Cut(out, "\n")
	logf("staged %s: %s: %s", source, code, said)
	return said, int(code[0] - '0')
}

// slotBytes are the bytes written so far to the ESP and to the partitions of slot
// B, as the kernel counts them.
func (u *upgrader) slotBytes() int64 {
	u.t.Helper()
	// The seventh field is sectors written (Documentation/block/stat.rst).
	out := sh(u.t, u, "d=$(basename $(readlink -f /dev/kbuild/esp) 1); cat /sys/class/block/${d}1/stat /sys/class/block/${d}4/stat /sys/class/block/${d}5/stat | awk '{n += $7} END {printf \"%d\", n}'")
	n, err := strconv.ParseInt(out, 10, 64)
	if err != nil {
		u.t.Fatal(err)
	}
	return n * 512
}

// apply boots what is staged.
func (u *upgrader) apply(command string) {
	u.t.Helper()
	sh(u.t, u, "kbuild-firstboot upgrade "+command+" --no-reboot")
	ctx, cancel := context.WithTimeout(u.t.Context(), limit())
	defer cancel()
	if err := u.Reboot(ctx); err != nil {
		u.t.Fatal(err)
	}
}

// TestScenarioSwap is an upgrade of a single control plane with real slots,
// verity and the boot loader's counters: refused where it must be, cut in the
// middle, tried, kept, and gone back from by hand.
func TestScenarioSwap(t *testing.T) {
	u := swapper(t, Options{})
	old, next := imageOf(t), otherImage(t)
	if s := u.waitSlots("one slot", func(s slots) bool { return s.Other.State == "empty" }); s.Running.Slot != "a" || s.Running.OnTrial {
		t.Errorf("a fresh machine: %s", s)
	}
	waitSh(t, u, "a ConfigMap", configMap("of-"+old.Version, "--from-literal=a=b"))

	refused := func(want string, files map[string][]byte) {
		t.Helper()
		u.web.set(instead(files))
		if said, code := u.stage(url("next")); code != 4 || !strings.Contains(said, want) {
			t.Errorf("want %q: %d: %s", want, code, said)
		}
		if s, err := u.slots(t.Context()); err != nil || s.Other.State != "empty" {
			t.Errorf("after the refusal: %s, %v", s, err)
		}
	}
	sums := read(t, next.Dir, images.UpdateSums)
	refused("changed after it was signed", map[string][]byte{images.UpdateSums: append(sums, "# changed\n"...)})
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	refused("a key that this node's image does not know", map[string][]byte{images.UpdateSignature: ed25519.Sign(stranger, sums)})
	huge, err := images.ReadUpdate(read(t, next.Dir, images.UpdateFile))
	if err != nil {
		t.Fatal(err)
	}
	rootFile, size := huge.Root.Name, huge.Root.Size+huge.Verity.Size+huge.UKI.Size
	root := read(t, next.Dir, rootFile)
	huge.Root.Size = 1 << 40
	refused("and its partition", signed(t, huge))
	sh(t, u, "systemctl start efi.mount && ! head -c 2G /dev/zero >/efi/fill")
	refused("has room for 0 MiB", nil)
	sh(t, u, "rm /efi/fill")

	u.web.set(instead(map[string][]byte{rootFile: root[:1<<20]}))
	if said, code := u.stage(url("next")); code == 0 {
		t.Errorf("a truncated file: %d: %s", code, said)
	}
	if s, err := u.slots(t.Context()); err != nil || s.Other.State == "staged" || s.Running.Slot != "a" {
		t.Errorf("after a truncated file: %s, %v", s, err)
	}
	var broken sync.Once
	u.web.set(func(w http.ResponseWriter, r *http.Request) bool {
		done := false
		if filepath.Base(r.URL.Path) == rootFile {
			broken.Do(func() {
				w.Header().Set("Content-Length", "1000000000")
				w.Write(root[:50<<20])
				done = true
			})
			if done {
				panic(http.ErrAbortHandler)
			}
		}
		return done
	})
	begun, before := time.Now(), u.slotBytes()
	if said, code := u.stage(url("next")); code != 0 || !strings.Contains(said, "asking again") {
		t.Fatalf("an update: %d: %s", code, said)
	}
	sh(t, u, "sync")
	written := u.slotBytes() - before
	logf("staged in %s: %d bytes written to the slot and the ESP for %d bytes of files, %.3f", time.Since(begun).Round(time.Second), written, size, float64(written)/float64(size))
	if float64(written) > 1.05*float64(size) {
		t.Errorf("%d bytes written for an update of %d bytes", written, size)
	}

	u.apply("apply")
	s := u.waitSlots("the new slot to be kept", func(s slots) bool { return s.Running.Slot == "b" && !s.Running.OnTrial })
	if s.Running.Version != next.Version || s.Other.State != "old" || s.Update.Outcome != "kept" {
		t.Errorf("after the swap: %s", s)
	}
	waitReady(t, u)
	checkVersion(t, u, next.Version)
	checkImages(t, u, baked(t, u))
	sh(t, u, adminKubectl+"get configmap of-"+old.Version)
	waitSh(t, u, "a ConfigMap", configMap("of-"+next.Version, "--from-literal=a=b"))
	d := ask[guest.Disk](t, u, guest.CmdDisk, nil)
	if !d.Verity || !d.RootReadOnly {
		t.Errorf("the new slot is not verified: %+v", d)
	}

	u.apply("rollback")
	s = u.waitSlots("the old slot", func(s slots) bool { return s.Running.Slot == "a" })
	if s.Running.Version != old.Version || s.Running.OnTrial || s.Other.State != "bad" || s.Update.Outcome != "rolled back" {
		t.Errorf("after the roll-back: %s", s)
	}
	waitReady(t, u)
	checkVersion(t, u, old.Version)
	sh(t, u, adminKubectl+"get configmap of-"+old.Version+" of-"+next.Version)
}

// TestScenarioSwapDamaged: a bit of the new root is flipped after it was
// checked. The kernel stops each boot of it, and after three the old slot runs,
// the node as it was.
func TestScenarioSwapDamaged(t *testing.T) {
	u := swapper(t, Options{})
	old, next := imageOf(t), otherImage(t)
	waitSh(t, u, "a ConfigMap", configMap("of-"+old.Version, "--from-literal=a=b"))
	if said, code := u.stage(url("next")); code != 0 {
		t.Fatalf("an update: %d: %s", code, said)
	}
	// The superblock of the file system is read by every boot.
	sh(t, u, "b=$(readlink -f /dev/kbuild/esp | sed 's/1$/4/') && test -b $b && printf X | dd of=$b bs=1 seek=1032 conv=notrunc,fsync status=none")
	u.apply("apply")
	s := u.waitSlots("the old slot", func(s slots) bool {
		if s.Running.Slot == "b" {
			t.Fatalf("the damaged slot has booted: %s", s)
		}
		return s.Other.State == "bad"
	})
	waitReady(t, u)
	if s = u.waitSlots("the outcome", func(s slots) bool { return s.Update.Outcome != "" }); s.Update.Outcome != "fell back" || s.Other.Version != next.Version {
		t.Errorf("after the fallback: %s", s)
	}
	checkFallback(t, u, 1, "kernel panic")
	checkVersion(t, u, old.Version)
	sh(t, u, adminKubectl+"get configmap of-"+old.Version)
}

// checkFallback holds that the cluster was told why a node fell back, the n-th
// time.
func checkFallback(t *testing.T, m Machine, n int, why string) {
	t.Helper()
	waitSh(t, m, "the Event", adminKubectl+"get events --field-selector=reason=UpgradeFellBack,involvedObject.kind=Node --sort-by=.metadata.creationTimestamp"+
		" --output=jsonpath='{range .items[*]}{.message}{\"\\n\"}{end}' | sed -n "+strconv.Itoa(n)+"p | grep -F '"+why+"'")
	sh(t, m, "test \"$("+adminKubectl+"get node node1 --output=jsonpath={.spec.unschedulable})\" != true")
}

// TestScenarioSwapUnhealthy: the new image cannot become healthy, each time for
// another reason. The boots that it has are given up, and the old slot runs as
// it was, uncordoned, and says why.
func TestScenarioSwapUnhealthy(t *testing.T) {
	// Before kubelet and containerd of a new image start, scripts of the scenario's
	// run.
	script := map[string]string{}
	for _, unit := range []string{"kubelet", "containerd"} {
		script["systemd.unit-dropin."+unit+".service~sabotage"] = "[Service]\nExecStartPre=/bin/sh -c 'grep -q v1.19 /usr/share/kbuild/release.json || ! test -e /var/lib/kbuild/sabotage-" +
			unit + " || . /var/lib/kbuild/sabotage-" + unit + "'\n"
	}
	u := swapper(t, Options{Credentials: script, Watchdog: true}, "panic", "initrd", "hasty", "flag", "unhealthy")
	old := imageOf(t)
	waitSh(t, u, "a ConfigMap", configMap("of-"+old.Version, "--from-literal=a=b"))
	fallbacks := 0
	for _, c := range []struct {
		name, image string
		prepare     string // run before the swap
		failures    int    // that the boots could tell of
		why         string // what the Event says
	}{
		{"Panic", "panic", "true", 0, "kernel panic"},
		{"Initrd", "initrd", "true", 0, "an initrd that failed"},
		{"Flag", "flag", "true", 1, "unknown flag: --no-such-flag"},
		{"Kubelet", "hasty", "echo 'echo no kubelet today >&2; exit 1' >/var/lib/kbuild/sabotage-kubelet", 1, "kubelet.service has ended: no kubelet today"},
		// With PID 1 frozen nothing in the machine can end the boot.
		{"Hang", "hasty", "echo 'echo 1 >/sys/fs/cgroup/init.scope/cgroup.freeze; sleep infinity' >/var/lib/kbuild/sabotage-kubelet", 0, "a hang"},
		// A runtime that finds no network keeps a node from being Ready.
		{"NotReady", "unhealthy", "rm -f /var/lib/kbuild/sabotage-kubelet; echo 'sed s,/etc/cni/net.d,/run/nowhere, /etc/containerd/config.toml >/run/containerd.toml && mount --bind /run/containerd.toml /etc/containerd/config.toml' >/var/lib/kbuild/sabotage-containerd",
			1, "is not Ready"},
		{"Check", "unhealthy", "rm -f /var/lib/kbuild/sabotage-*; printf '#!/bin/sh\\ngrep -q v1.19 /usr/share/kbuild/release.json || { echo the site is not served; exit 1; }\\n' >/var/lib/kbuild/checks.d/site && chmod +x /var/lib/kbuild/checks.d/site",
			1, "the site is not served"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u.t = t
			sh(t, u, c.prepare)
			if said, code := u.stage(url(c.image)); code != 0 {
				t.Fatalf("an update: %d: %s", code, said)
			}
			sh(t, u, adminKubectl+"annotate node node1 --overwrite kbuild.dev/cordoned=now && "+adminKubectl+"cordon node1")
			begun := time.Now()
			u.apply("apply")
			u.waitSlots("the old slot", func(s slots) bool { return s.Running.Slot == "a" && s.Other.State == "bad" })
			waitReady(t, u)
			logf("%s: Ready on the old slot after %s", c.name, time.Since(begun).Round(time.Second))
			s := u.waitSlots("the outcome", func(s slots) bool { return s.Update.Outcome != "" })
			if s.Update.Outcome != "fell back" || len(s.Update.Failures) != c.failures {
				t.Errorf("after the fallback: %s", s)
			}
			fallbacks++
			checkFallback(t, u, fallbacks, c.why)
			checkVersion(t, u, old.Version)
			sh(t, u, adminKubectl+"get configmap of-"+old.Version)
		})
	}
}

// TestScenarioSwapCut cuts the power at random instants of staging, of the swap
// and of the first boot of the new slot, at least CUTS times (20), and two of
// three boots that follow a cut again: in the end the node is Ready on the old
// image or on the new one, and what was written to the cluster is there. It goes
// from one image of the next version to another and back, after the first.
func TestScenarioSwapCut(t *testing.T) {
	cuts := 20
	if v := os.Getenv("CUTS"); v != "" {
		var err error
		if cuts, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	u := swapper(t, Options{}, "again")
	seed := time.Now().UnixNano()
	if v := os.Getenv("SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseInt(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	logf("SEED=%d", seed)
	hashes := map[string]string{}
	for name, dir := range map[string]string{"next": otherImage(t).Dir, "again": swapImage(t, "again").Dir} {
		b, err := os.ReadFile(filepath.Join(dir, "root.roothash"))
		if err != nil {
			t.Fatal(err)
		}
		hashes[name] = strings.TrimSpace(string(b))
	}
	known := map[string]bool{imageOf(t).Version: true, otherImage(t).Version: true}
	// What a whole swap takes, and a boot.
	const whole, boot = 4 * time.Minute, 90 * time.Second
	cut := func(within time.Duration) {
		after := time.Duration(random.Int64N(int64(within)))
		logf("cut after %s", after.Round(time.Millisecond))
		select {
		case <-time.After(after):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
		if err := errors.Join(u.PowerCut(), u.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	var written []string
	for i, n := 0, 0; n < cuts; i++ {
		name := fmt.Sprintf("cut-%d", i)
		waitSh(t, u, "a ConfigMap", configMap(name, "--from-literal=a=b"))
		written = append(written, name)
		to := "next"
		if s := u.waitSlots("no trial", func(s slots) bool { return !s.Running.OnTrial }); s.Running.RootHash == hashes["next"] {
			to = "again"
		}
		logf("%s: swap to %s", name, to)
		sh(t, u, "systemd-run --quiet --collect sh -c 'kbuild-firstboot upgrade stage "+url(to)+" && kbuild-firstboot upgrade apply'")
		cut(whole)
		for n++; random.IntN(3) > 0; n++ {
			cut(boot)
		}
		// What the list's last steps hold, and what the cluster says; pods may take
		// another minute.
		waitSh(t, u, "Ready", "systemctl is-active --quiet kbuild-firstboot.service && "+adminKubectl+"wait --for=condition=Ready --timeout=5s node node1")
		s := u.waitSlots("the slots", func(s slots) bool { return true })
		logf("%s: %d cuts, Ready: %s", name, n, s)
		if !known[s.Running.Version] {
			t.Errorf("%s: it runs %s", name, s)
		}
		sh(t, u, adminKubectl+"get configmap "+strings.Join(written, " "))
	}
}
