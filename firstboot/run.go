package firstboot

import (
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// Run is one pass through the list on one machine.
type Run struct {
	Host  *host.Host
	Baked images.Baked // what the image says of itself
	// Node is the frozen node configuration. It is nil until the metadata
	// step is done; every later step may rely on it.
	Node *config.Node
}
