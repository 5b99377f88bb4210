package firstboot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/client-go/kubernetes"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kbuild/kbuild/firstboot/cluster"
	"github.com/kbuild/kbuild/firstboot/containerd"
	"github.com/kbuild/kbuild/firstboot/converge"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/templates"
)

// stepWaitControlPlane waits until the API server answers that it is healthy
// (kubeadm init phase wait-control-plane), and tells meanwhile what is missing.
func stepWaitControlPlane() converge.Step {
	return converge.Step{
		Name:    "wait-control-plane",
		LimitOf: startupLimit,
		Done: func(ctx context.Context, m *node.Machine) (bool, error) {
			c, _, err := cluster.ConnectTo(m.Host, node.AdminKubeconfig, ownServer(m))
			if err != nil {
				return false, err
			}
			if err = apiHealthy(ctx, c); err == nil {
				return true, nil
			}
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			// Why is asked for seldom, the API server often.
			why, far := whyNoAPI(ctx, m, err)
			return false, outcome.Retry{After: 2 * time.Second, Why: why, Progress: far, Wake: func(ctx context.Context) {
				for ctx.Err() == nil && apiHealthy(ctx, c) != nil {
					select {
					case <-ctx.Done():
					case <-time.After(50 * time.Millisecond):
					}
				}
			}}
		},
		Do: func(context.Context, *node.Machine) error { return nil },
	}
}

// ownServer is the URL of this node's own API server: at the cluster's endpoint
// another one may answer.
func ownServer(m *node.Machine) string {
	e := m.Node.Init.LocalAPIEndpoint
	return "https://" + net.JoinHostPort(e.AdvertiseAddress, strconv.Itoa(int(e.BindPort)))
}

// apiHealthy asks the API server as its administrator, as kubeadm does.
func apiHealthy(ctx context.Context, c kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	status := 0
	res := c.Discovery().RESTClient().Get().AbsPath(templates.APIServerAlive).MaxRetries(0).Do(ctx).StatusCode(&status)
	body, err := res.Raw()
	if err != nil {
		if u := readChecks(body); len(u.failing) > 0 {
			return u
		}
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("the API server says %d %s", status, http.StatusText(status))
	}
	return nil
}

// unhealthy is what a health endpoint says at length.
type unhealthy struct {
	failing []string // names of the checks that fail
	passing int      // how many do not
}

func (u unhealthy) Error() string { return "these checks fail: " + strings.Join(u.failing, ", ") }

// readChecks reads lines like "[+]ping ok" and "[-]etcd failed: reason withheld".
func readChecks(body []byte) (u unhealthy) {
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "[+]") {
			u.passing++
		}
		if check, ok := strings.CutPrefix(line, "[-]"); ok {
			name, _, _ := strings.Cut(strings.TrimSpace(check), " ")
			u.failing = append(u.failing, name)
		}
	}
	return u
}

// How far an API server that starts has come, as Retry.Progress: what runs, then
// how much it has logged, then how many of its checks pass. One that ends again
// and again at the same point logs as much each time, so that it gets no
// further.
const (
	kubeletRuns int64 = 1 + iota
	runtimeAnswers
	etcdRuns
	apiServerRuns              // and the bytes that it has logged
	apiServerListens = 1 << 40 // and the checks that pass
)

// whyNoAPI finds out, from the nearest to the farthest, what keeps the API
// server from answering, and how far it has come.
func whyNoAPI(ctx context.Context, m *node.Machine, apiErr error) (why string, far int64) {
	if err := kubelet.Healthy(ctx, m); err != nil {
		return err.Error(), 0
	}
	conn, err := grpc.NewClient("unix://"+m.Host.Path(containerd.Socket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err.Error(), kubeletRuns
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	runtime := cri.NewRuntimeServiceClient(conn)
	pods, err := containerd.ControlPlaneContainers(ctx, runtime)
	if err != nil {
		return "the container runtime does not answer: " + err.Error(), kubeletRuns
	}
	names := []string{templates.Etcd, templates.APIServer}
	if m.Node.Cluster.Etcd.External != nil {
		names = names[1:]
	}
	// What ended before this boot's kubelet started ended with the machine.
	var since int64
	if st, err := m.Host.Root.Stat(strings.TrimPrefix(kubelet.RunsWithFile, "/")); err == nil {
		since = st.ModTime().UnixNano()
	}
	far = runtimeAnswers
	before := "" // what was said by one that ended before the one that runs
	for _, name := range names {
		all := slices.DeleteFunc(pods[name], func(c *cri.Container) bool {
			return c.State == cri.ContainerState_CONTAINER_EXITED && c.CreatedAt < since
		})
		if len(all) == 0 {
			return fmt.Sprintf("the kubelet has not started %s yet", name), far
		}
		if all[0].State == cri.ContainerState_CONTAINER_EXITED {
			_, words := containerd.ContainerSaid(ctx, m.Host, runtime, all[0].Id)
			return fmt.Sprintf("%s has ended, and the kubelet starts it again%s", name, words), far
		}
		if far = etcdRuns; name == templates.APIServer {
			far = apiServerRuns + containerd.Logged(ctx, m.Host, runtime, all[0].Id)
		}
		if len(all) > 1 {
			if failed, words := containerd.ContainerSaid(ctx, m.Host, runtime, all[1].Id); failed {
				before += fmt.Sprintf("; %s has ended before%s", name, words)
			}
		}
	}
	if errors.Is(apiErr, syscall.ECONNREFUSED) {
		return "the API server does not listen yet" + before, far
	}
	if u, ok := errors.AsType[unhealthy](apiErr); ok {
		far = apiServerListens + int64(u.passing)
	}
	return "the API server is not healthy yet: " + apiErr.Error() + before, far
}
