package pull

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// TestMain lets the test binary be a process that pulls, for TestKilled.
func TestMain(m *testing.M) {
	if ref := os.Getenv("TEST_PULL_REF"); ref != "" {
		_, err := Pull(context.Background(), Options{Images: []string{ref}, Dir: os.Getenv("TEST_PULL_DIR"), Platform: "linux/amd64", Parallel: 1, Keychain: authn.NewMultiKeychain()})
		if err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A process is killed in the middle of the second of two layers; the next one
// goes on at the byte where it stopped, and asks for no finished blob again.
func TestKilled(t *testing.T) {
	s := newServer(t)
	first, second := layer(1, 200_000), layer(2, 600_000)
	img := image(t, "amd64", first, second)
	ref := s.push(t, "image:v1", index(map[string]v1.Image{"amd64": img}))
	dir := t.TempDir()

	halfway := make(chan struct{})
	var once sync.Once
	s.misbehave(digestOf(t, second).String(), 1, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		once.Do(func() { close(halfway) })
		stalls(w, r, next)
	})
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), "TEST_PULL_REF="+ref, "TEST_PULL_DIR="+dir)
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	<-halfway
	partial := filepath.Join(dir, partialDir, digestOf(t, second).Hex)
	for { // the half that was sent arrives
		if fi, err := os.Stat(partial); err == nil && fi.Size() > 100_000 {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal("nothing arrived")
		}
		time.Sleep(time.Millisecond)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Fatal("the process ended well")
	}

	if _, err := os.Stat(filepath.Join(dir, "index.json")); !os.IsNotExist(err) {
		t.Errorf("there is an index: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "blobs/sha256", digestOf(t, second).Hex)); !os.IsNotExist(err) {
		t.Errorf("half a blob counts: %v", err)
	}
	s.misbehave("none", 0, nil)
	o := options(t, ref)
	o.Dir = dir
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if in := check(t, dir); digestOf(t, in[ref]) != digestOf(t, img) {
		t.Errorf("the layout holds %v", in)
	}
	if s.requests("GET", digestOf(t, first).String()) != 0 || s.requests("GET", digestOf(t, second).String(), "bytes=") != 1 {
		t.Errorf("asked for %v", s.seen)
	}
}
