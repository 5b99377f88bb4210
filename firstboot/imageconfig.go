package firstboot

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/metadata"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// otherImage says whether n was made with another image's configuration than
// this one's.
func otherImage(m *node.Machine, n *config.Node) (bool, error) {
	doc, err := metadata.Baked(m.Host)
	return err == nil && imageConfigDigest(doc) != n.Sources[node.ImageSource], err
}

// imageConfigDigest names the image's own configuration; empty where it has none.
func imageConfigDigest(doc config.Document) string {
	if doc.Data == nil {
		return ""
	}
	return fmt.Sprintf("%s, sha256:%x", doc.Source, sha256.Sum256(doc.Data))
}

// noteImageConfig writes down what n was made with.
func noteImageConfig(n *config.Node, doc config.Document) {
	if n.Sources[node.ImageSource] = imageConfigDigest(doc); n.Sources[node.ImageSource] == "" {
		delete(n.Sources, node.ImageSource)
	}
}

// applyImageConfig gives a node what this image's own configuration says.
func applyImageConfig(ctx context.Context, m *node.Machine, n *config.Node) error {
	doc, err := metadata.Baked(m.Host)
	if err != nil {
		return err
	}
	facts, err := node.Facts(ctx, m.Host)
	if err != nil {
		return err
	}
	applied, changed, kept, err := n.ApplyImageConfig(m.Baked, facts, doc)
	if err == nil && !n.Role.Joins() {
		_, err = config.Validate(applied, m.Baked)
	}
	if err != nil {
		return outcome.Refuse("this image's own configuration does not go with this node: %w", err)
	}
	if len(kept) > 0 {
		m.Host.Log.Warn("this image's own configuration says what a node keeps for good; reset the node to apply it", slog.String("fields", strings.Join(kept, ", ")))
	}
	if len(changed) > 0 {
		m.Host.Log.Info("this image's own configuration differs from that of the image before", slog.String("fields", strings.Join(changed, ", ")))
	}
	noteImageConfig(applied, doc)
	return m.Freeze(applied)
}
