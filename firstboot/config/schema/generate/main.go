// Command generate writes the field schemas of one Kubernetes version: which
// fields its kubeadm, kubelet and kube-proxy configuration kinds have, with
// their types.
//
//	go run ./firstboot/config/schema/generate -version v1.19.12 -o firstboot/config/schema/v1.19.json
//
// It downloads k8s.io/kubernetes, kubelet, kube-proxy, component-base, api and
// apimachinery of that version as Go modules, verified by the checksum
// database, and reads the declarations of the kinds in their sources; nothing
// of them is compiled. The format is described in package schema.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config/schema"
)

func main() {
	log.SetFlags(0)
	version := flag.String("version", "", "Kubernetes version, e.g. v1.19.12")
	out := flag.String("o", "", "file to write, e.g. firstboot/config/schema/v1.19.json")
	api := flag.String("api", "v1beta2", "kubeadm's config API version")
	flag.Parse()
	if *version == "" || *out == "" {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*version, *api, *out); err != nil {
		log.Fatalf("cannot generate the schema of %s: %v", *version, err)
	}
}

func run(version, api, out string) error {
	dirs, err := modules(version)
	if err != nil {
		return err
	}
	p := &parser{dirs: dirs, pkgs: map[string]*pkg{}, out: schema.Schema{
		Version: version, Kinds: map[string]string{}, Types: map[string]map[string]string{}, FeatureGates: map[string]bool{},
	}}
	const kubeadm = "k8s.io/kubernetes/cmd/kubeadm/app/"
	roots := []struct{ path, group, kind string }{
		{kubeadm + "apis/kubeadm/" + api, "kubeadm.k8s.io/" + api, "InitConfiguration"},
		{kubeadm + "apis/kubeadm/" + api, "kubeadm.k8s.io/" + api, "ClusterConfiguration"},
		{kubeadm + "apis/kubeadm/" + api, "kubeadm.k8s.io/" + api, "ClusterStatus"},
		{kubeadm + "apis/kubeadm/" + api, "kubeadm.k8s.io/" + api, "JoinConfiguration"},
		{"k8s.io/kubelet/config/v1beta1", "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"},
		{"k8s.io/kube-proxy/config/v1alpha1", "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"},
	}
	for _, r := range roots {
		if r.kind == "ClusterStatus" && !p.has(r.path, r.kind) {
			continue // until v1beta2
		}
		name, err := p.typ(r.path, r.kind)
		if err != nil {
			return fmt.Errorf("kind %s: %w", r.kind, err)
		}
		p.out.Kinds[r.group+"/"+r.kind] = strings.TrimPrefix(name, "$")
	}
	if p.out.FeatureGates, err = p.featureGates(kubeadm + "features"); err != nil {
		return err
	}
	b, err := json.MarshalIndent(p.out, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(out, append(b, '\n'), 0o644)
}

// modules downloads what is needed into the module cache and returns the
// directory of each module.
func modules(version string) (map[string]string, error) {
	staging := "v0" + strings.TrimPrefix(version, "v1")
	want := map[string]string{"k8s.io/kubernetes": version}
	for _, m := range []string{"kubelet", "kube-proxy", "component-base", "api", "apimachinery"} {
		want["k8s.io/"+m] = staging
	}
	dirs := map[string]string{}
	tmp, err := os.MkdirTemp("", "schema")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := os.WriteFile(filepath.Join(tmp, "go.mod"), []byte("module schema\n"), 0o644); err != nil {
		return nil, err
	}
	for m, v := range want {
		cmd := exec.Command("go", "mod", "download", "-json", m+"@"+v)
		cmd.Dir = tmp
		b, err := cmd.Output()
		var d struct{ Dir, Error string }
		if jerr := json.Unmarshal(b, &d); jerr != nil || d.Dir == "" {
			return nil, fmt.Errorf("cannot download %s@%s: %s %v", m, v, d.Error, err)
		}
		dirs[m] = d.Dir
	}
	return dirs, nil
}
