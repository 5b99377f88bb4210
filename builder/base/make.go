package base

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// The hooks talk to us through files named in the environment.
const (
	envLock     = "KBUILD_LOCK"     // in: the locked packages, "name version sha256" a line, sorted; may be missing
	envResolved = "KBUILD_RESOLVED" // out: what apt would install of those
	envPackages = "KBUILD_PACKAGES" // out: apt's records of what was installed
)

// lockHook stops before anything is downloaded if apt's candidates are not
// the locked packages. The comparison that names each difference follows in
// Go.
const lockHook = `set -eu
[ -s "$KBUILD_LOCK" ] || exit 0
export APT_CONFIG="${MMDEBSTRAP_APT_CONFIG:-${APT_CONFIG:-}}"
apt-get -qq update
cut -d' ' -f1 <"$KBUILD_LOCK" | xargs apt-cache show --no-all-versions >"$KBUILD_RESOLVED" || true
awk '/^Package: /{p=$2} /^Version: /{v=$2} /^SHA256: /{print p, v, $2}' "$KBUILD_RESOLVED" | LC_ALL=C sort -u | cmp -s - "$KBUILD_LOCK"
`

const listHook = `set -eu
export APT_CONFIG="${MMDEBSTRAP_APT_CONFIG:-${APT_CONFIG:-}}"
chroot "$1" dpkg-query -W -f='${db:Status-Abbrev} ${Package}:${Architecture}=${Version}\n' | sed -n 's/^ii *//p' | sed 's/:all=/=/' | xargs apt-cache show >"$KBUILD_PACKAGES"
`

// makeTree runs mmdebstrap and puts the result into the cache.
func makeTree(ctx context.Context, c Config, r recipe, dir string) (Tree, error) {
	if err := checkHost(dir, r, lookPath); err != nil {
		return Tree{}, err
	}
	sweep(dir, r)
	tmp, err := os.MkdirTemp(dir, ".new-"+r.Name+"-")
	if err != nil {
		return Tree{}, err
	}
	defer os.RemoveAll(tmp)
	root := filepath.Join(tmp, "tree")
	file := map[string]string{
		envLock:     filepath.Join(tmp, "lock"),
		envResolved: filepath.Join(tmp, "resolved"),
		envPackages: filepath.Join(tmp, "packages"),
	}
	if err := os.WriteFile(file[envLock], lockLines(c.Lock), 0o600); err != nil {
		return Tree{}, err
	}
	task := c.Log.Task(fmt.Sprintf("making the %s tree (Debian %s)", r.Name, r.Suite))
	err = runMmdebstrap(ctx, r, root, filepath.Join(dir, r.Name+".log"), file)
	task.End(err)
	if err != nil {
		if b, rerr := os.ReadFile(file[envResolved]); rerr == nil {
			if got, perr := parsePackages(string(b)); perr == nil {
				if lerr := compareLock(c.Lock, got); lerr != nil {
					return Tree{}, lerr
				}
			}
		}
		return Tree{}, err
	}
	b, err := os.ReadFile(file[envPackages])
	if err != nil {
		return Tree{}, fmt.Errorf("mmdebstrap did not list the packages: %w", err)
	}
	t := Tree{}
	if t.Packages, err = parsePackages(string(b)); err != nil {
		return Tree{}, err
	}
	if len(c.Lock) > 0 {
		if err := compareLock(c.Lock, t.Packages); err != nil {
			return Tree{}, err
		}
	}
	if r.Node {
		err = finishNode(root)
	} else {
		err = finishTools(root)
	}
	if err != nil {
		return Tree{}, err
	}
	t.Key = treeKey(r, t.Packages)
	if err := ctx.Err(); err != nil {
		return Tree{}, err
	}
	if err := enterCache(dir, tmp, &t); err != nil {
		return Tree{}, err
	}
	return t, nil
}

