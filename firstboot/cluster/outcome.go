package cluster

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbuild/kbuild/firstboot/outcome"
)

// retry is the outcome of what may come out well later, without another
// configuration. What went wrong and what helps never hold a secret.
func retry(what, remedy string) error {
	return outcome.Retry{After: outcome.Soon(), Why: what + "; " + remedy}
}

// refuse is the outcome of what needs another configuration.
func refuse(what, remedy string) error { return outcome.Refused{Why: what, Remedy: remedy} }

// RetryIfTemporary turns an error for which Temporary is true into a Retry; any
// other is returned as it is.
func RetryIfTemporary(err error) error {
	if Temporary(err) {
		return outcome.Retry{After: 300 * time.Millisecond, Why: err.Error()}
	}
	return err
}

// clockRefusal turns an error about a certificate that is not in force at now
// into one that tells of the clock; nil where err is none.
func clockRefusal(err error, now time.Time) error {
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired || invalid.Cert == nil {
		return nil
	}
	c, clock := invalid.Cert, now.UTC().Format(time.RFC3339)
	if now.Before(c.NotBefore) {
		return retry(fmt.Sprintf("the API server's certificate is valid from %s on, and this machine's clock shows %s", c.NotBefore.UTC().Format(time.RFC3339), clock),
			"set the clock, or give the machine a time server: this node waits for the right time")
	}
	return retry(fmt.Sprintf("the API server's certificate expired on %s, and this machine's clock shows %s", c.NotAfter.UTC().Format(time.RFC3339), clock),
		"if the clock is wrong, set it or give the machine a time server; else renew the API server's certificate. This node waits for either")
}

// JoinOutcome tells apart why the API server did not answer a node that shows
// its bootstrap token; other errors are returned as they are.
func JoinOutcome(err error, now time.Time) error {
	if clock := clockRefusal(err, now); clock != nil {
		return clock
	}
	switch {
	case err == nil || isStopped(err):
		return err
	case apierrors.IsUnauthorized(err):
		return retry("the cluster does not know this node's bootstrap token (any more): it has expired, was deleted, or may not authenticate",
			"make it again with `kbuild token create TOKEN` or `kubeadm token create TOKEN`, or give this node another in user-data")
	case apierrors.IsForbidden(err):
		return retry("the cluster does not let the holder of this bootstrap token join yet: "+err.Error(),
			"the first control plane makes the rules when it comes up (phase bootstrap-token)")
	case isStranger(err):
		return refuse("what answers is not the cluster's API server: "+cause(err).Error(),
			"see that the address leads to the cluster, and that the certificate authority is the cluster's")
	case Temporary(err):
		return retry("the API server does not answer: "+err.Error(), "this node waits for it")
	}
	return err
}

// isStranger says whether a server showed a certificate of another authority,
// or of another name.
func isStranger(err error) bool {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	return errors.As(err, &authority) || errors.As(err, &name)
}
