package templates

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"reflect"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/images"
)

// Patch is one file of a user's patches. Its name is TARGET[SUFFIX][+TYPE].EXT as
// in kubeadm's patches directory: TARGET a static pod's name or one of the other
// targets, SUFFIX anything without a dot or a plus, TYPE strategic (the default),
// merge or json, EXT json or yaml.
type Patch struct {
	Name string // of the file
	Data []byte
}

// Patches are applied in their order.
type Patches []Patch

// Targets of patches that are no static pods.
const (
	KubeletConfiguration = "kubeletconfiguration"
	CoreDNSDeployment    = "corednsdeployment"
	KubeProxyDaemonSet   = "kubeproxydaemonset"
)

// patchTargets are the targets that some version has, and the fact that says
// which; no fact is every version.
func patchTargets() []patchTarget {
	return []patchTarget{
		{Etcd, ""}, {APIServer, ""}, {ControllerManager, ""}, {Scheduler, ""},
		{KubeletConfiguration, images.FactPatchKubelet},
		{CoreDNSDeployment, images.FactPatchCoreDNS},
		{KubeProxyDaemonSet, images.FactPatchKubeProxy},
	}
}

type patchTarget struct {
	name string
	fact images.Fact
}

// errNoPatch is the reason why a file is not a patch.
var errNoPatch = errors.New("not a patch")

// ReadPatches reads a patches directory of fsys and those below it, as kubeadm
// does.
func ReadPatches(fsys fs.FS, dir string) (Patches, error) {
	var p Patches
	err := fs.WalkDir(fsys, strings.TrimPrefix(path.Clean(dir), "/"), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if st, err := fs.Stat(fsys, file); err != nil || !st.Mode().IsRegular() {
			return err // a link to a directory is none of ours
		}
		b, err := fs.ReadFile(fsys, file)
		p = append(p, Patch{Name: path.Base(file), Data: b})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the patches directory %s: %w", dir, err)
	}
	return p, nil
}

// Check says which files are none of the patches that kubeadm would apply
// (kubeadm passes over them, and so is done here). A patch of an unknown type is
// an error, and so is one for a target that only other versions have: kubeadm
// would pass over that, too, and nobody would know why it has no effect.
func (p Patches) Check(rel images.Release) (ignored []string, err error) {
	var has, others []string
	for _, t := range patchTargets() {
		if t.fact == "" || rel.Has(t.fact) {
			has = append(has, t.name)
		} else {
			others = append(others, t.name)
		}
	}
	for _, f := range p {
		_, err := parsePatchName(f.Name, has...)
		if errors.Is(err, errNoPatch) {
			for _, t := range others {
				if _, other := parsePatchName(f.Name, t); !errors.Is(other, errNoPatch) {
					return nil, fmt.Errorf("cannot use patch %s: kubeadm %s does not patch %s, only %s; remove the file", f.Name, rel.Version, t, strings.Join(has, ", "))
				}
			}
			ignored = append(ignored, err.Error())
		} else if err != nil {
			return nil, fmt.Errorf("cannot use patch %s: %w", f.Name, err)
		}
	}
	return ignored, nil
}

// Manifest is the YAML of a static pod with the patches for it applied.
func (p Patches) Manifest(pod *corev1.Pod) ([]byte, error) {
	patched, err := Patched(p, pod.Name, pod)
	if err != nil {
		return nil, err
	}
	// The kubelet passes over such a manifest in silence.
	if patched.APIVersion != "v1" || patched.Kind != "Pod" || patched.Name == "" || len(patched.Spec.Containers) == 0 {
		return nil, fmt.Errorf("cannot use the patches for %s: the result is not a valid pod: it must keep apiVersion v1, kind Pod, a name and a container", pod.Name)
	}
	return yaml.Marshal(patched)
}

// Patched is an object with the patches for target applied; the object itself
// where there are none.
func Patched[T any](p Patches, target string, obj *T) (*T, error) {
	doc, err := json.Marshal(obj)
	if err != nil {
		return nil, err
	}
	var zero T
	doc, changed, err := p.apply(target, doc, func(doc, patch []byte) ([]byte, error) {
		return strategicpatch.StrategicMergePatch(doc, patch, zero)
	})
	if err != nil || !changed {
		return obj, err
	}
	// Through the type, so that an unknown field is an error here and not an
	// object that does not do what its patch says.
	out := new(T)
	if err := yaml.UnmarshalStrict(doc, out); err != nil {
		return nil, fmt.Errorf("cannot use the patches for %s: the result is not a %s: %w", target, reflect.TypeFor[T]().Name(), err)
	}
	return out, nil
}

