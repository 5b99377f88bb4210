package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/kbuild/kbuild/firstboot"
	"github.com/kbuild/kbuild/firstboot/converge"
)

// TestQuoted: every message that a document quotes is one that the program
// has. What varies in it is shown as …, or as an example of it. A line may begin
// as the console's lines do, with program, step and state.
func TestQuoted(t *testing.T) {
	known := messages(t)
	n := 0
	for _, d := range read(t) {
		for _, b := range d.Blocks {
			if b.Mark != "quoted" {
				continue
			}
			for line := range strings.Lines(b.Text) {
				n++
				if line = strings.TrimSpace(line); !quotes(known, line) {
					t.Errorf("%s: the code has no message %q", b.At(), line)
				}
			}
		}
	}
	if n < 60 {
		t.Errorf("only %d quoted lines", n)
	}
}

// The check itself finds what is there and misses what is not.
func TestQuotes(t *testing.T) {
	some := []string{"working", "built … in …: …", "… images baked, … MB stored", "no API server answers at …: …; this node waits for it", "…: done in …", "…: waiting: …"}
	for line, want := range map[string]bool{
		"no API server answers at …: …":                                      true,
		"discovery: waiting: no API server answers at …: …; this node waits": false, // it breaks off
		"discovery: waiting: no API server answers at …":                     true,
		"nonsense: waiting: no API server answers at …: …":                   false,
		"kbuild-firstboot: certs: done in …":                                 true,
		"kbuild-firstboot: nonsense: done in …":                              false,
		"kbuild-firstboot: certs: working":                                   true,
		"kbuild-firstboot: certs: already so":                                false, // some has no such message
		"no API server …":                                                    true,
		"…":                                                                  false,
		"no API server answers at …: …: … s":                                 true,
		"nonsense: … s":                                                      false,
		"built v1.19.12 in out/v1.19.12: 3m13s":                              true,
		"built v1.19.12 out/v1.19.12: 3m13s":                                 false,
		"8 images baked, 272 MB stored":                                      true,
		"8 images baked, 272 GB stored":                                      false,
		"certs: pondering: the sense of life":                                false,
		"an API server answers at …":                                         false,
	} {
		if quotes(some, line) != want {
			t.Errorf("%q: want %v", line, want)
		}
	}
}

var (
	prefix = regexp.MustCompile(`^kbuild-firstboot: (warning: |error: )?`)
	states = regexp.MustCompile(`^(?:(\S+): (?:waiting: )|cannot finish (\S+): )(.*)$`)
	ended  = regexp.MustCompile(`^(\S+)(: done in …|: already so|: working)$`)
)

func quotes(messages []string, line string) bool {
	line = prefix.ReplaceAllString(line, "")
	line = strings.TrimSuffix(line, ": … s") // what a build's long work ends with
	if m := ended.FindStringSubmatch(line); m != nil {
		return isStep(m[1]) && slices.ContainsFunc(messages, func(s string) bool {
			return s == "…"+m[2] || s == m[2] || ": "+s == m[2] // a format, a sum, a state
		})
	}
	if m := states.FindStringSubmatch(line); m != nil {
		if !isStep(m[1] + m[2]) {
			return false
		}
		line = m[3]
	}
	parts := strings.Split(spaces(line), "…")
	if len(strings.Join(parts, "")) < 8 {
		return false
	}
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	re := regexp.MustCompile("^" + strings.Join(parts, ".*") + "$")
	return slices.ContainsFunc(messages, func(m string) bool { return re.MatchString(m) || fills(m, spaces(line)) })
}

// fills says whether line is a message with something put in for each …. The
// message must say enough by itself that this means something.
func fills(message, line string) bool {
	parts := strings.Split(message, "…")
	said := 0
	for i, p := range parts {
		if !strings.Contains(line, p) {
			return false
		}
		said += len(strings.Map(func(c rune) rune {
			if unicode.IsLetter(c) {
				return c
			}
			return -1
		}, p))
		parts[i] = regexp.QuoteMeta(p)
	}
	if len(parts) == 1 || said < 7 || said < 12 && parts[0] == "" {
		return false
	}
	return regexp.MustCompile("^" + strings.Join(parts, ".+") + "$").MatchString(line)
}

func isStep(name string) bool {
	for _, role := range converge.Roles() {
		for _, s := range firstboot.List(role) {
			if s.Name == name {
				return true
			}
		}
	}
	return false
}

var verb = regexp.MustCompile(`%[-+# 0]*[0-9]*(?:\.[0-9]*)?(?:\[\d+\])?[a-zA-Z]`)

func spaces(s string) string { return strings.Join(strings.Fields(s), " ") }

// messages are the lines that the program's string literals make, with … for
// what is put in, and those of the scripts in templates and Makefile.
func messages(t *testing.T) (all []string) {
	t.Helper()
	add := func(text string) {
		for line := range strings.Lines(strings.ReplaceAll(verb.ReplaceAllString(text, "…"), "……", "…")) {
			all = append(all, spaces(line))
		}
	}
	err := filepath.WalkDir("..", func(file string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "testdata" || e.Name() == "out" || strings.HasPrefix(e.Name(), ".") && e.Name() != ".." && e.Name() != ".ci"):
			return fs.SkipDir
		case e.IsDir() || strings.HasSuffix(file, "_test.go"):
		case filepath.Base(file) == "emergency" || filepath.Base(file) == "Makefile" || filepath.Base(filepath.Dir(file)) == ".ci":
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			for _, m := range regexp.MustCompile(`"([^"\n]*)"`).FindAllStringSubmatch(string(b), -1) {
				add(regexp.MustCompile(`\$\(?\w+\)?`).ReplaceAllString(m[1], "…"))
			}
		case strings.HasSuffix(file, ".go"):
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				e, ok := n.(ast.Expr)
				if !ok {
					return true
				}
				text, literal := concatenated(e)
				if literal {
					add(text)
				}
				return !literal
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// concatenated is the text of a string literal, or of a sum that has one, with
// … for what is no literal.
func concatenated(e ast.Expr) (text string, literal bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			s, err := strconv.Unquote(e.Value)
			return s, err == nil
		}
	case *ast.ParenExpr:
		return concatenated(e.X)
	case *ast.BinaryExpr:
		if e.Op == token.ADD {
			x, a := concatenated(e.X)
			y, b := concatenated(e.Y)
			if a || b {
				return x + y, true
			}
		}
	}
	return "…", false
}
