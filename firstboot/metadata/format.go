package metadata

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
)

// maxLayers bounds how deep user-data may be wrapped: gzip around MIME around
// gzip around a cloud-config is already more than anyone does.
const maxLayers = 5

// unwrapped is f with kbuild's own documents in the place of the user-data that
// held them.
func unwrapped(f Found) (Found, error) {
	u := unwrapper{left: maxLayers}
	d, err := u.unwrap(f.Documents[0])
	if err != nil {
		return Found{}, err
	}
	f.Documents, f.Warnings = []config.Document{d}, u.warnings
	return f, nil
}

// unwrapper takes off layer after layer.
type unwrapper struct {
	left     int
	warnings []string
}

// unwrap returns kbuild's documents in d. As well as can be, a line of the
// outcome has the number that it has in d, for errors to point at: what stands
// before is made empty, not cut off.
func (u *unwrapper) unwrap(d config.Document) (config.Document, error) {
	if u.left--; u.left < 0 {
		return d, fmt.Errorf("it is wrapped more than %d times", maxLayers)
	}
	if isGzip(d.Data) {
		b, err := gunzip(d.Data)
		if err != nil {
			return d, err
		}
		return u.unwrap(config.Document{Source: d.Source, Data: b})
	}
	d.Data = config.Text(d.Data)
	text := bytes.TrimLeft(d.Data, "\r\n")
	line, _, _ := bytes.Cut(text, []byte("\n"))
	first := strings.TrimSpace(string(line))
	switch {
	case isMIME(text):
		return u.multipart(d)
	case first == "#cloud-config":
		return u.cloudConfig(d)
	case isIgnition(text):
		return u.ignition(d)
	}
	for _, s := range []string{"#!", "#include", "#cloud-boothook", "#cloud-config-archive", "#part-handler", "## template:"} {
		if strings.HasPrefix(first, s) {
			return d, fmt.Errorf("it is what cloud-init runs or expands (%s), which nobody does here: %s", s, wants)
		}
	}
	return d, nil
}

const wants = "give documents of kbuild's and kubeadm's kinds, or a #cloud-config, an Ignition config or a MIME multipart that holds them"

// part names a part of d for people.
func part(d config.Document, name string) string { return d.Source + ", " + name }
