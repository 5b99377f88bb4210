package config

import (
	"errors"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
)

func link(name string, up bool, addrs ...string) Link {
	l := Link{Name: name, Up: up, Loopback: name == "lo"}
	for _, a := range addrs {
		l.Addrs = append(l.Addrs, netip.MustParsePrefix(a))
	}
	return l
}

func TestAddress(t *testing.T) {
	lo := link("lo", true, "127.0.0.1/8", "::1/128")
	for _, c := range []struct {
		name  string
		links []Link
		route []Route
		user  string // user-data besides the role
		want  string // "" is ErrNoAddress, "!" another error
	}{
		{"default route", []Link{lo, link("eth0", true, "10.0.0.1/24"), link("eth1", true, "10.1.0.1/24")}, []Route{{"eth1", false}}, "", "10.1.0.1"},
		{"first default route that is up", []Link{lo, link("eth0", false, "10.0.0.1/24"), link("eth1", true, "10.1.0.1/24")}, []Route{{"eth0", false}, {"eth1", false}}, "", "10.1.0.1"},
		{"IPv4 before IPv6", []Link{lo, link("eth0", true, "2001:db8::1/64", "10.0.0.1/24")}, []Route{{"eth0", true}, {"eth0", false}}, "", "10.0.0.1"},
		{"IPv6 by the services' family", []Link{lo, link("eth0", true, "10.0.0.1/24", "fe80::1/64", "2001:db8::1/64")}, []Route{{"eth0", false}, {"eth0", true}}, "serviceSubnet: fd00::/112\npodSubnet: fd01::/56\n", "2001:db8::1"},
		{"link-local on the route, global on loopback", []Link{link("lo", true, "127.0.0.1/8", "10.9.9.9/32"), link("eth0", true, "169.254.0.1/16")}, []Route{{"eth0", false}}, "", "10.9.9.9"},
		{"no route, one address", []Link{lo, link("eth0", true, "10.0.0.1/24"), link("cni0", true, "10.244.0.1/24"), link("eth1", false, "10.1.0.1/24")}, nil, "", "10.0.0.1"},
		{"no route, no address", []Link{lo, link("eth0", true, "fe80::1/64", "169.254.3.3/16")}, nil, "", ""},
		{"no route, two addresses", []Link{lo, link("eth0", true, "10.0.0.1/24"), link("eth1", true, "10.1.0.1/24")}, nil, "", "!"},
		{"no route, two addresses, one said", []Link{lo, link("eth0", true, "10.0.0.1/24"), link("eth1", true, "10.1.0.1/24")}, nil, "advertiseAddress: 10.1.0.1\n", "10.1.0.1"},
		{"unspecified means choose", []Link{lo, link("eth0", true, "10.0.0.1/24")}, []Route{{"eth0", false}}, "advertiseAddress: 0.0.0.0\n", "10.0.0.1"},
		{"loopback means its global address", []Link{link("lo", true, "127.0.0.1/8", "10.9.9.9/32")}, nil, "advertiseAddress: 127.0.0.1\n", "10.9.9.9"},
		{"loopback has none", []Link{lo}, nil, "advertiseAddress: 127.0.0.1\n", "!"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := machine()
			m.Links, m.Routes = c.links, c.route
			n, _, err := Load(baked(t), m, Document{Source: "test", Data: []byte(short + c.user)})
			switch {
			case c.want == "" && !errors.Is(err, ErrNoAddress):
				t.Errorf("error %v, want ErrNoAddress", err)
			case c.want == "!":
				var p Problems
				if !errors.As(err, &p) {
					t.Errorf("error %v, want Problems", err)
				}
			case c.want != "" && c.want != "!" && err != nil:
				t.Error(err)
			case c.want != "" && c.want != "!" && n.Init.LocalAPIEndpoint.AdvertiseAddress != c.want:
				t.Errorf("%s, want %s", n.Init.LocalAPIEndpoint.AdvertiseAddress, c.want)
			}
		})
	}
}

func TestName(t *testing.T) {
	for hostname, want := range map[string]string{
		"  Node-A \n": "node-a", "": "node-01234567", "localhost": "node-01234567", "a.example.org": "a.example.org",
	} {
		m := machine()
		m.Hostname = hostname
		n, _, err := Load(baked(t), m, Document{Source: "test", Data: []byte(short)})
		if err != nil || n.Init.NodeRegistration.Name != want {
			t.Errorf("host name %q: %v, %v; want %s", hostname, n, err, want)
		}
	}
	m := machine()
	m.Hostname, m.MachineID = "localhost", ""
	if _, _, err := Load(baked(t), m, Document{Source: "test", Data: []byte(short)}); err == nil {
		t.Error("a node without any name")
	}
	if n := mustLoad(t, short+"name: UPPER\n"); n.Init.NodeRegistration.Name != "upper" {
		t.Error(n.Init.NodeRegistration.Name)
	}
}

