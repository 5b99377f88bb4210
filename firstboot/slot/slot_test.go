package slot

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

// node is a machine with a disk of two small slots, whose table and hashes are
// worked on by the real sfdisk and veritysetup. A cut ends whatever runs.
type node struct {
	h     *host.Host
	baked images.Baked
	key   ed25519.PrivateKey
	cut   int // the change before which the power goes; 0 is never
	seen  int // changes so far
}

var errCut = errors.New("the power is cut")

const rootSize, veritySize = 4 << 20, 1 << 20

func newNode(t *testing.T) *node {
	t.Helper()
	for _, tool := range []string{"sfdisk", "veritysetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%v: make deps-test installs it", err)
		}
	}
	dir := t.TempDir()
	r, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	n := &node{}
	n.h = &host.Host{Root: r, Now: time.Now, Log: slog.New(slog.DiscardHandler), HTTP: &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}}
	n.h.Probe.Space = func(string) (uint64, error) { return 64 << 20, nil }
	n.h.Effect = func(string) error {
		if n.seen++; n.cut != 0 && n.seen >= n.cut {
			return errCut
		}
		return nil
	}
	n.h.Run = func(ctx context.Context, name string, args ...string) ([]byte, error) {
		for i, a := range args {
			if strings.HasPrefix(a, "/dev/") {
				args[i] = dir + a
			}
		}
		cmd := exec.CommandContext(ctx, name, args...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("%s %q: %w: %s", name, args, err, errs.Bytes())
		}
		return bytes.ReplaceAll(out.Bytes(), []byte(dir), nil), nil
	}
	n.h.Systemd.Start = func(context.Context, string) error { return r.MkdirAll(linuxDir[1:], 0o755) }

	_, n.key, err = ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(n.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	n.baked = images.Baked{Arch: "amd64", Release: release(t, "v1.19.12"), BuildTime: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		UpdateKeys: []string{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}}

	own := strings.Repeat("ab", 32)
	n.write(t, "/proc/cmdline", "quiet roothash="+own+" ro\n")
	n.write(t, linuxDir+"/kbuild_v1.19.12_0_"+own[:16]+".efi", "the kernel that runs")
	for _, d := range []string{"sys/block/dm-0/slaves/vda2", "dev/mapper", "sys/class/block", "var/lib/kbuild"} {
		if err := r.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"dev/mapper/root": "../dm-0", "sys/class/block/vda2": "../../devices/pci/block/vda/vda2"} {
		if err := r.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	script := "label: gpt\nsize=1MiB, type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b, name=esp\n"
	for _, hash := range []string{own, strings.Repeat("00", 16) + strings.Repeat("11", 16)} {
		b, _ := hex.DecodeString(hash)
		script += fmt.Sprintf("size=4MiB, type=%s, uuid=%s, name=root\nsize=1MiB, type=%s, uuid=%s, name=verity\n", typeRoot, formatUUID(b[:16]), typeVerity, formatUUID(b[16:]))
	}
	n.write(t, "/dev/vda", "")
	if err := os.Truncate(filepath.Join(dir, "dev/vda"), 16<<20); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sfdisk", "--quiet", filepath.Join(dir, "dev/vda"))
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, size := range map[string]int{"/dev/vda2": rootSize, "/dev/vda3": veritySize, "/dev/vda4": rootSize, "/dev/vda5": veritySize} {
		n.write(t, name, strings.Repeat("\xff", size))
	}
	return n
}

func (n *node) write(t *testing.T, name, data string) {
	t.Helper()
	if err := n.h.Root.MkdirAll(filepath.Dir(name)[1:], 0o755); err != nil {
		t.Fatal(err)
	}
	if err := n.h.Root.WriteFile(name[1:], []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func release(t *testing.T, v string) images.Release {
	t.Helper()
	r, err := images.Lookup(v)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// update is an image's output directory.
type update struct {
	u     images.Update
	files map[string][]byte
}

// makeUpdate makes one whose hashes veritysetup has made.
func (n *node) makeUpdate(t *testing.T, version string, size int) *update {
	t.Helper()
	dir := t.TempDir()
	root, verity := filepath.Join(dir, "root"), filepath.Join(dir, "verity")
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i>>12) ^ version[len(version)-1]
	}
	if err := os.WriteFile(root, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("veritysetup", "format", root, verity).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	hashes, err := os.ReadFile(verity)
	if err != nil {
		t.Fatal(err)
	}
	_, hash, _ := strings.Cut(string(out), "Root hash:")
	hash = strings.Fields(hash)[0]
	up := &update{files: map[string][]byte{}}
	up.u = images.Update{Arch: "amd64", Release: release(t, version), BuildTime: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), RootHash: hash, TrialBoots: 3}
	up.name()
	up.files[up.u.Root.Name], up.files[up.u.Verity.Name], up.files[up.u.UKI.Name] = data, hashes, []byte("kernel of "+version)
	n.sign(t, up)
	return up
}

// name names the parts after version and root hash.
func (up *update) name() {
	for what, p := range map[string]*images.Part{images.UpdateRoot: &up.u.Root, images.UpdateVerity: &up.u.Verity, images.UpdateUKI: &up.u.UKI} {
		data := up.files[p.Name]
		delete(up.files, p.Name)
		p.Name = images.UpdateName(up.u.Release.Version, up.u.RootHash, what)
		up.files[p.Name] = data
	}
}

// sign fills in what describes the files, and signs it.
func (n *node) sign(t *testing.T, up *update) {
	t.Helper()
	up.name()
	for _, p := range []*images.Part{&up.u.Root, &up.u.Verity, &up.u.UKI} {
		sum := sha256.Sum256(up.files[p.Name])
		*p = images.Part{Name: p.Name, Size: int64(len(up.files[p.Name])), SHA256: hex.EncodeToString(sum[:])}
	}
	up.describe(t)
	up.files[images.UpdateSignature] = ed25519.Sign(n.key, up.files[images.UpdateSums])
}

func (up *update) describe(t *testing.T) {
	t.Helper()
	b, err := json.Marshal(up.u)
	if err != nil {
		t.Fatal(err)
	}
	up.files[images.UpdateFile] = b
	up.files[images.UpdateSums] = fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(b), images.UpdateFile)
}

// serve serves it, with ranges; requests counts what was asked for.
func (up *update) serve(t *testing.T) (url string, requests map[string]int) {
	t.Helper()
	requests = map[string]int{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/")
		requests[name+r.Header.Get("Range")]++
		b, ok := up.files[name]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(b))
	}))
	t.Cleanup(s.Close)
	return s.URL, requests
}

