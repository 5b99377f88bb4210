package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kbuild/kbuild/test-vm/guest"
)

const (
	criSocket    = "unix:///run/containerd/containerd.sock"
	contentDir   = "/var/lib/containerd/io.containerd.content.v1.content/blobs"
	snapshotsDir = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"
)

// images reports what the CRI lists, and what containerd had to write to disk for
// it.
func images(ctx context.Context) (guest.Images, error) {
	var r guest.Images
	conn, err := grpc.NewClient(criSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return r, err
	}
	defer conn.Close()
	l, err := cri.NewImageServiceClient(conn).ListImages(ctx, &cri.ListImagesRequest{})
	if err != nil {
		return r, err
	}
	for _, i := range l.Images {
		sort.Strings(i.RepoTags)
		r.Images = append(r.Images, guest.Image{Tags: i.RepoTags, Pinned: i.Pinned})
	}
	if r.ContentBytes, err = bytesBelow(contentDir); err != nil {
		return r, err
	}
	snaps, err := filepath.Glob(snapshotsDir + "/*")
	if err != nil {
		return r, err
	}
	for _, s := range snaps {
		st, err := os.Lstat(filepath.Join(s, "fs"))
		if err != nil {
			continue // made or removed just now
		}
		if st.Mode()&fs.ModeSymlink != 0 {
			r.Linked++
			continue
		}
		// A running container's own files are few and small; a layer is not.
		n, err := bytesBelow(filepath.Join(s, "fs"))
		if err != nil {
			return r, err
		}
		r.LayerBytes += n
	}
	return r, nil
}

func bytesBelow(dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if st, err := d.Info(); err == nil {
			n += st.Size()
		}
		return nil
	})
	return n, err
}
