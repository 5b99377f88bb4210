package cluster

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
)

// NodeRequest is the request for a kubelet's client certificate, with the name
// that follows from key and node: asked again after a crash, it is the same
// request (kubelet: pkg/kubelet/certificate/bootstrap).
func NodeRequest(key crypto.Signer, node string) (*certv1.CertificateSigningRequest, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}},
	}, key)
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate signing request: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("cannot make a certificate signing request: %w", err)
	}
	sum := sha256.Sum256(append(public, node...))
	return &certv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "node-csr-" + hex.EncodeToString(sum[:])},
		Spec: certv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certv1.KubeAPIServerClientKubeletSignerName,
			Usages:     []certv1.KeyUsage{certv1.UsageDigitalSignature, certv1.UsageKeyEncipherment, certv1.UsageClientAuth},
		},
	}, nil
}

// Issue makes the request if it is not there and returns what the cluster
// answered so far: the certificate in PEM, or nil while it is neither approved
// nor signed. A certificate that is another key's is Refused, as is a denied
// request.
func Issue(ctx context.Context, c kubernetes.Interface, want *certv1.CertificateSigningRequest, key crypto.Signer) ([]byte, error) {
	csrs := c.CertificatesV1().CertificateSigningRequests()
	have, err := csrs.Create(ctx, want, metav1.CreateOptions{FieldManager: Manager})
	if apierrors.IsAlreadyExists(err) {
		have, err = csrs.Get(ctx, want.Name, metav1.GetOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("cannot request a certificate: %w", err)
	}
	for _, cond := range have.Status.Conditions {
		if cond.Status != corev1.ConditionFalse && (cond.Type == certv1.CertificateDenied || cond.Type == certv1.CertificateFailed) {
			return nil, refuse(fmt.Sprintf("certificate signing request %s was answered %s: %s", have.Name, cond.Type, cond.Message), "delete it with kubectl and boot this node again, if it shall join")
		}
	}
	if len(have.Status.Certificate) == 0 {
		return nil, nil
	}
	certs := parseCerts(have.Status.Certificate)
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if len(certs) == 0 || !ok || !public.Equal(certs[0].PublicKey) {
		return nil, refuse(fmt.Sprintf("certificate signing request %s brought a certificate that is not this node's key's", have.Name), "delete it with kubectl and boot this node again")
	}
	return bytes.TrimSpace(have.Status.Certificate), nil
}

// WatchRequest returns when something happens to the request of that name, or
// ctx ends.
func WatchRequest(ctx context.Context, c kubernetes.Interface, name string) {
	w, err := c.CertificatesV1().CertificateSigningRequests().Watch(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
	})
	if err != nil {
		select { // it cannot be watched: look again soon
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
		return
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.ResultChan():
			r, is := e.Object.(*certv1.CertificateSigningRequest)
			// The first event tells how it stands: perhaps not signed yet.
			if !ok || !is || len(r.Status.Certificate) > 0 || denied(r) {
				return
			}
		}
	}
}

func denied(r *certv1.CertificateSigningRequest) bool {
	for _, cond := range r.Status.Conditions {
		if cond.Type != certv1.CertificateApproved {
			return true
		}
	}
	return false
}
