// Command programs compiles etcd, kube-apiserver, kube-controller-manager,
// kubectl and upstream's kubeadm of a version, and containerd 2, keeps them in
// kbuild's cache, and links them into a directory. Tests against a real API
// server, and of the hand-over to containerd, take it as KBUILD_TEST_BIN:
//
//	go run ./builder/source/cmd/programs v1.19.12 out/test-bin
//	KBUILD_TEST_BIN=$PWD/out/test-bin go test ./firstboot/...
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/kbuild/kbuild/builder/progress"
	"github.com/kbuild/kbuild/builder/source"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: programs vMAJOR.MINOR.PATCH DIRECTORY")
		os.Exit(2)
	}
	if err := source.Programs(ctx, source.Config{}, os.Args[1], os.Args[2], progress.To(os.Stderr)); err != nil {
		fmt.Fprintln(os.Stderr, "programs:", err)
		os.Exit(1)
	}
}
