package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
	"github.com/kbuild/kbuild/firstboot/pki"
)

func TestTokenCreateAndDelete(t *testing.T) {
	c, _ := apiServer(t)
	id := mustKbuild(t, "token", "create", "--description", "rack 7", "--ttl", "0")[:6]
	s := secret(t, c, id)
	if string(s.Data["description"]) != "rack 7" || s.Data["expiration"] != nil || string(s.Data["usage-bootstrap-signing"]) != "true" ||
		string(s.Data["auth-extra-groups"]) != "system:bootstrappers:kubeadm:default-node-token" {
		t.Errorf("made %q", s.Data)
	}
	if secret(t, c, mustKbuild(t, "token", "create")[:6]).Data["expiration"] == nil {
		t.Error("by default a token lives for ever")
	}
	if code, _, stderr := kbuild(t, "token", "create", id+".0123456789abcdef"); code != cli.ExitFailed || !strings.Contains(stderr, "already exists") {
		t.Errorf("twice the same ID: %d %s", code, stderr)
	}
	if out := mustKbuild(t, "token", "delete", id, "--dry-run"); !strings.Contains(out, "DELETE") {
		t.Errorf("a dry run says %q", out)
	}
	secret(t, c, id) // is still there
	if out := mustKbuild(t, "token", "delete", id+".0123456789abcdef"); out != "bootstrap token \""+id+"\" deleted\n" {
		t.Errorf("deleting says %q", out)
	}
	if _, err := c.CoreV1().Secrets("kube-system").Get(t.Context(), "bootstrap-token-"+id, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("deleted, and there: %v", err)
	}
	if code, _, stderr := kbuild(t, "token", "delete", id); code != cli.ExitFailed || !strings.Contains(stderr, "kbuild token list") {
		t.Errorf("deleting what is not there: %d %s", code, stderr)
	}
	mustKbuild(t, "token", "create", "zzzzzz.0123456789abcdef", "--dry-run")
	if have, err := cluster.HasToken(t.Context(), c, "zzzzzz"); have || err != nil {
		t.Errorf("a dry run created it: %t, %v", have, err)
	}
}

func TestTokenList(t *testing.T) {
	c, _ := apiServer(t)
	if out := mustKbuild(t, "token", "list"); out != "" {
		t.Errorf("no token is listed as %q", out)
	}
	addTokens(t, c)
	broken := secret(t, c, "dddddd").DeepCopy()
	broken.Name, broken.ResourceVersion, broken.UID = "bootstrap-token-eeeeee", "", ""
	if err := cluster.CreateToken(t.Context(), c, broken); err != nil {
		t.Fatal(err)
	}
	code, out, stderr := kbuild(t, "token", "list")
	rows := strings.Split(strings.TrimSpace(out), "\n")
	if code != cli.ExitOK || len(rows) != 5 || !strings.HasPrefix(rows[0], "TOKEN ") || !strings.Contains(rows[1], "<forever>") || !strings.Contains(rows[2], "with a description") {
		t.Errorf("%d\n%s", code, out)
	}
	if !strings.Contains(stderr, "bootstrap-token-eeeeee") || strings.Contains(stderr, "0123456789abcdef") {
		t.Errorf("of a Secret that holds another's token: %s", stderr)
	}
	dec := json.NewDecoder(strings.NewReader(mustKbuild(t, "token", "list", "-o", "json")))
	for range 4 {
		var o struct{ Kind, APIVersion, Token string }
		if err := dec.Decode(&o); err != nil || o.Kind != "BootstrapToken" || o.APIVersion != "output.kubeadm.k8s.io/v1alpha1" || !strings.HasSuffix(o.Token, ".0123456789abcdef") {
			t.Errorf("%+v, %v", o, err)
		}
	}
	if out := mustKbuild(t, "token", "list", "-o", "yaml"); strings.Count(out, "---\n") != 3 {
		t.Errorf("as YAML:\n%s", out)
	}
}

// TestTokenUserdata: what is printed is what a node joins this cluster with.
func TestTokenUserdata(t *testing.T) {
	c, file := apiServer(t)
	dir := newCluster(t)
	ca := filepath.Join(dir, "pki", "ca.crt")
	kc, err := clientcmd.LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	kc.Clusters["kubernetes"].CertificateAuthority = ca
	if err := clientcmd.WriteToFile(*kc, file); err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pins, err := pki.Pins(pem)
	if err != nil {
		t.Fatal(err)
	}
	const key = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, args := range [][]string{nil, {"--certificate-key", key}} {
		out := mustKbuild(t, append([]string{"token", "create", "--print-join-userdata"}, args...)...)
		n := node(t, map[string][]byte{credentialFile: []byte(out)})
		d := n.Join.Discovery.BootstrapToken
		if d == nil || "http://"+d.APIServerEndpoint != kc.Clusters["kubernetes"].Server || len(d.CACertHashes) != 1 || d.CACertHashes[0] != pins[0] {
			t.Fatalf("it joins %+v", d)
		}
		if secret(t, c, d.Token.Reveal()[:6]).Data["token-id"] == nil {
			t.Error("the cluster does not know the token")
		}
		if controls := n.Role == "control-plane"; controls != (args != nil) || controls && n.Init.CertificateKey.Reveal() != key {
			t.Errorf("%q makes a %s", args, n.Role)
		}
	}
}

