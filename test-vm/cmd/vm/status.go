package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	testvm "github.com/kbuild/kbuild/test-vm"
	"github.com/kbuild/kbuild/test-vm/guest"
)

// status prints one line on the machine and one on its node.
func status(ctx context.Context, o options) error {
	m, err := testvm.Attach(o.dir)
	if errors.Is(err, fs.ErrNotExist) {
		fmt.Printf("no machine runs in %s\n", o.dir)
		return nil
	}
	if err != nil {
		return err
	}
	defer m.Close()
	p := m.Places()
	fmt.Printf("running: process %d, console %s\n", p.PID, p.Console)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var r guest.Ready
	if err := m.Ask(ctx, guest.CmdReady, nil, &r); err != nil {
		fmt.Printf("its checker does not answer: %v\n", err)
		return nil
	}
	if r.Waiting == "" {
		fmt.Println("Ready")
		return nil
	}
	fmt.Printf("waiting: %s (kbuild-firstboot: %s)\n", r.Waiting, r.Firstboot)
	return nil
}
