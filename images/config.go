package images

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// ParseListConfig reads the settings that decide the images from the kubeadm
// config in b: one or more YAML documents, of which the ClusterConfiguration is
// used. The other kinds are left to the node's own reader. file is the config's name in
// errors, which also name the line.
//
// It is strict about what it reads: the config API must be one that this version's
// kubeadm reads; an unknown field of ClusterConfiguration, of its etcd, dns
// and proxy, and a value of the wrong type are errors.
func ParseListConfig(r Release, file string, b []byte) (ListConfig, error) {
	d := listReader{release: r, file: file}
	seen := map[string]int{}
	for dec := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return ListConfig{}, fmt.Errorf("cannot read %s: %w", file, err)
		}
		if len(doc.Content) == 0 || doc.Content[0].Tag == "!!null" {
			continue
		}
		d.document(doc.Content[0], seen)
	}
	if d.err == nil && seen["ClusterConfiguration"] == 0 && seen["InitConfiguration"] == 0 {
		d.err = fmt.Errorf("cannot use %s: it holds neither a ClusterConfiguration nor an InitConfiguration of kubeadm.k8s.io/%s", file, r.ConfigAPI)
	}
	if d.err == nil {
		if err := r.check(d.out); err != nil {
			d.err = fmt.Errorf("cannot use %s: %w", file, err)
		}
	}
	if d.err != nil {
		return ListConfig{}, d.err
	}
	return d.out, nil
}

// listReader holds the first error, so that reading fields needs no check
// after each.
type listReader struct {
	release Release
	file    string
	out     ListConfig
	err     error
}

func (d *listReader) fail(n *yaml.Node, format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%s:%d: %s", d.file, n.Line, fmt.Sprintf(format, args...))
	}
}

// document reads one YAML document; seen holds the line of each kind.
func (d *listReader) document(n *yaml.Node, seen map[string]int) {
	m := d.fields(n, "the document")
	kind, api := d.text(m, "kind"), d.text(m, "apiVersion")
	group, version, _ := strings.Cut(api, "/")
	switch {
	case d.err != nil:
		return
	case kind == "" || group == "" || version == "":
		d.fail(n, "kind and apiVersion (GROUP/VERSION) must be set, as in apiVersion: kubeadm.k8s.io/%s", d.release.ConfigAPI)
		return
	case seen[kind] != 0:
		d.fail(n, "%s is given twice, first in line %d: remove one", kind, seen[kind])
		return
	}
	seen[kind] = n.Line
	if group != "kubeadm.k8s.io" {
		return
	}
	if !slices.Contains(d.release.ConfigAPIs, version) {
		d.fail(m["apiVersion"], "Kubernetes %s does not read %s, only %s: convert the file with `kubeadm config migrate`", d.release.Version, api, strings.Join(d.release.ConfigAPIs, " and "))
		return
	}
	if kind == "ClusterConfiguration" {
		d.cluster(m, version)
	}
}

// The fields of ClusterConfiguration that config APIs have in common; some
// came and went (cmd/kubeadm/app/apis/kubeadm/VERSION/types.go).
func clusterFields(api string) []string {
	fs := []string{"apiVersion", "kind", "etcd", "networking", "kubernetesVersion", "controlPlaneEndpoint", "apiServer",
		"controllerManager", "scheduler", "dns", "certificatesDir", "imageRepository", "featureGates", "clusterName"}
	switch api {
	case "v1beta1", "v1beta2":
		fs = append(fs, "useHyperKubeImage")
	case "v1beta4":
		fs = append(fs, "proxy", "encryptionAlgorithm", "certificateValidityPeriod", "caCertificateValidityPeriod")
	}
	return fs
}

