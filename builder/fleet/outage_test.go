package fleet

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbuild/kbuild/firstboot/cluster/apitest"
)

// gate is the way to an API server, which may be shut: then nobody listens, and
// connections that were open are gone.
type gate struct {
	t    *testing.T
	addr string // its own
	to   string

	mu    sync.Mutex
	lis   net.Listener
	conns []net.Conn
}

func newGate(t *testing.T, to string) *gate {
	t.Helper()
	host, _, err := net.SplitHostPort(to) // the one that the server's certificate is for
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{t: t, addr: net.JoinHostPort(host, "0"), to: to}
	g.open()
	t.Cleanup(g.shut)
	return g
}

func (g *gate) open() {
	lis, err := net.Listen("tcp", g.addr)
	if err != nil {
		g.t.Error(err)
		return
	}
	g.mu.Lock()
	g.lis, g.addr = lis, lis.Addr().String()
	g.mu.Unlock()
	go func() {
		for {
			in, err := lis.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", g.to)
			if err != nil {
				in.Close()
				continue
			}
			g.mu.Lock()
			g.conns = append(g.conns, in, out)
			g.mu.Unlock()
			go io.Copy(in, out)
			go io.Copy(out, in)
		}
	}()
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lis.Close()
	for _, c := range g.conns {
		c.Close()
	}
	g.conns = nil
}

// TestUpgradeSilent upgrades a cluster whose API is away while its only control
// plane boots, for longer than the Lease holds.
func TestUpgradeSilent(t *testing.T) {
	l := newLab(t, 1, 1)
	g := newGate(t, strings.TrimPrefix(l.server.URL, "https://"))
	f, said := l.fleet("a")
	f.Client = (&apitest.Server{AdminConf: bytes.ReplaceAll(l.server.AdminConf, []byte(l.server.URL), []byte("https://"+g.addr))}).Client(t)
	f.LeaseTime = 4 * time.Second
	l.machine("cp1").away = func() {
		g.shut()
		time.Sleep(6 * time.Second)
		g.open()
	}
	if err := f.Upgrade(t.Context(), options(1)); err != nil {
		t.Fatalf("%v\n%s", err, said())
	}
	if got := l.downs(); got != "cp1 w1" || !strings.Contains(said(), "cp1: wait: the API server does not answer") {
		t.Errorf("down went %s\n%s", got, said())
	}
	l.clean()
}

// TestResetLast ends a cluster with its last control plane.
func TestResetLast(t *testing.T) {
	l := newLab(t, 1, 0)
	g := newGate(t, strings.TrimPrefix(l.server.URL, "https://"))
	f, said := l.fleet("a")
	f.Client = (&apitest.Server{AdminConf: bytes.ReplaceAll(l.server.AdminConf, []byte(l.server.URL), []byte("https://"+g.addr))}).Client(t)
	l.machine("cp1").away = g.shut
	o := ResetOptions{Force: true, DrainTimeout: time.Minute, NodeTimeout: 3 * time.Minute}
	if err := f.Reset(t.Context(), "cp1", o); err != nil || !strings.Contains(said(), "the cluster is gone") {
		t.Errorf("%v\n%s", err, said())
	}
}