func (n *node) status(t *testing.T) Status {
	t.Helper()
	st, err := ReadStatus(t.Context(), n.h, n.baked)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// boot makes the other slot the one that runs, as the boot loader does it: the
// highest version that is not given up, and one try less of it.
func (n *node) boot(t *testing.T) {
	t.Helper()
	list, err := entries(n.h)
	if err != nil {
		t.Fatal(err)
	}
	var best *Entry
	for i, e := range list {
		if !e.Staged && !e.Bad() && (best == nil || e.Version > best.Version || e.Version == best.Version && e.Generation > best.Generation) {
			best = &list[i]
		}
	}
	if best == nil {
		t.Fatalf("the boot loader has nothing to boot: %v", list)
	}
	d, err := FindDisk(t.Context(), n.h)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []Slot{d.Running, d.Other} {
		if s.Hash()[:16] == best.Hash {
			n.write(t, "/proc/cmdline", "roothash="+s.Hash())
			n.baked.Release = release(t, best.Version)
		}
	}
	if best.Left > 0 {
		tried := *best
		tried.Left, tried.Done = best.Left-1, best.Done+1
		if tried.Left < 0 {
			t.Fatalf("it was tried too often: %+v", best)
		}
		if err := rename(n.h, *best, tried); err != nil {
			t.Fatal(err)
		}
	}
}

func (n *node) bless(t *testing.T) {
	t.Helper()
	list, _ := entries(n.h)
	d, err := FindDisk(t.Context(), n.h)
	if err != nil {
		t.Fatal(err)
	}
	own := find(list, d.Running)
	good := *own
	good.Left, good.Done = -1, 0
	if err := rename(n.h, *own, good); err != nil {
		t.Fatal(err)
	}
}

func TestSwap(t *testing.T) {
	n := newNode(t)
	up := n.makeUpdate(t, "v1.20.15", rootSize/2)
	if err := n.h.WriteFile(secureBootVariable, []byte{6, 0, 0, 0, 1}, 0o444); err != nil {
		t.Fatal(err)
	}
	up.u.SecureBoot = true
	n.sign(t, up)
	url, _ := up.serve(t)
	if _, err := Stage(t.Context(), n.h, n.baked, url); err != nil {
		t.Fatal(err)
	}
	if st := n.status(t); st.Other.State != Staged || st.Other.Version != "v1.20.15" || st.Running.Slot != "a" || st.Running.OnTrial {
		t.Fatalf("after stage: %+v", st)
	}
	if n.boot(t); n.status(t).Running.Slot != "a" {
		t.Fatal("what is only staged was booted")
	}
	if _, err := Apply(t.Context(), n.h); err != nil {
		t.Fatal(err)
	}
	n.boot(t)
	if st := n.status(t); st.Running.Slot != "b" || !st.Running.OnTrial || st.Other.State != Old || st.Update.Outcome != Pending {
		t.Fatalf("on trial: %+v", st)
	}
	next := n.makeUpdate(t, "v1.20.15", rootSize/4) // another image of the same version
	next.u.SecureBoot = true
	n.sign(t, next)
	nextURL, _ := next.serve(t)
	if _, err := Stage(t.Context(), n.h, n.baked, nextURL); err == nil || !strings.Contains(err.Error(), "on trial") {
		t.Errorf("an update was staged over what the node falls back to: %v", err)
	}
	n.bless(t)
	if rec, err := Settle(t.Context(), n.h); err != nil || rec.Outcome != Kept {
		t.Errorf("after blessing: %+v, %v", rec.Outcome, err)
	}
	// Back into slot A, and from there back by hand.
	if _, err := Stage(t.Context(), n.h, n.baked, nextURL); err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(t.Context(), n.h); err != nil {
		t.Fatal(err)
	}
	n.boot(t)
	n.bless(t)
	if st := n.status(t); st.Running.Slot != "a" || st.Running.Version != "v1.20.15" || st.Other.State != Old {
		t.Fatalf("after the second swap: %+v", st)
	}
	asked := ""
	if err := Rollback(t.Context(), n.h, func(version string) error { asked = version; return nil }); err != nil || asked != "v1.20.15" {
		t.Fatal(asked, err)
	}
	n.boot(t)
	if st := n.status(t); st.Running.Slot != "b" || st.Running.Version != "v1.20.15" || st.Update.Outcome != RolledBack || st.Other.State != Bad {
		t.Fatalf("after the roll-back: %+v", st)
	}
	if err := Rollback(t.Context(), n.h, anything); err == nil {
		t.Error("rolled back to what was rolled back from")
	}
}

func anything(string) error { return nil }

// TestRollbackRefused: what was never kept, what is damaged, and what the node
// cannot go on with is nothing to go back to; the node is as it was.
func TestRollbackRefused(t *testing.T) {
	n := newNode(t)
	up := n.makeUpdate(t, "v1.20.15", rootSize/2)
	url, _ := up.serve(t)
	refused := func(want string, may func(string) error) {
		t.Helper()
		before := n.snapshot(t)
		if err := Rollback(t.Context(), n.h, may); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if !maps.Equal(before, n.snapshot(t)) {
			t.Error("the node is not as it was")
		}
	}
	refused("nothing to go back to", anything)
	if _, err := Stage(t.Context(), n.h, n.baked, url); err != nil {
		t.Fatal(err)
	}
	refused("nothing to go back to", anything)
	if _, err := Apply(t.Context(), n.h); err != nil {
		t.Fatal(err)
	}
	refused("never kept", anything)
	n.boot(t)
	n.bless(t)
	refused("no way", func(string) error { return errors.New("no way") })
	// The image that was installed is no real one here.
	refused("is damaged", anything)
}

// TestPendingEvent: why an update was given up stays to be told, whatever comes in
// between.
func TestPendingEvent(t *testing.T) {
	n := newNode(t)
	up := n.makeUpdate(t, "v1.20.15", rootSize/2)
	url, _ := up.serve(t)
	stage := func() Record {
		t.Helper()
		rec, err := Stage(t.Context(), n.h, n.baked, url)
		if err != nil {
			t.Fatal(err)
		}
		return rec
	}
	stage()
	if _, err := Apply(t.Context(), n.h); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n.boot(t)
		if err := Fail(n.h, "no kubelet today"); err != nil {
			t.Fatal(err)
		}
	}
	n.boot(t)
	const want = "the update to v1.20.15 fell back to v1.19.12: no kubelet today"
	if rec := stage(); rec.PendingEvent != want {
		t.Errorf("staged again: %q", rec.PendingEvent)
	}
	if err := Cancel(t.Context(), n.h); err != nil {
		t.Fatal(err)
	}
	rec, err := Settle(t.Context(), n.h)
	if err != nil || rec.PendingEvent != want || rec.Outcome != Pending {
		t.Errorf("cancelled: %+v, %v", rec, err)
	}
}

