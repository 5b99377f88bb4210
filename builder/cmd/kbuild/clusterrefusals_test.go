package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/cli"
)

func TestClusterRefusals(t *testing.T) {
	dir := newCluster(t)
	tmp := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(tmp, name)
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	empty, fresh := t.TempDir(), filepath.Join(tmp, "fresh")
	for name, c := range map[string]struct {
		args string
		want []string
	}{
		"no name":        {"new --endpoint a", []string{"the directory to create"}},
		"two names":      {"new a b --endpoint a", []string{"one argument"}},
		"exists":         {"new " + dir + " --endpoint a", []string{"prod", "already exists"}},
		"no endpoint":    {"new " + fresh, []string{"--endpoint k8s.example.com:6443"}},
		"a URL":          {"new " + fresh + " --endpoint https://a:6443", []string{"https://a:6443", "without a scheme"}},
		"no port":        {"new " + fresh + " --endpoint a:b", []string{"a:b"}},
		"version":        {"new " + fresh + " --endpoint a --version v1.3.0", []string{"v1.3.0", "v1.19"}},
		"too new":        {"new " + fresh + " --endpoint a --version v1.38.0", []string{"unknown Kubernetes version v1.38.0", "this kbuild knows"}},
		"no config":      {"new " + fresh + " --config /does/not/exist", []string{"/does/not/exist"}},
		"unknown field":  {"new " + fresh + " --config " + file("typo.yaml", "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\ncontrolPlaneEndpoin: a\n"), []string{"typo.yaml:3:", "controlPlaneEndpoint"}},
		"broken":         {"new " + fresh + " --config " + file("broken.yaml", "a: [\n"), []string{"broken.yaml", "YAML"}},
		"a node's":       {"new " + fresh + " --endpoint a --config " + file("init.yaml", "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\n"), []string{"init.yaml:2:", "InitConfiguration", "user-data"}},
		"two endpoints":  {"new " + fresh + " --endpoint b --config " + file("a.yaml", quick), []string{"a.yaml:4:", "--endpoint", "remove one"}},
		"two versions":   {"new " + fresh + " --version v1.19.12 --config " + file("v.yaml", quick+"kubernetesVersion: v1.20.15\n"), []string{"v.yaml:8:", "--version"}},
		"odd name":       {"new " + filepath.Join(tmp, "My_Cluster") + " --endpoint a", []string{"My_Cluster", "clusterName"}},
		"parent":         {"new " + filepath.Join(tmp, "none", "c") + " --endpoint a", []string{"none"}},
		"output":         {"new " + fresh + " --endpoint a -o xml", []string{"xml", "json"}},
		"recipient":      {"new " + fresh + " --endpoint a --encrypt-to me", []string{"age1"}},
		"no terminal":    {"new " + fresh + " --endpoint a --encrypt", []string{"terminal", "--encrypt-to"}},
		"no role":        {"userdata " + dir, []string{"--role"}},
		"role":           {"userdata " + dir + " --role master", []string{"master", "control-plane"}},
		"node":           {"userdata " + dir + " --role worker --node A_b", []string{"A_b"}},
		"format":         {"userdata " + dir + " --role worker --format xml", []string{"xml", "cloud-config"}},
		"ttl":            {"userdata " + dir + " --role worker --token-ttl 1h", []string{"--token-ttl", "init"}},
		"ttl below zero": {"userdata " + dir + " --role init --token-ttl -1h", []string{"--token-ttl"}},
		"volume":         {"userdata " + dir + " --role worker --format nocloud-iso", []string{"--out"}},
		"volume's size":  {"userdata " + dir + " --role worker --format nocloud-iso --out " + fresh + " --platform aws", []string{"--platform"}},
		"no directory":   {"userdata " + fresh + " --role worker", []string{"fresh", "kbuild cluster new"}},
		"no cluster's":   {"userdata " + empty + " --role worker", []string{"cluster.yaml", "kbuild cluster new"}},
		"server":         {"kubeconfig " + dir + " --server a:6443", []string{"a:6443", "https://"}},
		"validity":       {"kubeconfig " + dir + " --validity 0s", []string{"--validity"}},
		"subcommand":     {"old", []string{"old"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, stderr := kbuild(t, append([]string{"cluster"}, strings.Fields(c.args)...)...)
			if code == cli.ExitOK || out != "" {
				t.Fatalf("exit %d, output %q", code, out)
			}
			if name != "parent" && code != cli.ExitUsage {
				t.Errorf("exit %d", code)
			}
			for _, w := range c.want {
				if !strings.Contains(stderr, w) {
					t.Errorf("error %q does not name %q", stderr, w)
				}
			}
		})
	}
	if _, err := os.Lstat(fresh); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused command left %s", fresh)
	}
	code, _, stderr := kbuild(t, "cluster", "kubeconfig", dir, "--validity", "100000h")
	if code != cli.ExitFailed || !strings.Contains(stderr, "ask for less") {
		t.Errorf("a life longer than the authority's: %d %s", code, stderr)
	}
}
