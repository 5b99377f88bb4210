package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// onlyOnNode are the documents that only a node can refuse.
func onlyOnNode() map[string]string {
	const userData = "user-data may still say it"
	return map[string]string{
		"join-no-pin": userData, "join-no-token": userData, "join-nothing": userData, "worker": userData, // what finds the cluster
		"pod-network-family": userData, // a pod subnet of the other family
	}
}

// What cannot be right on any node is refused when the image is built, in the
// words of the node.
func TestReadBaked(t *testing.T) {
	passed := 0
	for _, file := range glob(t, "testdata/bad/*.yaml", 25) {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := Document{Source: "test", Data: b}
		_, err = ReadBaked(baked(t), d)
		if why := onlyOnNode()[name]; why != "" {
			if err != nil {
				t.Errorf("%s: refused at build, although %s: %v", name, why, err)
			}
			passed++
			continue
		}
		var atBuild, onNode Problems
		if !errors.As(err, &atBuild) {
			t.Errorf("%s: passes at build", name)
			continue
		}
		_, _, err = load(t, string(b))
		if !errors.As(err, &onNode) {
			t.Fatalf("%s: %v", name, err)
		}
		for _, p := range atBuild {
			if !slices.Contains(onNode, p) {
				t.Errorf("%s: said at build and not on the node: %v", name, p)
			}
		}
	}
	if passed != len(onlyOnNode()) {
		t.Errorf("%d of %d files that only a node can refuse were seen", passed, len(onlyOnNode()))
	}
	for _, file := range glob(t, "testdata/examples/*.yaml", 4) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadBaked(baked(t), Document{Source: "test", Data: b}); err != nil {
			t.Errorf("%s: a configuration that a node takes is refused at build: %v", file, err)
		}
	}
}

// What a configuration leaves open, user-data and the machine will say.
func TestReadBakedLeavesOpen(t *testing.T) {
	const meta, cluster = "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\n", "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\n"
	for _, text := range []string{
		meta + "role: worker\n",
		meta + "role: control-plane\nendpoint: k8s.example.com:6443\n",
		meta + "role: init\nadvertiseAddress: 10.9.8.7\n",
		meta + "clusterName: prod\n",
		cluster + "controlPlaneEndpoint: k8s.example.com\nimageRepository: registry.example.com/k8s\n",
		cluster + "networking: {podSubnet: 'fd00:10::/56'}\n",
		cluster + "networking: {serviceSubnet: 'fd00:20::/112'}\n",
		"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 50\n",
	} {
		if _, err := ReadBaked(baked(t), Document{Source: "test", Data: []byte(text)}); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	// The cluster is there without a role, and as it was given.
	c, err := ReadBaked(baked(t), Document{Source: "test", Data: []byte(cluster + "imageRepository: registry.example.com/k8s\ndns: {imageTag: v1}\n")})
	if err != nil || c.ImageRepository != "registry.example.com/k8s" || c.DNS.ImageTag != "v1" || c.ClusterName != "" {
		t.Errorf("%+v, %v", c, err)
	}
}
