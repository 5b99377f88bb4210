package base

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Bind makes a directory of the host visible to a command in a tree.
type Bind struct {
	Name     string // it appears at /tmp/NAME
	Dir      string // on the host
	Writable bool
}

// enterScript runs in a mount namespace of its own: $1 is the tree, $2 the
// number of binds, then three words for each bind, then the command. The tree
// is read-only in the namespace, and /tmp and /run are empty.
const enterScript = `set -eu
tree=$1 n=$2; shift 2
mount --bind "$tree" "$tree"
mount -o remount,bind,ro "$tree" 2>/dev/null || true
mount --rbind /proc "$tree/proc"
mount --rbind /dev "$tree/dev"
mount -t tmpfs -o mode=0755 tmpfs "$tree/run"
mount -t tmpfs -o mode=1777 tmpfs "$tree/tmp"
while [ "$n" -gt 0 ]; do
	mkdir "$tree/tmp/$1"
	mount --bind "$2" "$tree/tmp/$1"
	[ "$3" = rw ] || mount -o remount,bind,ro "$tree/tmp/$1" 2>/dev/null || true
	shift 3; n=$((n-1))
done
exec chroot "$tree" /usr/bin/env -C /tmp "$@"
`

// Command returns a command that runs inside the tree, in a mount namespace that
// has nothing of the host but /dev, /proc and the binds, and ends with it.
// It starts in /tmp with an environment of its own: env adds to it
// ("NAME=value"). When ctx ends, the command and its children are told to
// stop, and killed if they do not. It needs root, also of a user namespace
// (Reexec).
func (t Tree) Command(ctx context.Context, binds []Bind, env []string, name string, args ...string) *exec.Cmd {
	argv := []string{"--mount", "--propagation", "private", "--", "/bin/sh", "-c", enterScript, "sh", t.Dir, fmt.Sprint(len(binds))}
	for _, b := range binds {
		mode := "ro"
		if b.Writable {
			mode = "rw"
		}
		argv = append(argv, b.Name, b.Dir, mode)
	}
	argv = append(argv, name)
	cmd := exec.CommandContext(ctx, "unshare", append(argv, args...)...)
	cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LC_ALL=C.UTF-8", "TZ=UTC", "TMPDIR=/tmp"}, env...)
	if path, err := lookPath("unshare"); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	stopNicely(cmd)
	return cmd
}

// stopNicely sends SIGTERM to the command's process group when its context ends,
// and SIGKILL later.
func stopNicely(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
}

// searchPath is PATH with the directories of root's programs, which a user's
// PATH often lacks.
func searchPath() string {
	return os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
}

func lookPath(name string) (string, error) {
	for _, dir := range strings.Split(searchPath(), ":") {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}
