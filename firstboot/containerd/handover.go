// Package containerd hands the container images that are baked into the node's
// image to containerd, in place, and asks it about pods and removes them.
//
// What always holds: a layer's bytes stay where they are, in the verified root,
// and containerd gets a link to them; what it holds beside is left alone, but for
// what an earlier image brought; and a cut leaves nothing that the next boot does
// not take up.
package containerd

import (
	"context"
	"fmt"
	"strings"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// Socket is where containerd serves its own API and the CRI.
const Socket = "/run/containerd/containerd.sock"

// SandboxImage is the name under which containerd's configuration asks for the
// pause image. The images step gives this name to the pause image of the
// release, so that the kubelet and the runtime always mean the same one. The
// domain can not exist (RFC 2606), so nothing is ever pulled from it.
const SandboxImage = "kbuild.invalid/pause:baked"

// NewHandover is the images step on the machine h, whose image is of release rel.
func NewHandover(h *host.Host, rel images.Release) Handover {
	return Handover{host: h, release: rel, socket: Socket, store: images.StoreDir, snapshotter: "overlayfs"}
}

// Handover is what the images step has to do on one machine.
type Handover struct {
	host        *host.Host
	release     images.Release
	socket      string // containerd's
	store       string // the image store's directory
	snapshotter string
}

// Done says whether containerd holds all that is baked, and shows it to the
// kubelet.
func (o Handover) Done(ctx context.Context) (bool, error) {
	want, err := o.want()
	if err != nil || len(want) == 0 {
		return len(want) == 0, err
	}
	c, err := o.dial(ctx)
	if err != nil {
		return false, err
	}
	defer c.Close()
	have, err := c.have(ctx)
	if err != nil {
		return false, err
	}
	todo := c.compare(want, have)
	if !todo.empty() {
		return false, nil
	}
	return true, c.seen(ctx, want)
}

// Hand hands over what containerd lacks.
func (o Handover) Hand(ctx context.Context) error {
	want, err := o.want()
	if err != nil {
		return err
	}
	c, err := o.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.apply(ctx, want)
}

// want reads the store and adds the sandbox image's second name.
func (o Handover) want() ([]bakedImage, error) {
	list, err := readStore(o.host, o.store)
	if err != nil {
		return nil, err
	}
	for i, img := range list {
		for _, ref := range img.refs {
			if strings.HasSuffix(ref, "/"+o.release.Pause.Repo+":"+o.release.Pause.Tag) {
				list[i].refs = append(img.refs, SandboxImage)
				return list, nil
			}
		}
	}
	return nil, fmt.Errorf("cannot hand over the baked images: the store at %s has no pause image %s:%s, without which no pod can start", o.store, o.release.Pause.Repo, o.release.Pause.Tag)
}
