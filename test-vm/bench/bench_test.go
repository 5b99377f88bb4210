package bench

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	image := t.TempDir()
	for name, text := range map[string]string{"manifest.json": `{"version":"v1.19.12"}`, "disk.raw": ""} {
		if err := os.WriteFile(filepath.Join(image, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("KBUILD_IMAGE", "")
	var other string
	var kubeadm Kubeadm
	own := func(f *flag.FlagSet) {
		kubeadm.Flag(f)
		f.StringVar(&other, "other", "", "")
	}
	ran := errors.New("ran")
	measure := func(_ context.Context, o Options) error {
		if o.Image.Version != "v1.19.12" || o.Runs != 2 || other != "x" {
			t.Errorf("options %+v, other %q", o, other)
		}
		if path, err := kubeadm.Path(t.Context(), o); path != "/k" || err != nil {
			t.Errorf("kubeadm %q, %v", path, err)
		}
		return ran
	}
	for args, want := range map[string]string{
		"--image " + image + " --runs 2 --other x --kubeadm /k": "ran",
		"":                               "no image",
		"--image " + image + " --runs 0": "want 1 or more",
		"--image " + t.TempDir():         "cannot find an image",
	} {
		err := run(t.Context(), "bench", strings.Fields(args), own, measure)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", args, err, want)
		}
	}
}
