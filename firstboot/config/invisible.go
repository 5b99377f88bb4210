package config

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf16"

	yaml "go.yaml.in/yaml/v3"
)

// What editors, chats and web pages put into text that people do not see.

// Text is b in UTF-8: without a byte order mark, and from UTF-16 where it is
// that, with a mark or without (YAML 1.2, 5.2: the first character is ASCII).
func Text(b []byte) []byte {
	var order binary.ByteOrder
	switch {
	case len(b) < 2:
		return b
	case bytes.HasPrefix(b, []byte("\xff\xfe")), b[0] != 0 && b[1] == 0:
		order = binary.LittleEndian
	case bytes.HasPrefix(b, []byte("\xfe\xff")), b[0] == 0 && b[1] != 0:
		order = binary.BigEndian
	default:
		return bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	return bytes.TrimPrefix([]byte(string(utf16.Decode(units))), []byte("\xef\xbb\xbf"))
}

// invisible names characters that look like a space, or like nothing.
func invisible(r rune) string {
	switch r {
	case 0xa0, 0x2007, 0x202f:
		return fmt.Sprintf("no-break space (U+%04X)", r)
	case 0x200b, 0x200c, 0x200d, 0x2060, 0xfeff, 0xad:
		return fmt.Sprintf("character that cannot be seen (U+%04X)", r)
	case 0x85, 0x2028, 0x2029:
		return fmt.Sprintf("line break that is none to YAML's fields (U+%04X)", r)
	case 0x1680, 0x205f, 0x3000:
		return fmt.Sprintf("wide space (U+%04X)", r)
	}
	if r >= 0x2000 && r <= 0x200a {
		return fmt.Sprintf("space of another width (U+%04X)", r)
	}
	return ""
}

const invisibleRemedy = "replace it with a plain space, or remove it; it often comes with text copied from a web page or a chat"

// firstInvisible is the first such character of s, and its column from 1.
func firstInvisible(s string) (name string, column int) {
	for _, r := range s {
		column++
		if name := invisible(r); name != "" {
			return name, column
		}
	}
	return "", 0
}

// visible notes an invisible character in unquoted text.
func (c *converter) visible(n *yaml.Node, path string) bool {
	name, column := firstInvisible(n.Value)
	if name == "" || n.Style != 0 {
		return true
	}
	at := *n
	at.Column += column - 1
	c.problem(&at, path, "there is a "+name+" in it", invisibleRemedy)
	return false
}

// unquotedIPv6 is an IPv6 address in brackets with a port, which YAML takes for
// a list and then does not understand.
var unquotedIPv6 = regexp.MustCompile(`(?:^\s*|[:,{-]\s+)(\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]:\d+)`)

// near is how many lines away the YAML library may notice what it stumbles over.
const near = 3

// whyNotYAML finds the cause of a syntax error that was noticed at line (0 where
// that is not known): it returns the line and column of what people do not see
// to be wrong, and what to do. A line of 0 means that there is nothing such.
func whyNotYAML(text []byte, noticed int) (line, column int, what, remedy string) {
	best := near + 1
	for i, s := range strings.Split(string(text), "\n") {
		away := max(i+1-noticed, noticed-i-1)
		if noticed == 0 {
			away = 0
		}
		if away >= best {
			continue
		}
		code, _, _ := strings.Cut(s, " #")
		if strings.HasPrefix(strings.TrimSpace(code), "#") {
			continue
		}
		indent := code[:len(code)-len(strings.TrimLeft(code, " \t"))]
		name, col := firstInvisible(code)
		switch m := unquotedIPv6.FindStringSubmatchIndex(code); {
		case name != "":
			column, what, remedy = col, "there is a "+name+" in it", invisibleRemedy
		case strings.Contains(indent, "\t"):
			column, what, remedy = strings.Index(indent, "\t")+1, "it is indented with a tab", "indent with spaces"
		case m != nil:
			column, what, remedy = len([]rune(code[:m[2]]))+1, "YAML takes an unquoted [ for the beginning of a list", fmt.Sprintf("put the address in quotes: %q", code[m[2]:m[3]])
		default:
			continue
		}
		line, best = i+1, away
	}
	return line, column, what, remedy
}
