package testvm

import (
	"context"
	"encoding/json"
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

// swapper boots the image of KBUILD_IMAGE in a VM that reaches the updates.
func swapper(t *testing.T, o Options, bad ...Image) *upgrader {
	t.Helper()
	if Lane(*lane) != VM {
		t.Skip("this scenario is the VM lane's: a container has no slots")
	}
	dirs := map[string]string{"next": otherImage(t).Dir}
	for _, i := range bad {
		dirs["bad"] = i.Dir
	}
	web := serveUpdates(t, dirs)
	o.Name, o.Serve = "node1", web.addr
	o.UserData = userData(initDoc(t, ""))
	u := &upgrader{boot(t, o), t, web}
	waitReady(t, u)
	return u
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

	u.web.set(func(w http.ResponseWriter, r *http.Request) bool {
		if filepath.Base(r.URL.Path) != images.UpdateSums {
			return false
		}
		b, _ := os.ReadFile(filepath.Join(next.Dir, images.UpdateSums))
		w.Write(append(b, "# changed\n"...))
		return true
	})
	if said, code := u.stage(url("next")); code != 4 || !strings.Contains(said, "changed after it was signed") {
		t.Errorf("a forged update: %d: %s", code, said)
	}
	var broken sync.Once
	u.web.set(func(w http.ResponseWriter, r *http.Request) bool {
		done := false
		if filepath.Base(r.URL.Path) == images.UpdateRoot {
			broken.Do(func() {
				b, _ := os.ReadFile(filepath.Join(next.Dir, images.UpdateRoot))
				w.Header().Set("Content-Length", "1000000000")
				w.Write(b[:50<<20])
				done = true
			})
			if done {
				panic(http.ErrAbortHandler)
			}
		}
		return done
	})
	begun := time.Now()
	if said, code := u.stage(url("next")); code != 0 || !strings.Contains(said, "asking again") {
		t.Fatalf("an update: %d: %s", code, said)
	}
	logf("staged in %s", time.Since(begun).Round(time.Second))

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
	checkFallback(t, u, "kernel panic")
	checkVersion(t, u, old.Version)
	sh(t, u, adminKubectl+"get configmap of-"+old.Version)
}

// checkFallback holds that the cluster was told why a node fell back.
func checkFallback(t *testing.T, m Machine, why string) {
	t.Helper()
	waitSh(t, m, "the Event", adminKubectl+"get events --field-selector=reason=UpgradeFellBack,involvedObject.kind=Node --output=jsonpath={.items[*].message} | grep -F '"+why+"'")
	sh(t, m, "test \"$("+adminKubectl+"get node node1 --output=jsonpath={.spec.unschedulable})\" != true")
}

// TestScenarioSwapUnhealthy: the new image boots, and its Kubernetes is not
// healthy within the image's trial limit: once because a check of the user's
// fails, once because its kubelet ends again and again. Each time three boots
// are given up and the old slot runs, uncordoned, and says why.
func TestScenarioSwapUnhealthy(t *testing.T) {
	const kubelet = "systemd.unit-dropin.kubelet.service~crash"
	bad := imageIn(t, "KBUILD_UNHEALTHY_IMAGE", " for the next minor version, with a short --trial-limit")
	u := swapper(t, Options{Credentials: map[string]string{
		kubelet: "[Service]\nExecStartPre=/bin/sh -c '! test -e /var/lib/kbuild/crash || grep -q v1.19 /usr/share/kbuild/release.json'\n",
	}}, bad)
	old := imageOf(t)
	waitSh(t, u, "a ConfigMap", configMap("of-"+old.Version, "--from-literal=a=b"))
	for _, c := range []struct{ prepare, clear, why string }{
		{"printf '#!/bin/sh\\ngrep -q v1.19 /usr/share/kbuild/release.json || { echo the site is not served; exit 1; }\\n' >/var/lib/kbuild/checks.d/site && chmod +x /var/lib/kbuild/checks.d/site",
			"rm /var/lib/kbuild/checks.d/site", "the site is not served"},
		{"touch /var/lib/kbuild/crash", "rm /var/lib/kbuild/crash", "the kubelet"},
	} {
		sh(t, u, c.prepare)
		if said, code := u.stage(url("bad")); code != 0 {
			t.Fatalf("an update: %d: %s", code, said)
		}
		sh(t, u, adminKubectl+"annotate node node1 --overwrite kbuild.dev/cordoned=now && "+adminKubectl+"cordon node1")
		u.apply("apply")
		s := u.waitSlots("the old slot", func(s slots) bool { return s.Running.Slot == "a" && s.Other.State == "bad" })
		waitReady(t, u)
		s = u.waitSlots("the outcome", func(s slots) bool { return s.Update.Outcome != "" })
		if s.Update.Outcome != "fell back" || len(s.Update.Failures) != 3 {
			t.Errorf("after the fallback: %s", s)
		}
		checkFallback(t, u, c.why)
		checkVersion(t, u, old.Version)
		sh(t, u, adminKubectl+"get configmap of-"+old.Version)
		sh(t, u, c.clear)
	}
}

// TestScenarioSwapCut cuts the power at random instants of staging, of the swap
// and of the first boot of the new slot, CUTS times (20): each time the node
// becomes Ready on the old image or on the new one, and what was written to the
// cluster is there. It goes from one image of the next version to another and
// back, after the first.
func TestScenarioSwapCut(t *testing.T) {
	again := imageIn(t, "KBUILD_AGAIN_IMAGE", " for the next minor version, different from KBUILD_OTHER_IMAGE's")
	cuts := 20
	if v := os.Getenv("CUTS"); v != "" {
		var err error
		if cuts, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	u := swapper(t, Options{}, again)
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
	for name, dir := range map[string]string{"next": otherImage(t).Dir, "bad": again.Dir} {
		b, err := os.ReadFile(filepath.Join(dir, "root.roothash"))
		if err != nil {
			t.Fatal(err)
		}
		hashes[name] = strings.TrimSpace(string(b))
	}
	known := map[string]bool{imageOf(t).Version: true, otherImage(t).Version: true}
	// What a whole swap takes, measured when one comes to its end.
	whole := 4 * time.Minute
	var written []string
	for i := range cuts {
		name := fmt.Sprintf("cut-%d", i)
		waitSh(t, u, "a ConfigMap", configMap(name, "--from-literal=a=b"))
		written = append(written, name)
		to := "next"
		if s := u.waitSlots("no trial", func(s slots) bool { return !s.Running.OnTrial }); s.Running.RootHash == hashes["next"] {
			to = "bad"
		}
		after := time.Duration(random.Int64N(int64(whole)))
		logf("%s: swap to %s, cut after %s", name, to, after.Round(time.Second))
		sh(t, u, "systemd-run --quiet --collect sh -c 'kbuild-firstboot upgrade stage "+url(to)+" && kbuild-firstboot upgrade apply'")
		select {
		case <-time.After(after):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
		if err := errors.Join(u.PowerCut(), u.Start(t.Context())); err != nil {
			t.Fatal(err)
		}
		waitReady(t, u)
		s := u.waitSlots("the slots", func(s slots) bool { return true })
		logf("%s: Ready: %s", name, s)
		if !known[s.Running.Version] {
			t.Errorf("%s: it runs %s", name, s)
		}
		sh(t, u, adminKubectl+"get configmap "+strings.Join(written, " "))
	}
}
