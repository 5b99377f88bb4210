package testvm

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// scratch is one machine's directory. A record in it lists what was started for
// the machine, so that a later process can end and remove all of it.
type scratch struct {
	dir string
	rec record
	own bool // the directory was made here, and goes with the machine
}

// record is machine.json in a scratch directory.
type record struct {
	Name    string   `json:"name"`
	Owner   process  `json:"owner"`             // who made the machine
	Machine process  `json:"machine"`           // QEMU or systemd-nspawn
	Netns   string   `json:"netns,omitempty"`   // name of a network namespace
	Cgroups []string `json:"cgroups,omitempty"` // directories
	Keep    bool     `json:"keep,omitempty"`
}

// process identifies a process, also after its id was given to another.
type process struct {
	PID   int    `json:"pid"`
	Start string `json:"start"` // field 22 of /proc/PID/stat
}

func procOf(pid int) process {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}
	}
	// The second field is a name in parentheses that may hold anything.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return process{}
	}
	return process{pid, f[19]}
}

func (p process) alive() bool { return p.PID > 0 && procOf(p.PID) == p }

// kill ends the process at once and waits until it is gone.
func (p process) kill() error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("cannot end process %d: %w", p.PID, err)
	}
	for range 300 {
		if !p.alive() {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("process %d does not end", p.PID)
}

// Scratch is where machines without a directory of their own have theirs.
func Scratch() string {
	if d := os.Getenv("KBUILD_TEST_DIR"); d != "" {
		return d
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("kbuild-test-%d", os.Getuid()))
}

// newScratch makes a machine's directory, mode 0700, because user-data holds
// secrets. Before that it clears what tests that were killed left.
func newScratch(o Options) (*scratch, error) {
	if err := Clean(false, o.Log); err != nil {
		o.Log("%v", err)
	}
	s := &scratch{dir: o.Dir, own: o.Dir == ""}
	name := o.Name
	if name == "" {
		name = "node"
	}
	if s.own {
		s.dir = filepath.Join(Scratch(), name+"-"+strings.ToLower(rand.Text()[:6]))
	}
	dir, err := filepath.Abs(s.dir)
	if err != nil {
		return nil, err
	}
	s.dir = dir
	if n := len(s.dir) + len("/share/checker.sock"); n > 107 {
		return nil, fmt.Errorf("cannot use %s: paths of sockets in it would have %d bytes, and Linux allows 107: set KBUILD_TEST_DIR to a shorter path", s.dir, n)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	if old, err := readRecord(s.dir); err == nil && (old.Machine.alive() || old.Owner.alive() && old.Owner.PID != os.Getpid()) {
		return nil, fmt.Errorf("cannot use %s: a machine is running in it (process %d)", s.dir, old.Machine.PID)
	} else if err == nil {
		if err := old.release(); err != nil {
			return nil, err
		}
	}
	s.rec = record{Name: name, Owner: procOf(os.Getpid()), Keep: o.Keep}
	return s, s.save()
}

func (s *scratch) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

func (s *scratch) save() error {
	b, err := json.Marshal(s.rec)
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("machine.json.new"), b, 0o600); err != nil {
		return err
	}
	return os.Rename(s.path("machine.json.new"), s.path("machine.json"))
}

func readRecord(dir string) (record, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(dir, "machine.json"))
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r)
}

// end ends the machine's processes at once. A container's init outlives
// systemd-nspawn, and goes first: the kernel ends all others in its PID
// namespace with it. What is then left in the machine's own cgroups is ended
// too, whoever its parent is.
func (r record) end() error {
	var errs []error
	for _, pid := range childrenOf(r.Machine.PID) {
		if r.Machine.alive() {
			errs = append(errs, procOf(pid).kill())
		}
	}
	errs = append(errs, r.Machine.kill())
	for _, dir := range r.Cgroups {
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.Name() != "cgroup.procs" {
				return nil
			}
			b, _ := os.ReadFile(p)
			for _, f := range strings.Fields(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil && pid != os.Getpid() {
					errs = append(errs, procOf(pid).kill())
				}
			}
			return nil
		})
	}
	return errors.Join(errs...)
}

func childrenOf(pid int) []int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		if n, err := strconv.Atoi(f); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

// release ends the machine and removes what is outside its directory.
func (r record) release() error {
	errs := []error{r.end()}
	if r.Netns != "" {
		if _, err := os.Stat("/run/netns/" + r.Netns); err == nil {
			errs = append(errs, run("ip", "netns", "delete", r.Netns))
		}
	}
	for _, dir := range r.Cgroups {
		errs = append(errs, removeCgroup(dir))
	}
	return errors.Join(errs...)
}

// removeCgroup removes a cgroup and all below it. Processes in it may take a
// moment to be gone.
func removeCgroup(dir string) error {
	var err error
	for range 100 {
		err = nil
		var dirs []string
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, werr error) error {
			if werr == nil && d.IsDir() {
				dirs = append(dirs, p)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			if e := syscall.Rmdir(dirs[i]); e != nil && e != syscall.ENOENT {
				err = fmt.Errorf("cannot remove cgroup %s: %w", dirs[i], e)
			}
		}
		if err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// close ends everything and removes the directory, if it was made for the
// machine.
func (s *scratch) close() error {
	if err := s.rec.release(); err != nil {
		return err
	}
	if !s.own {
		return os.Remove(s.path("machine.json"))
	}
	return os.RemoveAll(s.dir)
}

// Clean ends and removes machines whose tests do not run any more because they
// were killed. Kept machines stay, unless kept is true.
func Clean(kept bool, log func(string, ...any)) error {
	dirs, err := filepath.Glob(filepath.Join(Scratch(), "*", "machine.json"))
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range dirs {
		s := &scratch{dir: filepath.Dir(f), own: true}
		if s.rec, err = readRecord(s.dir); err != nil || s.rec.Owner.alive() || s.rec.Keep && !kept {
			continue
		}
		log("removing %s, left by process %d", s.dir, s.rec.Owner.PID)
		errs = append(errs, s.close())
	}
	return errors.Join(errs...)
}

// run runs a command of the host; its error holds what it printed.
func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("cannot run %s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
