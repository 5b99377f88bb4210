package testvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kbuild/kbuild/images"
)

// Image is an output directory of `kbuild image`.
type Image struct {
	Dir  string
	Disk string // disk.raw; empty when it is not there
	Root string // *.root.erofs, or the directory root; empty when neither is there
	// Version is the Kubernetes version that manifest.json names; empty where
	// there is no manifest.json.
	Version string

	diskSHA256 string // of Disk, as manifest.json says
}

// OpenImage reads what is in dir.
func OpenImage(dir string) (Image, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Image{}, err
	}
	i := Image{Dir: abs}
	first := func(names ...string) string {
		for _, n := range names {
			if _, err := os.Stat(filepath.Join(abs, n)); err == nil {
				return filepath.Join(abs, n)
			}
		}
		return ""
	}
	i.Disk = first("disk.raw")
	i.Root = first("root")
	// Its name tells version and root hash.
	if roots, err := filepath.Glob(filepath.Join(abs, "*."+images.UpdateRoot)); err == nil && len(roots) == 1 {
		i.Root = roots[0]
	}
	if i.Disk == "" && i.Root == "" {
		return Image{}, fmt.Errorf("cannot find an image in %s: want disk.raw and a *.root.erofs (or a directory root), as `kbuild image --out %s` writes them: %w", dir, dir, fs.ErrNotExist)
	}
	b, err := os.ReadFile(filepath.Join(abs, "manifest.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	var m struct {
		Version string
		Files   []struct{ Name, SHA256 string }
	}
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return i, fmt.Errorf("cannot read %s: %w", filepath.Join(dir, "manifest.json"), err)
	}
	i.Version = m.Version
	for _, f := range m.Files {
		if f.Name == filepath.Base(i.Disk) {
			i.diskSHA256 = f.SHA256
		}
	}
	return i, nil
}

// ConfigAPI is the newest version of kubeadm's configuration that the image's
// Kubernetes reads, "v1beta2" where nothing says which Kubernetes that is.
func (i Image) ConfigAPI() (string, error) {
	if i.Version == "" {
		return "v1beta2", nil
	}
	r, err := images.Assume(i.Version)
	return r.ConfigAPI, err
}

// BuildChecker compiles the checker, static, to out. KBUILD_CHECKER names one
// that is already there and is copied instead.
func BuildChecker(ctx context.Context, out string) error {
	if p := os.Getenv("KBUILD_CHECKER"); p != "" {
		b, err := os.ReadFile(p)
		if err != nil {
			return fmt.Errorf("cannot read KBUILD_CHECKER: %w", err)
		}
		return os.WriteFile(out, b, 0o755)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "github.com/kbuild/kbuild/test-vm/checker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if msg, err := cmd.CombinedOutput(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("cannot compile the checker: %w\n%s", err, strings.TrimSpace(string(msg)))
		}
		return fmt.Errorf("cannot compile the checker: %w: is go installed, and is this a clone of kbuild? KBUILD_CHECKER can name a compiled one", err)
	}
	return nil
}
