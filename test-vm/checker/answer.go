package main

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// leaving is how long answer goes on after it was asked to end: the time that a
// cluster's proxies may need to hear of it.
const leaving = 5 * time.Second

// answer is a workload: it says OK to every request until some time after ctx.
func answer(ctx context.Context, addr string) error {
	s := http.Server{Addr: addr, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("OK")) })}
	context.AfterFunc(ctx, func() {
		time.Sleep(leaving)
		s.Close()
	})
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
