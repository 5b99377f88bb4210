package builder

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/builder/base"
	"github.com/kbuild/kbuild/builder/source"
)

// TestPlanIsWhole: what decides an image is in the Plan's JSON, and all that it
// refers to is there when it is built.
func TestPlanIsWhole(t *testing.T) {
	for i := range reflect.TypeFor[Plan]().NumField() {
		if f := reflect.TypeFor[Plan]().Field(i); !f.IsExported() || strings.HasPrefix(f.Tag.Get("json"), "-") {
			t.Errorf("field %s of Plan is not in its JSON", f.Name)
		}
	}
	p, in := planned(t, Spec{Version: "v1.19.12", Formats: []string{"raw", ignitionFormat}})
	for _, e := range slices.Concat(p.Tree, p.Sysext) {
		kind, name, _ := strings.Cut(e.Content, ":")
		known := e.Kind != "file" || len(e.Text) > 0
		switch kind {
		case "sha256":
			known = digest(in.content[e.Content]) == e.Content
		case "component":
			known = slices.ContainsFunc(p.Components, func(c source.Component) bool { return c.Name == name })
		case "base":
			known = filepath.IsAbs(name)
		case "program":
			known = name == "kbuild-firstboot"
		}
		if !known {
			t.Errorf("nobody knows what is in %+v", e)
		}
	}
	for _, want := range []string{"/usr/lib/kbuild/cni/bridge", "/usr/lib/tmpfiles.d/kbuild-plugins.conf", "/usr/lib/os-release"} {
		if !slices.ContainsFunc(p.Tree, func(e Entry) bool { return e.Path == want }) {
			t.Errorf("the plan does not show %s", want)
		}
	}
}

// TestPlanWritesWhatItShows: what lies in the root after a build is what the
// Plan says, beside what the base OS has.
func TestPlanWritesWhatItShows(t *testing.T) {
	p, in := planned(t, Spec{Version: "v1.19.12"})
	program := filepath.Join(t.TempDir(), "program")
	osTree := base.Tree{Dir: t.TempDir()}
	release := filepath.Join(osTree.Dir, "usr/lib/os-release")
	if err := os.MkdirAll(filepath.Dir(release), 0o755); err != nil {
		t.Fatal(err)
	}
	for file, data := range map[string]string{program: "a program", release: "ID=debian\nPRETTY_NAME=Debian\n"} {
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	binaries := map[string]string{"kubelet": program, "kubectl": program}
	for _, name := range p.plugins() {
		binaries["cni/"+name] = program
	}
	root := t.TempDir()
	c := contents{bytes: in.content, programs: source.Output{Binaries: binaries}, base: osTree, firstboot: program}
	if err := writeTree(root, p.Tree, c); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, e := range p.Tree {
		shown[e.Path] = true
	}
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !shown[strings.TrimPrefix(name, root)] {
			t.Errorf("%s is written and not in the plan", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "usr/lib/os-release"))
	if want := "ID=debian\nPRETTY_NAME=\"kbuild node v1.19.12\"\nIMAGE_ID=kbuild\nIMAGE_VERSION=v1.19.12\n"; err != nil || string(b) != want {
		t.Errorf("os-release is %q, %v, want %q", b, err, want)
	}
	delete(binaries, "cni/bridge")
	if err := writeTree(t.TempDir(), p.Tree, c); err == nil || !strings.Contains(err.Error(), "the source gave no cni/bridge") {
		t.Errorf("a source without cni/bridge: %v", err)
	}
}

// TestCacheKey: the key follows what is in the inputs, not where they lie or
// where the outputs go.
func TestCacheKey(t *testing.T) {
	firstboot := filepath.Join(t.TempDir(), "fb")
	if err := os.WriteFile(firstboot, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	key := func(s Spec) string {
		t.Helper()
		s.Version = "v1.19.12"
		p, _ := planned(t, s)
		k, err := p.cacheKey(Env{Firstboot: firstboot}, base.Tree{Key: "tree"})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	file := func(name, data string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const app, other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n"
	plain := key(Spec{})
	lock := file("manifest.json", `{"packages":[{"name":"bash"}]}`)
	if k := key(Spec{Out: "elsewhere", Lock: lock}); k != plain {
		t.Error("--out or --lock changes the key")
	}
	manifest := key(Spec{Manifests: []string{file("app.yaml", app)}})
	if k := key(Spec{Manifests: []string{file("app.yaml", app)}}); k != manifest {
		t.Error("the place of a manifest changes the key")
	}
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	signed := key(Spec{SignKey: file("update.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))})
	all := []string{plain, manifest, signed, key(Spec{Manifests: []string{file("app.yaml", other)}}), key(Spec{Checks: []string{file("c", "#!/bin/sh\n")}})}
	slices.Sort(all)
	if len(slices.Compact(all)) != 5 {
		t.Errorf("two of five different inputs have one key: %q", all)
	}
}

// TestPlanHoldsNoSecret: what users bake or merge is in the Plan by digest.
func TestPlanHoldsNoSecret(t *testing.T) {
	const secret = "c3dvcmRmaXNo"
	dir := t.TempDir()
	write := func(name, data string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p, in := planned(t, Spec{
		Version: "v1.19.12", Formats: []string{"raw", ignitionFormat},
		Config:    write("config.yaml", "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nnodeRegistration: {kubeletExtraArgs: {node-labels: "+secret+"=1}}\n"),
		Manifests: []string{write("secret.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {password: "+secret+"}\n")},
		Checks:    []string{write("check", "#!/bin/sh\necho "+secret+"\n")},
		Butane:    write("site.bu", "variant: fcos\nversion: 1.5.0\nstorage: {files: [{path: /etc/x, contents: {inline: "+secret+"}}]}\n"),
	})
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), secret) {
		t.Errorf("the plan holds what a user's file does: %s", b)
	}
	held := 0
	for _, data := range in.content {
		if strings.Contains(string(data), secret) {
			held++
		}
	}
	if held != 4 {
		t.Errorf("%d of 4 files are among the inputs", held)
	}
}
