package testvm

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Balancer is a TCP load balancer, as there is in front of the API servers of a
// cluster with several control planes. Each connection goes to the next backend
// that accepts connections. When one no longer does, its connections are
// closed, so that clients reconnect at once instead of after their timeouts.
type Balancer struct {
	listener net.Listener
	dial     func(addr string) (net.Conn, error)
	ended    chan struct{}
	work     sync.WaitGroup

	mu       sync.Mutex
	backends []string
	next     int
	conns    map[net.Conn]string // to which backend; both halves of a connection are in it
}

const (
	dialLimit  = time.Second // on one wire; a dead machine answers nothing
	probeEvery = time.Second
)

// NewBalancer listens at port of the network's first address, in the network's
// own namespace: for the container lane. Backends are addresses with ports.
func (n *Network) NewBalancer(port int, backends ...string) (*Balancer, error) {
	if n.lane != Container {
		return nil, errors.New("cannot balance VMs: use the container lane")
	}
	ns := n.s.rec.Netns
	var l net.Listener
	err := inNetns(ns, func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf("%s:%d", n.Address(1), port))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cannot balance: %w", err)
	}
	return newBalancer(l, func(addr string) (c net.Conn, err error) {
		err = inNetns(ns, func() (err error) {
			c, err = net.DialTimeout("tcp4", addr, dialLimit)
			return err
		})
		return c, err
	}, backends...), nil
}

func newBalancer(l net.Listener, dial func(string) (net.Conn, error), backends ...string) *Balancer {
	b := &Balancer{listener: l, dial: dial, ended: make(chan struct{}), backends: backends, conns: map[net.Conn]string{}}
	b.work.Go(b.accept)
	b.work.Go(b.probe)
	return b
}

// Address is where it listens, with the port.
func (b *Balancer) Address() string { return b.listener.Addr().String() }

// Set replaces the backends. Connections to removed ones are closed.
func (b *Balancer) Set(backends ...string) {
	b.mu.Lock()
	gone := map[string]bool{}
	for _, addr := range b.conns {
		gone[addr] = true
	}
	for _, addr := range backends {
		delete(gone, addr)
	}
	b.backends = backends
	b.mu.Unlock()
	for addr := range gone {
		b.cut(addr)
	}
}

// Close ends it and all connections.
func (b *Balancer) Close() error {
	close(b.ended)
	err := b.listener.Close()
	b.Set()
	b.work.Wait()
	return err
}

func (b *Balancer) accept() {
	for {
		c, err := b.listener.Accept()
		if err != nil {
			return
		}
		b.work.Go(func() { b.carry(c) })
	}
}

// carry finds a backend for a client and copies both ways until both have ended.
func (b *Balancer) carry(client net.Conn) {
	defer client.Close()
	for _, addr := range b.inTurn() {
		server, err := b.dial(addr)
		if err != nil {
			continue
		}
		defer server.Close()
		if !b.keep(addr, client, server) {
			return
		}
		defer b.drop(client, server)
		var up sync.WaitGroup
		up.Go(func() { pass(server, client) })
		pass(client, server)
		up.Wait()
		return
	}
}

// pass copies until from ends, and passes on how it ended: a side that has
// nothing more to send may still receive.
func pass(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if half, ok := to.(*net.TCPConn); ok && err == nil {
		half.CloseWrite()
		return
	}
	to.Close()
	from.Close()
}

// inTurn is every backend once, beginning with another at each call.
func (b *Balancer) inTurn() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.backends) == 0 {
		return nil
	}
	b.next = (b.next + 1) % len(b.backends)
	return append(append([]string(nil), b.backends[b.next:]...), b.backends[:b.next]...)
}

// keep records a connection, unless its backend or the balancer is gone by now.
func (b *Balancer) keep(addr string, conns ...net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, have := range b.backends {
		if have == addr {
			for _, c := range conns {
				b.conns[c] = addr
			}
			return true
		}
	}
	return false
}

func (b *Balancer) drop(conns ...net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range conns {
		delete(b.conns, c)
	}
}

// cut ends the connections that lead to a backend.
func (b *Balancer) cut(addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c, to := range b.conns {
		if to == addr {
			c.Close()
		}
	}
}

// probe checks whether the backends still accept connections. A backend that
// fails twice in a row loses those it has.
func (b *Balancer) probe() {
	failed := map[string]int{}
	for {
		select {
		case <-b.ended:
			return
		case <-time.After(probeEvery):
		}
		for _, addr := range b.inTurn() {
			c, err := b.dial(addr)
			if err == nil {
				c.Close()
				failed[addr] = 0
			} else if failed[addr]++; failed[addr] >= 2 {
				b.cut(addr)
			}
		}
	}
}
