package schema

import (
	"strings"
	"testing"
)

func TestLoad(t *testing.T) {
	for minor, kinds := range map[int][]string{
		19: {"kubeadm.k8s.io/v1beta2/ClusterStatus", "kubeadm.k8s.io/v1beta2/InitConfiguration"},
		20: {"kubeadm.k8s.io/v1beta2/ClusterStatus", "kubeadm.k8s.io/v1beta2/ClusterConfiguration"},
		37: {"kubeadm.k8s.io/v1beta4/ClusterConfiguration", "kubeadm.k8s.io/v1beta4/JoinConfiguration"},
	} {
		s, err := Load(minor)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range append(kinds, "kubelet.config.k8s.io/v1beta1/KubeletConfiguration", "kubeproxy.config.k8s.io/v1alpha1/KubeProxyConfiguration") {
			if s.Types[s.Kinds[k]] == nil {
				t.Errorf("v1.%d has no %s", minor, k)
			}
		}
		if len(s.FeatureGates) == 0 {
			t.Errorf("v1.%d has no feature gates", minor)
		}
		for name, fields := range s.Types {
			for field, spelling := range fields {
				if !known(s, Parse(spelling)) {
					t.Errorf("v1.%d: %s.%s is a %q", minor, name, field, spelling)
				}
			}
		}
	}
	if _, err := Load(18); err == nil || !strings.Contains(err.Error(), "v1.18") {
		t.Errorf("a minor without a schema: %v", err)
	}
}

// known says whether a type is spelled as Type's comment has it.
func known(s *Schema, t Type) bool {
	for _, inner := range []func() (Type, bool){t.Pointer, t.List, t.Map} {
		if in, ok := inner(); ok {
			return known(s, in)
		}
	}
	if name, ok := t.Struct(); ok {
		return s.Types[name] != nil
	}
	for _, scalar := range strings.Fields("string bool int int32 int64 uint32 uint64 float32 float64 byte duration nanoseconds time quantity") {
		if t.Name == scalar {
			return true
		}
	}
	return false
}

// A few facts that are known from elsewhere.
func TestFields(t *testing.T) {
	for _, c := range []struct {
		minor      int
		typ, field string
		want       string
	}{
		{19, "v1beta1.KubeletConfiguration", "cpuManagerReconcilePeriod", "duration omitempty"},
		{19, "v1beta1.KubeletConfiguration", "shutdownGracePeriod", ""},
		{20, "v1beta1.KubeletConfiguration", "shutdownGracePeriod", "duration omitempty"},
		{37, "v1beta1.KubeletConfiguration", "failCgroupV1", "*bool omitempty"},
		{19, "v1beta2.NodeRegistrationOptions", "taints", "[]$v1.Taint"},
		{19, "v1beta2.APIServer", "extraArgs", "map string omitempty"},
	} {
		s, err := Load(c.minor)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Types[c.typ][c.field]; got != c.want {
			t.Errorf("v1.%d %s.%s is %q, want %q", c.minor, c.typ, c.field, got, c.want)
		}
	}
}
