package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
)

// Spec is what a cluster's identity is made of.
type Spec struct {
	// Name is the cluster's name in kubeconfigs, unless Config has one.
	Name string
	// Endpoint is where the cluster's API is reached, HOST or HOST:PORT. It
	// may be empty if Config has a controlPlaneEndpoint.
	Endpoint string
	// Version is the Kubernetes version of the nodes' images, and the only one
	// that the identity is for; empty leaves it to the image.
	Version string
	// Config is kubeadm's ClusterConfiguration and, if wanted, the kubelet's
	// and kube-proxy's configuration; it may be empty. Source is its name in
	// errors.
	Config config.Document
}

const (
	defaultPort      = 6443
	clusterKind      = "ClusterConfiguration"
	placeholderAddr4 = "192.0.2.1"   // TEST-NET-1, RFC 5737
	placeholderAddr6 = "2001:db8::1" // RFC 3849
	// readAs is the version that a configuration is read as if it does not say
	// which version the nodes will run.
	readAs = "v1.20.15"
)

// resolve checks the Spec and returns cluster.yaml with the node that it
// makes.
func (s Spec) resolve() ([]byte, *config.Node, error) {
	endpoint, err := checkEndpoint(s.Endpoint)
	if err != nil {
		return nil, nil, err
	}
	version := ""
	if s.Version != "" {
		rel, err := images.Assume(s.Version)
		if err != nil {
			return nil, nil, err
		}
		version = rel.Version
	}
	docs, at, err := split(s.Config)
	if err != nil {
		return nil, nil, err
	}
	if len(s.Config.Data) > 0 { // strict, with the lines of the user's own file
		if _, err := Load(s.Config); err != nil {
			return nil, nil, err
		}
	}
	for _, f := range []struct{ key, value, flag string }{
		{"controlPlaneEndpoint", endpoint, "--endpoint"},
		{"kubernetesVersion", version, "--version"},
	} {
		have := lookup(docs[at], f.key)
		switch {
		case f.value == "":
		case have == nil:
			put(docs[at], f.key, f.value)
		case have.Value != f.value:
			return nil, nil, fmt.Errorf("%s:%d: %s is %s, but %s says %s: remove one of them", s.Config.Source, have.Line, f.key, have.Value, f.flag, f.value)
		}
	}
	if lookup(docs[at], "controlPlaneEndpoint") == nil {
		return nil, nil, errors.New("no endpoint: say where the cluster's API will be reached, as in --endpoint k8s.example.com:6443; it goes into certificates and kubeconfigs, so choose a name or an address that can outlive the first machine")
	}
	if lookup(docs[at], "clusterName") == nil {
		if len(validation.IsDNS1123Subdomain(s.Name)) > 0 {
			return nil, nil, fmt.Errorf("cannot name a cluster %q in kubeconfigs: name the directory with lower-case letters, digits, '-' and '.', or say clusterName in a --config", s.Name)
		}
		put(docs[at], "clusterName", s.Name)
	}
	text, err := encode(docs)
	if err != nil {
		return nil, nil, err
	}
	n, err := Load(config.Document{Source: configFile, Data: text})
	return text, n, err
}

// checkEndpoint makes an endpoint HOST:PORT.
func checkEndpoint(e string) (string, error) {
	if e == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(e)
	if err != nil {
		host, port = strings.Trim(e, "[]"), strconv.Itoa(defaultPort)
	}
	_, notAddress := netip.ParseAddr(host)
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || notAddress != nil && len(validation.IsDNS1123Subdomain(host)) > 0 {
		return "", fmt.Errorf("cannot use %q as endpoint: want HOST:PORT without a scheme, as in k8s.example.com:6443 or [2001:db8::10]:6443", e)
	}
	return net.JoinHostPort(host, port), nil
}

// split reads the documents of a configuration and says which of them is the
// ClusterConfiguration; one is added where there is none.
func split(d config.Document) (docs []*yaml.Node, at int, err error) {
	allowed := []string{clusterKind, "KubeletConfiguration", "KubeProxyConfiguration"}
	at = -1
	dec := yaml.NewDecoder(bytes.NewReader(d.Data))
	for {
		n := &yaml.Node{}
		if err := decode(dec, n); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			_, err = Load(d) // reports it with line and remedy
			return nil, 0, err
		}
		kind := lookup(n, "kind")
		if kind == nil { // empty, or reported by Load
			continue
		}
		if !slices.Contains(allowed, kind.Value) {
			return nil, 0, fmt.Errorf("%s:%d: a %s is not part of a cluster's configuration: only %s are; put what is for one machine into its user-data", d.Source, kind.Line, kind.Value, strings.Join(allowed, ", "))
		}
		if kind.Value == clusterKind {
			at = len(docs)
		}
		docs = append(docs, n)
	}
	if at >= 0 {
		return docs, at, nil
	}
	n := &yaml.Node{Kind: yaml.MappingNode}
	put(n, "apiVersion", "kubeadm.k8s.io/v1beta2")
	put(n, "kind", clusterKind)
	return append(docs, n), len(docs), nil
}

// decode reads the next document. The YAML library has panicked on garbage
// before.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return dec.Decode(n)
}

// mapping is the mapping that a document is, nil if it is something else.
func mapping(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	if n.Kind != yaml.MappingNode {
		return nil
	}
	return n
}

// lookup is the value of a document's field; nil where there is none.
func lookup(n *yaml.Node, key string) *yaml.Node {
	m := mapping(n)
	if m == nil {
		return nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if v := m.Content[i+1]; m.Content[i].Value == key && v.ShortTag() != "!!null" {
			return v
		}
	}
	return nil
}

// put sets a field of a document that has none, or null.
func put(n *yaml.Node, key, value string) {
	m := mapping(n)
	v := &yaml.Node{}
	v.SetString(value)
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == key {
			m.Content[i+1] = v
			return
		}
	}
	k := &yaml.Node{}
	k.SetString(key)
	m.Content = append(m.Content, k, v)
}

func encode(docs []*yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	for _, d := range docs {
		if err := e.Encode(d); err != nil {
			return nil, fmt.Errorf("cannot write the cluster's configuration: %w", err)
		}
	}
	return b.Bytes(), e.Close()
}

// Load reads a cluster's configuration as the first control plane would, on a
// placeholder machine.
func Load(d config.Document) (*config.Node, error) {
	rel, err := release(d)
	if err != nil {
		return nil, err
	}
	m := config.Machine{
		Hostname: "node",
		Links:    []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix(placeholderAddr4 + "/24"), netip.MustParsePrefix(placeholderAddr6 + "/64")}}},
		Routes:   []config.Route{{Link: "eth0"}, {Link: "eth0", IPv6: true}},
	}
	role := config.Document{Source: "kbuild", Data: []byte("apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: init\n")}
	n, _, err := config.Load(images.Baked{Release: rel}, m, d, role)
	return n, err
}

// release is the version that a configuration is for.
func release(d config.Document) (images.Release, error) {
	dec := yaml.NewDecoder(bytes.NewReader(d.Data))
	for n := new(yaml.Node); decode(dec, n) == nil; n = new(yaml.Node) {
		v := lookup(n, "kubernetesVersion")
		if v == nil {
			continue
		}
		rel, err := images.Assume(v.Value)
		if err != nil {
			return rel, fmt.Errorf("%s:%d: kubernetesVersion: %w", d.Source, v.Line, err)
		}
		return rel, nil
	}
	return images.Assume(readAs)
}
