package metadata

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
)

// ignitionConfig is what is read of an Ignition config. What is read is the
// same in specifications 2.x and 3.x.
type ignitionConfig struct {
	Ignition struct {
		Config struct {
			Merge   []any
			Replace struct{ Source string }
		}
	}
	Storage struct {
		Files []struct {
			Path     string
			Contents struct {
				Source       string
				Compression  string
				Verification struct{ Hash string }
			}
		}
	}
}

// isIgnition says whether text is an Ignition config: JSON with a member
// ignition, which none of the kinds has.
func isIgnition(text []byte) bool {
	var top map[string]json.RawMessage
	return bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) && json.Unmarshal(text, &top) == nil && top["ignition"] != nil
}

// ignition takes user-data out of an Ignition config's file of that name, for
// an image that is no Ignition-based OS: where Ignition runs, the file is
// there already.
func (u *unwrapper) ignition(d config.Document) (config.Document, error) {
	var c ignitionConfig
	if err := json.Unmarshal(d.Data, &c); err != nil {
		return d, fmt.Errorf("its Ignition config cannot be read: %w", err)
	}
	for _, f := range c.Storage.Files {
		if f.Path != userDataFile {
			continue
		}
		b, err := dataURL(f.Contents.Source)
		if err == nil && f.Contents.Compression == "gzip" {
			b, err = mustGzip(b, nil)
		} else if err == nil && f.Contents.Compression != "" {
			err = fmt.Errorf("its compression is said to be %.40q: use gzip or none", f.Contents.Compression)
		}
		if err == nil {
			b, err = gunzip(b)
		}
		if err == nil {
			err = verify(b, f.Contents.Verification.Hash)
		}
		if err != nil {
			return d, fmt.Errorf("file %s of its Ignition config: %w", userDataFile, err)
		}
		u.warnings = append(u.warnings, fmt.Sprintf("%s: only file %s of the Ignition config is read: this is no Ignition-based OS", d.Source, userDataFile))
		return u.unwrap(config.Document{Source: part(d, "file "+userDataFile+" of its Ignition config"), Data: b})
	}
	hint := ""
	if len(c.Ignition.Config.Merge) > 0 || c.Ignition.Config.Replace.Source != "" {
		hint = " (configs that it merges or is replaced by are not fetched)"
	}
	return d, fmt.Errorf("its Ignition config has no file %s%s: add it to storage.files, with a data: URL as its source", userDataFile, hint)
}

// dataURL decodes a data: URL (RFC 2397).
func dataURL(s string) ([]byte, error) {
	rest, ok := strings.CutPrefix(s, "data:")
	head, data, comma := strings.Cut(rest, ",")
	if !ok || !comma {
		return nil, errors.New("its source is no data: URL, and nothing is fetched here: put the content into one")
	}
	data, err := url.PathUnescape(data)
	if err != nil {
		return nil, errors.New("its data: URL has a bad %-escape")
	}
	if strings.HasSuffix(strings.TrimSpace(head), ";base64") {
		return unbase64(data)
	}
	return []byte(data), nil
}

// verify checks a hash as Ignition writes it, of what is unpacked; an empty one
// holds always.
func verify(b []byte, want string) error {
	sum256, sum512 := sha256.Sum256(b), sha512.Sum512(b)
	switch strings.ToLower(want) {
	case "", "sha256-" + hex.EncodeToString(sum256[:]), "sha512-" + hex.EncodeToString(sum512[:]):
		return nil
	}
	return errors.New("it does not have the hash that verification asks for: correct one of the two")
}
