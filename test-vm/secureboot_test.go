package testvm

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

// TestScenarioSwapSecureBoot is an upgrade of a machine whose firmware boots only
// what is signed by the key that signed these images: an image without such a
// signature does not boot, and as an update it is refused.
func TestScenarioSwapSecureBoot(t *testing.T) {
	if Lane(*lane) != VM {
		t.Skip("this scenario is the VM lane's: a container has no firmware")
	}
	image, next := swapImage(t, "secure"), swapImage(t, "secure-next")

	unsigned := boot(t, Options{Name: "unsigned", SecureBoot: true})
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit(), errors.New("time is up"))
	defer cancel()
	err := Wait(ctx, unsigned, logf, "what the firmware says of an image that is not signed", func(context.Context) (string, error) {
		b, err := os.ReadFile(unsigned.Places().Console)
		switch console := string(b); {
		case err != nil:
			return "", err
		case strings.Contains(console, "Linux version") || strings.Contains(console, "systemd"):
			t.Fatalf("it boots:\n%s", ConsoleTail(unsigned, 20))
		case strings.Contains(console, "Access Denied"):
			return "", nil
		}
		return "the firmware has not come to it yet", nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, ConsoleTail(unsigned, 20))
	}
	if err := unsigned.Close(); err != nil {
		t.Fatal(err)
	}

	u := swapper(t, Options{Image: image, SecureBoot: true}, "secure-next")
	if got := sh(t, u, "od -An -tu1 -j4 /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"); strings.TrimSpace(got) != "1" {
		t.Fatalf("the firmware's variable SecureBoot is %q", got)
	}
	if said, code := u.stage(url("next")); code != 4 || !strings.Contains(said, "boots only what is signed") {
		t.Errorf("an update that is not signed for the firmware: %d: %s", code, said)
	}
	if said, code := u.stage(url("secure-next")); code != 0 {
		t.Fatalf("an update: %d: %s", code, said)
	}
	u.apply("apply")
	if s := u.waitSlots("the new slot to be kept", func(s slots) bool { return s.Running.Slot == "b" && !s.Running.OnTrial }); s.Running.Version != next.Version {
		t.Errorf("after the swap: %s", s)
	}
	waitReady(t, u)
	checkVersion(t, u, next.Version)
}
