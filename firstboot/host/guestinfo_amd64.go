package host

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vmware/vmw-guestinfo/rpcout"
	"github.com/vmware/vmw-guestinfo/vmcheck"
)

// guestInfo asks VMware's hypervisor for a guestinfo key over its backdoor, an
// I/O port that only such a hypervisor answers: on any other machine touching
// it would end the process, so the CPU is asked first whose it is.
func guestInfo(key string) (string, error) {
	if !vmcheck.IsVirtualCPU() {
		return "", errors.New("cannot ask for guestinfo: this is no virtual machine of VMware's")
	}
	type answer struct {
		value string
		err   error
	}
	ch := make(chan answer, 1)
	go func() {
		// Access to ports is the thread's own: it ends with this goroutine.
		runtime.LockOSThread()
		var a answer
		defer func() {
			if p := recover(); p != nil { // the library takes an answer apart unchecked
				a.err = fmt.Errorf("cannot ask for guestinfo.%s: bad answer: %v", key, p)
			}
			ch <- a
		}()
		there, err := vmcheck.IsVirtualWorld(true) // a locked-down kernel refuses iopl, and the backdoor works without
		if err == nil && !there {
			err = errors.New("the hypervisor's backdoor does not answer")
		}
		if err != nil {
			a.err = fmt.Errorf("cannot ask for guestinfo.%s: %w", key, err)
			return
		}
		// A key that is not set is refused ("No value found").
		out, ok, err := rpcout.SendOne("info-get guestinfo.%s", key)
		if err != nil {
			a.err = fmt.Errorf("cannot ask for guestinfo.%s: %w", key, err)
		} else if ok {
			a.value = string(out)
		}
	}()
	a := <-ch
	return a.value, a.err
}
