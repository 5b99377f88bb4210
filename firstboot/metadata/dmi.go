package metadata

import (
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/host"
)

// dmi is the directory of what the firmware says of the machine.
const dmi = "/sys/class/dmi/id/"

// mark is a file of the machine that begins so, whatever the case, on a
// platform and nowhere else.
type mark struct{ file, begins string }

// on says whether the machine bears one of the marks.
func on(h *host.Host, marks []mark) bool {
	return slices.ContainsFunc(marks, func(m mark) bool {
		b, err := readFile(h, m.file)
		return err == nil && len(b) >= len(m.begins) && strings.EqualFold(string(b[:len(m.begins)]), m.begins)
	})
}
