package templates

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Patches are a user's patches for static pods: file contents by file name,
// TARGET[SUFFIX][+TYPE].EXT as in kubeadm's patches directory. TARGET is a
// static pod's name, TYPE strategic (the default), merge or json, EXT json or
// yaml.
type Patches map[string][]byte

var patchTargets = [...]string{Etcd, APIServer, ControllerManager, Scheduler}

// Check says which file is not a patch.
func (p Patches) Check() error {
	for _, file := range slices.Sorted(maps.Keys(p)) {
		if _, _, err := parsePatchName(file); err != nil {
			return fmt.Errorf("cannot use patch %s: %w", file, err)
		}
	}
	return nil
}

// Manifest is the YAML of a static pod with the patches for it applied, in the
// order of their file names.
func (p Patches) Manifest(pod *corev1.Pod) ([]byte, error) {
	doc, err := yaml.Marshal(pod)
	if err != nil {
		return nil, err
	}
	if doc, err = yaml.YAMLToJSON(doc); err != nil {
		return nil, err
	}
	patched := false
	for _, file := range slices.Sorted(maps.Keys(p)) {
		target, kind, err := parsePatchName(file)
		if err != nil {
			return nil, fmt.Errorf("cannot use patch %s: %w", file, err)
		}
		if target != pod.Name {
			continue
		}
		if doc, err = applyPatch(doc, p[file], kind); err != nil {
			return nil, fmt.Errorf("cannot apply patch %s: %w", file, err)
		}
		patched = true
	}
	if patched {
		// Through the type, so that what is no field of a pod is an error here
		// and not a pod that never starts.
		pod = &corev1.Pod{}
		if err := yaml.UnmarshalStrict(doc, pod); err != nil {
			return nil, fmt.Errorf("cannot use the patches for %s: the outcome is no pod: %w", pod.Name, err)
		}
	}
	return yaml.Marshal(pod)
}

// parsePatchName takes a patch's file name apart.
func parsePatchName(file string) (target, kind string, err error) {
	ext := path.Ext(file)
	if ext != ".json" && ext != ".yaml" {
		return "", "", errors.New("its name must end in .json or .yaml")
	}
	stem := strings.TrimSuffix(file, ext)
	for _, t := range patchTargets {
		if strings.HasPrefix(stem, t) && len(t) > len(target) {
			target = t
		}
	}
	if target == "" {
		return "", "", fmt.Errorf("its name must begin with one of %s", strings.Join(patchTargets[:], ", "))
	}
	_, kind, typed := strings.Cut(stem, "+")
	switch {
	case !typed:
		kind = "strategic"
	case kind != "strategic" && kind != "merge" && kind != "json":
		return "", "", fmt.Errorf("its type %q after the + must be strategic, merge or json", kind)
	}
	return target, kind, nil
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
