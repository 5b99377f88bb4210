package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kbuild/kbuild/cli"
)

// terminal is a pseudo-terminal: what is typed into keys comes out of line.
func terminal(t *testing.T) (keys, line *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	if err := unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	line, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { line.Close() })
	return keys, line
}

// typist types the next answer whenever a command asks on its standard error.
type typist struct {
	mu      sync.Mutex
	keys    *os.File
	answers []string
	bytes.Buffer
}

func (p *typist) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if strings.HasSuffix(string(b), ": ") && len(p.answers) > 0 {
		// What is typed ahead of the question waits in the terminal.
		if _, err := p.keys.WriteString(p.answers[0] + "\n"); err != nil {
			return 0, err
		}
		p.answers = p.answers[1:]
	}
	return p.Buffer.Write(b)
}

// typed runs the command line at a terminal, where answers are typed.
func typed(t *testing.T, answers []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	keys, line := terminal(t)
	var out bytes.Buffer
	p := &typist{keys: keys, answers: answers}
	code = Execute(t.Context(), args, line, &out, p)
	return code, out.String(), p.String()
}

// TestPassphrase: a directory that a passphrase opens, and nothing else does.
func TestPassphrase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	const right = "correct horse battery staple"
	config := filepath.Join(t.TempDir(), "quick.yaml")
	if err := os.WriteFile(config, []byte(quick), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		answers []string
		want    string
	}{
		"differ": {[]string{right, "wrong horse"}, "differ"},
		"empty":  {[]string{""}, "empty"},
	} {
		if code, _, stderr := typed(t, c.answers, "cluster", "new", dir, "--config", config, "--encrypt"); code != cli.ExitUsage || !strings.Contains(stderr, c.want) {
			t.Errorf("%s: %d %s", name, code, stderr)
		}
	}
	code, out, stderr := typed(t, []string{right, right}, "cluster", "new", dir, "--config", config, "--encrypt")
	if code != cli.ExitOK || strings.Contains(out+stderr, right) {
		t.Fatalf("%d %s%s", code, out, stderr)
	}
	worker := []string{"cluster", "userdata", dir, "--role", "worker"}
	code, out, stderr = typed(t, []string{right}, worker...)
	if code != cli.ExitOK || !strings.Contains(stderr, "identity.age") {
		t.Fatalf("%d %s", code, stderr)
	}
	if n := node(t, map[string][]byte{credentialFile: []byte(out)}); n.Role != "worker" {
		t.Errorf("a %s", n.Role)
	}
	if code, out, stderr := typed(t, []string{"wrong horse"}, worker...); code != cli.ExitFailed || out != "" || !strings.Contains(stderr, "is it the right passphrase?") {
		t.Errorf("a wrong passphrase: %d %s%s", code, out, stderr)
	}
	if code, _, stderr := kbuild(t, worker...); code != cli.ExitFailed || !strings.Contains(stderr, "terminal") {
		t.Errorf("nobody to ask: %d %s", code, stderr)
	}
}
