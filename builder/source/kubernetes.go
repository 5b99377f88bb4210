package source

import (
	"cmp"
	"embed"
	"fmt"
	"runtime"
	"strings"
	"text/template"
	"time"

	"github.com/kbuild/kbuild/images"
)

const hostArch = runtime.GOARCH

// mains holds the programs and replacement packages that kbuild adds to build
// modules.
//
//go:embed mains pause/main.go
var mains embed.FS

// kubeRecipe is how the Kubernetes of one minor version is compiled.
type kubeRecipe struct {
	main    string // which of mains
	kubectl string // package of kubectl's command
	kubeadm string // call that reports an error of kubeadm and exits
	openAPI bool   // its OpenAPI definitions have to be generated
	vbom    bool   // its kubectl wants the module vbom.ml/util
	replace []string
}

// Two modules that crash when they are compiled with Go 1.18 or newer.
func reflectFixes() []string {
	return []string{
		"github.com/json-iterator/go => github.com/json-iterator/go v1.1.12",
		"github.com/modern-go/reflect2 => github.com/modern-go/reflect2 v1.0.2",
	}
}

func kubeRecipes() map[int]kubeRecipe {
	return map[int]kubeRecipe{
		19: {main: "kube-flags", kubectl: "k8s.io/kubernetes/pkg/kubectl/cmd", kubeadm: "util.CheckErr", openAPI: true, vbom: true, replace: reflectFixes()},
		20: {main: "kube-flags", kubectl: "k8s.io/kubectl/pkg/cmd", kubeadm: "util.CheckErr", openAPI: true, replace: reflectFixes()},
		37: {main: "kube-cli", kubectl: "k8s.io/kubectl/pkg/cmd", kubeadm: "errors.HandleError"},
	}
}

// kubeBuild is the build module of a Kubernetes version: the multi-call file
// "kube" that is every component but kubeadm.
//
// One file for all is smallest on disk (138 MB instead of 375 MB for the five
// of v1.19.12) and in memory: each process has some MB more of its own (the
// scheduler 8, kube-proxy 8), but all map the same pages of the same file. A
// control plane with kube-proxy took 425 MB (proportional set sizes) instead
// of 528 MB.
func kubeBuild(r images.Release, epoch time.Time) (build, error) {
	recipe, ok := kubeRecipes()[r.Minor()]
	if !ok {
		return build{}, fmt.Errorf("cannot compile Kubernetes %s: no recipe for its minor version: use --source release or dir:PATH", r.Version)
	}
	b := build{
		Name: "kubernetes-" + r.Version, Module: "k8s.io/kubernetes", Version: r.Version,
		Staging:  "v0." + strings.TrimPrefix(r.Version, "v1."),
		Programs: map[string]string{"kube": "./kube"},
		Also:     []string{"./kube", "./kubeadm"},
		Replace:  recipe.replace,
		Files:    map[string]string{},
		Set:      map[string]string{},
	}
	if recipe.openAPI {
		b.OpenAPI = openAPIRevision
	}
	var err error
	if b.Files["kube/main.go"], err = mainText(recipe.main, map[string]string{"Kubectl": recipe.kubectl}); err != nil {
		return build{}, err
	}
	if b.Files["kubeadm/main.go"], err = mainText("kubeadm", recipe.kubeadm); err != nil {
		return build{}, err
	}
	if recipe.vbom {
		b.Replace = append(b.Replace, "vbom.ml/util => ./vbom")
		b.Files["vbom/go.mod"] = "module vbom.ml/util\n"
		if b.Files["vbom/sortorder/natural.go"], err = mainText("natural", nil); err != nil {
			return build{}, err
		}
	}
	v := strings.Split(strings.TrimPrefix(r.Version, "v"), ".")
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		b.Set[pkg+".gitVersion"] = r.Version
		b.Set[pkg+".gitMajor"] = v[0]
		b.Set[pkg+".gitMinor"] = v[1]
		b.Set[pkg+".gitTreeState"] = "clean"
		// No commit is known: the module's sum says which source it is.
		b.Set[pkg+".gitCommit"] = cmp.Or(b.sum(), "unknown")
		b.Set[pkg+".buildDate"] = epoch.UTC().Format(time.RFC3339)
	}
	return b, nil
}

// mainText is one of mains, filled in.
func mainText(name string, data any) (string, error) {
	t, err := template.ParseFS(mains, "mains/"+name+".go.tmpl")
	if err != nil {
		return "", err
	}
	var s strings.Builder
	if err := t.Execute(&s, data); err != nil {
		return "", err
	}
	return s.String(), nil
}
