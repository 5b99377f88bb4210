package slot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kbuild/kbuild/firstboot/host"
)

// linuxDir is where systemd-boot looks for unified kernel images.
const linuxDir = "/efi/EFI/Linux"

// Entry is a slot's unified kernel image on the ESP.
type Entry struct {
	Version string // of Kubernetes
	// Generation orders images of one version: systemd-boot takes the higher
	// version, then the higher file name. That of the image which was installed
	// is 0.
	Generation int
	Hash       string // first 16 digits of the root hash
	Left       int    // boots that are left; -1: it does not count any more (blessed)
	Done       int    // boots that were tried
	Staged     bool   // it is not in the boot loader's list yet
}

var entryName = regexp.MustCompile(`^kbuild_([^_+]+)_([0-9]+)_([0-9a-f]{16})(?:\+([0-9]+)(?:-([0-9]+))?)?\.efi(\.staged)?$`)

// parseEntry reads a file's name; false where it is not one of ours.
func parseEntry(name string) (Entry, bool) {
	m := entryName.FindStringSubmatch(name)
	if m == nil {
		return Entry{}, false
	}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			return 0
		}
		return n
	}
	e := Entry{Version: m[1], Generation: number(m[2]), Hash: m[3], Left: -1, Staged: m[6] != ""}
	if m[4] != "" {
		e.Left, e.Done = number(m[4]), number(m[5])
	}
	return e, true
}

// file is the entry's name in linuxDir.
func (e Entry) file() string {
	counters, staged := "", ""
	if e.Left >= 0 {
		counters = fmt.Sprintf("+%d-%d", e.Left, e.Done)
	}
	if e.Staged {
		staged = ".staged"
	}
	return fmt.Sprintf("kbuild_%s_%d_%s%s.efi%s", e.Version, e.Generation, e.Hash, counters, staged)
}

// OnTrial says whether it counts how often it was tried.
func (e Entry) OnTrial() bool { return e.Left > 0 || e.Left == 0 && e.Done > 0 }

// Bad says whether the boot loader has given it up.
func (e Entry) Bad() bool { return e.Left == 0 }

// secureBootVariable ends in 1, behind four bytes of attributes, where the
// firmware checks what it boots (UEFI specification 2.10, section 3.3).
const secureBootVariable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

// secureBoot says whether this machine's firmware checks what it boots.
func secureBoot(h *host.Host) (bool, error) {
	b, err := h.ReadFile(secureBootVariable)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cannot tell whether the firmware checks signatures: %w", err)
	}
	return len(b) == 5 && b[4] == 1, nil
}

// mountESP mounts the ESP at /efi.
func mountESP(ctx context.Context, h *host.Host) error {
	if h.Exists(linuxDir) {
		return nil
	}
	if err := h.Systemd.Start(ctx, "efi.mount"); err != nil {
		return fmt.Errorf("cannot mount the EFI system partition: %w", err)
	}
	return nil
}

// entries are those on the ESP.
func entries(h *host.Host) ([]Entry, error) {
	names, err := h.Entries(linuxDir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the EFI system partition: %w", err)
	}
	var out []Entry
	for _, n := range names {
		if e, ok := parseEntry(n); ok {
			out = append(out, e)
		}
	}
	return out, nil
}

// find returns the entry of a slot; nil where there is none. One in the boot
// loader's list goes before a staged one.
func find(list []Entry, s Slot) *Entry {
	var found *Entry
	for i, e := range list {
		if e.Hash == s.Hash()[:16] && (found == nil || found.Staged) {
			found = &list[i]
		}
	}
	return found
}

// onTrial says whether the slot that runs is not blessed yet: then the other one
// is what the node falls back to.
func (d Disk) onTrial(list []Entry) bool {
	own := find(list, d.Running)
	return own != nil && own.OnTrial()
}

// rename gives an entry another state.
func rename(h *host.Host, from, to Entry) error {
	if from == to {
		return nil
	}
	if err := h.Rename(path.Join(linuxDir, from.file()), path.Join(linuxDir, to.file())); err != nil {
		return err
	}
	return syncESP(h)
}

// removeOthers removes every kernel but those of the slot that runs, and what
// a cut has left of one that was being written.
func removeOthers(h *host.Host, running Slot) error {
	names, err := h.Entries(linuxDir)
	if err != nil {
		return err
	}
	for _, n := range names {
		e, ours := parseEntry(n)
		if ours && e.Hash == running.Hash()[:16] || !ours && !strings.HasPrefix(n, ".kbuild-") {
			continue
		}
		if err := h.Remove(path.Join(linuxDir, n)); err != nil {
			return err
		}
	}
	return syncESP(h)
}

// syncESP brings all of the ESP to the disk. FAT has no journal: what was
// renamed and is not there yet is at the mercy of the next power cut.
func syncESP(h *host.Host) error {
	d, err := h.Root.Open(linuxDir[1:])
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// freeOnESP is the room on the ESP, in bytes.
func freeOnESP(h *host.Host) (int64, error) {
	free, err := h.Probe.Space("/efi")
	if err != nil {
		return 0, fmt.Errorf("cannot ask how much room the EFI system partition has: %w", err)
	}
	return int64(free), nil
}
