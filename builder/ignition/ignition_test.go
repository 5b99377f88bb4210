package ignition

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/templates"
	"github.com/kbuild/kbuild/test-vm/golden"
)

// params are those of an extension that nobody has built.
func params(t *testing.T) templates.ButaneParams {
	t.Helper()
	url, err := URL("https://images.example.com/v1.19.12/")
	if err != nil {
		t.Fatal(err)
	}
	return templates.ButaneParams{URL: url, SHA256: strings.Repeat("5a", 32), RootHash: strings.Repeat("c7", 32)}
}

const siteButane = `variant: fcos
version: 1.5.0
storage:
  files:
    - path: /etc/credstore/kbuild.userdata
      mode: 0600
      contents:
        local: userdata.yaml
    - path: /etc/hosts
      overwrite: true
      contents: {inline: "127.0.0.1 localhost\n"}
`

// site is the Ignition config of a user's own Butane config.
func site(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "userdata.yaml"), []byte("apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: init\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ign, err := Translate([]byte(siteButane), dir)
	if err != nil {
		t.Fatal(err)
	}
	return string(ign)
}

// TestGolden holds both configs whole, alone and with a user's config in them.
// make golden writes them.
func TestGolden(t *testing.T) {
	merged := params(t)
	merged.Merge = site(t)
	for name, p := range map[string]templates.ButaneParams{"node": params(t), "merged": merged} {
		c, err := Make(p)
		if err != nil {
			t.Fatal(err)
		}
		for ext, got := range map[string][]byte{".bu": c.Butane, ".ign": c.Ignition} {
			golden.Compare(t, filepath.Join("testdata", name+ext), string(got))
		}
	}
}

func TestURL(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      DefaultURL,
		"https://example.com/a/b.raw":           "https://example.com/a/b.raw",
		"http://10.0.2.100:8080/":               "http://10.0.2.100:8080/sysext.raw",
		"https://example.com/a/?signature=b%2F": "https://example.com/a/sysext.raw?signature=b%2F",
		"s3://bucket/sysext.raw":                "s3://bucket/sysext.raw",
		"arn:aws:s3:::bucket/sysext.raw":        "arn:aws:s3:::bucket/sysext.raw",
	} {
		got, err := URL(in)
		if err != nil || got != want {
			t.Errorf("%q gives %q, %v; want %q", in, got, err, want)
		}
		if _, err := Make(templates.ButaneParams{URL: got, SHA256: strings.Repeat("0", 64), RootHash: "0"}); err != nil {
			t.Errorf("%q: %v", got, err)
		}
	}
	for _, in := range []string{"sysext.raw", "/srv/sysext.raw", "file:///srv/sysext.raw", "data:,x", "https:///sysext.raw", "https://exa mple/", "ftp://example.com/x"} {
		if got, err := URL(in); err == nil || !strings.Contains(err.Error(), in) {
			t.Errorf("%q gives %q, %v; want an error that names it", in, got, err)
		}
	}
}

// TestTranslateSaysWhere: a mistake in a user's config is reported with its
// place in the YAML, also what butane itself lets pass with a warning.
func TestTranslateSaysWhere(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "butane"},
		{"variant: fcos\nversion: 9.0.0\n", "9.0.0"},
		{"variant: mine\nversion: 1.0.0\n", "mine"},
		{"variant: fcos\nversion: 1.5.0\nstorag: {}\n", "line 3 col 1"},
		{"variant: fcos\nversion: 1.5.0\nstorage:\n  files:\n    - path: relative\n", "line 5 col 13"},
		{"variant: fcos\nversion: 1.5.0\nstorage: {files: [{path: /a, contents: {local: ../../etc/shadow}}]}\n", "local"},
		{"variant: [\n", "yaml"},
	} {
		_, err := Translate([]byte(c.in), t.TempDir())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want one with %q", c.in, err, c.want)
		}
	}
}

// FuzzTranslate: whatever the user's config is, what comes of it is one that
// ours takes in, or an error.
func FuzzTranslate(f *testing.F) {
	f.Add([]byte(strings.ReplaceAll(siteButane, "local: userdata.yaml", "inline: x")))
	f.Add([]byte("variant: flatcar\nversion: 1.1.0\nignition: {config: {merge: [{source: 'https://example.com/a'}]}}\n"))
	f.Add([]byte("variant: openshift\nversion: 4.20.0\nmetadata: {name: a, labels: {machineconfiguration.openshift.io/role: worker}}\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		ign, err := Translate(in, "")
		if err != nil {
			return
		}
		if !json.Valid(ign) {
			t.Fatalf("not JSON: %s", ign)
		}
		zero := strings.Repeat("0", 64)
		if _, err := Make(templates.ButaneParams{URL: DefaultURL, SHA256: zero, RootHash: zero, Merge: string(ign)}); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzURL: an address that is taken for one is one for Ignition too.
func FuzzURL(f *testing.F) {
	for _, s := range []string{"", "https://example.com/", "http://[::1]:80/a/", "s3://b/k?versionId=1", "arn:aws:s3:::b/k", "https://a/\"\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := URL(s)
		if err != nil {
			return
		}
		zero := strings.Repeat("0", 64)
		c, err := Make(templates.ButaneParams{URL: u, SHA256: zero, RootHash: zero})
		if err != nil {
			t.Skip(err) // Resolve refuses it with butane's report
		}
		var config struct {
			Storage struct {
				Files []struct{ Contents struct{ Source string } }
			}
		}
		if err := json.Unmarshal(c.Ignition, &config); err != nil {
			t.Fatal(err)
		}
		if got := config.Storage.Files[0].Contents.Source; got != u {
			t.Errorf("%q becomes %q in the config", u, got)
		}
	})
}
