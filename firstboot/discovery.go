package firstboot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

// stepDiscovery finds the cluster, makes sure that it is the right one, and
// freezes where it is and how it is configured: a node that has joined starts
// without asking again.
func stepDiscovery() converge.Step {
	return converge.Step{Name: "discovery", Loads: true, Done: discoveryDone, Do: discover}
}

func discoveryDone(_ context.Context, m *node.Machine) (bool, error) {
	n, is, err := node.Load(m.Host)
	return is && n.KnowsCluster() && (m.Joined() || m.Host.Exists(node.BootstrapKubeconfig)), err
}

func discover(ctx context.Context, m *node.Machine) error {
	if m.Joined() {
		return discoverAgain(ctx, m)
	}
	found, err := findCluster(ctx, m)
	if err != nil {
		return cluster.RetryIfTemporary(err)
	}
	var user *clientcmdapi.AuthInfo
	if t := m.Node.Join.Discovery.TLSBootstrapToken; t != "" {
		user = &clientcmdapi.AuthInfo{Token: t.Reveal()}
	} else if found.User == nil {
		return outcome.Refused{Why: "the discovery file holds no credentials, and there is no token beside it", Remedy: "give `token` in user-data"}
	}
	c, _, err := cluster.Client(m.Host, cluster.Kubeconfig(found, "kubernetes", user))
	if err != nil {
		return fmt.Errorf("cannot use what was found of the cluster: %w", err)
	}
	conf, err := readClusterConfig(ctx, m, c)
	if err != nil {
		return err
	}
	kc, err := clientcmd.Write(cluster.Kubeconfig(found, conf.Cluster.ClusterName, user))
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", node.BootstrapKubeconfig, err)
	}
	if err := m.Host.WriteFile(node.BootstrapKubeconfig, kc, 0o600); err != nil {
		return err
	}
	return m.FreezeCluster(m.Node, conf)
}

// discoverAgain asks the cluster for its configuration as the node that this
// machine already is: its image is of another version now, and its cluster has
// another configuration for that, when its control planes have come so far.
func discoverAgain(ctx context.Context, m *node.Machine) error {
	c, _, err := cluster.Connect(m.Host, node.KubeletKubeconfig)
	if err != nil {
		return err
	}
	conf, err := readClusterConfig(ctx, m, c)
	if final, ok := errors.AsType[outcome.Refused](err); ok {
		return outcome.Retry{After: 5 * time.Second, Why: final.Error()}
	}
	if err != nil {
		return err
	}
	return m.FreezeCluster(m.Node, conf)
}

func findCluster(ctx context.Context, m *node.Machine) (cluster.Discovered, error) {
	d := m.Node.Join.Discovery
	if d.File != nil {
		return cluster.DiscoverByFile(ctx, m.Host, d.File.KubeConfigPath)
	}
	if d.BootstrapToken == nil || d.BootstrapToken.Token == "" {
		return cluster.Discovered{}, outcome.Refused{Why: "this node has joined once and forgotten its token, and its kubelet.conf is gone", Remedy: "wipe the var partition to join anew"}
	}
	if len(d.BootstrapToken.CACertHashes) == 0 {
		m.Host.Log.Warn("joining WITHOUT a pin of the cluster's CA, as unsafeSkipCAVerification asks: whoever answers and knows the token is taken for the cluster",
			slog.String("endpoint", d.BootstrapToken.APIServerEndpoint))
	}
	return cluster.DiscoverByToken(ctx, d.BootstrapToken, m.Host.Now())
}

// readClusterConfig fetches the configuration that the cluster keeps and makes
// it this node's.
func readClusterConfig(ctx context.Context, m *node.Machine, c kubernetes.Interface) (config.Cluster, error) {
	kubeadm, err := clusterMap(ctx, m, c, node.KubeadmConfig, "ClusterConfiguration", true)
	if err != nil {
		return config.Cluster{}, err
	}
	kubelet := m.Baked.Release.KubeletConfigMap
	if version, err := config.VersionOf(kubeadm.Data); err == nil {
		if rel, err := images.Assume(version); err == nil {
			kubelet = rel.KubeletConfigMap
		}
	}
	docs := []config.Document{kubeadm, {}, {}}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) { docs[1], err = clusterMap(gctx, m, c, kubelet, "kubelet", true); return err })
	g.Go(func() (err error) {
		docs[2], err = clusterMap(gctx, m, c, "kube-proxy", "config.conf", false)
		return err
	})
	if err := g.Wait(); err != nil {
		return config.Cluster{}, err
	}
	facts, err := node.Facts(ctx, m.Host)
	if err != nil {
		return config.Cluster{}, err
	}
	conf, warnings, err := config.ReadCluster(m.Node, m.Baked, facts, docs...)
	for _, w := range warnings {
		m.Host.Log.Warn("configuration of the cluster: " + w)
	}
	if _, bad := errors.AsType[config.Problems](err); bad {
		return conf, outcome.Refuse("cannot join this cluster: %w", err)
	}
	return conf, err
}

// clusterMap reads one document out of a ConfigMap of kube-system. One that
// need not be there is empty where it is not.
func clusterMap(ctx context.Context, m *node.Machine, c kubernetes.Interface, name, key string, must bool) (config.Document, error) {
	doc := config.Document{Source: "ConfigMap " + name}
	cm, err := c.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, name, metav1.GetOptions{})
	switch {
	case !must && (apierrors.IsNotFound(err) || apierrors.IsForbidden(err)):
		return doc, nil // a cluster without kube-proxy
	case apierrors.IsNotFound(err):
		return doc, outcome.Retry{After: outcome.Soon(), Why: fmt.Sprintf("the cluster has no ConfigMap %s yet; the first control plane writes it when it comes up (phase upload-config)", name)}
	case err != nil:
		return doc, cluster.JoinOutcome(err, m.Host.Now())
	}
	doc.Data = []byte(cm.Data[key])
	return doc, nil
}
