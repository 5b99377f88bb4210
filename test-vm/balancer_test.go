package testvm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// greeter is a backend that says its name to each connection and then waits.
func greeter(t *testing.T, name string) (addr string, stop func()) {
	t.Helper()
	l := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				fmt.Fprintln(c, name)
				io.Copy(io.Discard, c)
				c.Close()
			}()
		}
	}()
	return l.Addr().String(), func() { l.Close() }
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// greeting connects and returns who answered; "" when nobody did.
func greeting(t *testing.T, b *Balancer) (string, net.Conn) {
	t.Helper()
	c, err := net.Dial("tcp", b.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	line, _ := bufio.NewReader(c).ReadString('\n')
	return line, c
}

func balance(t *testing.T, backends ...string) *Balancer {
	b := newBalancer(listen(t), func(addr string) (net.Conn, error) { return net.DialTimeout("tcp", addr, dialLimit) }, backends...)
	t.Cleanup(func() {
		if err := b.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return b
}

func TestBalancer(t *testing.T) {
	one, stopOne := greeter(t, "one")
	two, _ := greeter(t, "two")
	b := balance(t, one, two)
	seen := map[string]int{}
	for range 4 {
		who, _ := greeting(t, b)
		seen[who]++
	}
	if len(seen) != 2 || seen["one\n"]+seen["two\n"] != 4 {
		t.Errorf("four connections went to %v, want both backends", seen)
	}
	// A client that has said all it has to say is still answered.
	c, err := net.Dial("tcp", b.Address())
	if err == nil {
		err = c.(*net.TCPConn).CloseWrite()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if said, err := io.ReadAll(c); err != nil || len(said) == 0 {
		t.Errorf("a client that ended its half gets %q, %v", said, err)
	}
	stopOne()
	for range 4 {
		if who, _ := greeting(t, b); who != "two\n" {
			t.Errorf("with the first backend gone %q answers, want two", who)
		}
	}
	b.Set()
	if who, _ := greeting(t, b); who != "" {
		t.Errorf("without backends %q answers", who)
	}
}

// A backend that no longer takes connections loses those it has, even when it
// does not end them itself: a machine without power cannot.
func TestBalancerCuts(t *testing.T) {
	one, stopOne := greeter(t, "one")
	b := balance(t, one)
	who, c := greeting(t, b)
	if who != "one\n" {
		t.Fatalf("%q answers, want one", who)
	}
	stopOne() // the greeter's connection lives on
	_, err := io.ReadAll(c)
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		t.Errorf("the connection to a dead backend was not cut: %v", err)
	}
}
