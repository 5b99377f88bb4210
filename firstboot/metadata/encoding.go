package metadata

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// decodeAs undoes an encoding, by one of the names that platforms and people
// have for it; "base64?" is base64 if it can be. What is gzip is told by its
// bytes (gunzip).
func decodeAs(encoding, data string) ([]byte, error) {
	switch strings.ToLower(strings.TrimSpace(encoding)) {
	case "":
		return []byte(data), nil
	case "base64?":
		if b, err := unbase64(data); err == nil {
			return b, nil
		}
		return []byte(data), nil
	case "base64", "b64":
		return unbase64(data)
	case "gzip", "gz":
		return mustGzip([]byte(data), nil)
	case "gzip+base64", "gz+base64", "gzip+b64", "gz+b64":
		return mustGzip(unbase64(data))
	}
	return nil, fmt.Errorf("its encoding is said to be %.40q: write base64 or gzip+base64", encoding)
}

// unbase64 decodes standard base64, with or without padding and line breaks.
func unbase64(data string) ([]byte, error) {
	s := strings.TrimRight(strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, data), "=")
	b, err := base64.RawStdEncoding.DecodeString(s)
	if err != nil {
		return nil, errors.New("it is not the base64 that it is said to be")
	}
	return b, nil
}

func mustGzip(b []byte, err error) ([]byte, error) {
	if err == nil && !isGzip(b) {
		err = errors.New("it is not the gzip that it is said to be")
	}
	return b, err
}

// isGzip says whether b begins as RFC 1952 (2.3.1) has it, with the one method
// there is. No text begins so.
func isGzip(b []byte) bool { return bytes.HasPrefix(b, []byte{0x1f, 0x8b, 8}) }

// gunzip unpacks b if it is gzip.
func gunzip(b []byte) ([]byte, error) {
	if !isGzip(b) {
		return b, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err == nil {
		b, err = readAll(z)
	}
	switch {
	case errors.Is(err, errTooLarge):
		return nil, fmt.Errorf("unpacked, it is %w", err)
	case err != nil:
		return nil, fmt.Errorf("it is damaged gzip: %w", err)
	}
	return b, nil
}
