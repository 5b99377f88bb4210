package firstboot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// oracleCases are the configurations for which the machine is not empty, by
// their names.
func oracleCases() map[string]oracleCase {
	return map[string]oracleCase{
		"external-ca":             {prepare: oracleCopy("etc/kubernetes/pki", "etc/kubernetes/*.conf", "!etc/kubernetes/pki/ca.key")},
		"external-front-proxy-ca": {prepare: oracleCopy("etc/kubernetes/pki/front-proxy-*", "!etc/kubernetes/pki/front-proxy-ca.key")},
		"kept-certificates": {prepare: oracleCopy("etc/kubernetes/pki/ca.*", "etc/kubernetes/pki/apiserver.*",
			"etc/kubernetes/pki/sa.*", "etc/kubernetes/pki/etcd/ca.*", "etc/kubernetes/pki/etcd/peer.*")},
		"kept-kubeconfig": {prepare: func(t *testing.T, root, made string) {
			oracleCopy("etc/kubernetes/pki", "etc/kubernetes/admin.conf")(t, root, made)
			file := filepath.Join(root, "etc/kubernetes/admin.conf")
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// kubeadm keeps it, and only warns.
			b = []byte(strings.Replace(string(b), "https://192.0.2.10:6443", "https://admin.example.com", 1))
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		"proxy-environment": {env: []string{"HTTPS_PROXY=http://proxy.example.com:3128", "HTTP_PROXY=", "NO_PROXY=192.0.2.0/24,.example.com", "UNRELATED=1", "no_proxy=localhost"}},
		"no-certificate-directories": {prepare: func(t *testing.T, root, _ string) {
			for _, d := range []string{"etc/ssl", "usr/share/ca-certificates"} {
				if err := os.RemoveAll(filepath.Join(root, d)); err != nil {
					t.Fatal(err)
				}
			}
		}},
		"patches": {patches: "/usr/share/patches", prepare: func(t *testing.T, root, _ string) { oraclePatches(t, root, "/usr/share/patches") }},
	}
}

// oracleCopy copies the files that match patterns from the machine that
// kubeadm has set up, but not those that match one that begins with "!".
func oracleCopy(patterns ...string) func(t *testing.T, root, made string) {
	return func(t *testing.T, root, made string) {
		var files []string
		leave := map[string]bool{}
		for _, p := range patterns {
			p, not := strings.CutPrefix(p, "!")
			found, err := filepath.Glob(filepath.Join(made, p))
			if err != nil || len(found) == 0 {
				t.Fatalf("%s: nothing there (%v)", p, err)
			}
			for _, f := range found {
				leave[f] = not
			}
			if !not {
				files = append(files, found...)
			}
		}
		for _, f := range files {
			err := filepath.WalkDir(f, func(file string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() || leave[file] {
					return err
				}
				b, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				st, err := d.Info()
				if err != nil {
					return err
				}
				to := filepath.Join(root, strings.TrimPrefix(file, made))
				if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
					return err
				}
				return os.WriteFile(to, b, st.Mode().Perm())
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// oraclePatches writes patches of every kind, and files that are none.
func oraclePatches(t *testing.T, root, dir string) {
	for name, text := range map[string]string{
		"kube-apiserver.yaml":                  "metadata: {annotations: {team: infra}}\nspec:\n  containers:\n  - name: kube-apiserver\n    resources: {requests: {memory: 512Mi}}\n",
		"kube-apiserver1+json.json":            `[{"op": "add", "path": "/metadata/labels/patched", "value": "yes"}, {"op": "replace", "path": "/spec/priorityClassName", "value": "mine"}]`,
		"kube-controller-manager+merge.yaml":   "metadata: {labels: {tier: null}}\n---\nspec: {terminationGracePeriodSeconds: 5}\n",
		"kube-scheduler0+strategic.yaml":       "spec:\n  containers:\n  - name: kube-scheduler\n    env: [{name: A, value: b}]\n  volumes: [{name: extra, hostPath: {path: /extra}}]\n",
		"etcd.json":                            `{"spec": {"hostNetwork": null, "dnsPolicy": "Default"}}`,
		"etcd.odd+json.yaml":                   "metadata: {annotations: {strategic: because the suffix ends at a dot}}\n",
		"etcd-empty.yaml":                      "",
		"README.md":                            "not a patch\n",
		"kubelet.yaml":                         "no: target\n",
		"more/kube-scheduler9+merge.yaml":      "metadata: {annotations: {from: a directory within}}\n",
		"kube-scheduler5+mergeandmore.yaml":    "metadata: {annotations: {odd: name}}\n",
		"kube-controller-manager9-suffix.yaml": "metadata: {annotations: {suffix: \"yes\"}}\n",
	} {
		file := filepath.Join(root, dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
