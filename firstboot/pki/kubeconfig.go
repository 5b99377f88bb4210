package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	api "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// KubernetesDir holds the kubeconfigs.
const KubernetesDir = "/etc/kubernetes"

// Kubeconfig is a client of the API server and the file that makes it one.
type Kubeconfig struct {
	File   string // "admin.conf"
	Server string // URL of the API server that it talks to
	User   string // common name of its certificate
	Org    []string
}

// Kubeconfigs are those of a control-plane node. The control plane's own parts
// talk to the API server next to them, everybody else to the cluster's
// endpoint. (kubeadm: cmd/kubeadm/app/phases/kubeconfig)
func Kubeconfigs(n *config.Node, rel images.Release) []Kubeconfig {
	local := "https://" + net.JoinHostPort(n.Init.LocalAPIEndpoint.AdvertiseAddress, strconv.Itoa(int(n.Init.LocalAPIEndpoint.BindPort)))
	endpoint := Endpoint(n)
	admin := []string{masters}
	ks := []Kubeconfig{{"admin.conf", endpoint, "kubernetes-admin", admin}}
	if rel.Has(images.FactSuperAdminConf) {
		// Since 1.29 the everyday administrator is bound by RBAC, and the
		// one that RBAC cannot bind has a file of its own.
		ks[0].Org = []string{"kubeadm:cluster-admins"}
		ks = append(ks, Kubeconfig{"super-admin.conf", endpoint, "kubernetes-super-admin", admin})
	}
	return append(ks,
		Kubeconfig{"kubelet.conf", endpoint, "system:node:" + n.Init.NodeRegistration.Name, []string{"system:nodes"}},
		Kubeconfig{"controller-manager.conf", local, "system:kube-controller-manager", nil},
		Kubeconfig{"scheduler.conf", local, "system:kube-scheduler", nil},
	)
}

// Endpoint is the URL by which the cluster's API is reached: that of the
// control-plane endpoint, else of this node's own API server.
func Endpoint(n *config.Node) string {
	port := strconv.Itoa(int(n.Init.LocalAPIEndpoint.BindPort))
	e := n.Cluster.ControlPlaneEndpoint
	if e == "" {
		return "https://" + net.JoinHostPort(n.Init.LocalAPIEndpoint.AdvertiseAddress, port)
	}
	if _, p, err := net.SplitHostPort(e); err == nil && p != "" {
		port = p
	}
	return "https://" + net.JoinHostPort(endpointHost(e), port)
}

// EnsureKubeconfigs writes those that are missing, of the named files or, when
// none is named, of all. One that is there must be for this cluster's
// authority, and is kept.
func EnsureKubeconfigs(ctx context.Context, h *host.Host, n *config.Node, rel images.Release, clock Clock, only ...string) error {
	missing, ca, err := judgeKubeconfigs(h, n, rel, clock.now(), only)
	if err != nil || len(missing) == 0 {
		return err
	}
	var files []string
	for _, k := range missing {
		files = append(files, k.File)
	}
	if ca.key == nil {
		return fmt.Errorf("cannot make %s in %s: the cluster's authority has no key here (external CA); put kubeconfigs with these names in place", strings.Join(files, ", "), KubernetesDir)
	}
	keys, err := makeKeys(ctx, files, false) // kubeadm's gate PublicKeysECDSA is not for these
	if err != nil {
		return err
	}
	for _, k := range missing {
		b, err := k.make(n, ca, keys[k.File], clock, lifeLeaf)
		if err != nil {
			return fmt.Errorf("cannot make %s: %w", k.File, err)
		}
		if err := h.WriteFile(path.Join(KubernetesDir, k.File), b, keyMode); err != nil {
			return err
		}
	}
	return nil
}

// KubeconfigsComplete says whether none of those is missing.
func KubeconfigsComplete(h *host.Host, n *config.Node, rel images.Release, clock Clock, only ...string) (bool, error) {
	missing, _, err := judgeKubeconfigs(h, n, rel, clock.now(), only)
	return err == nil && len(missing) == 0, err
}

// NodeClient makes a client certificate for the kubelet of n, and a key as
// kubelets make theirs, both in one PEM as they keep them. The error is
// fs.ErrNotExist where the authority's key is not here.
func NodeClient(h *host.Host, n *config.Node, clock Clock) ([]byte, error) {
	ca, err := load(h, n.Cluster.CertificatesDir, Cert{Base: CA})
	if err != nil {
		return nil, err
	}
	if ca.cert == nil || ca.key == nil {
		return nil, fmt.Errorf("cannot sign for the kubelet: the authority's key: %w", fs.ErrNotExist)
	}
	key, err := newKey(true)
	if err != nil {
		return nil, err
	}
	der, err := sign(Cert{CN: "system:node:" + n.Init.NodeRegistration.Name, Org: []string{"system:nodes"}, Usages: client()}, key.Public(), ca.cert, ca.key, clock)
	if err != nil {
		return nil, err
	}
	pem, err := encodeKey(key)
	return append(encodeCert(der), pem...), err
}

