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

// standIn takes the place of kbuild-firstboot in a container for which the
// harness emulates slots (testvm.Options.Next). It records commands that change
// slots for the harness, which acts as the boot loader. All other commands it
// passes to the real program, which is where a container does not need the
// program that was there.
func standIn(args []string) error {
	if len(args) < 2 || args[0] != "upgrade" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		const once = "KBT_STANDIN=1"
		if slices.Contains(os.Environ(), once) {
			return errors.New("the real kbuild-firstboot is not where the harness has put it")
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
