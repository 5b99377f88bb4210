package disk

import (
	"bytes"
	"fmt"
	"strings"
)

// OSRelease returns an os-release(5) file that says which image this is. The
// boot menu, systemd-sysupdate and systemd-analyze read IMAGE_ID and
// IMAGE_VERSION; all else stays the base's.
func OSRelease(base []byte, version string) []byte {
	var out bytes.Buffer
	for line := range strings.Lines(string(base)) {
		name, _, _ := strings.Cut(line, "=")
		if name == "IMAGE_ID" || name == "IMAGE_VERSION" || name == "PRETTY_NAME" {
			continue
		}
		out.WriteString(strings.TrimRight(line, "\n") + "\n")
	}
	fmt.Fprintf(&out, "PRETTY_NAME=\"kbuild node %s\"\nIMAGE_ID=kbuild\nIMAGE_VERSION=%s\n", version, version)
	return out.Bytes()
}
