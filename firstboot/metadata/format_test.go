package metadata

import (
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

// wrapped is what user-data is unwrapped to.
func wrapped(data string) (config.Document, []string, error) {
	f, err := unwrapped(given("test", []byte(data)))
	if err != nil {
		return config.Document{}, nil, err
	}
	return f.Documents[0], f.Warnings, nil
}

// lineOf is the number of the line that holds s, 0 if none does.
func lineOf(text, s string) int {
	before, _, ok := strings.Cut(text, s)
	if !ok {
		return 0
	}
	return strings.Count(before, "\n") + 1
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}

func mimePart(header, body string) string { return "--=b=\n" + header + "\n\n" + body + "\n" }

func mimeOf(parts ...string) string {
	return "Content-Type: multipart/mixed; boundary=\"=b=\"\nMIME-Version: 1.0\n\n" + strings.Join(parts, "") + "--=b=--\n"
}

// ignitionFile is an Ignition config with user-data at source, and what else
// contents has.
func ignitionFile(source, more string) string {
	s, _ := json.Marshal(source)
	return `{"ignition":{"version":"3.4.0"},"passwd":{"users":[{"name":"core"}]},"storage":{"files":[{"path":"/etc/other","contents":{"source":"data:,x"}},` +
		`{"path":"/etc/kbuild/user-data","mode":384,"contents":{` + more + `"source":` + string(s) + `}}]}}`
}

// Whatever user-data is wrapped in, kbuild's documents come out; a line of
// theirs has the number that it has in what the user wrote.
func TestFormats(t *testing.T) {
	const two = document + "---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\nclusterName: a\n"
	gz64 := base64.StdEncoding.EncodeToString(zipped(t, document))
	cloudConfig := "#cloud-config\nhostname: x\n\nkbuild: |\n" + indent(document) + "users: []\n"
	for name, c := range map[string]struct {
		data    string
		lines   bool // line numbers are kept
		source  string
		warning string
	}{
		"as it is":           {two, true, "test", ""},
		"JSON":               {`{"apiVersion": "kbuild.dev/v1alpha1", "kind": "NodeMetadata", "role": "init"}`, true, "test", ""},
		"byte order mark":    {"\xef\xbb\xbf" + document, true, "test", ""},
		"gzip":               {string(zipped(t, document)), false, "test", ""},
		"literal":            {cloudConfig, true, "test, key kbuild of its #cloud-config", `ignored are "hostname", "users"`},
		"literal, stripped":  {"#cloud-config\nkbuild: |-\n\n" + indent(two), true, "test, key kbuild of its #cloud-config", ""},
		"literal, commented": {"#cloud-config\n# about\nkbuild: | # here\n" + indent(document), true, "test, key kbuild of its #cloud-config", ""},
		"CR LF":              {strings.ReplaceAll(cloudConfig, "\n", "\r\n"), true, "test, key kbuild of its #cloud-config", "ignored are"},
		"mapping":            {"#cloud-config\nhostname: x\nkbuild:\n  # mine\n" + indent(document) + "\nruncmd:\n- [ls]\n", true, "test, key kbuild of its #cloud-config", `"runcmd"`},
		"mapping, last":      {"\n#cloud-config\nkbuild:\n" + indent(document), true, "test, key kbuild of its #cloud-config", ""},
		"flow mapping":       {"#cloud-config\nx: 1\nkbuild: {apiVersion: kbuild.dev/v1alpha1, kind: NodeMetadata,\n  role: init}\ny: 2\n", true, "test, key kbuild of its #cloud-config", `"x", "y"`},
		"quoted":             {"#cloud-config\nkbuild: \"apiVersion: kbuild.dev/v1alpha1\\nkind: NodeMetadata\\nrole: init\\n\"\n", false, "test, key kbuild of its #cloud-config", ""},
		"alias inside":       {"#cloud-config\nr: &r init\nkbuild: {apiVersion: kbuild.dev/v1alpha1, kind: NodeMetadata, role: *r}\n", false, "test, key kbuild of its #cloud-config", ""},
		"alias":              {"#cloud-config\nx: &x {apiVersion: kbuild.dev/v1alpha1, kind: NodeMetadata, role: init}\nkbuild: *x\n", false, "test, key kbuild of its #cloud-config", ""},
		"MIME":               {mimeOf(mimePart("Content-Type: text/x-shellscript", "#!/bin/sh"), mimePart("Content-Type: text/x-kbuild; charset=utf-8", document)), true, "test, part 2", "1 (text/x-shellscript)"},
		"MIME, CR LF":        {strings.ReplaceAll(mimeOf(mimePart("Content-Type: text/x-kbuild", document)), "\n", "\r\n"), true, "test, part 1", ""},
		"MIME, cloud-config": {mimeOf(mimePart("Content-Type: text/cloud-config", "#cloud-config\nusers: []"), mimePart("Content-Type: text/cloud-config", cloudConfig)), true, "test, part 2, key kbuild of its #cloud-config", "1 (text/cloud-config)"},
		"MIME, by type":      {mimeOf(mimePart("Content-Type: text/cloud-config", "kbuild: |\n"+indent(document))), true, "test, part 1, key kbuild of its #cloud-config", ""},
		"MIME, base64":       {mimeOf(mimePart("Content-Type: text/x-kbuild\nContent-Transfer-Encoding: base64", gz64[:60]+"\n"+gz64[60:])), false, "test, part 1", ""},
		"MIME, quoted":       {mimeOf(mimePart("Content-Type: text/x-kbuild\nContent-Transfer-Encoding: quoted-printable", strings.ReplaceAll(document, ":", "=3A"))), false, "test, part 1", ""},
		"MIME, no preamble":  {"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/x-kbuild\n\n" + document + "\n--x--\n", true, "test, part 1", ""},
		"Ignition":           {ignitionFile("data:,"+url.PathEscape(document), ""), false, "test, file /etc/kbuild/user-data of its Ignition config", "only file /etc/kbuild/user-data"},
		"Ignition, base64":   {ignitionFile("data:text/yaml;charset=utf-8;base64,"+base64.StdEncoding.EncodeToString([]byte(document)), `"compression":"",`), false, "test, file /etc/kbuild/user-data of its Ignition config", ""},
		"Ignition, gzip":     {ignitionFile("data:;base64,"+gz64, fmt.Sprintf(`"compression":"gzip","verification":{"hash":"sha512-%x"},`, sha512.Sum512([]byte(document)))), false, "test, file /etc/kbuild/user-data of its Ignition config", ""},
		"gzip of MIME":       {string(zipped(t, mimeOf(mimePart("Content-Type: text/x-kbuild", document)))), false, "test, part 1", ""},
	} {
		d, warnings, err := wrapped(c.data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d.Source != c.source || !strings.Contains(strings.Join(warnings, "\n"), c.warning) || c.warning == "" && strings.Contains(name, "MIME") && len(warnings) > 0 {
			t.Errorf("%s: from %q, %q", name, d.Source, warnings)
		}
		for _, s := range []string{"kbuild.dev/v1alpha1", "role", "kubeadm.k8s.io", "clusterName: a"} {
			got, want := lineOf(string(d.Data), s), lineOf(c.data, s)
			if s == "role" && got == 0 || c.lines && got != want {
				t.Errorf("%s: %q is at line %d, want %d:\n%s", name, s, got, want, d.Data)
			}
		}
		if _, err := config.Parse(baked(t), d); err != nil {
			t.Errorf("%s: %v\n%s", name, err, d.Data)
		}
	}
}

// baked is what an image says of itself.
func baked(t testing.TB) images.Baked {
	t.Helper()
	r, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	return images.Baked{Release: r, CNI: "flannel", PodCIDR: "10.244.0.0/16"}
}

// What cannot be read says what is wrong with it, and shows nothing of it.
func TestFormatErrors(t *testing.T) {
	deep := document
	for range maxLayers {
		deep = string(zipped(t, deep))
	}
	parts := make([]string, maxParts+1)
	for i := range parts {
		parts[i] = mimePart("Content-Type: text/plain", "x")
	}
	ours := mimePart("Content-Type: text/x-kbuild", document)
	for name, c := range map[string]struct{ data, want string }{
		"a script":               {"#!/bin/sh\necho\n", "cloud-init runs or expands (#!)"},
		"an include":             {"#include\nhttps://example.com/x\n", "(#include)"},
		"jinja":                  {"## template: jinja\n#cloud-config\nkbuild: {{ x }}\n", "(## template:)"},
		"too deep":               {deep, "wrapped more than 5 times"},
		"cut gzip":               {string(zipped(t, document)[:20]), "damaged gzip"},
		"no key":                 {"#cloud-config\nusers: []\n", "has no key kbuild"},
		"empty cloud-config":     {"#cloud-config\n", "#cloud-config is"},
		"aliases of aliases":     {"#cloud-config\na: &a [1,2,3,4,5,6,7,8,9]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nkbuild: {f: [*e,*e,*e]}\n", "more than 65536 values"},
		"a list":                 {"#cloud-config\n- a\n", "#cloud-config is no mapping"},
		"bad YAML":               {"#cloud-config\na: b\n  c: d\n", "#cloud-config is not valid YAML: line 3"},
		"two documents":          {"#cloud-config\nkbuild: a\n---\nkbuild: b\n", "more than one YAML document"},
		"the key twice":          {"#cloud-config\nkbuild: a\nx: 1\nkbuild: b\n", "twice, the second time at line 4"},
		"a number":               {"#cloud-config\nx: 1\nkbuild: 7\n", "at line 3, is neither text nor a mapping"},
		"nothing":                {"#cloud-config\nkbuild:\n", "is neither text nor a mapping"},
		"documents in a list":    {"#cloud-config\nkbuild:\n- apiVersion: x\n", "is a list"},
		"MIME: no part":          {mimeOf(mimePart("Content-Type: text/x-shellscript", "#!/bin/sh")), "no part of the MIME multipart is for kbuild"},
		"MIME: none at all":      {mimeOf(), "no part of the MIME multipart"},
		"MIME: two":              {mimeOf(ours, ours), "2 parts of the MIME multipart are for kbuild"},
		"MIME: many":             {mimeOf(parts...), "more than 64 parts"},
		"MIME: no boundary":      {"Content-Type: multipart/mixed\n\n" + document, "no multipart with a boundary"},
		"MIME: no multipart":     {"MIME-Version: 1.0\nContent-Type: text/plain\n\nx\n", "no multipart with a boundary"},
		"MIME: cut":              {strings.TrimSuffix(mimeOf(ours), "--=b=--\n"), "breaks off"},
		"MIME: bad header":       {"MIME-Version: 1.0\nnonsense\n\n", "its header cannot be read"},
		"MIME: no empty line":    {mimeOf("--=b=\nContent-Type: text/x-kbuild\ntoken abcdef.a1b2c3d4e5f6a7b8\n\n"), "the header of part 1"},
		"MIME: cut header":       {"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/x", "no part of the MIME multipart"},
		"MIME: encoding":         {mimeOf(mimePart("Content-Type: text/x-kbuild\nContent-Transfer-Encoding: x-uuencode", "x")), `"x-uuencode"`},
		"MIME: no base64":        {mimeOf(mimePart("Content-Type: text/x-kbuild\nContent-Transfer-Encoding: base64", "a: b")), "not the base64"},
		"MIME in MIME in MIME …": {mimeOf(mimePart("Content-Type: text/x-kbuild", strings.Repeat("Content-Type: multipart/mixed; boundary=\"=c=\"\n\n--=c=\nContent-Type: text/x-kbuild\n\n", 8))), "part"},
		"Ignition: no file":      {`{"ignition":{"version":"3.4.0"},"storage":{"files":[]}}`, "has no file /etc/kbuild/user-data: add it"},
		"Ignition: merges":       {`{"ignition":{"version":"3.4.0","config":{"merge":[{"source":"https://example.com"}]}}}`, "are not fetched"},
		"Ignition: a URL":        {ignitionFile("https://example.com/x", ""), "no data: URL"},
		"Ignition: no comma":     {ignitionFile("data:x", ""), "no data: URL"},
		"Ignition: escape":       {ignitionFile("data:,%zz", ""), "bad %-escape"},
		"Ignition: base64":       {ignitionFile("data:;base64,%%%", ""), "bad %-escape"},
		"Ignition: no gzip":      {ignitionFile("data:,a", `"compression":"gzip",`), "not the gzip"},
		"Ignition: compression":  {ignitionFile("data:,a", `"compression":"xz",`), `"xz"`},
		"Ignition: hash":         {ignitionFile("data:,a", `"verification":{"hash":"sha512-00"},`), "does not have the hash"},
		"Ignition: odd":          {`{"ignition":[],"storage":7}`, "cannot be read"},
	} {
		d, _, err := wrapped(c.data)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v %q", name, err, d.Data)
		}
		if err != nil && strings.Contains(err.Error(), "a1b2c3d4") {
			t.Errorf("%s: it shows a secret: %v", name, err)
		}
	}
}

// What is wrong with kbuild's documents is told with the line of the user's
// cloud-config.
func TestFormatErrorLine(t *testing.T) {
	data := "#cloud-config\nhostname: x\nkbuild: |\n" + indent(document+"nmae: y\n")
	d, _, err := wrapped(data)
	if err != nil {
		t.Fatal(err)
	}
	_, err = config.Parse(baked(t), d)
	if want := fmt.Sprintf("key kbuild of its #cloud-config:%d:", lineOf(data, "nmae")); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "did you mean name?") {
		t.Errorf("%v, want %q", err, want)
	}
}

