package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/images/pull"
)

func imagesPullCommand() *cobra.Command {
	var f imageFlags
	var o pull.Options
	var mirrors, include []string
	var lock, format string
	cmd := &cobra.Command{
		Use:   "pull --version VERSION --out DIR",
		Short: "Pull the images that a cluster of this version needs into an OCI layout",
		Long: `Pull the images that 'kbuild images list' names, with all their layers, into an
OCI image layout. Each image is named in the layout's index by the annotation
io.containerd.image.name; images that are already in the layout stay.

Every blob is verified by its digest. An interrupted pull resumes where it
stopped. Temporary errors (429, 5xx, broken connections, wrong content) are
retried. Credentials are those of 'docker login' ($DOCKER_CONFIG).

Images of k8s.gcr.io, which is frozen, are pulled from registry.k8s.io and keep
their names. A --mirror replaces the registry or path that it is given for.
Several mirrors of the same one are tried in order; the registry itself is tried
only if it is listed as its own mirror.`,
		Example: `  kbuild images pull --version v1.19.12 --out images
  kbuild images pull --version v1.37.2 --out images --platform linux/arm64 --lock images.lock
  kbuild images pull --version v1.37.2 --out images \
      --mirror registry.k8s.io=mirror.example.com:5000/k8s \
      --include-image ghcr.io/flannel-io/flannel:v0.28.10`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Dir == "" {
				return cli.Usagef("--out is missing: name the directory to pull into")
			}
			if o.Parallel < 1 {
				return cli.Usagef("--parallel is %d: use 1 or more", o.Parallel)
			}
			if err := pull.CheckPlatform(o.Platform); err != nil {
				return cli.Usage(err)
			}
			_, list, err := f.read(cmd)
			if err != nil {
				return err
			}
			for _, i := range append(list, include...) {
				full, err := pull.FullName(i)
				if err != nil {
					return cli.Usage(err)
				}
				o.Images = append(o.Images, full)
			}
			for _, m := range mirrors {
				parsed, err := pull.ParseMirror(m)
				if err != nil {
					return cli.Usage(err)
				}
				o.Mirrors = append(o.Mirrors, parsed)
			}
			if o.Lock, err = readLock(lock); err != nil {
				return cli.Usage(err)
			}
			report, stop := reporter(cmd.ErrOrStderr())
			o.Report = report
			pulled, err := pull.Pull(cmd.Context(), o)
			stop()
			if err != nil {
				return err
			}
			if lock != "" && o.Lock == nil {
				if err := writeNew(lock, pull.NewLock(pulled).Bytes(), 0o644); err != nil {
					return fmt.Errorf("cannot write the lock file: %w", err)
				}
			}
			return printPulled(cmd.OutOrStdout(), format, o.Dir, pulled)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&o.Dir, "out", "", "`directory` of the OCI layout, created if it does not exist (required)")
	cmd.Flags().StringVar(&o.Platform, "platform", "linux/amd64", "OS/ARCH[/VARIANT] of the images")
	cmd.Flags().IntVar(&o.Parallel, "parallel", 4, "number of parallel transfers")
	cmd.Flags().StringArrayVar(&mirrors, "mirror", nil, "pull images of registry or path FROM from TO, as `FROM=TO`; may be repeated")
	cmd.Flags().StringArrayVar(&include, "include-image", nil, "further image to pull; may be repeated")
	cmd.Flags().StringVar(&lock, "lock", "", "pull each image by the digest in this lock `file`, which is written if it does not exist")
	cli.OutputFlag(cmd, &format, "text", "json")
	return cmd
}

// readLock reads a lock file; nil where there is none.
func readLock(path string) (pull.Lock, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the lock file: %w", err)
	}
	return pull.ParseLock(path, b)
}

// writeNew writes a file that appears whole or not at all.
func writeNew(path string, b []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone after the rename
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(mode), f.Sync()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// printPulled writes what was pulled: names with digests, or all that is known.
func printPulled(w io.Writer, format, dir string, pulled []pull.Image) error {
	made := struct {
		Layout string       `json:"layout"`
		Images []pull.Image `json:"images"`
	}{dir, pulled}
	return cli.Print(w, format, made, func(w io.Writer) error {
		for _, i := range pulled {
			if _, err := fmt.Fprintln(w, i.Name, i.Digest); err != nil {
				return err
			}
		}
		return nil
	})
}

// reporter shows progress as fits w. stop ends it.
func reporter(w io.Writer) (report func(pull.Event), stop func()) {
	f, ok := w.(*os.File)
	if ok {
		_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
		ok = err == nil && os.Getenv("TERM") != "dumb"
	}
	if !ok {
		return pull.Lines(w), func() {}
	}
	return pull.Live(w, func() int {
		ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil {
			return 0
		}
		return int(ws.Col)
	})
}
