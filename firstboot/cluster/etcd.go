package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"path"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
)

const (
	// etcdURLAnnotation is where kubeadm notes on an etcd pod how it is reached.
	etcdURLAnnotation = "kubeadm.kubernetes.io/etcd.advertise-client-urls"
	// etcdTimeout bounds one request to etcd.
	etcdTimeout = 10 * time.Second
	// etcdAnswers is how long a member may take to say how it is.
	etcdAnswers = 3 * time.Second
)

// Member is a member of a cluster's local etcd.
type Member struct {
	ID        uint64   `json:"id"`
	Name      string   `json:"name"` // empty until it has started
	PeerURLs  []string `json:"peerURLs"`
	Clients   []string `json:"clientURLs,omitempty"`
	IsLearner bool     `json:"learner,omitempty"`
}

// Etcd is a connection to a cluster's local etcd.
type Etcd struct {
	host   *host.Host
	client *clientv3.Client
	tls    *tls.Config
}

// ClientURL and PeerURL are how the member at an address is reached.
func ClientURL(addr string) string { return "https://" + net.JoinHostPort(addr, "2379") }
func PeerURL(addr string) string   { return "https://" + net.JoinHostPort(addr, "2380") }

// EtcdEndpoints are the client URLs of the cluster's members, as their pods
// say, or else the API servers that endpoints lists (kubeadm:
// cmd/kubeadm/app/util/etcd).
func EtcdEndpoints(ctx context.Context, c kubernetes.Interface, endpoints map[string]config.APIEndpoint) ([]string, error) {
	pods, err := c.CoreV1().Pods(metav1.NamespaceSystem).List(ctx, metav1.ListOptions{LabelSelector: "component=etcd,tier=control-plane"})
	if err != nil {
		return nil, fmt.Errorf("cannot list the pods of etcd: %w", err)
	}
	var urls []string
	for _, p := range pods.Items {
		if u := p.Annotations[etcdURLAnnotation]; u != "" {
			urls = append(urls, u)
		}
	}
	if len(urls) == 0 {
		for _, name := range slices.Sorted(maps.Keys(endpoints)) {
			urls = append(urls, ClientURL(endpoints[name].AdvertiseAddress))
		}
	}
	if len(urls) == 0 {
		return nil, soonError{errors.New("no pod of etcd says yet how it is reached")}
	}
	return urls, nil
}

// ConnectEtcd connects to etcd at any of urls, with the certificates below dir
// of the machine. No request is made yet.
func ConnectEtcd(h *host.Host, dir string, urls ...string) (*Etcd, error) {
	cfg := &tls.Config{RootCAs: x509.NewCertPool()}
	ca, err := h.ReadFile(path.Join(dir, "etcd/ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("cannot talk to etcd: %w", err)
	}
	cfg.RootCAs.AppendCertsFromPEM(ca)
	crt, err1 := h.ReadFile(path.Join(dir, "etcd/healthcheck-client.crt"))
	key, err2 := h.ReadFile(path.Join(dir, "etcd/healthcheck-client.key"))
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("cannot talk to etcd: %w", err)
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return nil, fmt.Errorf("cannot talk to etcd: etcd/healthcheck-client.crt and .key are no pair: %w", err)
	}
	cfg.Certificates = []tls.Certificate{pair}
	e := &Etcd{host: h, tls: cfg}
	e.client, err = e.dial(urls)
	return e, err
}

func (e *Etcd) dial(urls []string) (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: urls, TLS: e.tls, DialTimeout: etcdTimeout, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("cannot talk to etcd: %w", err)
	}
	return c, nil
}

// Close ends the connection.
func (e *Etcd) Close() error { return e.client.Close() }

// Members lists the members.
func (e *Etcd) Members(ctx context.Context) ([]Member, error) {
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	resp, err := e.client.MemberList(ctx)
	if err != nil {
		return nil, etcdError("list the members of etcd", err)
	}
	return members(resp.Members), nil
}

func members(list []*etcdserverpb.Member) []Member {
	var out []Member
	for _, m := range list {
		out = append(out, Member{m.ID, m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner})
	}
	return out
}

// Answers says why the member does not answer; nil is that it does.
func (e *Etcd) Answers(ctx context.Context, m Member) error {
	if len(m.Clients) == 0 {
		return errors.New("it has not started yet")
	}
	ctx, cancel := context.WithTimeout(ctx, etcdAnswers)
	defer cancel()
	c, err := e.dial(m.Clients[:1])
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Status(ctx, m.Clients[0])
	return err
}

// Add makes the member at peerURL known to the cluster, as a learner: it has
// no vote before it has caught up, so that it cannot take the quorum away.
func (e *Etcd) Add(ctx context.Context, peerURL string) error {
	return e.change(ctx, "add etcd member "+peerURL, func(ctx context.Context) error {
		_, err := e.client.MemberAddAsLearner(ctx, []string{peerURL})
		return err
	})
}

// Promote gives a learner its vote. Until it has caught up that is a Temporary
// error.
func (e *Etcd) Promote(ctx context.Context, m Member) error {
	return e.change(ctx, "promote etcd member "+m.Name, func(ctx context.Context) error {
		_, err := e.client.MemberPromote(ctx, m.ID)
		return err
	})
}

// Remove takes a member out of the cluster, for good.
func (e *Etcd) Remove(ctx context.Context, m Member) error {
	return e.change(ctx, fmt.Sprintf("remove etcd member %x", m.ID), func(ctx context.Context) error {
		_, err := e.client.MemberRemove(ctx, m.ID)
		return err
	})
}

func (e *Etcd) change(ctx context.Context, what string, do func(context.Context) error) error {
	if err := e.host.BeforeChange(what); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, etcdTimeout)
	defer cancel()
	if err := do(ctx); err != nil {
		return etcdError(what, err)
	}
	return nil
}

// etcdError marks what passes by itself: another learner that has to be
// promoted first, a member that is just starting, an election, a list of members
// that was read before they changed.
func etcdError(what string, err error) error {
	err = fmt.Errorf("cannot %s: %w", what, err)
	for _, soon := range []error{
		rpctypes.ErrTooManyLearners, rpctypes.ErrMemberLearnerNotReady, rpctypes.ErrMemberNotEnoughStarted, rpctypes.ErrUnhealthy,
		rpctypes.ErrNoLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrNotLeader, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail,
		rpctypes.ErrTimeoutDueToConnectionLost, rpctypes.ErrStopped, rpctypes.ErrMemberNotFound, context.DeadlineExceeded,
	} {
		if errors.Is(err, soon) {
			return soonError{err}
		}
	}
	// A learner that was asked instead of a member with a vote says so.
	if s := err.Error(); strings.Contains(s, "not supported for learner") || strings.Contains(s, "code = Unavailable") || strings.Contains(s, "context deadline exceeded") {
		return soonError{err}
	}
	return err
}
