package config

import (
	"strings"
	"testing"
)

func TestToken(t *testing.T) {
	for _, c := range []struct{ line, field, want string }{
		{"patches: patches", "NodeMetadata patches", "patches"},
		{"  - skipPhases: [addons, addon/foo ] # both", "NodeMetadata skipPhases[1]", "addon/foo"},
		{`name: "a b" # why`, "NodeMetadata name", `"a b"`},
		{"endpoint: 192.0.2.1:99999", "JoinConfiguration apiServerEndpoint", "192.0.2.1:99999"},
		{"labels: {a: b}", "NodeMetadata labels", "{a: b}"},
		{"ca.key: |", "NodeMetadata pki.ca.key", "|"},
		{"networking:", "ClusterConfiguration networking", "networking"},
		{"\t- größe: zu groß", "KubeletConfiguration größe", "zu groß"},
		{"- 192.0.2.1", "ClusterConfiguration apiServer.certSANs[0]", "192.0.2.1"},
	} {
		from, n := token(c.line, columnOf(c.line, c.field))
		if got := string([]rune(printableLine(c.line))[from : from+n]); got != c.want {
			t.Errorf("%q, %s: underlines %q, want %q", c.line, c.field, got, c.want)
		}
	}
}

// The line before shows what is around, and no secret.
func TestExcerptContext(t *testing.T) {
	const text = "role: worker\ntoken: abcdef.0123456789abcdef\nendpoint: x y\n"
	want := "    2 | token: [redacted]\n    3 | endpoint: x y\n      |           ^^^"
	if got := excerpt([]byte(text), 3, 11); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	const key = "ca.key: |\n  -----BEGIN RSA PRIVATE KEY-----\n  c2VjcmV0\n  -----END RSA PRIVATE KEY-----\nname: 7\n"
	if got := excerpt([]byte(key), 4, 1); strings.Contains(got, "c2VjcmV0") {
		t.Errorf("it shows a part of a key:\n%s", got)
	}
	if got := excerpt([]byte("a: b\n"), 7, 1); got != "" {
		t.Errorf("a line that is not there: %q", got)
	}
	// What is masked is not underlined.
	if got := excerpt([]byte(text), 2, 8); strings.Contains(got, "^") || strings.Contains(got, "0123456789abcdef") {
		t.Errorf("got\n%s", got)
	}
}
