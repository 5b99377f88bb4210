package pki

import (
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

// Names of the kubeconfigs' files.
const (
	AdminConf      = "admin.conf"
	SuperAdminConf = "super-admin.conf"
	KubeletConf    = "kubelet.conf"
)

// Kubeconfig is a client of the API server and the file that makes it one.
type Kubeconfig struct {
	File   string // "admin.conf"
	Server string // URL of the API server that it talks to
	User   string // common name of its certificate
	Org    []string
	// Algorithm is that of its key, and Life is how long its certificate is valid;
	// see Cert.
	Algorithm string
	Life      time.Duration
	Form      Form
}

// Kubeconfigs are those of a control-plane node in the version of rel. The control
// plane's own parts talk to the API server next to them, and so does the kubelet
// where the version has it so; everybody else to the cluster's endpoint. (kubeadm:
// cmd/kubeadm/app/phases/kubeconfig)
func Kubeconfigs(n *config.Node, rel images.Release) []Kubeconfig {
	local, endpoint := LocalServer(n), Endpoint(n)
	kubelet := Kubeconfig{File: KubeletConf, Server: endpoint, User: "system:node:" + n.Init.NodeRegistration.Name, Org: groups("system:nodes")}
	if rel.Has(images.FactLocalAPIServer) {
		kubelet.Server = local
	}
	ks := []Kubeconfig{{File: AdminConf, Server: endpoint, User: "kubernetes-admin", Org: groups(masters)}}
	if rel.Has(images.FactSuperAdminConf) {
		// The everyday administrator is bound by RBAC, and the one that RBAC cannot
		// bind has a file of its own.
		ks[0].Org = groups(ClusterAdmins)
		ks = append(ks, SuperAdmin(n, rel))
	}
	ks = append(ks, kubelet,
		Kubeconfig{File: "controller-manager.conf", Server: local, User: "system:kube-controller-manager"},
		Kubeconfig{File: "scheduler.conf", Server: local, User: "system:kube-scheduler"},
	)
	for i := range ks {
		ks[i].dress(n, rel)
	}
	return ks
}

// SuperAdmin is the administrator whom RBAC does not bind.
func SuperAdmin(n *config.Node, rel images.Release) Kubeconfig {
	k := Kubeconfig{File: SuperAdminConf, Server: Endpoint(n), User: "kubernetes-super-admin", Org: groups(masters)}
	k.dress(n, rel)
	return k
}

// dress gives k what is common to all.
func (k *Kubeconfig) dress(n *config.Node, rel images.Release) {
	k.Algorithm, k.Life, k.Form = rsa2048, life(n), formOf(rel)
	if rel.Has(images.FactKubeconfigKeys) {
		k.Algorithm = Algorithm(n, rel)
	}
	k.Form.OwnBeginning = false // these begin with their authority
}

// LocalServer is the URL of this node's own API server.
func LocalServer(n *config.Node) string {
	e := n.Init.LocalAPIEndpoint
	return "https://" + net.JoinHostPort(e.AdvertiseAddress, strconv.Itoa(int(e.BindPort)))
}

// Endpoint is the URL by which the cluster's API is reached: that of the
// control-plane endpoint, else of this node's own API server.
func Endpoint(n *config.Node) string {
	port := strconv.Itoa(int(n.Init.LocalAPIEndpoint.BindPort))
	e := n.Cluster.ControlPlaneEndpoint
	if e == "" {
		return LocalServer(n)
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
	keys, err := makeKeys(ctx, files, missing[0].Algorithm) // all have the same
	if err != nil {
		return err
	}
	// The administrator's comes last: where it is, all are that were made with it.
	for _, k := range slices.Backward(missing) {
		b, err := k.make(n, ca, keys[k.File], clock)
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
func NodeClient(h *host.Host, n *config.Node, rel images.Release, clock Clock) ([]byte, error) {
	ca, err := load(h, n.Cluster.CertificatesDir, Cert{Base: CA})
	if err != nil {
		return nil, err
	}
	if ca.cert == nil || ca.key == nil {
		return nil, fmt.Errorf("cannot sign for the kubelet: the authority's key: %w", fs.ErrNotExist)
	}
	key, err := newKey(ecdsaP256)
	if err != nil {
		return nil, err
	}
	der, err := sign(Cert{CN: "system:node:" + n.Init.NodeRegistration.Name, Org: []string{"system:nodes"}, Usages: client(), Life: year, Form: formOf(rel)}, key.Public(), ca.cert, ca.key, clock)
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
	if !certs[0].Equal(ca) {
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

// make signs a client certificate for key, and puts both into a kubeconfig.
func (k Kubeconfig) make(n *config.Node, ca pair, key crypto.Signer, clock Clock) ([]byte, error) {
	der, err := sign(Cert{CN: k.User, Org: k.Org, Usages: client(), Life: k.Life, Form: k.Form}, key.Public(), ca.cert, ca.key, clock)
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
