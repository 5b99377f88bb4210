package firstboot

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// containerdSocket is where containerd serves its own API and the CRI.
const containerdSocket = "/run/containerd/containerd.sock"

// SandboxImage is the name under which containerd's configuration asks for the
// pause image. The images step gives this name to the pause image of the
// release, so that the kubelet and the runtime always mean the same one. The
// domain can not exist (RFC 2606), so nothing is ever pulled from it.
const SandboxImage = "kbuild.invalid/pause:baked"

// stepImages hands the baked container images to containerd in place: every
// layer stays where it is, in the verified root, and containerd gets a link.
// It runs on every boot and puts back what is missing; records of images that
// an earlier node image brought and this one does not are removed.
func stepImages() Step {
	return Step{
		Name:  "images",
		Needs: []string{"hostname"},
		Done:  func(ctx context.Context, r *Run) (bool, error) { return imagesAt(r).done(ctx) },
		Do:    func(ctx context.Context, r *Run) error { return imagesAt(r).hand(ctx) },
		Limit: 5 * time.Minute,
	}
}

func imagesAt(r *Run) handover {
	return handover{host: r.Host, release: r.Baked.Release, socket: containerdSocket, store: images.StoreDir, snapshotter: "overlayfs"}
}

// handover is the images step on one machine.
type handover struct {
	host        *host.Host
	release     images.Release
	socket      string // containerd's
	store       string // the image store's directory
	snapshotter string
}

func (o handover) done(ctx context.Context) (bool, error) {
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
	todo := c.missing(want, have)
	if !todo.empty() {
		return false, nil
	}
	return true, c.seen(ctx, want)
}

func (o handover) hand(ctx context.Context) error {
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
func (o handover) want() ([]bakedImage, error) {
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
