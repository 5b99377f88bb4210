package firstboot

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/node"
)

const routeHead = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"

func TestServiceRoute(t *testing.T) {
	link := routeHead + "eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
	for name, c := range map[string]struct {
		routes string
		done   bool
	}{
		"only the link's own":  {link, false},
		"a default route":      {link + "eth0\t00000000\t01004D0A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n", true},
		"one for the services": {link + "eth0\t0000600A\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0\n", true},
		"one for less of them": {link + "eth0\t0000600A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.MkdirAll(filepath.Join(dir, "proc/net"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "proc/net/route"), []byte(c.routes), 0o644); err != nil {
				t.Fatal(err)
			}
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			var ran []string
			n := &config.Node{}
			n.Cluster.Networking.ServiceSubnet = "10.96.0.0/12"
			n.Init.LocalAPIEndpoint.AdvertiseAddress = "10.77.0.2"
			m := &node.Machine{Node: n, Host: &host.Host{
				Root: root,
				Run: func(_ context.Context, name string, args ...string) ([]byte, error) {
					ran = append(ran, name+" "+strings.Join(args, " "))
					return nil, nil
				},
				Probe: host.Probe{Links: func() ([]host.Link, error) {
					return []host.Link{{Name: "eth0", Addrs: []netip.Prefix{netip.MustParsePrefix("10.77.0.2/24")}}}, nil
				}},
			}}
			s := stepServiceRoute()
			done, err := s.Done(t.Context(), m)
			if err != nil || done != c.done {
				t.Fatalf("Done = %v, %v; want %v", done, err, c.done)
			}
			if err := s.Do(t.Context(), m); err != nil {
				t.Fatal(err)
			}
			want := ""
			if !c.done {
				want = "ip route replace 10.96.0.0/12 dev eth0 src 10.77.0.2"
			}
			if got := strings.Join(ran, "\n"); got != want {
				t.Errorf("ran %q, want %q", got, want)
			}
		})
	}
}
