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
		Name: "wait-control-plane",
		LimitOf: func(r *node.Machine) time.Duration {
			if t := r.Node.Cluster.APIServer.TimeoutForControlPlane; t != nil {
				return t.Duration
			}
			return 4 * time.Minute // kubeadm's default
		},
		Done: func(ctx context.Context, r *node.Machine) (bool, error) {
			c, _, err := cluster.ConnectTo(r.Host, node.AdminKubeconfig, ownServer(r))
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
			return false, outcome.Retry{After: 2 * time.Second, Why: whyNoAPI(ctx, r, err), Wake: func(ctx context.Context) {
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
func ownServer(r *node.Machine) string {
	e := r.Node.Init.LocalAPIEndpoint
	return "https://" + net.JoinHostPort(e.AdvertiseAddress, strconv.Itoa(int(e.BindPort)))
}

// apiHealthy asks the API server as its administrator, as kubeadm does.
func apiHealthy(ctx context.Context, c kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	status := 0
	res := c.Discovery().RESTClient().Get().AbsPath("/healthz").MaxRetries(0).Do(ctx).StatusCode(&status)
	body, err := res.Raw()
	switch failing := failingChecks(body); {
	case err != nil && len(failing) > 0:
		return fmt.Errorf("not so yet: %s", strings.Join(failing, ", "))
	case err != nil:
		return err
	case status != http.StatusOK:
		return fmt.Errorf("the API server says %d %s", status, http.StatusText(status))
	}
	return nil
}

// failingChecks are the names of the checks that fail in what a health endpoint
// says at length: lines like "[-]etcd failed: reason withheld".
func failingChecks(body []byte) (names []string) {
	for line := range strings.Lines(string(body)) {
		if check, ok := strings.CutPrefix(line, "[-]"); ok {
			name, _, _ := strings.Cut(strings.TrimSpace(check), " ")
			names = append(names, name)
		}
	}
	return names
}

// whyNoAPI finds out, from the nearest to the farthest, what keeps the API
// server from answering.
func whyNoAPI(ctx context.Context, r *node.Machine, apiErr error) string {
	if err := kubelet.Healthy(ctx, r); err != nil {
		return err.Error()
	}
	conn, err := grpc.NewClient("unix://"+r.Host.Path(containerd.Socket), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	runtime := cri.NewRuntimeServiceClient(conn)
	pods, err := containerd.ControlPlaneContainers(ctx, runtime)
	if err != nil {
		return "the container runtime does not answer: " + err.Error()
	}
	names := []string{templates.Etcd, templates.APIServer}
	if r.Node.Cluster.Etcd.External != nil {
		names = names[1:]
	}
	// What ended before this boot's kubelet started ended with the machine.
	var since int64
	if st, err := r.Host.Root.Stat(strings.TrimPrefix(kubelet.RunsWithFile, "/")); err == nil {
		since = st.ModTime().UnixNano()
	}
	before := "" // what was said by one that ended before the one that runs
	for _, name := range names {
		all := slices.DeleteFunc(pods[name], func(c *cri.Container) bool {
			return c.State == cri.ContainerState_CONTAINER_EXITED && c.CreatedAt < since
		})
		if len(all) == 0 {
			return fmt.Sprintf("the kubelet has not started %s yet", name)
		}
		if all[0].State == cri.ContainerState_CONTAINER_EXITED {
			_, words := containerd.ContainerSaid(ctx, r.Host, runtime, all[0].Id)
			return fmt.Sprintf("%s has ended, and the kubelet starts it again%s", name, words)
		}
		if len(all) > 1 {
			if failed, words := containerd.ContainerSaid(ctx, r.Host, runtime, all[1].Id); failed {
				before += fmt.Sprintf("; %s has ended before%s", name, words)
			}
		}
	}
	if errors.Is(apiErr, syscall.ECONNREFUSED) {
		return "the API server does not listen yet" + before
	}
	return "the API server is not healthy yet: " + apiErr.Error() + before
}
