// Command generate writes the field schemas of one Kubernetes version: which
// fields its kubeadm, kubelet and kube-proxy configuration kinds have, with
// their types.
//
//	go run ./firstboot/config/schema/generate -o firstboot/config/schema v1.19.12 v1.20.15
//
// It writes v1.19.json and v1.20.json. It downloads k8s.io/kubernetes, kubelet, kube-proxy, component-base, api and
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
	"strconv"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config/schema"
	"github.com/kbuild/kbuild/images"
)

func main() {
	log.SetFlags(0)
	out := flag.String("o", "", "directory to write to, e.g. firstboot/config/schema")
	flag.Parse()
	if flag.NArg() == 0 || *out == "" {
		flag.Usage()
		os.Exit(2)
	}
	for _, version := range flag.Args() {
		r, err := images.Lookup(version)
		if err == nil {
			err = run(version, r.ConfigAPIs, filepath.Join(*out, fmt.Sprintf("v1.%d.json", r.Minor())))
		}
		if err != nil {
			log.Fatalf("cannot generate the schema of %s: %v", version, err)
		}
	}
}

// run writes the schema of version, with the kinds of kubeadm in the given
// versions of its config API.
func run(version string, apis []string, out string) error {
	dirs, err := modules(version)
	if err != nil {
		return err
	}
	p := &parser{dirs: dirs, pkgs: map[string]*pkg{}, out: schema.Schema{
		Version: version, Kinds: map[string]string{}, Types: map[string]map[string]string{}, FeatureGates: map[string]bool{},
	}}
	const kubeadm = "k8s.io/kubernetes/cmd/kubeadm/app/"
	type root struct{ path, group, kind string }
	roots := []root{
		{"k8s.io/kubelet/config/v1beta1", "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"},
		{"k8s.io/kube-proxy/config/v1alpha1", "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"},
	}
	for _, api := range apis {
		for _, kind := range []string{"InitConfiguration", "ClusterConfiguration", "ClusterStatus", "JoinConfiguration", "ResetConfiguration", "UpgradeConfiguration"} {
			r := root{kubeadm + "apis/kubeadm/" + api, "kubeadm.k8s.io/" + api, kind}
			if p.has(r.path, kind) { // ClusterStatus until v1beta2, the last two since v1beta4
				roots = append(roots, r)
			}
		}
	}
	for _, r := range roots {
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
		if dirs[m], err = download(tmp, m, v); err != nil {
			return nil, err
		}
	}
	return dirs, nil
}

// download returns the directory of a module of a version. Of the staging
// modules not every patch release is served everywhere: the newest one before it
// takes its place, as configuration kinds do not change in patch releases.
func download(tmp, module, version string) (string, error) {
	minor, last, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	middle, last, _ := strings.Cut(last, ".")
	patch, err := strconv.Atoi(last)
	if err != nil {
		return "", fmt.Errorf("cannot read version %s of %s", version, module)
	}
	for ; patch >= 0; patch-- {
		cmd := exec.Command("go", "mod", "download", "-json", fmt.Sprintf("%s@v%s.%s.%d", module, minor, middle, patch))
		cmd.Dir = tmp
		b, runErr := cmd.Output()
		var d struct{ Dir, Error string }
		if json.Unmarshal(b, &d) == nil && d.Dir != "" {
			return d.Dir, nil
		}
		err = fmt.Errorf("cannot download %s@%s: %s %v", module, version, d.Error, runErr)
		if module == "k8s.io/kubernetes" {
			break
		}
	}
	return "", err
}
