package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kbuild/kbuild/firstboot/host"
)

// DiscoverByFile trusts the kubeconfig at file, a path of the machine or an
// https URL, and takes the newest server and authority from the cluster-info
// of the cluster that it names, if that can be read (kubeadm:
// cmd/kubeadm/app/discovery/file, https). The error is an outcome, or ctx's.
func DiscoverByFile(ctx context.Context, h *host.Host, file string) (Discovered, error) {
	b, err := discoveryFile(ctx, h, file)
	if err != nil {
		return Discovered{}, err
	}
	found, err := readDiscoveryFile(h, file, b)
	if err != nil {
		return Discovered{}, err
	}
	c, _, err := Client(h, Kubeconfig(found, "kubernetes", nil))
	if err != nil {
		return Discovered{}, badFile(file, err.Error())
	}
	cm, err := c.CoreV1().ConfigMaps(metav1.NamespacePublic).Get(ctx, "cluster-info", metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return found, nil // hidden on purpose; the server is the right one
	case err != nil:
		if err := JoinOutcome(err, h.Now()); !apierrors.IsNotFound(err) {
			return Discovered{}, err
		}
		return Discovered{}, retry("the cluster has no ConfigMap cluster-info yet", "the first control plane makes it when it comes up; this node waits for it")
	}
	if newest, err := readInfo(cm.Data["kubeconfig"]); err == nil {
		found.Server, found.CA = newest.Server, newest.CA
	}
	return found, nil
}

func badFile(file, what string) error {
	return refuse(fmt.Sprintf("discovery file %s cannot be used: %s", file, what), "put a kubeconfig there that names one cluster with its certificate authority, as `kubectl -n kube-public get cm cluster-info -o jsonpath={.data.kubeconfig}` prints it")
}

// discoveryFile reads the file, or fetches it from where the system's
// authorities vouch for.
func discoveryFile(ctx context.Context, h *host.Host, file string) ([]byte, error) {
	if !strings.HasPrefix(file, "https://") {
		b, err := h.ReadFile(file)
		if err != nil {
			return nil, retry(fmt.Sprintf("discovery file %s cannot be read: %v", file, err), "bake it into the image, or give a URL")
		}
		return b, nil
	}
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, file, nil)
	if err != nil {
		return nil, badFile(file, "it is no URL")
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		if clock := clockRefusal(err, h.Now()); clock != nil {
			return nil, clock
		}
		return nil, retry(fmt.Sprintf("discovery file %s cannot be fetched: %v", file, cause(err)), "this node tries again; see that its server is up and has a certificate that this machine trusts")
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, retry(fmt.Sprintf("discovery file %s cannot be fetched: the server says %s", file, resp.Status), "put it there; this node tries again")
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxInfo))
	if err != nil {
		return nil, retry(fmt.Sprintf("discovery file %s broke off: %v", file, cause(err)), "this node tries again")
	}
	return b, nil
}

// readDiscoveryFile takes the current cluster of a kubeconfig, or the only
// one, and the credentials in it. Programs that make credentials are not run.
func readDiscoveryFile(h *host.Host, file string, b []byte) (Discovered, error) {
	kc, err := clientcmd.Load(b)
	if err != nil {
		return Discovered{}, badFile(file, "it is no kubeconfig") // the parser's error may quote a key
	}
	c, user := kc.Clusters[""], (*clientcmdapi.AuthInfo)(nil)
	if current := kc.Contexts[kc.CurrentContext]; current != nil {
		c, user = kc.Clusters[current.Cluster], kc.AuthInfos[current.AuthInfo]
	} else if len(kc.Clusters) == 1 {
		for _, only := range kc.Clusters {
			c = only
		}
	}
	if c == nil {
		return Discovered{}, badFile(file, "its current context names no cluster")
	}
	if err := embed(h, &c.CertificateAuthority, &c.CertificateAuthorityData); err != nil {
		return Discovered{}, badFile(file, err.Error())
	}
	if len(parseCerts(c.CertificateAuthorityData)) == 0 || !strings.HasPrefix(c.Server, "https://") {
		return Discovered{}, badFile(file, "it has no certificate authority, or its server is no https URL")
	}
	found := Discovered{Server: c.Server, CA: c.CertificateAuthorityData}
	if user == nil {
		return found, nil
	}
	if user.Exec != nil || user.AuthProvider != nil {
		return Discovered{}, badFile(file, "its user has a program for credentials; a node needs them in the file, or a token beside it")
	}
	var token []byte
	err = errors.Join(embed(h, &user.ClientCertificate, &user.ClientCertificateData), embed(h, &user.ClientKey, &user.ClientKeyData), embed(h, &user.TokenFile, &token))
	if err != nil {
		return Discovered{}, badFile(file, err.Error())
	}
	if user.Token == "" {
		user.Token = strings.TrimSpace(string(token))
	}
	if user.Token != "" || len(user.ClientCertificateData) > 0 || user.Password != "" {
		found.User = user
	}
	return found, nil
}

// embed reads the file that *name is, and forgets its name.
func embed(h *host.Host, name *string, data *[]byte) error {
	if *name == "" || len(*data) > 0 {
		*name = ""
		return nil
	}
	b, err := h.ReadFile(*name)
	if err != nil {
		return fmt.Errorf("it names a file that cannot be read: %w", err)
	}
	*name, *data = "", b
	return nil
}

// Kubeconfig is a kubeconfig for a found cluster that is named name. user nil
// is the user that the discovery file brought, if any.
func Kubeconfig(d Discovered, name string, user *clientcmdapi.AuthInfo) clientcmdapi.Config {
	const who = "tls-bootstrap-token-user" // kubeadm's
	kc := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: d.Server, CertificateAuthorityData: d.CA}},
		Contexts:       map[string]*clientcmdapi.Context{who + "@" + name: {Cluster: name, AuthInfo: who}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{},
		CurrentContext: who + "@" + name,
	}
	if user == nil {
		user = d.User
	}
	if user == nil {
		user = &clientcmdapi.AuthInfo{}
	}
	kc.AuthInfos[who] = user
	return kc
}