// enterCache records what is in tmp/tree and renames tmp to the entry.
func enterCache(dir, tmp string, t *Tree) error {
	sum, err := fingerprint(filepath.Join(tmp, "tree"))
	if err != nil {
		return err
	}
	list, err := json.MarshalIndent(t.Packages, "", "\t")
	if err != nil {
		return err
	}
	for _, name := range []string{"lock", "resolved", "packages"} {
		if err := os.Remove(filepath.Join(tmp, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := writeFile(filepath.Join(tmp, "packages.json"), append(list, '\n')); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(tmp, "files.sha256"), []byte(sum)); err != nil {
		return err
	}
	syscall.Sync() // the rename must not outlive the files after a power cut
	entry := filepath.Join(dir, t.Key)
	if err := os.RemoveAll(entry); err != nil {
		return err
	}
	if err := os.Rename(tmp, entry); err != nil {
		return err
	}
	t.Dir = filepath.Join(entry, "tree")
	return nil
}

// runMmdebstrap makes root. Everything that mmdebstrap prints is in transcript.
func runMmdebstrap(ctx context.Context, r recipe, root, transcript string, file map[string]string) error {
	all, err := os.Create(transcript)
	if err != nil {
		return err
	}
	defer all.Close()
	args := []string{
		// A process namespace around all of it: when it ends, every process and
		// mount in it ends, even if kbuild itself is killed. mmdebstrap alone
		// would continue until its current step is done.
		"--pid", "--fork", "--kill-child=KILL", "--mount", "--propagation=private", "--mount-proc", "--",
		"mmdebstrap", "--mode=unshare", "--format=directory", "--variant=essential",
		"--architectures=" + r.Arch, `--aptopt=Apt::Install-Recommends "false"`,
		"--include=" + strings.Join(r.Include, ","),
		"--setup-hook=" + lockHook,
	}
	for _, p := range r.Exclude {
		args = append(args, "--dpkgopt=path-exclude="+p)
	}
	for _, p := range r.Keep {
		args = append(args, "--dpkgopt=path-include="+p)
	}
	if r.Hook != "" {
		args = append(args, "--customize-hook=set -eu\n"+r.Hook)
	}
	args = append(args, "--customize-hook="+listHook, r.Suite, root)
	cmd := exec.CommandContext(ctx, "unshare", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), fmt.Sprintf("SOURCE_DATE_EPOCH=%d", treeTime),
		"INITRD=No", // the kernel's package then leaves the initrd to us
		"LC_ALL=C.UTF-8", "TZ=UTC", "PATH="+searchPath(), "TMPDIR="+filepath.Dir(root))
	for name, value := range file {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	if path, err := lookPath("unshare"); err == nil {
		cmd.Path, cmd.Err = path, nil
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = all, io.MultiWriter(all, &out)
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w\neverything that it printed: %s", explain(err, out.String()), transcript)
	}
	return nil
}

// explain adds a remedy to the failures that are common.
func explain(err error, out string) error {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i, l := range lines {
		if len(l) > 300 { // dpkg's command line names every package
			lines[i] = l[:150] + " … " + l[len(l)-100:]
		}
	}
	tail := strings.Join(lines[max(0, len(lines)-12):], "\n  ")
	hint := ""
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(out, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("No space left on device"):
		hint = "; make room where the cache is, or set KBUILD_CACHE to another place"
	case has("NO_PUBKEY", "is not signed", "couldn't be verified"):
		hint = "; this host lacks Debian's keys: apt-get install debian-archive-keyring gpg"
	case has("Could not resolve", "Temporary failure resolving", "Unable to connect", "Could not connect", "Network is unreachable", "Connection timed out"):
		hint = "; making a tree needs the network, a tree that is in the cache does not"
	case has("failed to unshare", "unshare() failed", "unshare failed", "mount /proc failed", "newuidmap"):
		hint = "; this host does not allow the namespaces that this needs: run kbuild as root, outside of a confined container"
	}
	return fmt.Errorf("mmdebstrap failed (%w)%s:\n  %s", err, hint, tail)
}

// checkHost checks in advance what would make mmdebstrap fail after a minute.
func checkHost(dir string, r recipe, look func(string) (string, error)) error {
	if _, err := look("mmdebstrap"); err != nil {
		return errors.New("mmdebstrap is not installed; run: apt-get install mmdebstrap")
	}
	if os.Geteuid() != 0 {
		return errors.New("only root can make a tree whose files have many owners (a bug in kbuild: it should have become root of a user namespace)")
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free < r.Needs {
		return fmt.Errorf("%s has %d MiB free, and this needs %d MiB: make room, or set KBUILD_CACHE to another directory", dir, free>>20, r.Needs>>20)
	}
	return nil
}

// sweep removes what a killed run left behind. The recipe's lock is held.
func sweep(dir string, r recipe) {
	old, _ := filepath.Glob(filepath.Join(dir, ".new-"+r.Name+"-*"))
	for _, path := range old {
		os.RemoveAll(path)
	}
}

// lockLines writes the lock the way lockHook compares it.
func lockLines(locked []Package) []byte {
	lines := make([]string, 0, len(locked))
	for _, p := range locked {
		lines = append(lines, fmt.Sprintf("%s %s %s\n", p.Name, p.Version, p.SHA256))
	}
	slices.Sort(lines)
	return []byte(strings.Join(slices.Compact(lines), ""))
}
