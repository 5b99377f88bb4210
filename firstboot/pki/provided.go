package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
)

// HasProvided says whether every file of the identity that the node was provided with is
// in place. Another file in its place is an error: there is a cluster already.
func HasProvided(h *host.Host, n *config.Node) (bool, error) {
	for name, provided := range n.Init.PKI {
		file := path.Join(n.Cluster.CertificatesDir, name)
		b, err := h.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("cannot read %s: %w", file, err)
		}
		if string(b) != provided.Reveal() {
			return false, fmt.Errorf("%s is there and not what `pki` in user-data gives: a cluster keeps the identity that it began with; wipe the var partition to begin another", file)
		}
	}
	return true, nil
}

// PlaceProvided puts the identity that the node was provided with in place, keys before
// certificates: a certificate without its key would mean that the key is
// elsewhere.
func PlaceProvided(h *host.Host, n *config.Node) error {
	for _, certificates := range []bool{false, true} {
		for _, name := range slices.Sorted(maps.Keys(n.Init.PKI)) {
			if strings.HasSuffix(name, ".crt") != certificates {
				continue
			}
			mode := fs.FileMode(keyMode)
			if certificates {
				mode = certMode
			}
			if err := h.WriteFile(path.Join(n.Cluster.CertificatesDir, name), []byte(n.Init.PKI[name].Reveal()), mode); err != nil {
				return err
			}
		}
	}
	return nil
}
