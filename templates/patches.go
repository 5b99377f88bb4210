package templates

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Patch is one file of a user's patches for static pods. Its name is
// TARGET[SUFFIX][+TYPE].EXT as in kubeadm's patches directory: TARGET a static
// pod's name, SUFFIX anything without a dot or a plus, TYPE strategic (the
// default), merge or json, EXT json or yaml.
type Patch struct {
	Name string // of the file
	Data []byte
}

// Patches are applied in their order.
type Patches []Patch

var patchTargets = [...]string{Etcd, APIServer, ControllerManager, Scheduler}

// errNoPatch is the reason why a file is not a patch.
var errNoPatch = errors.New("not a patch")

// Check says which files are none of the patches that kubeadm would apply
// (kubeadm passes over them, and so does Manifest), and whether a patch has an
// unknown type.
func (p Patches) Check() (ignored []string, err error) {
	for _, f := range p {
		_, _, err := parsePatchName(f.Name)
		if errors.Is(err, errNoPatch) {
			ignored = append(ignored, err.Error())
		} else if err != nil {
			return nil, fmt.Errorf("cannot use patch %s: %w", f.Name, err)
		}
	}
	return ignored, nil
}

// Manifest is the YAML of a static pod with the patches for it applied.
func (p Patches) Manifest(pod *corev1.Pod) ([]byte, error) {
	doc, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	patched := false
	for _, f := range p {
		target, kind, err := parsePatchName(f.Name)
		if errors.Is(err, errNoPatch) || err == nil && target != pod.Name {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot use patch %s: %w", f.Name, err)
		}
		if doc, err = applyPatch(doc, f.Data, kind); err != nil {
			return nil, fmt.Errorf("cannot apply patch %s: %w", f.Name, err)
		}
		patched = true
	}
	if patched {
		// Through the type, so that an unknown field is an error here
		// and not a pod that never starts.
		name := pod.Name
		pod = &corev1.Pod{}
		if err := yaml.UnmarshalStrict(doc, pod); err != nil {
			return nil, fmt.Errorf("cannot use the patches for %s: the result is not a pod: %w", name, err)
		}
		// The kubelet passes over such a manifest in silence.
		if pod.APIVersion != "v1" || pod.Kind != "Pod" || pod.Name == "" || len(pod.Spec.Containers) == 0 {
			return nil, fmt.Errorf("cannot use the patches for %s: the result is not a valid pod: it must keep apiVersion v1, kind Pod, a name and a container", name)
		}
	}
	return yaml.Marshal(pod)
}

// parsePatchName takes a patch's file name apart, as kubeadm does: the type is
// what the text after a plus begins with, and a suffix ends at a dot.
func parsePatchName(file string) (target, kind string, err error) {
	if ext := path.Ext(file); ext != ".json" && ext != ".yaml" || ext == file {
		return "", "", fmt.Errorf("%s is %w: its name does not end in .json or .yaml", file, errNoPatch)
	}
	for _, t := range patchTargets {
		if strings.HasPrefix(file, t) {
			target = t
		}
	}
	if target == "" {
		return "", "", fmt.Errorf("%s is %w: its name does not begin with one of %s", file, errNoPatch, strings.Join(patchTargets[:], ", "))
	}
	rest := strings.TrimPrefix(file, target)
	end := strings.IndexAny(rest, ".+")
	if rest[end] == '.' {
		return target, "strategic", nil
	}
	for _, kind := range []string{"json", "merge", "strategic"} {
		if strings.HasPrefix(rest[end+1:], kind) {
			return target, kind, nil
		}
	}
	return "", "", errors.New("after the + there must be its type: strategic, merge or json")
}

// applyPatch applies each document of a patch file to doc, which is JSON.
func applyPatch(doc, patch []byte, kind string) ([]byte, error) {
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
			doc, err = strategicpatch.StrategicMergePatch(doc, p, corev1.Pod{})
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
