package containerd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	ctrimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kbuild/kbuild/firstboot/outcome"
)

// client is a connection to containerd, in the kubelet's namespace.
type client struct {
	Handover
	client *containerd.Client
	conn   *grpc.ClientConn
}

// dial connects to containerd; while its socket is not there, that is a Retry.
func (o Handover) dial(ctx context.Context) (*client, error) {
	conn, err := grpc.NewClient("unix://"+o.host.Path(o.socket), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		return nil, fmt.Errorf("cannot connect to containerd: %w", err)
	}
	if !o.host.Exists(o.socket) {
		conn.Close()
		return nil, outcome.Retry{After: time.Second, Why: "containerd's socket " + o.socket + " is not there yet; containerd.service makes it",
			Wake: func(ctx context.Context) { o.host.WaitFile(ctx, o.socket) }}
	}
	c, err := containerd.NewWithConn(conn, containerd.WithDefaultNamespace("k8s.io"))
	if err == nil {
		_, err = c.Version(namespaces.WithNamespace(ctx, "k8s.io"))
	}
	if err != nil {
		conn.Close()
		if errdefs.IsUnavailable(err) || errors.Is(err, context.DeadlineExceeded) {
			return nil, outcome.Retry{After: 200 * time.Millisecond, Why: "containerd does not answer: " + err.Error()}
		}
		return nil, fmt.Errorf("cannot connect to containerd at %s: %w", o.socket, err)
	}
	return &client{o, c, conn}, nil
}

func (c *client) Close() error { return c.conn.Close() }

// inventory is what containerd holds.
type inventory struct {
	images    map[string]ctrimages.Image
	content   map[digest.Digest]map[string]string // labels by digest
	snapshots map[string]snapshots.Info
}

func (c *client) have(ctx context.Context) (inventory, error) {
	ctx = namespaces.WithNamespace(ctx, "k8s.io")
	h := inventory{map[string]ctrimages.Image{}, map[digest.Digest]map[string]string{}, map[string]snapshots.Info{}}
	list, err := c.client.ImageService().List(ctx)
	if err != nil {
		return h, fmt.Errorf("cannot list containerd's images: %w", err)
	}
	for _, i := range list {
		h.images[i.Name] = i
	}
	err = c.client.ContentStore().Walk(ctx, func(i content.Info) error { h.content[i.Digest] = i.Labels; return nil })
	if err != nil {
		return h, fmt.Errorf("cannot list containerd's content: %w", err)
	}
	err = c.client.SnapshotService(c.snapshotter).Walk(ctx, func(_ context.Context, i snapshots.Info) error { h.snapshots[i.Name] = i; return nil })
	if err != nil {
		return h, fmt.Errorf("cannot list containerd's snapshots of %s: %w", c.snapshotter, err)
	}
	return h, nil
}

// seen asks the CRI, as the kubelet will, and returns a Retry until it knows
// every image.
func (c *client) seen(ctx context.Context, want []bakedImage) error {
	resp, err := cri.NewImageServiceClient(c.conn).ListImages(ctx, &cri.ListImagesRequest{})
	// containerd answers its own API a moment before its CRI service is ready,
	// and says so with code Unknown up to 1.7.
	if status.Code(err) == codes.Unavailable || err != nil && strings.Contains(err.Error(), "server is not initialized yet") {
		return outcome.Retry{After: 50 * time.Millisecond, Why: "containerd does not serve the kubelet yet"}
	}
	if err != nil {
		return fmt.Errorf("cannot list the images that containerd shows to the kubelet: %w", err)
	}
	known := map[string]bool{}
	for _, i := range resp.Images {
		for _, t := range i.RepoTags {
			known[t] = true
		}
	}
	for _, img := range want {
		for _, ref := range img.refs {
			if !known[ref] {
				return outcome.Retry{After: 20 * time.Millisecond, Why: "containerd does not show image " + ref + " to the kubelet yet"}
			}
		}
	}
	return nil
}