// TestFallback: a slot that is never blessed is given up after three boots.
func TestFallback(t *testing.T) {
	n := newNode(t)
	up := n.makeUpdate(t, "v1.20.15", rootSize/2)
	url, _ := up.serve(t)
	if _, err := Stage(t.Context(), n.h, n.baked, url); err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(t.Context(), n.h); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		n.boot(t)
		if st := n.status(t); st.Running.Slot != "b" || !st.Running.OnTrial {
			t.Fatalf("boot %d: %+v", i, st)
		}
		if err := Fail(n.h, fmt.Sprintf("reason %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	n.boot(t)
	rec, err := Settle(t.Context(), n.h)
	if err != nil || rec.Outcome != FellBack || rec.Why() != "reason 2" {
		t.Fatalf("%+v, %v", rec, err)
	}
	if st := n.status(t); st.Running.Slot != "a" || st.Other.State != Bad {
		t.Errorf("after the fallback: %+v", st)
	}
	// The same again is allowed, and writes only what counts.
	if _, err := Stage(t.Context(), n.h, n.baked, url); err != nil {
		t.Fatal(err)
	}
	if st := n.status(t); st.Other.State != Staged || st.Update.Outcome != Pending || len(st.Update.Failures) > 0 {
		t.Errorf("staged again: %+v", st)
	}
}

// TestStageCut cuts the power before every change of a swap: each time the next
// boot has something to boot, and doing it again comes to its end.
func TestStageCut(t *testing.T) {
	whole := newNode(t)
	up := whole.makeUpdate(t, "v1.20.15", rootSize/2)
	url, _ := up.serve(t)
	swap := func(n *node) error {
		if _, err := Stage(t.Context(), n.h, n.baked, url); err != nil {
			return err
		}
		_, err := Apply(t.Context(), n.h)
		return err
	}
	if err := swap(whole); err != nil {
		t.Fatal(err)
	}
	if whole.seen < 10 {
		t.Fatalf("only %d changes", whole.seen)
	}
	for cut := 1; cut <= whole.seen; cut++ {
		n := newNode(t)
		n.baked.UpdateKeys = whole.baked.UpdateKeys
		n.cut = cut
		if err := swap(n); !errors.Is(err, errCut) {
			t.Fatalf("cut %d: %v", cut, err)
		}
		n.cut = 0
		list, err := entries(n.h)
		if err != nil {
			t.Fatal(err)
		}
		d, err := FindDisk(t.Context(), n.h)
		if err != nil {
			t.Fatal(err)
		}
		if own := find(list, d.Running); own == nil || own.Left >= 0 {
			t.Fatalf("cut %d: the slot that runs is not to be booted: %v", cut, list)
		}
		if e := find(list, d.Other); e != nil && !e.Staged && d.Other.Hash() != up.u.RootHash {
			t.Fatalf("cut %d: a slot that does not count is to be booted: %+v", cut, e)
		}
		if err := swap(n); err != nil {
			t.Fatalf("cut %d, again: %v", cut, err)
		}
		n.boot(t)
		if st := n.status(t); st.Running.Slot != "b" || st.Running.Version != "v1.20.15" {
			t.Fatalf("cut %d, then booted: %+v", cut, st)
		}
	}
}

// TestResume: a source that breaks off is asked for the rest, once and in later
// runs.
func TestResume(t *testing.T) {
	n := newNode(t)
	up := n.makeUpdate(t, "v1.20.15", rootSize/2)
	all := up.files[up.u.Root.Name]
	up.files[up.u.Root.Name] = all[:1<<20] // the server has only a part of it
	url, requests := up.serve(t)
	_, err := Stage(t.Context(), n.h, n.baked, url)
	if err == nil || !strings.Contains(err.Error(), "run it again to go on") {
		t.Fatalf("a truncated download: %v", err)
	}
	if st := n.status(t); st.Other.State != Partial {
		t.Errorf("%+v", st)
	}
	up.files[up.u.Root.Name] = all
	clear(requests)
	if _, err := Stage(t.Context(), n.h, n.baked, url); err != nil {
		t.Fatal(err)
	}
	if requests[up.u.Root.Name+"bytes=1048576-"] != 1 || requests[up.u.Root.Name] != 0 {
		t.Errorf("it did not go on where it stopped: %v", requests)
	}
	got, err := n.h.Root.ReadFile("dev/vda4")
	if err != nil || !bytes.Equal(got[:len(all)], all) {
		t.Errorf("the slot holds something else: %v", err)
	}
}

// TestRegistry: an update as an artefact in a registry, which breaks off once.
func TestRegistry(t *testing.T) {
	n := newNode(t)
	up := n.makeUpdate(t, "v1.20.15", rootSize/2)
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), images.ArtifactType)
	for name, b := range up.files {
		var err error
		img, err = mutate.Append(img, mutate.Addendum{Layer: static.NewLayer(b, "application/octet-stream"), Annotations: map[string]string{images.ArtifactTitle: name}})
		if err != nil {
			t.Fatal(err)
		}
	}
	blobs := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	var ranges []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := r.Header.Get("Range"); h != "" {
			ranges = append(ranges, h)
		}
		root := r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, up.u.Root.SHA256)
		if root && len(ranges) > 0 { // this registry knows no ranges that are open
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(up.files[up.u.Root.Name]))
			return
		}
		if root {
			w.Header().Set("Content-Length", fmt.Sprint(up.u.Root.Size))
			w.Write(up.files[up.u.Root.Name][:1<<20])
			panic(http.ErrAbortHandler)
		}
		blobs.ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer s.Close()
	at := strings.TrimPrefix(s.URL, "http://") + "/nodes:v1.20.15"
	ref, err := name.ParseReference(at)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	if _, err := Stage(t.Context(), n.h, n.baked, "oci://"+at); err != nil {
		t.Fatal(err)
	}
	if st := n.status(t); st.Other.State != Staged || len(ranges) != 1 || ranges[0] != "bytes=1048576-" {
		t.Errorf("%+v, ranges %q", st.Other, ranges)
	}
	if _, err := Stage(t.Context(), n.h, n.baked, "oci://"+at+"-none"); err == nil {
		t.Error("staged what is not there")
	}
}