func TestTokenGenerate(t *testing.T) {
	one, two := mustKbuild(t, "token", "generate"), mustKbuild(t, "token", "generate")
	if one == two || len(one) != len("abcdef.0123456789abcdef\n") {
		t.Errorf("%q, then %q", one, two)
	}
}

func TestTokenRefusals(t *testing.T) {
	c, _ := apiServer(t)
	tmp := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(tmp, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	bad := write("bad.yaml", "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nbootstrapTokens:\n- usagess: [signing]\n")
	good := write("good.yaml", "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\n")
	for name, x := range map[string]struct {
		args string
		want []string
	}{
		"form":               {"create abc.def", []string{"abcdef.0123456789abcdef"}},
		"two":                {"create aaaaaa.0123456789abcdef b", []string{`"b"`}},
		"usage":              {"create --usages all", []string{"all", "signing"}},
		"group":              {"create --groups admins", []string{"admins", "system:bootstrappers:"}},
		"groups for nobody":  {"create --usages signing", []string{"authentication"}},
		"ttl":                {"create --ttl -1h", []string{"must not be negative"}},
		"key alone":          {"create --certificate-key 00", []string{"--print-join-userdata"}},
		"short key":          {"create --print-join-userdata --certificate-key 00", []string{"--certificate-key", "64"}},
		"no authority":       {"create --print-join-userdata", []string{"no certificate authority"}},
		"config":             {"create --config " + bad, []string{"bad.yaml:4:", "usagess"}},
		"config and flag":    {"create --config " + good + " --ttl 1h", []string{"--ttl", "--config"}},
		"config and token":   {"create aaaaaa.0123456789abcdef --config " + good, []string{"--config"}},
		"no kubeconfig":      {"list --kubeconfig /does/not/exist", []string{"/does/not/exist", "--kubeconfig"}},
		"kubeconfig is none": {"list --kubeconfig " + good, []string{"good.yaml"}},
		"output":             {"list -o wide", []string{"wide", "json"}},
		"argument":           {"list all", []string{"all"}},
		"nothing":            {"delete", []string{"at least one"}},
		"no token":           {"delete ABC", []string{"ID"}},
		"subcommand":         {"renew", []string{"renew"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, stderr := kbuild(t, append([]string{"token"}, strings.Fields(x.args)...)...)
			if code != cli.ExitUsage || out != "" {
				t.Fatalf("exit %d, output %q, %s", code, out, stderr)
			}
			for _, w := range x.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("error %q does not name %q", stderr, w)
				}
			}
		})
	}
	if list, err := cluster.TokenSecrets(t.Context(), c); err != nil || len(list) != 0 {
		t.Errorf("refused commands made %d tokens, %v", len(list), err)
	}
	dead := write("dead.conf", "apiVersion: v1\nkind: Config\nclusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\ncontexts: [{name: a, context: {cluster: a, user: a}}]\nusers: [{name: a}]\ncurrent-context: a\n")
	if code, _, stderr := kbuild(t, "token", "list", "--kubeconfig", dead); code != cli.ExitFailed || !strings.Contains(stderr, "127.0.0.1:1") {
		t.Errorf("nobody there: %d %s", code, stderr)
	}
}

// TestTokenReal: a real API server takes the token that we create for what it
// says, lists as it keeps it, and knows it no more when we have deleted it.
func TestTokenReal(t *testing.T) {
	const token = "abcdef.0123456789abcdef"
	s := apitest.Real(t)
	file := filepath.Join(s.Dir, "admin.conf")
	id, _, _ := strings.Cut(token, ".")
	// shown is what the server says to who shows the token.
	shown := func() error {
		cfg, err := clientcmd.RESTConfigFromKubeConfig(s.AdminConf)
		if err != nil {
			t.Fatal(err)
		}
		cfg.CertData, cfg.KeyData, cfg.BearerToken = nil, nil, token
		c, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
		return err
	}
	if err := shown(); !apierrors.IsUnauthorized(err) {
		t.Errorf("before the token is made: %v", err)
	}
	mustKbuild(t, "token", "--kubeconfig", file, "create", token, "--ttl", "2h", "--description", "for a test", "--groups", "system:bootstrappers:a,system:bootstrappers:b")
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = shown(); apierrors.IsForbidden(err) { // its holder is known, and may not list nodes
			break
		}
	}
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "system:bootstrap:"+id) {
		t.Errorf("with the token: %v", err)
	}
	if code, _, stderr := kbuild(t, "token", "--kubeconfig", file, "create", token); code != cli.ExitFailed || strings.Contains(stderr, token) {
		t.Errorf("made twice: %d %s", code, stderr)
	}
	out := mustKbuild(t, "token", "--kubeconfig", file, "list")
	for _, want := range []string{token, "1h", "authentication,signing", "for a test", "system:bootstrappers:a,system:bootstrappers:b"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	mustKbuild(t, "token", "--kubeconfig", file, "delete", id)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = shown(); apierrors.IsUnauthorized(err) {
			break
		}
	}
	if !apierrors.IsUnauthorized(err) {
		t.Errorf("after the token is deleted: %v", err)
	}
	if out := mustKbuild(t, "token", "--kubeconfig", file, "list"); out != "" {
		t.Errorf("deleted, and listed:\n%s", out)
	}
}
