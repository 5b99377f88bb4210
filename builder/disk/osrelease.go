package disk

import (
	"slices"
	"strings"
)

// OSRelease returns the variables of os-release(5) that say which image this
// is, as NAME=VALUE. The boot menu, systemd-sysupdate and systemd-analyze read
// IMAGE_ID and IMAGE_VERSION; all else stays the base's.
func OSRelease(version string) []string {
	return []string{`PRETTY_NAME="kbuild node ` + version + `"`, "IMAGE_ID=kbuild", "IMAGE_VERSION=" + version}
}

// SetOSRelease returns the os-release(5) file base with the variables set, at
// its end.
func SetOSRelease(base string, variables []string) string {
	var out strings.Builder
	for line := range strings.Lines(base) {
		name, _, _ := strings.Cut(line, "=")
		if !slices.ContainsFunc(variables, func(v string) bool { return strings.HasPrefix(v, name+"=") }) {
			out.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	for _, v := range variables {
		out.WriteString(v + "\n")
	}
	return out.String()
}
