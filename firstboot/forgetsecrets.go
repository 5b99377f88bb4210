package firstboot

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/kbuild/kbuild/firstboot/config"
)

// stepForgetSecrets takes the secrets that have served out of the frozen
// configuration: tokens, the certificate key, the keys of a cluster's identity.
// The digest of the user-data stays, so that a change is still noticed.
func stepForgetSecrets() Step {
	return Step{
		Name: "forget-secrets",
		Done: func(_ context.Context, r *Run) (bool, error) {
			n, err := frozenNode(r)
			return err == nil && n.Forgotten, err
		},
		Do: func(_ context.Context, r *Run) error {
			n, err := frozenNode(r)
			if err != nil {
				return err
			}
			return freeze(r, n.Forget())
		},
	}
}

// frozenNode reads the frozen configuration.
func frozenNode(r *Run) (*config.Node, error) {
	b, err := r.Host.ReadFile(nodeFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read the frozen configuration: %w", err)
	}
	n := &config.Node{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(n); err != nil {
		return nil, fmt.Errorf("cannot read the frozen configuration %s: %w; it was not written by this kbuild: wipe the var partition to set the node up anew", nodeFile, err)
	}
	return n, nil
}

// freeze writes the frozen configuration.
func freeze(r *Run, n *config.Node) error {
	if err := r.Host.MkdirAll("/var/lib/kbuild", 0o755); err != nil {
		return err
	}
	return writeState(r, nodeFile, n)
}
