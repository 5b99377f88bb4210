//go:build !amd64

package host

import "errors"

// guestInfo: only x86 has VMware's backdoor as an I/O port.
func guestInfo(string) (string, error) {
	return "", errors.New("cannot ask for guestinfo: not possible on this architecture")
}
