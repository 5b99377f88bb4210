package templates

import (
	"errors"
	"testing"
)

func TestPatchNames(t *testing.T) {
	targets := []string{Etcd, APIServer, ControllerManager, Scheduler}
	for file, want := range map[string]string{ // target and type
		"etcd.yaml":                              "etcd strategic",
		"etcd.json":                              "etcd strategic",
		"kube-apiserver0+merge.yaml":             "kube-apiserver merge",
		"kube-apiserver+json.json":               "kube-apiserver json",
		"kube-scheduler-suffix.yaml":             "kube-scheduler strategic",
		"kube-controller-manager+strategic.yaml": "kube-controller-manager strategic",
		"etcd.dot+json.yaml":                     "etcd strategic", // a suffix ends at a dot
		"etcd+jsonish.yaml":                      "etcd json",
		"etcd+.yaml":                             "bad",
		"etcd+xml.yaml":                          "bad",
		"etcd":                                   "ignored",
		"etcd.yml":                               "ignored",
		".yaml":                                  "ignored",
		"README.md":                              "ignored",
		"kubelet.yaml":                           "ignored",
		"my-etcd.yaml":                           "ignored",
	} {
		var err error
		got := "ignored"
		for _, target := range targets {
			kind, e := parsePatchName(file, target)
			if e == nil {
				got = target + " " + kind
			} else if !errors.Is(e, errNoPatch) {
				got, err = "bad", e
			}
		}
		if got != want {
			t.Errorf("%q: %s, want %s (%v)", file, got, want, err)
		}
	}
}

func TestNodeMask(t *testing.T) {
	for subnet, want := range map[string]string{
		"10.244.0.0/16": "24 ipv4", "10.0.0.0/8": "24 ipv4", "nonsense": "24 ipv4",
		"fd00::/48": "64 ipv6", "fd00::/56": "72 ipv6", "fd00::/64": "80 ipv6", "fd00::/65": "80 ipv6",
		"fd00::/111": "120 ipv6", "fd00::/112": "120 ipv6", "fd00::/113": "113 ipv6",
	} {
		size, family := nodeMask(subnet)
		if got := size + " " + family; got != want {
			t.Errorf("%s: %s, want %s", subnet, got, want)
		}
	}
}

// FuzzPatchName: any name is a patch's, ignored or an error.
func FuzzPatchName(f *testing.F) {
	f.Add("kube-apiserver0+merge.yaml")
	f.Add("etcd.")
	f.Fuzz(func(t *testing.T, file string) {
		if kind, err := parsePatchName(file, Etcd, APIServer); err == nil && kind == "" {
			t.Errorf("%q: no type", file)
		}
	})
}
