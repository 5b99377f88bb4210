package firstboot

import (
	"context"

	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
)

// stepScrubSecrets takes the secrets that have served out of the frozen
// configuration: tokens, the certificate key, the keys of a cluster's identity.
// The digest of the user-data stays, so that a change is still noticed.
func stepScrubSecrets() converge.Step {
	return converge.Step{
		Name: "scrub-secrets",
		Done: func(_ context.Context, m *node.Machine) (bool, error) {
			n, err := node.Frozen(m.Host)
			return err == nil && n.Scrubbed, err
		},
		Do: func(_ context.Context, m *node.Machine) error {
			n, err := node.Frozen(m.Host)
			if err != nil {
				return err
			}
			return m.Freeze(n.ScrubSecrets())
		},
	}
}