// Kubelet is a KubeletConfiguration, YAML, with the patches for it applied.
func (p Patches) Kubelet(conf []byte) ([]byte, error) {
	doc, err := yaml.YAMLToJSON(conf)
	if err != nil {
		return nil, fmt.Errorf("cannot patch the kubelet's configuration: %w", err)
	}
	doc, changed, err := p.apply(KubeletConfiguration, doc, func(doc, patch []byte) ([]byte, error) {
		var d, p map[string]any
		if err := errors.Join(json.Unmarshal(doc, &d), json.Unmarshal(patch, &p)); err != nil {
			return nil, err
		}
		merged, err := strategicpatch.StrategicMergeMapPatchUsingLookupPatchMeta(d, p, noMergeKeys{})
		if err != nil {
			return nil, err
		}
		return json.Marshal(merged)
	})
	if err != nil || !changed {
		return conf, err
	}
	var was, is metav1.TypeMeta
	if err := errors.Join(yaml.Unmarshal(conf, &was), json.Unmarshal(doc, &is)); err != nil || is != was {
		return nil, fmt.Errorf("cannot use the patches for %s: the result must keep apiVersion %s and kind %s", KubeletConfiguration, was.APIVersion, was.Kind)
	}
	return yaml.JSONToYAML(doc)
}

// noMergeKeys is the schema of a KubeletConfiguration for strategic patches: in
// no version has one of its lists a merge key, so that lists are replaced.
type noMergeKeys struct{}

func (noMergeKeys) Name() string { return KubeletConfiguration }

func (noMergeKeys) LookupPatchMetadataForStruct(string) (strategicpatch.LookupPatchMeta, strategicpatch.PatchMeta, error) {
	return noMergeKeys{}, strategicpatch.PatchMeta{}, nil
}

func (noMergeKeys) LookupPatchMetadataForSlice(string) (strategicpatch.LookupPatchMeta, strategicpatch.PatchMeta, error) {
	return noMergeKeys{}, strategicpatch.PatchMeta{}, nil
}

// apply applies the patches for target to doc, which is JSON, and says whether
// there are any.
func (p Patches) apply(target string, doc []byte, strategic func(doc, patch []byte) ([]byte, error)) (out []byte, changed bool, err error) {
	for _, f := range p {
		kind, err := parsePatchName(f.Name, target)
		if errors.Is(err, errNoPatch) {
			continue
		}
		if err != nil {
			return nil, false, fmt.Errorf("cannot use patch %s: %w", f.Name, err)
		}
		if doc, err = applyPatch(doc, f.Data, kind, strategic); err != nil {
			return nil, false, fmt.Errorf("cannot apply patch %s: %w", f.Name, err)
		}
		changed = true
	}
	return doc, changed, nil
}

// parsePatchName says which type of patch for one of targets a file is, by its
// name, as kubeadm does: the type is what the text after a plus begins with, and
// a suffix ends at a dot.
func parsePatchName(file string, targets ...string) (kind string, err error) {
	if ext := path.Ext(file); ext != ".json" && ext != ".yaml" || ext == file {
		return "", fmt.Errorf("%s is %w: its name does not end in .json or .yaml", file, errNoPatch)
	}
	i := slices.IndexFunc(targets, func(t string) bool { return strings.HasPrefix(file, t) })
	if i < 0 {
		return "", fmt.Errorf("%s is %w: its name does not begin with one of %s", file, errNoPatch, strings.Join(targets, ", "))
	}
	rest := strings.TrimPrefix(file, targets[i])
	end := strings.IndexAny(rest, ".+")
	if rest[end] == '.' {
		return "strategic", nil
	}
	for _, kind := range []string{"json", "merge", "strategic"} {
		if strings.HasPrefix(rest[end+1:], kind) {
			return kind, nil
		}
	}
	return "", errors.New("after the + there must be its type: strategic, merge or json")
}

// applyPatch applies each document of a patch file to doc, which is JSON.
func applyPatch(doc, patch []byte, kind string, strategic func(doc, patch []byte) ([]byte, error)) ([]byte, error) {
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(patch)))
	for {
		p, err := r.Read()
		if errors.Is(err, io.EOF) {
			return doc, nil
		}
		if err != nil {
			return nil, err
		}
		if p = bytes.TrimSpace(p); len(p) == 0 {
			continue
		}
		if p, err = yaml.YAMLToJSON(p); err != nil {
			return nil, err
		}
		switch kind {
		case "strategic":
			doc, err = strategic(doc, p)
		case "merge":
			doc, err = jsonpatch.MergePatch(doc, p)
		case "json":
			var ops jsonpatch.Patch
			if ops, err = jsonpatch.DecodePatch(p); err == nil {
				doc, err = ops.Apply(doc)
			}
		}
		if err != nil {
			return nil, err
		}
	}
}
