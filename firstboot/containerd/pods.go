package containerd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

// ContainerSaid says whether a container has failed, and what it said last, with
// what leads up to it; empty where its log cannot be read.
func ContainerSaid(ctx context.Context, h *host.Host, client cri.RuntimeServiceClient, id string) (failed bool, words string) {
	resp, err := client.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return false, ""
	}
	failed = resp.GetStatus().GetExitCode() != 0
	f, err := h.Root.Open(strings.TrimPrefix(resp.GetStatus().GetLogPath(), "/"))
	if err != nil {
		return failed, ""
	}
	defer f.Close()
	// A fatal line stands before the stacks of all goroutines: of an API server,
	// most of a megabyte.
	if err := tail(f, 4<<20); err != nil {
		return failed, ""
	}
	if said, err := host.LastWords(f); err == nil && said != "" {
		words = ": " + said
	}
	return failed, words
}

// tail seeks to the last n bytes of a file.
func tail(f io.Seeker, n int64) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(max(0, size-n), io.SeekStart)
	}
	return err
}

// Logged is how many bytes a container has logged; 0 where that is not known.
func Logged(ctx context.Context, h *host.Host, client cri.RuntimeServiceClient, id string) int64 {
	resp, err := client.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		return 0
	}
	st, err := h.Root.Stat(strings.TrimPrefix(resp.GetStatus().GetLogPath(), "/"))
	if err != nil {
		return 0
	}
	return st.Size()
}

// RemoveSandboxes removes every pod that the container runtime has, by CRI. A
// runtime that does not run has none that would outlive the reboot.
func RemoveSandboxes(ctx context.Context, h *host.Host) error {
	if !h.Exists(Socket) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	c, err := Handover{host: h, socket: Socket}.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	rt := cri.NewRuntimeServiceClient(c.conn)
	pods, err := rt.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return outcome.Retry{After: time.Second, Why: fmt.Sprintf("cannot list the pods of this machine: %v", err)}
	}
	var g errgroup.Group
	g.SetLimit(8)
	for _, p := range pods.Items {
		g.Go(func() error {
			name := p.Metadata.GetNamespace() + "/" + p.Metadata.GetName()
			return h.Do("remove pod "+name, func() error {
				_, err := rt.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: p.Id})
				if err == nil {
					_, err = rt.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: p.Id})
				}
				if err != nil {
					return outcome.Retry{After: time.Second, Why: fmt.Sprintf("cannot remove pod %s: %v", name, err)}
				}
				return nil
			})
		})
	}
	return g.Wait()
}

// ControlPlaneContainers are the containers of the static pods, by component,
// the newest first.
func ControlPlaneContainers(ctx context.Context, runtime cri.RuntimeServiceClient) (map[string][]*cri.Container, error) {
	resp, err := runtime.ListContainers(ctx, &cri.ListContainersRequest{
		Filter: &cri.ContainerFilter{LabelSelector: map[string]string{"io.kubernetes.pod.namespace": "kube-system"}},
	})
	if err != nil {
		return nil, err
	}
	all := map[string][]*cri.Container{}
	for _, c := range slices.SortedFunc(slices.Values(resp.Containers), func(a, b *cri.Container) int { return cmp.Compare(b.CreatedAt, a.CreatedAt) }) {
		name := c.Labels["io.kubernetes.container.name"]
		all[name] = append(all[name], c)
	}
	return all, nil
}
