package host

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// httpClient fetches what a machine is given from outside: straight, because a
// metadata service knows a machine by its address and a proxy has another one,
// and with an end to every wait. It follows no redirect; whoever needs that
// says so in a copy.
func httpClient() *http.Client {
	return &http.Client{
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout:    10 * time.Second,
			ResponseHeaderTimeout:  10 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			DisableCompression:     true, // bytes are counted and hashed as they were put there
			DisableKeepAlives:      true, // what is asked once a boot needs no connection kept
		},
	}
}