// TestRefusals: each is in words, and leaves the node as it was.
func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*testing.T, *node, *update)
		want  string
	}{
		"wrong key": {func(t *testing.T, n *node, up *update) {
			_, other, _ := ed25519.GenerateKey(nil)
			up.files[images.UpdateSignature] = ed25519.Sign(other, up.files[images.UpdateSums])
		}, "signed by a key that this node's image does not know"},
		"changed after signing": {func(t *testing.T, n *node, up *update) { up.u.Kbuild = "evil"; up.describe(t) }, "was changed after it was signed"},
		"no signature":          {func(t *testing.T, n *node, up *update) { delete(up.files, images.UpdateSignature) }, "not signed"},
		"other update.json":     {func(t *testing.T, n *node, up *update) { up.files[images.UpdateFile] = []byte("{}") }, "not the one that its SHA256SUMS names"},
		"no key":                {func(t *testing.T, n *node, up *update) { n.baked.UpdateKeys = nil }, "has no key"},
		"architecture":          {func(t *testing.T, n *node, up *update) { up.u.Arch = "arm64"; n.sign(t, up) }, "is for arm64"},
		"older": {func(t *testing.T, n *node, up *update) {
			up.u.Release, up.u.BuildTime = n.baked.Release, n.baked.BuildTime.Add(-time.Hour)
			n.sign(t, up)
		}, "before the image that runs"},
		"downgrade": {func(t *testing.T, n *node, up *update) { n.baked.Release = release(t, "v1.37.2") }, "it is older"},
		"skip":      {func(t *testing.T, n *node, up *update) { up.u.Release = release(t, "v1.37.2"); n.sign(t, up) }, "one after another"},
		"too large": {func(t *testing.T, n *node, up *update) {
			up.files[up.u.Root.Name] = make([]byte, rootSize+1)
			n.sign(t, up)
		}, "takes 5 MiB, and its partition /dev/vda4 has 4 MiB"},
		"no room": {func(t *testing.T, n *node, up *update) {
			n.h.Probe.Space = func(string) (uint64, error) { return 1 << 10, nil }
		}, "has room for 0 MiB"},
		"Secure Boot": {func(t *testing.T, n *node, up *update) {
			if err := n.h.WriteFile(secureBootVariable, []byte{6, 0, 0, 0, 1}, 0o444); err != nil {
				t.Fatal(err)
			}
		}, "boots only what is signed"},
		"same":      {func(t *testing.T, n *node, up *update) { up.u.RootHash = strings.Repeat("ab", 32); n.sign(t, up) }, "this very image"},
		"no update": {func(t *testing.T, n *node, up *update) { up.u.RootHash = "x"; n.sign(t, up) }, "not a SHA-256"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			up := n.makeUpdate(t, "v1.20.15", rootSize/2)
			c.spoil(t, n, up)
			url, _ := up.serve(t)
			before, seen := n.snapshot(t), n.seen
			_, err := Stage(t.Context(), n.h, n.baked, url)
			if _, ok := errors.AsType[outcome.Refused](err); !ok || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want a refusal with %q", err, c.want)
			}
			if n.seen != seen || !maps.Equal(before, n.snapshot(t)) {
				t.Error("the node is not as it was")
			}
		})
	}
}