func TestTokens(t *testing.T) {
	form := regexp.MustCompile(`^[a-z0-9]{6}\.[a-z0-9]{16}$`)
	seen := map[Secret]bool{}
	for range 100 {
		tok, err := NewToken(nil)
		if err != nil || !form.MatchString(tok.Reveal()) || seen[tok] {
			t.Fatalf("%q %v", tok.Reveal(), err)
		}
		seen[tok] = true
	}
	n := mustLoad(t, short)
	tok := n.Init.BootstrapTokens
	if len(tok) != 1 || tok[0].Token.Reveal() != "000000.0000000000000000" || tok[0].TTL.Duration != 24*time.Hour ||
		strings.Join(tok[0].Usages, ",") != "signing,authentication" || strings.Join(tok[0].Groups, ",") != "system:bootstrappers:kubeadm:default-node-token" {
		t.Errorf("%+v", tok)
	}
	n = mustLoad(t, "apiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nbootstrapTokens: [{token: abcdef.0123456789abcdef, expires: \"2030-01-01T00:00:00Z\"}]\n")
	if tok := n.Init.BootstrapTokens[0]; tok.TTL != nil || tok.Expires == nil {
		t.Errorf("%+v", tok)
	}
}

func TestTaints(t *testing.T) {
	for text, want := range map[string]int{"": 1, "taints: []\n": 0, "---\napiVersion: kubeadm.k8s.io/v1beta2\nkind: InitConfiguration\nnodeRegistration: {taints: null}\n": 1, "taints: [{key: a, effect: NoSchedule}, {key: b, effect: NoExecute}]\n": 2} {
		n := mustLoad(t, short+text)
		if got := n.Init.NodeRegistration.Taints; len(got) != want || got == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
	n := mustLoad(t, short)
	if tt := n.Init.NodeRegistration.Taints[0]; tt.Key != "node-role.kubernetes.io/master" || tt.Effect != "NoSchedule" {
		t.Errorf("%+v", tt)
	}
}

func TestMetadataFields(t *testing.T) {
	n := mustLoad(t, short+`address: 192.0.2.9
labels: {b: "2", a: "1"}
kubeletExtraArgs: {v: "4"}
certificateKey: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
endpoint: api.example.org
bindPort: 7443
`)
	args := n.Init.NodeRegistration.KubeletExtraArgs
	if args.Get("node-ip") != "192.0.2.9" || args.Get("node-labels") != "a=1,b=2" || args.Get("v") != "4" || len(args) != 3 {
		t.Errorf("%v", args)
	}
	if n.Init.LocalAPIEndpoint.AdvertiseAddress != "192.0.2.9" || !n.Init.UploadCerts || n.Cluster.ControlPlaneEndpoint != "api.example.org:7443" {
		t.Errorf("%+v %s", n.Init, n.Cluster.ControlPlaneEndpoint)
	}
	n = mustLoad(t, short+"address: 192.0.2.9\nadvertiseAddress: 192.0.2.10\nuploadCerts: true\n")
	if n.Init.LocalAPIEndpoint.AdvertiseAddress != "192.0.2.10" || n.Init.NodeRegistration.KubeletExtraArgs.Get("node-ip") != "192.0.2.9" || !n.Init.UploadCerts {
		t.Errorf("%+v", n.Init)
	}
}

func TestResolved(t *testing.T) {
	m := machine()
	m.Resolved = true
	n, _, err := Load(baked(t), m, Document{Source: "test", Data: []byte(short)})
	if err != nil || n.Kubelet["resolvConf"] != "/run/systemd/resolve/resolv.conf" {
		t.Errorf("%v %v", err, n.Kubelet)
	}
	if n := mustLoad(t, short); n.Kubelet["resolvConf"] != nil {
		t.Errorf("%v", n.Kubelet["resolvConf"])
	}
}

func TestWarnings(t *testing.T) {
	_, warnings, err := load(t, short+"---\napiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nclusterDNS: [10.0.0.10]\nreadOnlyPort: 10255\nauthentication: {anonymous: {enabled: true}}\nhealthzPort: 10248\n")
	if err != nil || len(warnings) != 3 {
		t.Errorf("%v %q", err, warnings)
	}
}

func TestSize(t *testing.T) {
	big := append([]byte(short+"# "), make([]byte, MaxSize)...)
	if _, _, err := load(t, string(big)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too large: %v", err)
	}
	if _, _, err := load(t, short+"\x00"); err == nil || !strings.Contains(err.Error(), "binary") {
		t.Errorf("binary: %v", err)
	}
	// An alias that unfolds without end, or to very much, is refused.
	bomb := "apiVersion: kubeadm.k8s.io/v1beta2\nkind: ClusterConfiguration\napiServer:\n  extraArgs: &a\n    x: *a\n"
	if _, _, err := load(t, bomb); err == nil {
		t.Error("an alias within its own anchor is taken")
	}
}
