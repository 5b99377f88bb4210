package host

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoVariables: the machine's firmware keeps no variables that the operating
// system may write, so it cannot be asked for anything across a boot.
var ErrNoVariables = errors.New("this machine has no EFI variables")

const (
	efivars = "/sys/firmware/efi/efivars"
	// factoryResetVariable is read by systemd-repart in the initrd, which wipes
	// the partitions whose definition says FactoryReset=yes and removes the
	// variable (systemd-repart(8), systemd-factory-reset; the vendor UUID is
	// systemd's own, man page systemd-boot(7), "EFI variables").
	factoryResetVariable = efivars + "/FactoryReset-8cf2644b-4b0b-428f-9387-6d876050dc67"
)

// requestFactoryReset asks for the factory reset that systemd does in the
// initrd of the next boot. The file system of variables is one that only the
// machine's own system mounts; a container sees an empty directory there.
func requestFactoryReset() error {
	var st unix.Statfs_t
	if err := unix.Statfs(efivars, &st); err != nil || st.Type != unix.EFIVARFS_MAGIC {
		return ErrNoVariables
	}
	// Attributes (non-volatile, boot-service and run-time access), then UTF-16
	// text that ends with a zero: UEFI specification 2.10, section 8.2. It must be
	// one write.
	value := []byte{7, 0, 0, 0, 'y', 0, 'e', 0, 's', 0, 0, 0}
	f, err := os.OpenFile(factoryResetVariable, os.O_WRONLY|os.O_CREATE, 0o644)
	if errors.Is(err, unix.EROFS) {
		return ErrNoVariables
	}
	if err == nil {
		_, err = f.Write(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("cannot ask the firmware for a factory reset: %w", err)
	}
	return nil
}

// onTrial: systemd-boot leaves a variable with the counters of what it has
// started, when these count (systemd-boot(7); the vendor UUID is the boot
// loader interface's).
func onTrial(root *os.Root) bool {
	_, err := root.Stat(strings.TrimPrefix(efivars, "/") + "/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")
	return err == nil
}