// TestDamaged: what does not match its digest, or the root hash, counts for
// nothing.
func TestDamaged(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *node, *update){
		"digest": func(t *testing.T, n *node, up *update) {
			up.files[up.u.Root.Name] = bytes.Clone(up.files[up.u.Root.Name])
			up.files[up.u.Root.Name][5000] ^= 1
		},
		"kernel": func(t *testing.T, n *node, up *update) { up.files[up.u.UKI.Name] = []byte("kernel of somebody's") },
		"root hash": func(t *testing.T, n *node, up *update) {
			up.files[up.u.Root.Name] = bytes.Clone(up.files[up.u.Root.Name])
			up.files[up.u.Root.Name][5000] ^= 1
			n.sign(t, up)
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			up := n.makeUpdate(t, "v1.20.15", rootSize/2)
			spoil(t, n, up)
			url, _ := up.serve(t)
			if _, err := Stage(t.Context(), n.h, n.baked, url); err == nil {
				t.Fatal("it was staged")
			}
			if st := n.status(t); st.Other.State == Staged || st.Other.State == Next {
				t.Errorf("%+v", st)
			}
			if _, err := Apply(t.Context(), n.h); err == nil {
				t.Error("it was applied")
			}
		})
	}
}

func TestCancel(t *testing.T) {
	n := newNode(t)
	up := n.makeUpdate(t, "v1.20.15", rootSize/2)
	url, _ := up.serve(t)
	if err := Cancel(t.Context(), n.h); err == nil {
		t.Error("there was nothing to cancel")
	}
	for _, apply := range []bool{false, true} {
		if _, err := Stage(t.Context(), n.h, n.baked, url); err != nil {
			t.Fatal(err)
		}
		if apply {
			if _, err := Apply(t.Context(), n.h); err != nil {
				t.Fatal(err)
			}
		}
		if err := Cancel(t.Context(), n.h); err != nil {
			t.Fatal(err)
		}
		if n.boot(t); n.status(t).Running.Slot != "a" || n.status(t).Other.State != Empty {
			t.Errorf("after cancel (applied: %v): %+v", apply, n.status(t))
		}
	}
}

