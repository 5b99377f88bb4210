// Package cluster talks to the API server in the terms of a node that sets a
// cluster up: objects that must be as wanted, manifests that must be applied,
// bootstrap tokens, cluster-info and the encrypted certificates.
//
// Every function here may be called again at any time: what is already so is
// left alone. Nothing waits or sleeps; an error for which Temporary is true
// says that the same call may work soon.
package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kbuild/kbuild/firstboot/host"
)

// Manager is the field manager of all that kbuild writes into a cluster.
const Manager = "kbuild"

// requestTimeout bounds one request. An API server that runs emulated on a
// busy machine was seen to take 10 s for its first write.
const requestTimeout = 60 * time.Second

// Connect reads a kubeconfig of the machine and returns a client for its
// current context. No request is made yet. Each request that changes something
// is announced to h before it is sent.
func Connect(h *host.Host, kubeconfigPath string) (kubernetes.Interface, *rest.Config, error) {
	return ConnectTo(h, kubeconfigPath, "")
}

// ConnectTo is Connect for the API server at a URL, whatever the kubeconfig
// says; the empty one is what it says.
func ConnectTo(h *host.Host, kubeconfigPath, server string) (kubernetes.Interface, *rest.Config, error) {
	bad := func(err error) (kubernetes.Interface, *rest.Config, error) {
		return nil, nil, fmt.Errorf("cannot use kubeconfig %s: %w", kubeconfigPath, err)
	}
	b, err := h.ReadFile(kubeconfigPath)
	if err != nil {
		return bad(err)
	}
	kc, err := clientcmd.Load(b)
	if err != nil {
		return bad(err)
	}
	for _, c := range kc.Clusters {
		if server != "" {
			c.Server = server
		}
	}
	c, cfg, err := Client(h, *kc)
	if err != nil {
		return bad(err)
	}
	return c, cfg, nil
}

// Client is Connect for a kubeconfig that is in no file.
func Client(h *host.Host, kc clientcmdapi.Config) (kubernetes.Interface, *rest.Config, error) {
	cfg, err := restConfig(h, kc)
	if err != nil {
		return nil, nil, err
	}
	client, err := kubernetes.NewForConfig(cfg)
	return client, cfg, err
}

func restConfig(h *host.Host, kc clientcmdapi.Config) (*rest.Config, error) {
	// Files that the kubeconfig names are the machine's, not the process's.
	for _, u := range kc.AuthInfos {
		u.ClientCertificate, u.ClientKey, u.TokenFile = below(h, u.ClientCertificate), below(h, u.ClientKey), below(h, u.TokenFile)
	}
	for _, c := range kc.Clusters {
		c.CertificateAuthority = below(h, c.CertificateAuthority)
	}
	cfg, err := clientcmd.NewDefaultClientConfig(kc, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, err
	}
	cfg.UserAgent = "kbuild-firstboot"
	cfg.Timeout = requestTimeout
	cfg.QPS = -1 // one node's few dozen requests need no brake
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return announcer{h, next} })
	return cfg, nil
}

func below(h *host.Host, file string) string {
	if file == "" {
		return ""
	}
	return h.Path(file)
}

// announcer tells the host of each change before it is sent.
type announcer struct {
	host *host.Host
	next http.RoundTripper
}

func (a announcer) RoundTrip(req *http.Request) (*http.Response, error) {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		if err := a.host.BeforeChange(req.Method + " " + req.URL.Path); err != nil {
			return nil, stopped{err}
		}
	}
	return a.next.RoundTrip(req)
}

// stopped is an error of the host, not of the network: it is never temporary.
type stopped struct{ err error }

func (s stopped) Error() string { return s.err.Error() }
func (s stopped) Unwrap() error { return s.err }

func isStopped(err error) bool {
	var s stopped
	return errors.As(err, &s)
}
