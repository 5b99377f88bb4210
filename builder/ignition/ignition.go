// Package ignition makes the configs that install a kbuild system extension on an
// operating system that boots with Ignition: a Butane config for people, and the
// Ignition config that the butane library makes from it for machines.
//
// Everything here is pure: bytes in, bytes or an error out. A user's own Butane
// config of any variant becomes an Ignition config of its own, which the
// machine's Ignition merges with ours: the user's settings take precedence.
package ignition

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/coreos/butane/config"
	"github.com/coreos/butane/config/common"

	"github.com/kbuild/kbuild/templates"
)

// DefaultURL is where machines fetch the system extension unless the user says
// where. It is a placeholder whose domain cannot exist (RFC 2606): the user must
// host the file, and Ignition has no relative addresses.
const DefaultURL = "https://kbuild.invalid/" + SysextName

// SysextName is the name of the system extension's image where it is hosted.
const SysextName = "sysext.raw"

// schemes are those that Ignition can fetch large files from (specification
// 3.4.0, storage.files.contents.source).
var schemes = [...]string{"https", "http", "s3", "gs", "tftp", "arn"}

// URL checks and completes the address of the system extension: empty is
// DefaultURL, and below one that ends in a slash it has its own name.
func URL(s string) (string, error) {
	if s == "" {
		return DefaultURL, nil
	}
	u, err := url.Parse(s)
	if err != nil {
		return "", fmt.Errorf("cannot use the address %q of the system extension: %w", s, err)
	}
	if !slices.Contains(schemes[:], u.Scheme) || u.Host == "" && u.Scheme != "arn" {
		return "", fmt.Errorf("cannot use %q as the address of the system extension: Ignition needs an absolute URL (%s): give the address where you host the file, as https://HOST/%s",
			s, strings.Join(schemes[:], ", "), SysextName)
	}
	if strings.HasSuffix(u.Path, "/") {
		u = u.JoinPath(SysextName)
	}
	return u.String(), nil
}

// Configs are the two forms of one config.
type Configs struct {
	Butane   []byte // YAML
	Ignition []byte // JSON
}

// Make makes both. p.URL is one of URL's.
func Make(p templates.ButaneParams) (Configs, error) {
	bu, err := templates.Butane(p)
	if err != nil {
		return Configs{}, err
	}
	// Uncompressed: it is small, people read it, and its bytes do not depend on a
	// compressor.
	ign, err := translate(bu, common.TranslateBytesOptions{Pretty: true, TranslateOptions: common.TranslateOptions{NoResourceAutoCompression: true}})
	if err != nil {
		return Configs{}, fmt.Errorf("cannot make the Ignition config: %w", err)
	}
	return Configs{Butane: bu, Ignition: ign}, nil
}

// Translate makes an Ignition config of a user's Butane one, as JSON. Files
// that it names with "local" are below dir; empty allows none.
func Translate(butane []byte, dir string) ([]byte, error) {
	return translate(butane, common.TranslateBytesOptions{Raw: true, TranslateOptions: common.TranslateOptions{FilesDir: dir}})
}

// translate runs butane. What butane only warns of is an error too, for it
// means an unknown field or a config that does not do what it says: the error
// is butane's report, with the place in the YAML.
func translate(butane []byte, o common.TranslateBytesOptions) ([]byte, error) {
	ign, report, err := config.TranslateBytes(butane, o)
	var lines []string
	for _, e := range report.Entries {
		// The user's config, merged into ours, was checked when Translate made
		// it. Butane cannot check it by the rules of our version: that is expected.
		if e.Message != common.ErrUnkownIgnitionVersion.Error() {
			lines = append(lines, "\n  "+e.String())
		}
	}
	switch {
	case len(lines) > 0:
		return nil, errors.New("butane reports:" + strings.Join(lines, ""))
	case err != nil:
		return nil, fmt.Errorf("butane: %w", err)
	}
	return append(bytes.TrimSpace(ign), '\n'), nil
}