// snapshot is every file of the node by name, but for what only its kernel
// sees.
func (n *node) snapshot(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(n.h.Root.Name(), func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		out[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEntry(t *testing.T) {
	const hash = "0123456789abcdef"
	for name, want := range map[string]Entry{
		"kbuild_v1.19.12_0_" + hash + ".efi":             {"v1.19.12", 0, hash, -1, 0, false},
		"kbuild_v1.20.15_12_" + hash + "+3-0.efi":        {"v1.20.15", 12, hash, 3, 0, false},
		"kbuild_v1.20.15_12_" + hash + "+0-3.efi":        {"v1.20.15", 12, hash, 0, 3, false},
		"kbuild_v1.20.15-rc.1_1_" + hash + ".efi.staged": {"v1.20.15-rc.1", 1, hash, -1, 0, true},
	} {
		got, ok := parseEntry(name)
		if !ok || got != want || got.file() != name {
			t.Errorf("%s: %+v, %v, %s", name, got, ok, got.file())
		}
	}
	if e, ok := parseEntry("kbuild_v1.20.15_1_" + hash + "+3.efi"); !ok || e.Left != 3 || e.Done != 0 {
		t.Errorf("without done: %+v %v", e, ok)
	}
	for _, name := range []string{"fedora.efi", "kbuild_v1.19.12.efi", "kbuild_v1.19.12_0_" + hash + ".efi.new", "kbuild_v1.19.12_x_" + hash + ".efi"} {
		if e, ok := parseEntry(name); ok {
			t.Errorf("%s is none of ours: %+v", name, e)
		}
	}
}

func FuzzEntry(f *testing.F) {
	f.Add("kbuild_v1.20.15_12_0123456789abcdef+3-0.efi")
	f.Add("kbuild_v1.20.15_12_0123456789abcdef.efi.staged")
	f.Fuzz(func(t *testing.T, name string) {
		e, ok := parseEntry(name)
		if !ok {
			return
		}
		// What is read is what is written, but for leading zeros.
		if again, ok := parseEntry(e.file()); !ok || again != e {
			t.Errorf("%q: %+v, written %q, read %+v", name, e, e.file(), again)
		}
	})
}

// FuzzTable: whatever sfdisk might print, the slot that runs is never taken for
// the other one.
func FuzzTable(f *testing.F) {
	f.Add([]byte(`{"partitiontable":{"device":"/dev/vda","sectorsize":512,"partitions":[{"node":"/dev/vda2","size":4096,"type":"`+typeRoot+`","uuid":"AB"}]}}`), "abab")
	f.Fuzz(func(t *testing.T, table []byte, hash string) {
		d, err := readTable(table, hash)
		if err == nil && (d.Running.Hash() != hash || d.Running.Root == d.Other.Root) {
			t.Errorf("%q: %+v", table, d)
		}
	})
}
