package source

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbuild/kbuild/images"
)

// kubeadmSources writes what readConstants reads of a release.
func kubeadmSources(t *testing.T, api, constants string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"constants/constants.go":               "package constants\n\n" + constants,
		"apis/kubeadm/" + api + "/defaults.go": "package " + api + "\n\nconst DefaultImageRepository = \"registry.k8s.io\"\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const someConstants = `const (
	DefaultEtcdVersion = "3.6.7-0"
	MinExternalEtcdVersion = "3.5.24-0"
	CoreDNSVersion, PauseVersion = "v1.13.2", "3.10.1"
)
`

func TestReadConstants(t *testing.T) {
	r, err := images.Assume("v1.35.99")
	if err != nil {
		t.Fatal(err)
	}
	want := images.Constants{Etcd: "3.6.7-0", EtcdBefore: "3.6.6-0", ExternalEtcd: "3.5.24-0", CoreDNS: "v1.13.2", Pause: "3.10.1", Registry: "registry.k8s.io"}
	for name, supported := range map[string]string{
		"relative": `var SupportedEtcdVersion = map[uint8]string{
	uint8(getSkewedKubernetesVersion(-2).Minor()): "3.5.24-0",
	uint8(getSkewedKubernetesVersion(-1).Minor()): "3.6.6-0",
	uint8(getSkewedKubernetesVersion(0).Minor()):  "3.6.7-0",
}`,
		"numbers":    `var SupportedEtcdVersion = map[uint8]string{33: "3.5.24-0", 34: "3.6.6-0", 35: "3.6.7-0"}`,
		"one before": `var SupportedEtcdVersion = map[uint8]string{34: "3.6.6-0"}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readConstants(kubeadmSources(t, r.ConfigAPI, someConstants+supported), r)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
	for name, c := range map[string]struct{ text, want string }{
		"no map":     {someConstants, "SupportedEtcdVersion"},
		"a function": {strings.Replace(someConstants, `"3.6.7-0"`, "etcd()", 1) + `var SupportedEtcdVersion = map[uint8]string{34: "3.6.6-0"}`, "DefaultEtcdVersion"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := readConstants(kubeadmSources(t, r.ConfigAPI, c.text), r); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one of %s", err, c.want)
			}
		})
	}
}

// The constants that are read from the module of a known release are those of the
// tables.
func TestConstantsAreTheTables(t *testing.T) {
	r, err := images.Lookup("v1.37.2")
	if err != nil {
		t.Fatal(err)
	}
	m, err := download(t.Context(), "k8s.io/kubernetes", r.Version, "")
	if err != nil {
		t.Fatal(err)
	}
	c, err := readConstants(filepath.Join(m.Dir, "cmd/kubeadm/app"), r)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.WithConstants(c)
	if err != nil {
		t.Fatal(err)
	}
	got.Unseen = false
	if d := cmp.Diff(r, got); d != "" {
		t.Error(d)
	}
}
