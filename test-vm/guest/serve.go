package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
)

// Handler answers one kind of request.
type Handler func(ctx context.Context, args json.RawMessage) (any, error)

// Serve answers requests from rw, one after the other, until reading fails.
// It returns nil at the end of the stream.
func Serve(ctx context.Context, rw io.ReadWriter, handlers map[string]Handler) error {
	if _, err := rw.Write([]byte("\n")); err != nil {
		return err
	}
	in := bufio.NewReader(rw)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		var req Request
		if json.Unmarshal(line, &req) != nil || req.ID == "" {
			continue
		}
		out, err := json.Marshal(answer(ctx, req, handlers))
		if err != nil {
			return err
		}
		if _, err := rw.Write(append(out, '\n')); err != nil {
			return err
		}
	}
}

func answer(ctx context.Context, req Request, handlers map[string]Handler) Answer {
	ans := Answer{ID: req.ID}
	h, ok := handlers[req.Cmd]
	if !ok {
		ans.Error = fmt.Sprintf("unknown request %q", req.Cmd)
		return ans
	}
	v, err := h(ctx, req.Args)
	if err == nil {
		ans.Result, err = json.Marshal(v)
	}
	if err != nil {
		ans.Error = err.Error()
	}
	return ans
}
