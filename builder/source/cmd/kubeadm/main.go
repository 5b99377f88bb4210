// Command kubeadm compiles upstream's kubeadm of the version that its argument
// names, keeps it in kbuild's cache, and prints its path:
//
//	$(go run ./builder/source/cmd/kubeadm v1.19.12) config images list
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
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: kubeadm vMAJOR.MINOR.PATCH")
		os.Exit(2)
	}
	path, err := source.Kubeadm(ctx, source.Config{}, os.Args[1], progress.To(os.Stderr))
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubeadm:", err)
		os.Exit(1)
	}
	fmt.Println(path)
}
