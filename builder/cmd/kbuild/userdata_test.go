package main

import (
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/cli"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/metadata"
	"github.com/kbuild/kbuild/images"
)

// node is what a machine makes of what it is given: files are the machine's.
func node(t *testing.T, files map[string][]byte) *config.Node {
	t.Helper()
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	h := &host.Host{Root: root, Log: slog.New(slog.DiscardHandler)}
	for name, b := range files {
		if err := h.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := metadata.Find(t.Context(), h)
	if err != nil || found.Source == "" {
		t.Fatalf("no user-data: %v", err)
	}
	rel, err := images.Lookup("v1.19.12")
	if err != nil {
		t.Fatal(err)
	}
	m := config.Machine{
		Hostname: "host-a",
		Links:    []config.Link{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/24")}}},
		Routes:   []config.Route{{Link: "eth0"}},
	}
	if found.Hostname != "" {
		m.Hostname = found.Hostname
	}
	n, _, err := config.Load(images.Baked{Release: rel, CNI: "flannel", PodCIDR: "10.244.0.0/16"}, m, found.Documents...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const (
	credentialFile = "/run/credentials/@system/kbuild.userdata"
	volumeDevice   = "/dev/disk/by-label/cidata"
)

// TestUserdataRoundTrip: a node reads each format as what was meant, and only
// the init node is given a key of an authority.
func TestUserdataRoundTrip(t *testing.T) {
	dir := newCluster(t)
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	for _, role := range []config.Role{config.RoleInit, config.RoleControlPlane, config.RoleWorker} {
		for _, format := range userdataFormats() {
			t.Run(string(role)+" "+format, func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "out")
				mustKbuild(t, "cluster", "userdata", dir, "--role", string(role), "--node", "n1", "--format", format, "--out", out)
				b, err := os.ReadFile(out)
				if err != nil {
					t.Fatal(err)
				}
				at := credentialFile
				switch format {
				case "nocloud-iso":
					at = volumeDevice
				case "smbios":
					if b, err = base64.StdEncoding.DecodeString(strings.TrimSpace(strings.TrimPrefix(string(b), "io.systemd.credential.binary:kbuild.userdata="))); err != nil {
						t.Fatal(err)
					}
				}
				n := node(t, map[string][]byte{at: b})
				if n.Role != role || n.Init.NodeRegistration.Name != "n1" {
					t.Errorf("a %s named %s", n.Role, n.Init.NodeRegistration.Name)
				}
				all, err := json.Marshal(n) // secrets in the clear
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(all), read("token")) {
					t.Error("it has not the token")
				}
				if has := strings.Contains(string(all), read("certificate-key")); has == (role == config.RoleWorker) {
					t.Errorf("it has the certificate key: %t", has)
				}
				if has := strings.Contains(string(all), "PRIVATE KEY"); has != (role == config.RoleInit) {
					t.Errorf("it has private keys: %t", has)
				}
				if role != config.RoleInit {
					d := n.Join.Discovery.BootstrapToken
					if d == nil || d.APIServerEndpoint != "k8s.example.com:6443" || len(d.CACertHashes) != 1 {
						t.Errorf("it joins %+v", d)
					}
					return
				}
				if n.Cluster.ControlPlaneEndpoint != "k8s.example.com:6443" || n.Cluster.ClusterName != "prod" || n.Cluster.Networking.PodSubnet != "10.32.0.0/16" {
					t.Errorf("its cluster is %+v", n.Cluster)
				}
				if ttl := n.Init.BootstrapTokens[0].TTL; ttl == nil || ttl.Duration != 0 || !n.Init.UploadCerts {
					t.Errorf("the token lives %v, certificates are uploaded: %t", ttl, n.Init.UploadCerts)
				}
				for name, s := range n.Init.PKI {
					if strings.TrimSpace(s.Reveal()) != read("pki/"+name) {
						t.Errorf("%s is not the directory's", name)
					}
				}
				if len(n.Init.PKI) != 8 {
					t.Errorf("%d files of PKI", len(n.Init.PKI))
				}
			})
		}
	}
}

// A worker's user-data fits into 1 KiB, with the longest names that there are.
func TestWorkerIsSmall(t *testing.T) {
	long := strings.Repeat(strings.Repeat("a", 63)+".", 3) + strings.Repeat("b", 61) // 253: the longest DNS name
	dir := filepath.Join(t.TempDir(), "c")
	code, _, stderr := run(t, strings.Replace(quick, "k8s.example.com:6443", long+":65535", 1), "cluster", "new", dir, "--config", "-", "--version", "v1.19.12")
	if code != cli.ExitOK {
		t.Fatalf("%d %s", code, stderr)
	}
	name := strings.Repeat("n", 63)
	for _, format := range []string{"yaml", "cloud-config", "ignition", "smbios"} {
		out := mustKbuild(t, "cluster", "userdata", dir, "--role", "worker", "--node", name, "--format", format)
		if len(out) > 1024 {
			t.Errorf("%s: %d bytes", format, len(out))
		}
	}
	if n := node(t, map[string][]byte{credentialFile: []byte(mustKbuild(t, "cluster", "userdata", dir, "--role", "worker", "--node", name))}); n.Init.NodeRegistration.Name != name {
		t.Errorf("named %q", n.Init.NodeRegistration.Name)
	}
}

func TestUserdataPlatform(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "c")
	mustKbuild(t, "cluster", "new", dir, "--endpoint", "k8s.example.com:6443") // RSA: what most have
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--role worker --platform virtualbox", cli.ExitOK, " of the 1023 bytes that virtualbox allows\n"},
		{"--role init --platform aws", cli.ExitOK, " of the 16384 bytes that aws allows\n"},
		{"--role init --platform aws --format ignition", cli.ExitOK, " of the 16384 bytes that aws allows\n"},
		{"--role init --platform openstack", cli.ExitOK, " of the 65535 bytes that openstack allows (after base64)\n"},
		{"--role init --platform virtualbox", cli.ExitUsage, "but virtualbox allows only 1023: use another way, such as a volume (--format nocloud-iso)"},
		{"--role init --platform moon", cli.ExitUsage, `platform "moon": use one of aws, azure`},
	} {
		code, out, stderr := kbuild(t, append([]string{"cluster", "userdata", dir}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(stderr, c.want) || (out == "") != (code != cli.ExitOK) {
			t.Errorf("%s: %d, %d bytes, %s", c.args, code, len(out), stderr)
		}
	}
}
