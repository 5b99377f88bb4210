package cluster

import (
	"encoding/json"
	"strings"
	"testing"
)

// A result is read as it was left, whatever was printed, and fits where it is
// kept; what a node of an earlier image has left is read, too.
func TestJobResult(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"a warning\nkbuild-firstboot: no room\n\n": "a warning\nno room",
		"\"quoted\" <b> & \x01\n":                  "\"quoted\" <b> & \x01",
		strings.Repeat("x\n", 5000) + "last":       "x\nlast",
		strings.Repeat("\"", 9000) + "end":         "\"end",
	} {
		b := NewJobResult(text).Message()
		if len(b) > maxResult || !json.Valid(b) {
			t.Errorf("%d bytes: %s", len(b), b)
		}
		if got := ReadJobResult(string(b)).String(); !strings.HasSuffix(got, want) || len(text) < 100 && got != want {
			t.Errorf("%q was read as %q", text, got)
		}
	}
	if got := ReadJobResult("a warning\nkbuild-firstboot: no room\n").String(); got != "a warning\nno room" {
		t.Errorf("text was read as %q", got)
	}
}
