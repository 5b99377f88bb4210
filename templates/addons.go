package templates

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"text/template"

	"github.com/kbuild/kbuild/images"
)

//go:embed addons/*.yaml
var addons embed.FS

// Addon names a set of manifests that kbuild installs into a cluster.
type Addon string

// The add-ons.
const (
	CoreDNS   Addon = "coredns"
	KubeProxy Addon = "kube-proxy"
	Flannel   Addon = "flannel"
)

// AddonParams are the parameters of the add-ons' manifests. Each add-on uses its
// own.
type AddonParams struct {
	Release images.Release // whose facts the manifests ask for: {{if has "FACT"}}

	// CoreDNS.
	DNSImage    string // full name of the image
	DNSAddress  string // cluster IP of the Service kube-dns
	DNSDomain   string // "cluster.local"
	DNSReplicas int    // pods

	// kube-proxy.
	ProxyImage  string // full name of the image
	ProxyConfig string // KubeProxyConfiguration, as YAML
	APIServer   string // URL by which kube-proxy, and flannel, reach the API server

	// flannel.
	FlannelImage string // full name of the image
	PodSubnet    string // CIDR, or an IPv4 and an IPv6 one separated by a comma
}

// Render returns the add-on's manifest: YAML documents, each after those that it
// needs, the workload last.
func (a Addon) Render(p AddonParams) ([]byte, error) {
	view := struct {
		AddonParams
		CNIConf, FlannelConf, APIHost, APIPort string
	}{AddonParams: p, CNIConf: FlannelCNIConf()}
	view.ProxyConfig = strings.TrimRight(p.ProxyConfig, "\n") // as kubeadm stores it
	if a == Flannel {
		conf, err := flannelConf(p.PodSubnet)
		if err != nil {
			return nil, fmt.Errorf("cannot render add-on %s: %w", a, err)
		}
		view.FlannelConf = conf
		u, err := url.Parse(p.APIServer)
		if err != nil || u.Hostname() == "" || u.Port() == "" {
			return nil, fmt.Errorf("cannot render add-on %s: %q is not the URL of an API server: want https://HOST:PORT", a, p.APIServer)
		}
		view.APIHost, view.APIPort = u.Hostname(), u.Port()
	}
	t, err := template.New(string(a)+".yaml").Funcs(template.FuncMap{"json": jsonText, "has": p.Release.Has}).ParseFS(addons, "addons/"+string(a)+".yaml")
	if err != nil {
		return nil, fmt.Errorf("cannot render add-on %s: %w", a, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, view); err != nil {
		return nil, fmt.Errorf("cannot render add-on %s: %w", a, err)
	}
	return b.Bytes(), nil
}

// jsonText quotes a string; JSON's form is YAML's too.
func jsonText(s string) (string, error) {
	b, err := json.Marshal(s)
	return string(b), err
}

// FlannelCNIConf is the CNI configuration (conflist) of a node whose pods
// flannel connects: /etc/cni/net.d/10-flannel.conflist. Every version of flannel's
// plugin reads this version of the format.
func FlannelCNIConf() string {
	return `{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
`
}

// flannelConf is flannel's net-conf.json for a pod subnet.
func flannelConf(podSubnet string) (string, error) {
	conf := struct {
		EnableIPv4     bool
		Network        string `json:",omitempty"`
		EnableIPv6     bool
		IPv6Network    string `json:",omitempty"`
		EnableNFTables bool
		Backend        struct{ Type string }
	}{}
	conf.Backend.Type = "vxlan"
	for _, s := range strings.Split(podSubnet, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(s))
		switch {
		case err != nil:
			return "", fmt.Errorf("cannot read networking.podSubnet %q: want a CIDR such as 10.244.0.0/16, or an IPv4 and an IPv6 one separated by a comma", podSubnet)
		case p.Addr().Is4() && !conf.EnableIPv4:
			conf.EnableIPv4, conf.Network = true, p.Masked().String()
		case p.Addr().Is6() && !conf.EnableIPv6:
			conf.EnableIPv6, conf.IPv6Network = true, p.Masked().String()
		default:
			return "", fmt.Errorf("cannot use networking.podSubnet %q: flannel supports one CIDR of each IP family", podSubnet)
		}
	}
	b, err := json.MarshalIndent(conf, "", "  ")
	return string(b) + "\n", err
}
