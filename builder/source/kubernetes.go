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

// kubeRecipe is how the Kubernetes of one minor version is compiled. Its main
// file is a template over the recipe.
type kubeRecipe struct {
	main    string   // which of mains
	kubeadm string   // call that reports an error of kubeadm and exits
	openAPI bool     // its OpenAPI definitions have to be generated
	vbom    bool     // its kubectl wants the module vbom.ml/util
	replace []string // replacements beyond staging, in go.mod's syntax

	Kubectl        string // package of kubectl's command
	KubectlLogs    bool   // kubectl's logs are set up before its command is made
	KubeletContext bool   // the kubelet's command wants a context
	KubeletLogs    bool   // the kubelet sets up its logs by itself
	JSONLogs       bool   // logs in JSON are a package of their own
}

// The minors that have a recipe. A new minor may need a new line of kubeFacts.
const oldestMinor, newestMinor = 19, 37

// kubeFact is one thing that holds for a range of minors, both ends included.
type kubeFact struct {
	from, to int
	set      func(*kubeRecipe)
}

// kubeFacts are read in the main files of each minor's own cmd directory
// (kube-apiserver, kubelet, kubectl, kubeadm, …), and in its go.mod.
func kubeFacts() []kubeFact {
	return []kubeFact{
		{19, 22, func(r *kubeRecipe) { r.main = "kube-flags" }},
		{23, newestMinor, func(r *kubeRecipe) { r.main = "kube-cli" }},
		{22, 22, func(r *kubeRecipe) { r.JSONLogs = true }}, // and later, in kube-cli
		{23, 24, func(r *kubeRecipe) { r.KubeletLogs = true }},
		{34, newestMinor, func(r *kubeRecipe) { r.KubeletContext = true }},

		{19, 19, func(r *kubeRecipe) { r.Kubectl = "k8s.io/kubernetes/pkg/kubectl/cmd" }},
		{20, newestMinor, func(r *kubeRecipe) { r.Kubectl = "k8s.io/kubectl/pkg/cmd" }},
		{34, newestMinor, func(r *kubeRecipe) { r.KubectlLogs = true }},
		{19, 19, func(r *kubeRecipe) { r.vbom = true }},

		{19, 33, func(r *kubeRecipe) { r.kubeadm = "util.CheckErr" }},
		{34, newestMinor, func(r *kubeRecipe) { r.kubeadm = "errors.HandleError" }},

		{19, 23, func(r *kubeRecipe) { r.openAPI = true }},
		{19, 22, func(r *kubeRecipe) { r.replace = reflectFixes() }},
	}
}

// kubeRecipeOf is the recipe of a minor: all facts whose range holds it.
func kubeRecipeOf(minor int) (recipe kubeRecipe, ok bool) {
	for _, f := range kubeFacts() {
		if f.from <= minor && minor <= f.to {
			f.set(&recipe)
		}
	}
	return recipe, oldestMinor <= minor && minor <= newestMinor
}

// Two modules that crash when they are compiled with Go 1.18 or newer.
func reflectFixes() []string {
	return []string{
		"github.com/json-iterator/go => github.com/json-iterator/go v1.1.12",
		"github.com/modern-go/reflect2 => github.com/modern-go/reflect2 v1.0.2",
	}
}

// staging are replacements for staging modules that not every proxy serves at
// a version's own number: the last number before it that is served. Between
// the two, a module's go.mod and go.sum differ, and no other file.
func staging(version string) []string {
	var replace []string
	for _, s := range []struct{ version, number, modules string }{
		{"v1.22.17", "v0.22.16", "kube-controller-manager"},
		{"v1.25.16", "v0.25.15", "cluster-bootstrap controller-manager kube-controller-manager kube-proxy"},
		{"v1.26.15", "v0.26.13", "controller-manager kube-controller-manager kube-proxy"},
		{"v1.31.14", "v0.31.13", "endpointslice kube-controller-manager kube-scheduler"},
		{"v1.31.14", "v0.31.11", "kube-proxy"},
		{"v1.32.13", "v0.32.12", "endpointslice"},
	} {
		for _, name := range strings.Fields(s.modules) {
			if s.version == version {
				replace = append(replace, fmt.Sprintf("k8s.io/%s => k8s.io/%[1]s %s", name, s.number))
			}
		}
	}
	return replace
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
	recipe, ok := kubeRecipeOf(r.Minor())
	if !ok {
		return build{}, fmt.Errorf("cannot compile Kubernetes %s: no recipe for its minor version: use --source release or dir:PATH", r.Version)
	}
	b := build{
		Name: "kubernetes-" + r.Version, Module: "k8s.io/kubernetes", Version: r.Version,
		Staging:  "v0." + strings.TrimPrefix(r.Version, "v1."),
		Programs: map[string]string{"kube": "./kube"},
		Also:     []string{"./kube", "./kubeadm"},
		Replace:  append(recipe.replace, staging(r.Version)...),
		Files:    map[string]string{},
		Set:      map[string]string{},
	}
	if recipe.openAPI {
		b.OpenAPI = openAPIRevision
	}
	var err error
	if b.Files["kube/main.go"], err = mainText(recipe.main, recipe); err != nil {
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
