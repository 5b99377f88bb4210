package testvm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// qmp is a connection to QEMU's machine protocol (docs/interop/qmp-spec.rst).
type qmp struct {
	conn    net.Conn
	mu      sync.Mutex // one command at a time
	replies chan qmpMessage
	events  chan string // names; the oldest are dropped when nobody reads
}

type qmpMessage struct {
	Return json.RawMessage `json:"return"`
	Event  string          `json:"event"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

func dialQMP(ctx context.Context, path string) (*qmp, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot reach QEMU: %w", err)
	}
	q := &qmp{conn: conn, replies: make(chan qmpMessage, 1), events: make(chan string, 64)}
	go q.read()
	if _, err := q.do(ctx, "qmp_capabilities", nil); err != nil {
		conn.Close()
		return nil, err
	}
	return q, nil
}

func (q *qmp) read() {
	defer close(q.replies)
	defer close(q.events)
	in := bufio.NewScanner(q.conn)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var m qmpMessage
		if json.Unmarshal(in.Bytes(), &m) != nil {
			continue
		}
		switch {
		case m.Event != "":
			select {
			case q.events <- m.Event:
			default:
				<-q.events
				q.events <- m.Event
			}
		case m.Return != nil || m.Error != nil:
			q.replies <- m
		}
	}
}

// do runs one command and returns what it returns.
func (q *qmp) do(ctx context.Context, command string, args any) (json.RawMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, args})
	if err != nil {
		return nil, err
	}
	if _, err := q.conn.Write(append(b, '\n')); err != nil {
		return nil, fmt.Errorf("cannot send %s to QEMU: %w", command, err)
	}
	select {
	case m, ok := <-q.replies:
		if !ok {
			return nil, fmt.Errorf("cannot run %s: QEMU hung up", command)
		}
		if m.Error != nil {
			return nil, fmt.Errorf("QEMU refuses %s: %s", command, m.Error.Desc)
		}
		return m.Return, nil
	case <-ctx.Done():
		q.conn.Close() // its answer would be taken for the next one's
		return nil, fmt.Errorf("QEMU does not answer %s: %w", command, context.Cause(ctx))
	}
}

// wait reads events until one is named name.
func (q *qmp) wait(ctx context.Context, name string) error {
	for {
		select {
		case e, ok := <-q.events:
			if !ok {
				return errors.New("QEMU hung up")
			}
			if e == name {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("no %s from QEMU: %w", name, context.Cause(ctx))
		}
	}
}

func (q *qmp) close() { q.conn.Close() }
