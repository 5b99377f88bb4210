package slot

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/images/fetch"
)

// source is a directory with an image's files: open returns one of them from a
// byte on. A file that is not there is fs.ErrNotExist.
type source struct {
	name string // for people
	open func(ctx context.Context, file string, from int64) (io.ReadCloser, error)
}

// limits of files that are read whole.
const (
	maxSmall = 1 << 20
	maxUKI   = 256 << 20
)

// stall is how long a download may go without a byte.
const stall = time.Minute

func openSource(h *host.Host, where string) (source, error) {
	if path.IsAbs(where) {
		return source{where, func(_ context.Context, file string, from int64) (io.ReadCloser, error) {
			f, err := h.Root.Open(path.Join(where, file)[1:])
			if err != nil {
				return nil, err
			}
			if _, err := f.Seek(from, io.SeekStart); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return f, nil
		}}, nil
	}
	u, err := url.Parse(where)
	if err != nil {
		return source{}, outcome.Refuse("cannot read the source: %v", errors.Unwrap(err))
	}
	if u.User != nil || u.RawQuery != "" {
		return source{}, outcome.Refuse("the source has a user, a password or a query; it is shown in the status and in the journal, so it must hold no secret. Updates are signed: serve them without")
	}
	switch u.Scheme {
	case "http", "https":
		return httpSource(h, u), nil
	case "oci":
		return ociSource(h, u), nil
	}
	return source{}, outcome.Refuse("cannot fetch an update from %q: want the URL (http, https or oci) or the absolute path of a directory with %s", where, images.UpdateFile)
}

func httpSource(h *host.Host, u *url.URL) source {
	client := downloads(h)
	return source{u.String(), func(ctx context.Context, file string, from int64) (io.ReadCloser, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath(file).String(), nil)
		if err != nil {
			return nil, err
		}
		fetch.From(req, from)
		resp, err := fetch.Do(client, req, stall)
		if err != nil {
			return nil, err
		}
		begin, err := fetch.Begin(resp, from)
		switch {
		case resp.StatusCode == http.StatusNotFound:
			err = fmt.Errorf("%s: %w", file, fs.ErrNotExist)
		case resp.StatusCode != http.StatusOK && (from == 0 || resp.StatusCode != http.StatusPartialContent):
			err = fmt.Errorf("the server answers %s for %s", resp.Status, file)
		case err == nil && begin < from:
			// A server without ranges gives all of it again.
			_, err = io.CopyN(io.Discard, resp.Body, from)
		}
		if err != nil {
			return nil, errors.Join(err, resp.Body.Close())
		}
		return resp.Body, nil
	}}
}

// downloads is the machine's client, for files that take as long as they take.
func downloads(h *host.Host) *http.Client {
	c := *h.HTTP
	c.Timeout = 0
	c.CheckRedirect = nil
	return &c
}

// small reads a whole file of at most limit bytes.
func (s source) small(ctx context.Context, file string, limit int64) ([]byte, error) {
	f, err := s.open(ctx, file, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot fetch %s from %s: %w", file, s.name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("it is larger than %d MiB", limit>>20)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot fetch %s from %s: %w", file, s.name, err)
	}
	return b, nil
}

// update reads what the source offers, if somebody has signed it whom this
// image trusts.
func (s source) update(ctx context.Context, baked images.Baked) (images.Update, error) {
	sums, err := s.small(ctx, images.UpdateSums, maxSmall)
	if err != nil {
		return images.Update{}, err
	}
	sig, err := s.small(ctx, images.UpdateSignature, maxSmall)
	if errors.Is(err, fs.ErrNotExist) {
		sig, err = nil, nil
	}
	if err != nil {
		return images.Update{}, err
	}
	if err := checkTrusted(baked, sums, sig); err != nil {
		return images.Update{}, err
	}
	b, err := s.small(ctx, images.UpdateFile, maxSmall)
	if err != nil {
		return images.Update{}, err
	}
	if want, got := sumOf(sums, images.UpdateFile), sha256.Sum256(b); want != hex.EncodeToString(got[:]) {
		return images.Update{}, outcome.Refuse("%s of %s is not the one that its %s names: the upload is not whole, or somebody has changed it", images.UpdateFile, s.name, images.UpdateSums)
	}
	u, err := images.ReadUpdate(b)
	if err != nil {
		return u, outcome.Refuse("%w", err)
	}
	return u, nil
}

// checkTrusted says why sums may not be believed.
func checkTrusted(baked images.Baked, sums, sig []byte) error {
	switch {
	case sig == nil && baked.UnsignedUpdates:
		return nil
	case sig == nil:
		return outcome.Refuse("this update is not signed (it has no %s), and this node's image takes only signed ones: build it with --sign-key", images.UpdateSignature)
	case len(baked.UpdateKeys) == 0 && baked.UnsignedUpdates:
		return nil
	case len(baked.UpdateKeys) == 0:
		return outcome.Refuse("this node's image has no key to check updates with: it was built without --sign-key, --update-key and --allow-unsigned-updates, and can only be installed anew")
	}
	for _, k := range baked.UpdateKeys {
		block, _ := pem.Decode([]byte(k))
		if block == nil {
			continue
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if own, ok := key.(ed25519.PublicKey); err == nil && ok && len(sig) == ed25519.SignatureSize && ed25519.Verify(own, sums, sig) {
			return nil
		}
	}
	return outcome.Refuse("this update is signed by a key that this node's image does not know, or was changed after it was signed: build it with the --sign-key of the image that runs, or first install an image that trusts the new key (--update-key)")
}

// sumOf is a file's digest in the format of sha256sum(1); empty where it is
// not named.
func sumOf(sums []byte, file string) string {
	lines := bufio.NewScanner(bytes.NewReader(sums))
	for lines.Scan() {
		if sum, name, ok := strings.Cut(lines.Text(), "  "); ok && name == file {
			return sum
		}
	}
	return ""
}
