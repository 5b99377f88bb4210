package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is what every source needs of its surroundings.
type Config struct {
	// Cache is kbuild's cache directory; empty means CacheDir().
	Cache string
	// Epoch is the time of everything that is made (SOURCE_DATE_EPOCH).
	Epoch time.Time
	// Pull adds the images refs for arch to the OCI image layout dir, each
	// named in images.RefAnnotation, and resumes what an earlier call began.
	// It may be nil where no image has to come from a registry.
	Pull func(ctx context.Context, refs []string, arch, dir string) error
	// BaseURL replaces https://dl.k8s.io/release (source release).
	BaseURL string
	// PluginsURL replaces https://github.com/containernetworking/plugins/releases/download.
	PluginsURL string
	// RuntimeURL replaces https://github.com/containerd/containerd/releases/download.
	RuntimeURL string
}

// Open returns the source that name picks: "modules", "release" or
// "dir:PATH".
func Open(name string, c Config) (Source, error) {
	c, err := c.withCache()
	if err != nil {
		return nil, err
	}
	switch name {
	case "modules":
		return &modules{config: c, store: c.store()}, nil
	case "release":
		return newOfficials(c), nil
	}
	if path, ok := strings.CutPrefix(name, "dir:"); ok && path != "" {
		return newByHand(path, c)
	}
	return nil, fmt.Errorf("cannot open source %q: want modules, release or dir:PATH", name)
}

func (c Config) withCache() (Config, error) {
	if c.Cache != "" {
		return c, nil
	}
	var err error
	c.Cache, err = CacheDir()
	return c, err
}

// CacheDir is where kbuild keeps what it has made: $KBUILD_CACHE, or kbuild
// in the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("KBUILD_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cannot find a cache directory: %w: set KBUILD_CACHE or HOME", err)
	}
	return filepath.Join(dir, "kbuild"), nil
}
