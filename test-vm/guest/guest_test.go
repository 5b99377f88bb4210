package guest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// serve listens on a socket and answers with handlers; each connection first
// gets junk, as one that a reboot has cut.
func serve(t *testing.T, handlers map[string]Handler) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("lf a line\n{\"id\":\"OLD\",\"result\":7}\n{\"id\""))
			go Serve(context.Background(), c, handlers)
		}
	}()
	c := &Client{Path: path}
	t.Cleanup(c.Close)
	return c
}

func TestAsk(t *testing.T) {
	c := serve(t, map[string]Handler{
		"double": func(_ context.Context, args json.RawMessage) (any, error) {
			var n int
			err := json.Unmarshal(args, &n)
			return 2 * n, err
		},
		"fail": func(context.Context, json.RawMessage) (any, error) { return nil, errors.New("no luck") },
	})
	var n int
	if err := c.Ask(t.Context(), "double", 21, &n); err != nil || n != 42 {
		t.Fatalf("double 21 = %d, %v", n, err)
	}
	var failed Failed
	if err := c.Ask(t.Context(), "fail", nil, nil); !errors.As(err, &failed) || failed.Text != "no luck" {
		t.Fatalf("fail: %v", err)
	}
	if err := c.Ask(t.Context(), "nonsense", nil, nil); !errors.As(err, &failed) {
		t.Fatalf("nonsense: %v", err)
	}
	if err := c.Ask(t.Context(), "double", 4, &n); err != nil || n != 8 {
		t.Fatalf("after failures: double 4 = %d, %v", n, err)
	}
}

// A late answer must not be taken for the answer to the next request.
func TestAskAfterGivingUp(t *testing.T) {
	release := make(chan bool)
	c := serve(t, map[string]Handler{
		"slow": func(context.Context, json.RawMessage) (any, error) { <-release; return "slow", nil },
		"fast": func(context.Context, json.RawMessage) (any, error) { return "fast", nil },
	})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var s string
	if err := c.Ask(ctx, "slow", nil, &s); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("slow: %v", err)
	}
	close(release)
	if err := c.Ask(t.Context(), "fast", nil, &s); err != nil || s != "fast" {
		t.Fatalf("fast: %q, %v", s, err)
	}
}