// Ended is when the certificate in a PEM has expired by the clock; zero is that
// it has not.
func Ended(pem []byte, clock Clock) (time.Time, error) {
	certs, err := parseCerts(pem)
	if err != nil || !clock.now().After(certs[0].NotAfter) {
		return time.Time{}, err
	}
	return certs[0].NotAfter, nil
}

// judgeKubeconfigs returns the kubeconfigs that are missing, or whose
// certificate has expired, and the authority that signs for them. A file that
// names another server than kubeadm would is
// kept as kubeadm keeps it: with a warning.
func judgeKubeconfigs(h *host.Host, n *config.Node, rel images.Release, now time.Time, only []string) ([]Kubeconfig, pair, error) {
	ca, err := load(h, n.Cluster.CertificatesDir, Cert{Base: CA})
	if err != nil {
		return nil, ca, err
	}
	if ca.cert == nil {
		return nil, ca, fmt.Errorf("cannot make kubeconfigs: there is no %s; the certs step makes it", path.Join(n.Cluster.CertificatesDir, CA+".crt"))
	}
	var missing []Kubeconfig
	for _, k := range Kubeconfigs(n, rel) {
		if len(only) > 0 && !slices.Contains(only, k.File) {
			continue
		}
		file := path.Join(KubernetesDir, k.File)
		b, err := h.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, k)
			continue
		}
		if err != nil {
			return nil, ca, fmt.Errorf("cannot read %s: %w", file, err)
		}
		server, err := judgeKubeconfig(b, ca.cert, now)
		if e, ok := errors.AsType[expired](err); ok && ca.key != nil {
			h.Log.Info("a kubeconfig's certificate has expired; it is made again", slog.String("file", file), slog.Time("expired", e.end))
			missing = append(missing, k)
			continue
		}
		if err != nil {
			return nil, ca, invalid(file, err)
		}
		if server != k.Server {
			h.Log.Warn("a kubeconfig names another API server than this node's configuration; it is kept",
				slog.String("file", file), slog.String("server", server), slog.String("configured", k.Server))
		}
	}
	return missing, ca, nil
}

// judgeKubeconfig says why a kubeconfig is not for the cluster whose authority
// ca is, and returns the server that it names. Credentials may be of any kind;
// a client certificate that is part of the file must be in force.
func judgeKubeconfig(b []byte, ca *x509.Certificate, now time.Time) (server string, err error) {
	c, err := clientcmd.Load(b)
	if err != nil {
		return "", errors.New("it is no kubeconfig") // the parser's error may quote a key
	}
	ctx, ok := c.Contexts[c.CurrentContext]
	if !ok {
		return "", fmt.Errorf("its current context %q is not in it", c.CurrentContext)
	}
	cluster, ok := c.Clusters[ctx.Cluster]
	if !ok {
		return "", fmt.Errorf("its cluster %q is not in it", ctx.Cluster)
	}
	certs, err := parseCerts(cluster.CertificateAuthorityData)
	if err != nil {
		return "", fmt.Errorf("its certificate authority: %w", err)
	}
	if !bytes.Equal(certs[0].Raw, ca.Raw) {
		return "", errors.New("it trusts another certificate authority than this cluster's")
	}
	user, ok := c.AuthInfos[ctx.AuthInfo]
	if !ok {
		return "", fmt.Errorf("its user %q is not in it", ctx.AuthInfo)
	}
	if len(user.ClientCertificateData) == 0 {
		return cluster.Server, nil
	}
	if certs, err = parseCerts(user.ClientCertificateData); err != nil {
		return "", fmt.Errorf("its client certificate: %w", err)
	}
	if err := valid(Cert{CA: CA, Usages: client()}, certs[0], ca, now); err != nil {
		return "", fmt.Errorf("its client certificate: %w", err)
	}
	return cluster.Server, nil
}

// make signs a client certificate for key, valid for life, and puts both into
// a kubeconfig.
func (k Kubeconfig) make(n *config.Node, ca pair, key crypto.Signer, clock Clock, life time.Duration) ([]byte, error) {
	der, err := sign(Cert{CN: k.User, Org: k.Org, Usages: client(), Life: life}, key.Public(), ca.cert, ca.key, clock)
	if err != nil {
		return nil, err
	}
	pem, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	cluster := n.Cluster.ClusterName
	ctx := k.User + "@" + cluster
	return clientcmd.Write(api.Config{
		Clusters:       map[string]*api.Cluster{cluster: {Server: k.Server, CertificateAuthorityData: encodeCert(ca.cert.Raw)}},
		Contexts:       map[string]*api.Context{ctx: {Cluster: cluster, AuthInfo: k.User}},
		AuthInfos:      map[string]*api.AuthInfo{k.User: {ClientCertificateData: encodeCert(der), ClientKeyData: pem}},
		CurrentContext: ctx,
	})
}
