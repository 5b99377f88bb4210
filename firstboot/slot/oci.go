package slot

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

// ociSource is an artefact in a registry, oci://HOST/REPOSITORY:TAG: a manifest
// whose layers are the files, with their names in images.ArtifactTitle. The
// registry is asked without credentials: a node has none.
func ociSource(h *host.Host, u *url.URL) source {
	var found *artifact
	return source{u.Redacted(), func(ctx context.Context, file string, from int64) (io.ReadCloser, error) {
		if found == nil {
			a, err := openArtifact(ctx, h, u)
			if err != nil {
				return nil, err
			}
			found = a
		}
		digest, ok := found.files[file]
		if !ok {
			return nil, fmt.Errorf("%s: %w", file, fs.ErrNotExist)
		}
		blob := *found.blobs
		blob.Path += digest
		return httpSource(&host.Host{HTTP: found.client}, &blob).open(ctx, "", from)
	}}
}

// artifact is one that was looked up.
type artifact struct {
	client *http.Client
	blobs  *url.URL          // ends in "/blobs/"
	files  map[string]string // digests by name
}

func openArtifact(ctx context.Context, h *host.Host, u *url.URL) (*artifact, error) {
	ref, err := name.ParseReference(u.Host + u.Path)
	if err != nil {
		return nil, outcome.Refuse("cannot read the source %q: %v", u.Redacted(), err)
	}
	base := downloads(h).Transport
	img, err := remote.Image(ref, remote.WithContext(ctx), remote.WithTransport(base))
	if err != nil {
		return nil, err
	}
	m, err := img.Manifest()
	if err != nil {
		return nil, err
	}
	if string(m.Config.MediaType) != images.ArtifactType {
		return nil, outcome.Refuse("%s is no update of kbuild's, but a %s: push one with `kbuild push`", u.Redacted(), m.Config.MediaType)
	}
	rt, err := transport.NewWithContext(ctx, ref.Context().Registry, authn.Anonymous, base, []string{ref.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	a := &artifact{client: &http.Client{Transport: rt}, files: titles(m)}
	a.blobs = &url.URL{Scheme: ref.Context().Scheme(), Host: ref.Context().RegistryStr(), Path: "/v2/" + ref.Context().RepositoryStr() + "/blobs/"}
	return a, nil
}

// titles are the digests of a manifest's layers by the names of the files.
func titles(m *v1.Manifest) map[string]string {
	files := map[string]string{}
	for _, l := range m.Layers {
		if t := l.Annotations[images.ArtifactTitle]; t != "" && !strings.Contains(t, "/") {
			files[t] = l.Digest.String()
		}
	}
	return files
}