// Whatever user-data is, unwrapping it ends, with documents of a bounded size
// or an error with words.
func FuzzUnwrap(f *testing.F) {
	ours := mimePart("Content-Type: text/x-kbuild", document)
	for _, s := range []string{
		document, "#cloud-config\nkbuild: |\n" + indent(document), "#cloud-config\nx: &x a\nkbuild:\n" + indent(document) + "  y: *x\nz: 1\n",
		"#cloud-config\nkbuild: {a: b}\n", "#cloud-config\nkbuild: >\n" + indent(document), "#cloud-config\nkbuild: &a [*a]\n",
		mimeOf(ours), mimeOf(mimePart("Content-Type: text/cloud-config\nContent-Transfer-Encoding: base64", "a2J1aWxkOiBhCg==")), mimeOf(mimePart("Content-Type: text/x-kbuild", mimeOf(ours))),
		ignitionFile("data:,a%3A%20b", ""), ignitionFile("data:;base64,YTogYgo=", `"compression":"gzip",`),
		string(zipped(f, document)), string(zipped(f, mimeOf(ours))), "#!/bin/sh\n", "\xef\xbb\xbf#cloud-config\r\nkbuild: x\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, _, err := wrapped(string(data))
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		if len(d.Data) > 2*max(config.MaxSize, len(data)) {
			t.Errorf("%d bytes out of %d", len(d.Data), len(data))
		}
		if !strings.HasPrefix(d.Source, "test") || strings.Contains(d.Source, "\n") {
			t.Errorf("from %q", d.Source)
		}
	})
}

// Every source says how it is given user-data; the table of docs/user-data.md
// is made of that.
func TestSourcesExplained(t *testing.T) {
	for _, s := range sources() {
		if s.name == "" || s.give == "" || s.limit == "" || s.find == nil {
			t.Errorf("a source is not explained in full: %+v", s)
		}
	}
}
