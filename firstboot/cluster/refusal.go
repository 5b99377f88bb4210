package cluster

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Refusal is why a node does not join, and what to do about it. It never holds
// a secret.
type Refusal struct {
	What   string
	Remedy string
	// Mends says that waiting may mend it: the same call may work later,
	// without another configuration.
	Mends bool
}

func (r Refusal) Error() string { return r.What + "; " + r.Remedy }

// clockRefusal turns an error about a certificate that is not in force at now
// into one that tells of the clock; nil where err is none.
func clockRefusal(err error, now time.Time) error {
	var invalid x509.CertificateInvalidError
	if !errors.As(err, &invalid) || invalid.Reason != x509.Expired || invalid.Cert == nil {
		return nil
	}
	c, clock := invalid.Cert, now.UTC().Format(time.RFC3339)
	if now.Before(c.NotBefore) {
		return Refusal{fmt.Sprintf("the API server's certificate is valid from %s on, and this machine's clock shows %s", c.NotBefore.UTC().Format(time.RFC3339), clock),
			"set the clock, or give the machine a time server: this node waits for the right time", true}
	}
	return Refusal{fmt.Sprintf("the API server's certificate expired on %s, and this machine's clock shows %s", c.NotAfter.UTC().Format(time.RFC3339), clock),
		"if the clock is wrong, set it or give the machine a time server; else renew the API server's certificate. This node waits for either", true}
}

// RefusedBy tells apart why the API server did not answer a node that shows
// its bootstrap token; other errors are returned as they are.
func RefusedBy(err error, now time.Time) error {
	if clock := clockRefusal(err, now); clock != nil {
		return clock
	}
	switch {
	case err == nil || isStopped(err):
		return err
	case apierrors.IsUnauthorized(err):
		return Refusal{"the cluster does not know this node's bootstrap token (any more): it has expired, was deleted, or may not authenticate",
			"make it again with `kbuild token create TOKEN` or `kubeadm token create TOKEN`, or give this node another in user-data", true}
	case apierrors.IsForbidden(err):
		return Refusal{"the cluster does not let the holder of this bootstrap token join yet: " + err.Error(),
			"the first control plane makes the rules when it comes up (phase bootstrap-token)", true}
	case isStranger(err):
		return Refusal{"what answers is not the cluster's API server: " + cause(err).Error(),
			"see that the address leads to the cluster, and that the certificate authority is the cluster's", false}
	case Temporary(err):
		return Refusal{"the API server does not answer: " + err.Error(), "this node waits for it", true}
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
