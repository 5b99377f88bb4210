package pull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/kbuild/kbuild/images/fetch"
)

// maxManifest is the size that registries must support (OCI distribution spec,
// "Pushing manifests").
const maxManifest = 4 << 20

// registries holds one authenticated client for each repository.
type registries struct {
	base     http.RoundTripper
	keychain authn.Keychain
	stall    time.Duration

	mu    sync.Mutex
	repos map[string]*repo
}

// repo is a client for one repository. Its lock makes concurrent users log in only
// once.
type repo struct {
	mu sync.Mutex
	rt http.RoundTripper
}

func newRegistries(base http.RoundTripper, keychain authn.Keychain, stall time.Duration) *registries {
	if base == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DialContext = (&net.Dialer{Timeout: 20 * time.Second}).DialContext
		t.ResponseHeaderTimeout = stall
		t.MaxIdleConnsPerHost = 16
		base = t
	}
	return &registries{base: transport.NewUserAgent(base, "kbuild"), keychain: keychain, stall: stall, repos: map[string]*repo{}}
}

// client logs in, unless that was done before.
func (r *registries) client(ctx context.Context, at name.Repository) (*http.Client, error) {
	r.mu.Lock()
	one := r.repos[at.Name()]
	if one == nil {
		one = &repo{}
		r.repos[at.Name()] = one
	}
	r.mu.Unlock()
	one.mu.Lock()
	defer one.mu.Unlock()
	if one.rt == nil {
		auth, err := r.keychain.Resolve(at)
		if err != nil {
			return nil, fmt.Errorf("cannot read the credentials for %s: %w", at.RegistryStr(), err)
		}
		rt, err := transport.NewWithContext(ctx, at.Registry, auth, r.base, []string{at.Scope(transport.PullScope)})
		if err != nil {
			return nil, fmt.Errorf("cannot log in at %s: %w", at.RegistryStr(), err)
		}
		one.rt = rt
	}
	return &http.Client{Transport: one.rt, CheckRedirect: noDowngrade}, nil
}

func noDowngrade(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("too many redirects")
	}
	if req.URL.Scheme == "http" && via[0].URL.Scheme == "https" {
		return fmt.Errorf("refused a redirect from https to http at %s", req.URL.Host)
	}
	return nil
}

// get requests path below /v2/REPOSITORY/. The caller closes the body, whose
// reads fail with fetch.Stalled if no data arrives within the stall time.
func (r *registries) get(ctx context.Context, at name.Repository, path string, header http.Header) (*http.Response, error) {
	c, err := r.client(ctx, at)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: at.Scheme(), Host: at.RegistryStr(), Path: "/v2/" + at.RepositoryStr() + "/" + path}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	// The bytes as they are: a digest is that of the stored form.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := fetch.Do(c, req, r.stall)
	if err != nil {
		return nil, fmt.Errorf("cannot reach %s: %w", at.RegistryStr(), withoutURL(err))
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent:
		return resp, nil
	}
	resp.Body.Close()
	return nil, &statusError{resp.StatusCode, retryAfter(resp.Header, time.Now())}
}

// manifest gets the manifest or index that id, a tag or digest, names.
func (r *registries) manifest(ctx context.Context, at name.Repository, id string) (v1.Descriptor, []byte, error) {
	accept := http.Header{}
	for _, t := range []types.MediaType{types.OCIImageIndex, types.DockerManifestList, types.OCIManifestSchema1, types.DockerManifestSchema2} {
		accept.Add("Accept", string(t))
	}
	resp, err := r.get(ctx, at, "manifests/"+id, accept)
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxManifest+1))
	if err != nil {
		return v1.Descriptor{}, nil, fmt.Errorf("cannot read manifest %s: %w", id, &brokenError{err})
	}
	if len(b) > maxManifest {
		return v1.Descriptor{}, nil, fmt.Errorf("manifest %s is larger than %d bytes", id, maxManifest)
	}
	sum := sha256.Sum256(b)
	d := v1.Descriptor{
		MediaType: types.MediaType(resp.Header.Get("Content-Type")),
		Size:      int64(len(b)),
		Digest:    v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])},
	}
	// A tag's digest is only known from the answer itself.
	for _, want := range []string{id, resp.Header.Get("Docker-Content-Digest")} {
		if h, err := v1.NewHash(want); err == nil && h.Algorithm == "sha256" && h != d.Digest {
			return d, nil, &contentError{fmt.Sprintf("manifest %s comes with other content: its digest is %s, not %s", id, d.Digest, h)}
		}
	}
	return d, b, nil
}
