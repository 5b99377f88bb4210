package firstboot

import (
	"context"
	"time"

	"github.com/kbuild/kbuild/firstboot/containerd"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
)

// stepImages hands the baked container images to containerd in place: every
// layer stays where it is, in the verified root, and containerd gets a link.
// It runs on every boot and puts back what is missing; records of images that
// an earlier node image brought and this one does not are removed.
func stepImages() converge.Step {
	return converge.Step{
		Name: "images",
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			return containerd.NewHandover(m.Host, m.Baked.Release).Done(ctx)
		},
		Do: func(ctx context.Context, m *node.Machine) error {
			return containerd.NewHandover(m.Host, m.Baked.Release).Hand(ctx)
		},
		Limit: 5 * time.Minute,
	}
}
