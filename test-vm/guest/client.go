package guest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Client asks a checker. It connects when it is first asked and again after
// any failure, so that it outlives reboots of the machine. Calls wait for each
// other.
type Client struct {
	Path string // unix socket

	mu   sync.Mutex
	conn net.Conn
	buf  *bufio.Reader
}

// Failed is an error that the checker itself answered with, as opposed to one
// of reaching it.
type Failed struct{ Cmd, Text string }

func (f Failed) Error() string { return fmt.Sprintf("checker %s: %s", f.Cmd, f.Text) }

// Ask sends one request and waits for its answer until ctx ends. args may be
// nil; out may be nil when the result does not matter.
func (c *Client) Ask(ctx context.Context, cmd string, args, out any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.ask(ctx, cmd, args, out)
	var failed Failed
	if err != nil && !errors.As(err, &failed) {
		c.drop()
		return fmt.Errorf("cannot ask the checker for %q: %w", cmd, err)
	}
	return err
}

// Close ends the connection; the next Ask makes a new one.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop()
}

func (c *Client) drop() {
	if c.conn != nil {
		c.conn.Close()
	}
	c.conn = nil
}

func (c *Client) ask(ctx context.Context, cmd string, args, out any) error {
	req := Request{ID: rand.Text(), Cmd: cmd}
	if args != nil {
		b, err := json.Marshal(args)
		if err != nil {
			return err
		}
		req.Args = b
	}
	line, err := json.Marshal(req)
	if err != nil {
		return err
	}
	if c.conn == nil {
		var d net.Dialer
		if c.conn, err = d.DialContext(ctx, "unix", c.Path); err != nil {
			return err
		}
		c.buf = bufio.NewReader(c.conn)
	}
	conn := c.conn
	conn.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write([]byte("\n" + string(line) + "\n")); err != nil {
		return err
	}
	for {
		line, err := c.buf.ReadBytes('\n')
		if err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("no answer: %w", ctx.Err())
			}
			return err
		}
		var ans Answer
		if json.Unmarshal(line, &ans) != nil || ans.ID != req.ID {
			continue // half a line, or an answer nobody waits for any more
		}
		if ans.Error != "" {
			return Failed{cmd, ans.Error}
		}
		if out == nil {
			return nil
		}
		return json.Unmarshal(ans.Result, out)
	}
}
