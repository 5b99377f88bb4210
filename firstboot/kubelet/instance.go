package kubelet

import (
	"encoding/json"
	"errors"

	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"
)

// applyInstanceConfig lays instance, which is what differs on this node, over a
// KubeletConfiguration: as a strategic merge patch, as kubeadm does. In that kind
// no list is merged by a key, so the type need not be known.
func applyInstanceConfig(conf, instance []byte) ([]byte, error) {
	var under, over strategicpatch.JSONMap
	if err := yaml.Unmarshal(conf, &under); err != nil {
		return nil, err
	}
	if err := yaml.Unmarshal(instance, &over); err != nil {
		return nil, errors.New("it is no mapping in YAML")
	}
	merged, err := strategicpatch.StrategicMergeMapPatchUsingLookupPatchMeta(under, over, untyped{})
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(merged)
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(b)
}

// untyped knows nothing of how fields are merged: maps key by key, lists whole.
type untyped struct{}

func (untyped) LookupPatchMetadataForStruct(string) (strategicpatch.LookupPatchMeta, strategicpatch.PatchMeta, error) {
	return untyped{}, strategicpatch.PatchMeta{}, nil
}

func (untyped) LookupPatchMetadataForSlice(string) (strategicpatch.LookupPatchMeta, strategicpatch.PatchMeta, error) {
	return untyped{}, strategicpatch.PatchMeta{}, nil
}

func (untyped) Name() string { return "KubeletConfiguration" }
