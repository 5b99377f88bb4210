package identity

import (
	"context"
	"fmt"
	"time"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/pki"
	"github.com/kbuild/kbuild/images"
)

// New creates an identity. Keys, subjects and validity are the same as the first
// control plane would choose, which are kubeadm's. Errors of the Spec are
// SpecError.
func New(ctx context.Context, s Spec, now time.Time) (*Identity, error) {
	text, n, err := s.resolve()
	if err != nil {
		return nil, SpecError{err}
	}
	id := &Identity{Config: text, Endpoint: n.Cluster.ControlPlaneEndpoint, CertificateKey: cluster.NewCertificateKey()}
	if id.Token, err = config.NewToken(nil); err != nil {
		return nil, err
	}
	rel, err := images.Lookup(n.Cluster.KubernetesVersion)
	if err != nil {
		return nil, err
	}
	if id.PKI, err = pki.Authorities(ctx, n, rel, pki.Clock{Now: now}); err != nil {
		return nil, fmt.Errorf("cannot create the cluster's certificate authorities: %w", err)
	}
	return id, nil
}

// SpecError says that a Spec cannot be used: nothing was made.
type SpecError struct{ err error }

func (e SpecError) Error() string { return e.err.Error() }
func (e SpecError) Unwrap() error { return e.err }
