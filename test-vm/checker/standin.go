package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// standIn is kbuild-firstboot in a container whose harness has slots for it
// (testvm.Options.Next): what changes the slots of a disk it takes for the
// harness, which is the boot loader here; all else the real program does, which
// lies in the place of one that a container has no use for.
func standIn(args []string) error {
	if len(args) < 2 || args[0] != "upgrade" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		const once = "KBT_STANDIN=1"
		if slices.Contains(os.Environ(), once) {
			return errors.New("the real kbuild-firstboot is not where the harness says that it put it")
		}
		real := filepath.Join(filepath.Dir(self), guest.RealFirstboot)
		return fmt.Errorf("cannot run %s: %w", real, syscall.Exec(real, append([]string{"kbuild-firstboot"}, args...), append(os.Environ(), once)))
	}
	staged, applied := filepath.Join(guest.Dir, guest.Staged), filepath.Join(guest.Dir, guest.Applied)
	switch args[1] {
	case "stage":
		fmt.Println("staged for the harness")
		return os.WriteFile(staged, nil, 0o600)
	case "apply":
		if err := os.Rename(staged, applied); err != nil {
			return errors.New("nothing is staged")
		}
		return exec.Command("systemctl", "reboot").Run()
	case "cancel":
		return os.Remove(staged)
	}
	return fmt.Errorf("no harness does %q", args)
}
