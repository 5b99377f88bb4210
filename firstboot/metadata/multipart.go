package metadata

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"regexp"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config"
)

// partType is the content type of a MIME part that holds kbuild's documents.
const partType = "text/x-kbuild"

// maxParts bounds how many parts of a multipart are looked at.
const maxParts = 64

// mimeHeader is how a MIME multipart begins as people's tools write it for
// cloud-init; it would also be YAML, but nothing of ours.
var mimeHeader = regexp.MustCompile(`(?i)^(content-type:\s*multipart/|mime-version:)`)

const headerHelp = "write `Name: value` lines and an empty line behind them"

func isMIME(text []byte) bool { return mimeHeader.Match(text) }

// multipart takes the one part of a MIME multipart (RFC 2046, 5.1) that is for
// kbuild: one of type text/x-kbuild, or a text/cloud-config with a key kbuild.
func (u *unwrapper) multipart(d config.Document) (config.Document, error) {
	msg, err := mail.ReadMessage(bytes.NewReader(bytes.TrimLeft(d.Data, "\r\n")))
	if err != nil {
		return d, fmt.Errorf("it begins like a MIME multipart, but its header cannot be read: %s", headerHelp)
	}
	typ, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil || !strings.HasPrefix(typ, "multipart/") || params["boundary"] == "" {
		return d, errors.New("it begins like a MIME multipart, but its Content-Type is no multipart with a boundary")
	}
	type kind struct {
		config.Document
		cloudConfig bool
	}
	var ours []kind
	var others []string
	for r, n := multipart.NewReader(msg.Body, params["boundary"]), 1; ; n++ {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return d, fmt.Errorf("part %d of the MIME multipart breaks off: its last line must be --BOUNDARY--", n)
		}
		if err != nil { // which would show the line, and that may be content
			return d, fmt.Errorf("the header of part %d of the MIME multipart cannot be read: %s", n, headerHelp)
		}
		if n > maxParts {
			return d, fmt.Errorf("the MIME multipart has more than %d parts", maxParts)
		}
		typ, _, err := mime.ParseMediaType(p.Header.Get("Content-Type"))
		if err != nil {
			typ = "without a content type"
		}
		body, err := partBody(d.Data, p)
		if err != nil {
			return d, fmt.Errorf("part %d (%s) of the MIME multipart: %w", n, typ, err)
		}
		if typ != partType && (typ != "text/cloud-config" || !hasCloudKey(body)) {
			others = append(others, fmt.Sprintf("%d (%s)", n, typ))
			continue
		}
		ours = append(ours, kind{config.Document{Source: part(d, fmt.Sprintf("part %d", n)), Data: body}, typ != partType})
	}
	switch {
	case len(ours) == 0 && len(others) == 0 && !bytes.Contains(d.Data, []byte("--"+params["boundary"])):
		return d, noBoundary(d.Data, params["boundary"])
	case len(ours) == 0:
		return d, fmt.Errorf("no part of the MIME multipart is for kbuild: give one the type %s, or a key %s to the text/cloud-config", partType, cloudKey)
	case len(ours) > 1:
		return d, fmt.Errorf("%d parts of the MIME multipart are for kbuild: put the documents into one", len(ours))
	}
	if len(others) > 0 {
		u.warnings = append(u.warnings, fmt.Sprintf("%s: ignored are the MIME parts %s", d.Source, strings.Join(others, ", ")))
	}
	if ours[0].cloudConfig { // as its type says: it need not begin with #cloud-config
		return u.cloudConfig(ours[0].Document)
	}
	return u.unwrap(ours[0].Document)
}

// noBoundary says why the MIME multipart text has no parts: no line of it begins
// one (RFC 2046, 5.1.1).
func noBoundary(text []byte, boundary string) error {
	for i, line := range strings.Split(string(text), "\n") {
		if line = strings.TrimSpace(line); line == boundary || line == boundary+"--" {
			return fmt.Errorf("the MIME multipart has no parts: line %d is the boundary without the two dashes that must stand before it: write --%.70s there and at each other boundary, and --%.70s-- at the end", i+1, boundary, boundary)
		}
	}
	return fmt.Errorf("the MIME multipart has no parts: none of its lines is --%.70s, as its Content-Type says", boundary)
}

// partBody is a part's content, at the lines where it stands in whole if it
// stands there as it is.
func partBody(whole []byte, p *multipart.Part) ([]byte, error) {
	raw, err := io.ReadAll(p) // within what was read
	if err != nil {
		return nil, errors.New("it breaks off: the last line must be --BOUNDARY--")
	}
	switch enc := strings.ToLower(strings.TrimSpace(p.Header.Get("Content-Transfer-Encoding"))); enc {
	case "", "7bit", "8bit", "binary":
		if at := bytes.Index(whole, raw); at > 0 && !isGzip(raw) {
			return append(bytes.Repeat([]byte("\n"), bytes.Count(whole[:at], []byte("\n"))), raw...), nil
		}
	case "base64":
		raw, err = unbase64(string(raw))
	case "quoted-printable":
		raw, err = readAll(quotedprintable.NewReader(bytes.NewReader(raw)))
	default:
		err = fmt.Errorf("its Content-Transfer-Encoding is %.40q: use 7bit, base64 or quoted-printable", enc)
	}
	if err != nil {
		return nil, err
	}
	return gunzip(raw)
}

// hasCloudKey says whether text is a cloud-config with something for kbuild.
func hasCloudKey(text []byte) bool {
	top, err := oneMapping(text)
	if err != nil {
		return false
	}
	for i := 0; i < len(top.Content); i += 2 {
		if top.Content[i].Value == cloudKey {
			return true
		}
	}
	return false
}
