package testvm

import (
	"context"
	"io"
	"testing"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// asked is a machine of which only the answer to a question matters.
type asked struct {
	Machine
	exec guest.Exec
	err  error
}

func (a asked) Ask(_ context.Context, _ string, _, out any) error {
	*out.(*guest.Exec) = a.exec
	return a.err
}

// A checker that is stopped by the reboot before it has answered is no error;
// what it answers is.
func TestAskReboot(t *testing.T) {
	for name, c := range map[string]struct {
		m  asked
		ok bool
	}{
		"answered":  {asked{}, true},
		"cut short": {asked{err: io.EOF}, true},
		"refused":   {asked{err: guest.Failed{Cmd: "exec", Text: "no systemctl"}}, false},
		"failed":    {asked{exec: guest.Exec{Code: 1, Stderr: "access denied"}}, false},
	} {
		if err := askReboot(t.Context(), c.m); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
