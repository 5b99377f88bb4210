package base

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"strings"
	"syscall"
)

// envReexec marks a process that Reexec has started, so that it is done once.
const envReexec = "KBUILD_IN_USERNS"

// Reexec replaces a process that is not root by itself as root of a new user
// namespace, in which the user is root and the other owners of a tree are the
// user's subordinate ids of /etc/subuid and /etc/subgid. Root, and a process
// that is already there, get nil back at once; otherwise it returns only with
// an error. Call it first thing in a command that makes trees or disks.
func Reexec() error {
	if os.Geteuid() == 0 {
		return nil
	}
	const advice = "or run kbuild as root"
	if os.Getenv(envReexec) != "" {
		return errors.New("cannot become root of a user namespace: the mapping of ids did not work; " + advice)
	}
	u, err := user.Current()
	if err != nil {
		return fmt.Errorf("cannot become root of a user namespace: %w", err)
	}
	for _, path := range []string{"/etc/subuid", "/etc/subgid"} {
		b, err := os.ReadFile(path)
		if err != nil || !hasRange(string(b), u) {
			return fmt.Errorf("cannot become root of a user namespace: %s gives no subordinate ids to %s; run as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s, %s",
				path, u.Username, u.Username, advice)
		}
	}
	if _, err := lookPath("newuidmap"); err != nil {
		return errors.New("cannot become root of a user namespace: newuidmap is not installed; run: apt-get install uidmap, " + advice)
	}
	unshare, err := lookPath("unshare")
	if err != nil {
		return errors.New("cannot become root of a user namespace: unshare is not installed; run: apt-get install util-linux")
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("cannot become root of a user namespace: %w", err)
	}
	argv := append([]string{"unshare", "--user", "--map-root-user", "--map-auto", "--", self}, os.Args[1:]...)
	// mmdebstrap must find root's programs, which a user's PATH often lacks.
	env := append(os.Environ(), envReexec+"=1", "PATH="+searchPath())
	err = syscall.Exec(unshare, argv, env)
	return fmt.Errorf("cannot become root of a user namespace: %s: %w; %s", unshare, err, advice)
}

// hasRange reports whether a subuid(5) file gives u a range.
func hasRange(file string, u *user.User) bool {
	for _, line := range strings.Split(file, "\n") {
		if owner, _, ok := strings.Cut(line, ":"); ok && (owner == u.Username || owner == u.Uid) {
			return true
		}
	}
	return false
}
