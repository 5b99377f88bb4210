package main

import (
	"context"
	"io"
	"net"
)

// relay joins a TCP connection to addr with in and out, until addr ends it.
// QEMU runs it for connections of the guest to outside its network.
func relay(ctx context.Context, addr string, in io.Reader, out io.Writer) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	go func() {
		io.Copy(c, in)
		c.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(out, c)
	return err
}