func (d *listReader) cluster(m map[string]*yaml.Node, api string) {
	meta := []string{"imageRepository", "imageTag"}
	local := slices.Concat(meta, []string{"dataDir", "extraArgs", "serverCertSANs", "peerCertSANs"})
	external := []string{"endpoints", "caFile", "certFile", "keyFile"}
	dns := meta
	switch api {
	case "v1beta1", "v1beta2":
		dns = append(slices.Clone(meta), "type")
	case "v1beta4":
		dns = append(slices.Clone(meta), "disabled")
		local = append(local, "extraEnvs")
		external = append(external, "httpEndpoints")
	}
	d.known(m, "ClusterConfiguration", clusterFields(api))
	etcd := d.sub(m, "etcd", []string{"local", "external"})
	l, e, n := d.sub(etcd, "local", local), d.sub(etcd, "external", external), d.sub(m, "dns", dns)
	if e != nil && l != nil {
		d.fail(etcd["external"], "etcd.local and etcd.external exclude each other: remove one")
	}
	d.out = ListConfig{
		KubernetesVersion: d.text(m, "kubernetesVersion"),
		ImageRepository:   d.text(m, "imageRepository"),
		HyperKube:         d.flag(m, "useHyperKubeImage"),
		EtcdExternal:      e != nil,
		EtcdRepository:    d.text(l, "imageRepository"),
		EtcdTag:           d.text(l, "imageTag"),
		DNSType:           d.text(n, "type"),
		DNSRepository:     d.text(n, "imageRepository"),
		DNSTag:            d.text(n, "imageTag"),
		DNSDisabled:       d.flag(n, "disabled"),
		ProxyDisabled:     d.flag(d.sub(m, "proxy", []string{"disabled"}), "disabled"),
	}
}

// fields maps the keys of a mapping to their values; what names it in errors.
func (d *listReader) fields(n *yaml.Node, what string) map[string]*yaml.Node {
	n = deref(n)
	if n.Kind != yaml.MappingNode {
		d.fail(n, "%s must be a mapping (key: value)", what)
		return nil
	}
	m := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], deref(n.Content[i+1])
		if k.Kind != yaml.ScalarNode || k.Tag == "!!merge" {
			d.fail(k, "a field's name must be a plain word; merge keys are not read")
			return nil
		}
		if m[k.Value] != nil {
			d.fail(k, "%s is given twice", k.Value)
			return nil
		}
		m[k.Value] = v
	}
	return m
}

// known refuses fields that are not in names.
func (d *listReader) known(m map[string]*yaml.Node, what string, names []string) {
	var bad []string
	for k := range m {
		if !slices.Contains(names, k) {
			bad = append(bad, k)
		}
	}
	slices.SortFunc(bad, func(a, b string) int { return m[a].Line - m[b].Line })
	if len(bad) > 0 {
		d.fail(m[bad[0]], "%s has no field %q; it has %s", what, bad[0], strings.Join(names, ", "))
	}
}

// sub is the mapping in field key; nil where it is missing or null.
func (d *listReader) sub(m map[string]*yaml.Node, key string, names []string) map[string]*yaml.Node {
	n := m[key]
	if n == nil || n.Tag == "!!null" {
		return nil
	}
	f := d.fields(n, key)
	d.known(f, key, names)
	return f
}

func (d *listReader) text(m map[string]*yaml.Node, key string) string {
	n := m[key]
	if n == nil || n.Tag == "!!null" {
		return ""
	}
	// yaml/v3 follows YAML 1.2; kubeadm's reader also reads yes, no, on and off as
	// booleans, and so refuses them here.
	var b bool
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" || n.Style == 0 && n.Decode(&b) == nil {
		d.fail(n, "%s must be a string: put quotes around it", key)
		return ""
	}
	return n.Value
}

func (d *listReader) flag(m map[string]*yaml.Node, key string) bool {
	n := m[key]
	if n == nil || n.Tag == "!!null" {
		return false
	}
	var b bool
	if n.Kind != yaml.ScalarNode || n.Style != 0 || n.Decode(&b) != nil {
		d.fail(n, "%s must be true or false", key)
	}
	return b
}

// deref follows an alias to the node that it names.
func deref(n *yaml.Node) *yaml.Node {
	for i := 0; n.Kind == yaml.AliasNode && n.Alias != nil && i < 100; i++ {
		n = n.Alias
	}
	return n
}
