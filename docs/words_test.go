package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// phrases have puzzled readers. What the program says, its comments and its
// documents use the plain words beside them instead.
func phrases() map[string]string {
	return map[string]string{
		"no hands":                         "unattended",
		"anybody's will do":                "accepts unsigned updates",
		"refuses in words":                 "fails early, with a reason",
		"ended without a word":             "after a crash",
		"takes pods again by itself":       "uncordons itself",
		"Any variant will do":              "any Butane variant works",
		"wins over ours":                   "your settings take precedence",
		"for looking, and for hands":       "for inspection and manual repair",
		"done, but it does not hold":       "the step ran, but its check still fails",
		"not so after":                     "timed out after",
		"a mistake in kbuild":              "a bug in kbuild",
		"nothing can be done about it":     "say what cannot be repaired",
		"nothing of it counts":             "discarded",
		"go over an image":                 "first install an image",
		"Let pods come again to this node": "uncordon this node",
		"In the way:":                      "Blocked:",
		"less than no time":                "must not be negative",
		"forget-secrets":                   "scrub-secrets",
		"whereEdits":                       "ifLeader",
		"LayBaked":                         "ApplyImageConfig",
		"no time at all":                   "must be positive",
		"nobody sits":                      "non-interactively",
		"taken out of sight":               "detached (lazy unmount)",
		"which was to go down":             "if its reboot never came",
	}
}

// TestWords: the phrases do not come back.
func TestWords(t *testing.T) {
	quoted := make([]string, 0, len(phrases()))
	for p := range phrases() {
		quoted = append(quoted, regexp.QuoteMeta(p))
	}
	all := regexp.MustCompile(strings.Join(quoted, "|"))
	read := 0
	err := filepath.WalkDir("..", func(file string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "out" || strings.HasPrefix(e.Name(), ".git")):
			return fs.SkipDir
		case e.IsDir(), filepath.Base(file) == "words_test.go":
			return nil
		}
		inTemplates := strings.HasPrefix(file, filepath.Join("..", "templates"))
		if ext := filepath.Ext(file); !inTemplates && ext != ".go" && ext != ".md" && ext != ".golden" && e.Name() != "Makefile" {
			return nil
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		read++
		text := string(b)
		for _, m := range all.FindAllStringIndex(text, -1) {
			phrase := text[m[0]:m[1]]
			t.Errorf("%s:%d: %q: say %q", file, 1+strings.Count(text[:m[0]], "\n"), phrase, phrases()[phrase])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if read < 300 {
		t.Errorf("only %d files were read", read)
	}
}
