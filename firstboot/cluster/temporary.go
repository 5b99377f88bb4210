package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// Temporary says whether the call that returned err may work when it is made
// again a little later: the API server is not up yet, is starting, is busy, or
// somebody else changed the same object at the same time.
func Temporary(err error) bool {
	if err == nil || isStopped(err) || errors.Is(err, context.Canceled) {
		return false
	}
	var soon soonError
	var status apierrors.APIStatus
	var netErr net.Error
	switch {
	case errors.As(err, &soon):
		return true
	case errors.As(err, &status):
		return temporaryStatus(err, status)
	case meta.IsNoMatchError(err):
		return true // its CustomResourceDefinition is not served yet
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET),
		errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return true
	case utilnet.IsHTTP2ConnectionLost(err), utilnet.IsProbableEOF(err):
		return true
	case errors.As(err, &netErr) && netErr.Timeout():
		return true
	}
	return false
}

func temporaryStatus(err error, s apierrors.APIStatus) bool {
	switch {
	case apierrors.IsConflict(err), apierrors.IsServerTimeout(err), apierrors.IsTimeout(err),
		apierrors.IsTooManyRequests(err), apierrors.IsServiceUnavailable(err):
		return true
	}
	code := s.Status().Code
	return code >= http.StatusInternalServerError && code != http.StatusNotImplemented
}

// soonError marks an error as temporary that does not look so by itself.
type soonError struct{ err error }

func (s soonError) Error() string { return s.err.Error() }
func (s soonError) Unwrap() error { return s.err }
