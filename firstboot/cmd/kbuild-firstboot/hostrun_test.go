package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/host"
)

// inSystemd is set in the process that has a systemd of its own.
const inSystemd = "KBUILD_TEST_IN_SYSTEMD"

// withSystemd runs the test in a process of its own beside a real systemd: a
// user's instance in namespaces of mounts and cgroups, whose runtime directory
// is /run, so that it is found where the system's would be. It is true in that
// process.
func withSystemd(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inSystemd) != "" {
		return true
	}
	if testing.Short() || os.Getuid() != 0 {
		t.Skip("a systemd of its own needs root")
	}
	for _, program := range []string{"/usr/lib/systemd/systemd", "/usr/bin/unshare"} {
		if _, err := os.Stat(program); err != nil {
			t.Skip(err)
		}
	}
	script := `set -e
umount -l /sys/fs/cgroup || true
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/kbuild-test-$$
echo $$ > /sys/fs/cgroup/kbuild-test-$$/cgroup.procs
mount -t tmpfs none /run
mkdir -p /run/systemd/system
XDG_RUNTIME_DIR=/run /usr/lib/systemd/systemd --user --log-target=console >/run/log 2>&1 &
for i in $(seq 100); do test -S /run/systemd/private && break; sleep 0.1; done
test -S /run/systemd/private || { cat /run/log; echo KBUILD_NO_SYSTEMD; exit 1; }
code=0
` + inSystemd + `=1 DBUS_SYSTEM_BUS_ADDRESS=unix:path=/run/none "$0" -test.run="^$1\$" -test.v || code=$?
test $code = 0 || tail -30 /run/log
kill -9 $! || true
exit $code`
	cmd := exec.CommandContext(t.Context(), "unshare", "-m", "-C", "sh", "-c", script, os.Args[0], t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		if os.Getenv("CI") == "" && bytes.Contains(out, []byte("KBUILD_NO_SYSTEMD")) {
			t.Skip("systemd does not run here")
		}
		t.Error(err)
	}
	return false
}

// hostRunOf runs host-run with args and returns its exit code, what it said and
// the outcome that it left.
func hostRunOf(ctx context.Context, t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	outcome := filepath.Join(t.TempDir(), "outcome")
	var out, errs bytes.Buffer
	code := Execute(ctx, append([]string{"host-run", "--outcome", outcome}, args...), &out, &errs)
	b, err := os.ReadFile(outcome)
	var result cluster.JobResult
	if err == nil {
		err = json.Unmarshal(b, &result)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%v: %s", err, b)
	}
	return code, errs.String(), result.String()
}

func TestHostRunReal(t *testing.T) {
	if !withSystemd(t) {
		return
	}
	run := func(args ...string) (int, string, string) { return hostRunOf(t.Context(), t, args...) }
	boot, err := os.ReadFile(host.BootIDFile)
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(string(boot))

	if code, said, outcome := run("--unit", "ok", "--boot", id, "--", "sh", "-c", "echo one; echo two >&2"); code != 0 || said != "one\ntwo\n" || outcome != "one\ntwo" {
		t.Errorf("a command that works: %d, %q, %q", code, said, outcome)
	}
	if code, _, outcome := run("--unit", "refused", "--", "sh", "-c", "echo no room >&2; exit 4"); code != 4 || outcome != "no room" {
		t.Errorf("a command that refuses: %d, %q", code, outcome)
	}
	if code, said, _ := run("--unit", "missing", "--", "/does/not/exist"); code != 203 || !strings.Contains(said, "cannot start /does/not/exist") {
		t.Errorf("a command that is not there: %d, %q", code, said)
	}
	if code, _, _ := run("--unit", "killed", "--", "sh", "-c", "kill -9 $$"); code != 128+9 {
		t.Errorf("a command that is killed: %d", code)
	}
	if code, _, outcome := run("--unit", "again", "--", "sh", "-c", "echo 1; exit 1"); code != 1 || outcome != "1" {
		t.Errorf("the first of two: %d, %q", code, outcome)
	}
	if code, _, outcome := run("--unit", "again", "--", "sh", "-c", "echo 2"); code != 0 || outcome != "2" {
		t.Errorf("the second of the same name, when the first was told: %d, %q", code, outcome)
	}
	if left, _ := filepath.Glob("/run/kbuild/*.log"); len(left) > 0 {
		t.Errorf("files left: %q", left)
	}

	// As a container sees the host: no more of it than what is mounted.
	seen := t.TempDir()
	for _, name := range []string{"/run/kbuild", host.BootIDFile} {
		at := filepath.Join(seen, name)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		if st, _ := os.Stat(name); err == nil && st.IsDir() {
			err = os.Mkdir(at, 0o755)
		} else if err == nil {
			err = os.WriteFile(at, nil, 0o644)
		}
		if err == nil {
			err = unix.Mount(name, at, "", unix.MS_BIND, "")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Unmount(at, 0)
	}
	if code, _, outcome := run("--root", seen, "--unit", "contained", "--boot", id, "--", "sh", "-c", "echo from the host; exit 3"); code != 3 || outcome != "from the host" {
		t.Errorf("from a container: %d, %q", code, outcome)
	}

	// One that outlives whoever asked for it, and is taken up by the next.
	marks := filepath.Join(t.TempDir(), "marks")
	slow := []string{"--unit", "slow", "--outlive", "--", "sh", "-c", "echo began; echo x >> " + marks + "; sleep 3; echo ended; exit 7"}
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Second, func() { cancel(stopped{syscall.SIGTERM}) })
	if code, said, _ := hostRunOf(ctx, t, slow...); code != 0 || !strings.Contains(said, "goes on by itself") {
		t.Errorf("stopped: %d, %q", code, said)
	}
	if code, said, _ := run(slow...); code != 7 || said != "began\nended\n" {
		t.Errorf("taken up: %d, %q", code, said)
	}
	if b, _ := os.ReadFile(marks); string(b) != "x\n" {
		t.Errorf("it ran %d times", len(b)/2)
	}

	// One that does not.
	ctx, cancel = context.WithCancelCause(t.Context())
	time.AfterFunc(time.Second, func() { cancel(stopped{syscall.SIGTERM}) })
	ends := filepath.Join(t.TempDir(), "ends")
	if code, _, _ := hostRunOf(ctx, t, "--unit", "stops", "--", "sh", "-c", "sleep 4; echo x > "+ends); code != 128+15 {
		t.Errorf("stopped: exit code %d", code)
	}
	time.Sleep(4 * time.Second)
	if _, err := os.Stat(ends); err == nil {
		t.Error("the command went on when it was stopped")
	}
}

func TestHostRunRefusals(t *testing.T) {
	for name, x := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no command":   {[]string{"--unit", "a"}, cli.ExitUsage, "behind --"},
		"no unit":      {[]string{"--", "true"}, cli.ExitUsage, "--unit"},
		"a path":       {[]string{"--unit", "../a", "--", "true"}, cli.ExitUsage, "--unit"},
		"another boot": {[]string{"--unit", "a", "--boot", "0", "--", "true"}, exitRefused, "nothing was done"},
	} {
		code, said, _ := hostRunOf(t.Context(), t, x.args...)
		if code != x.code || !strings.Contains(said, x.want) {
			t.Errorf("%s: %d, %q", name, code, said)
		}
	}
}
