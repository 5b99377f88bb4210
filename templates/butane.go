package templates

import (
	"bytes"
	"fmt"
	"text/template"
)

// ButaneParams are the parameters of the Butane config of an image for an
// Ignition-based operating system.
type ButaneParams struct {
	URL      string // where machines fetch the system extension
	SHA256   string // of the system extension, in hex
	RootHash string // of the system extension's dm-verity hashes, in hex
	Merge    string // an Ignition config to merge, as JSON; empty for none
}

// earlyFiles are files of Root that must be in place before system extensions
// are merged. They go where the machine's own configuration is.
var earlyFiles = [...][2]string{
	{"usr/lib/systemd/networkd.conf.d/10-kbuild.conf", "/etc/systemd/networkd.conf.d/10-kbuild.conf"},
	{"usr/lib/systemd/network/50-kbuild-virtual.link", "/etc/systemd/network/50-kbuild-virtual.link"},
	{"usr/lib/systemd/resolved.conf.d/10-kbuild.conf", "/etc/systemd/resolved.conf.d/10-kbuild.conf"},
}

// Butane returns the Butane config. Its variant is flatcar, which is made for an
// operating system with systemd-sysext and networkd. Nothing in it is specific to
// Flatcar: every Ignition from 2.15 on reads specification 3.4.0.
func Butane(p ButaneParams) ([]byte, error) {
	type file struct{ Path, Text string }
	view := struct {
		ButaneParams
		Early []file
	}{ButaneParams: p}
	for _, f := range earlyFiles {
		text, err := root.ReadFile("root/" + f[0])
		if err != nil {
			return nil, fmt.Errorf("cannot render the Butane config: %w", err)
		}
		view.Early = append(view.Early, file{f[1], string(text)})
	}
	t, err := template.New("node.bu").Funcs(template.FuncMap{"json": jsonText}).Parse(butane)
	if err != nil {
		return nil, fmt.Errorf("cannot render the Butane config: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, view); err != nil {
		return nil, fmt.Errorf("cannot render the Butane config: %w", err)
	}
	return b.Bytes(), nil
}
