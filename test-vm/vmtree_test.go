package testvm

import (
	"context"
	"os"
	"testing"
	"time"
)

// The probe must tell an accelerator that works from one that does not.
func TestProbe(t *testing.T) {
	if os.Getenv("KBUILD_VM_TREE") == "" {
		t.Skip("KBUILD_VM_TREE is not set: no QEMU to try")
	}
	tree, err := findVMTree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.tryKVM(t.Context(), []string{"-accel", "tcg,thread=multi", "-cpu", "max"}); err != nil {
		t.Errorf("the firmware does not come up even in emulation: %v", err)
	}
	if err := tree.tryKVM(t.Context(), []string{"-accel", "tcg", "-cpu", "no-such-cpu"}); err == nil {
		t.Error("QEMU that does not even start is said to work")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := tree.tryKVM(ctx, []string{"-accel", "tcg", "-cpu", "max"}); err == nil {
		t.Error("a probe that was called off says that it works")
	}
}
