package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/config"
)

// apiServer starts an API server and returns a client and its kubeconfig.
func apiServer(t *testing.T) (kubernetes.Interface, string) {
	t.Helper()
	s := apitest.Memory(t)
	file := filepath.Join(t.TempDir(), "admin.conf")
	if err := os.WriteFile(file, s.AdminConf, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBECONFIG", file)
	return s.Client(t), file
}

// addTokens makes tokens of several kinds.
func addTokens(t *testing.T, c kubernetes.Interface) {
	t.Helper()
	for _, token := range []config.BootstrapToken{
		{Token: "aaaaaa.0123456789abcdef", Usages: []string{"signing", "authentication"}, Groups: []string{"system:bootstrappers:kubeadm:default-node-token"}},
		{Token: "bbbbbb.0123456789abcdef", Description: "with a description", Usages: []string{"signing"}},
		{Token: "cccccc.0123456789abcdef", TTL: &metav1.Duration{Duration: 20000 * time.Hour}, Groups: []string{"system:bootstrappers:a", "system:bootstrappers:b"}, Usages: []string{"authentication"}},
		{Token: "dddddd.0123456789abcdef"},
	} {
		s, err := cluster.TokenSecret(token, time.Now())
		if err == nil {
			err = cluster.CreateToken(t.Context(), c, s)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func secret(t *testing.T, c kubernetes.Interface, id string) *corev1.Secret {
	t.Helper()
	s, err := c.CoreV1().Secrets("kube-system").Get(t.Context(), "bootstrap-token-"+id, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// oracleKubeadm is real kubeadm v1.19.12, where there is one.
func oracleKubeadm(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("KBUILD_ORACLE")
	if dir == "" {
		if os.Getenv("CI") != "" {
			t.Fatal("KBUILD_ORACLE names no directory with kubeadm-VERSION binaries")
		}
		t.Skip("KBUILD_ORACLE names no directory with kubeadm-VERSION binaries")
	}
	return filepath.Join(dir, "kubeadm-v1.19.12")
}

// TestOracleTokenList: on the same cluster, in every format, we print what
// kubeadm does.
func TestOracleTokenList(t *testing.T) {
	kubeadm := oracleKubeadm(t)
	c, file := apiServer(t)
	addTokens(t, c)
	for _, args := range [][]string{{"list"}, {"list", "-o", "json"}, {"list", "--experimental-output", "yaml"}, {"list", "--dry-run"}} {
		args = append([]string{"token", "--kubeconfig", file}, args...)
		theirs, err := exec.CommandContext(t.Context(), kubeadm, args...).Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, theirs)
		}
		code, ours, stderr := kbuild(t, args...)
		if d := cmp.Diff(string(theirs), ours); code != cli.ExitOK || d != "" {
			t.Errorf("%q: %d %s\n%s", args, code, stderr, d)
		}
	}
}

// TestOracleTokenCreate: what kubeadm and we make of the same flags is the
// same Secret and the same output; so is what a dry run says.
func TestOracleTokenCreate(t *testing.T) {
	kubeadm := oracleKubeadm(t)
	ends := regexp.MustCompile(`expiration: \S+`)
	initFile := filepath.Join(t.TempDir(), "init.yaml")
	if err := os.WriteFile(initFile, []byte("apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nbootstrapTokens:\n- token: abcdef.0123456789abcdef\n  ttl: 0s\n- {token: ghijkl.0123456789abcdef, ttl: 0s, description: second}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"abcdef.0123456789abcdef"},
		{"abcdef.0123456789abcdef", "--ttl", "0"},
		{"abcdef.0123456789abcdef", "--dry-run"},
		{"abcdef.0123456789abcdef", "--ttl", "20h", "--description", "a test", "--usages", "authentication", "--groups", "system:bootstrappers:x,system:bootstrappers:y"},
		{"--config", initFile},
	} {
		var outs, secrets [2]string
		for i, create := range []func(args []string) string{
			func(args []string) string {
				out, err := exec.CommandContext(t.Context(), kubeadm, args...).Output()
				if err != nil {
					t.Fatalf("kubeadm: %v\n%s", err, out)
				}
				return string(out)
			},
			func(args []string) string {
				code, out, stderr := kbuild(t, args...)
				if code != cli.ExitOK {
					t.Fatalf("%d %s", code, stderr)
				}
				return out
			},
		} {
			c, file := apiServer(t)
			outs[i] = ends.ReplaceAllString(create(append([]string{"token", "create", "--kubeconfig", file}, args...)), "expiration: …")
			list, err := cluster.TokenSecrets(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range list {
				if end := string(s.Data["expiration"]); end != "" {
					at, err := time.Parse(time.RFC3339, end)
					if err != nil {
						t.Fatal(err)
					}
					s.Data["expiration"] = []byte(time.Until(at).Round(time.Hour).String()) // hours are at stake, the test takes seconds
				}
				b, err := json.Marshal([]any{s.Name, s.Type, s.Data})
				if err != nil {
					t.Fatal(err)
				}
				secrets[i] += string(b) + "\n"
			}
		}
		if d := cmp.Diff(outs[0], outs[1]); d != "" {
			t.Errorf("%q:\n%s", args, d)
		}
		if d := cmp.Diff(secrets[0], secrets[1]); d != "" {
			t.Errorf("%q:\n%s", args, d)
		}
	}
}
