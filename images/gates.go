package images

import (
	"fmt"
	"maps"
)

// gate is a feature gate of kubeadm that decides about a fact in the versions
// from From to To, both included; outside of them the fact is what the version
// says.
type gate struct {
	Name     string
	Fact     Fact
	Not      bool // the fact holds where the gate is off
	From, To string
}

// gates are read from features/features.go and where they are asked for: a gate
// that kubeadm calls locked is still obeyed as long as anybody asks.
func gates() []gate {
	return []gate{
		{"UnversionedKubeletConfigMap", FactVersionedKubeletConfig, true, "1.23", "1.24"},
		{"ControlPlaneKubeletLocalMode", FactLocalAPIServer, false, "1.31", "1.34"},
		{"NodeLocalCRISocket", FactInstanceConfig, false, "1.32", "1.36"},
		{"NodeLocalCRISocket", FactCRISocketAnnotation, true, "1.32", "1.35"},
	}
}

// With is the release for a cluster that sets kubeadm's feature gates: some of
// them turn facts on and off.
func (r Release) With(set map[string]bool) Release {
	_, minor, patch, err := parse(r.Version)
	if err != nil {
		return r
	}
	facts := map[string]bool{}
	maps.Copy(facts, r.Facts)
	for _, g := range gates() {
		if on, given := set[g.Name]; given && (version{minor, patch}).within(g.From, g.To) {
			facts[string(g.Fact)] = on != g.Not
		}
	}
	r.Facts, r.KubeletConfigMap = facts, kubeletConfigMap(facts, minor)
	return r
}

// kubeletConfigMap names the ConfigMap that keeps the kubelets' configuration.
func kubeletConfigMap(facts map[string]bool, minor int) string {
	if facts[string(FactVersionedKubeletConfig)] {
		return fmt.Sprintf("kubelet-config-1.%d", minor)
	}
	return "kubelet-config"
}
