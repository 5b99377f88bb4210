package firstboot

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/containerd"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
)

// TestAPIHealthyNamesWhatFails: the answer of an API server that starts is a
// page of checks; people are told those that fail.
func TestAPIHealthyNamesWhatFails(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac/bootstrap-roles failed: reason withheld\nhealthz check failed", http.StatusInternalServerError)
	}))
	defer s.Close()
	c := kubernetes.NewForConfigOrDie(&rest.Config{Host: s.URL})
	err := apiHealthy(t.Context(), c)
	if want := "these checks fail: etcd, poststarthook/rbac/bootstrap-roles"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
	s.Close()
	if err := apiHealthy(t.Context(), c); err == nil || strings.Contains(err.Error(), "these checks fail") {
		t.Errorf("error %v, want that nobody listens", err)
	}
}

// runtimeDouble has one container of each static pod.
type runtimeDouble struct {
	cri.UnimplementedRuntimeServiceServer
	containers []*cri.Container
	log        string
	code       int32 // with which they ended
}

func (d runtimeDouble) ListContainers(context.Context, *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	return &cri.ListContainersResponse{Containers: d.containers}, nil
}

func (d runtimeDouble) ContainerStatus(_ context.Context, r *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	return &cri.ContainerStatusResponse{Status: &cri.ContainerStatus{Id: r.ContainerId, LogPath: d.log, ExitCode: d.code}}, nil
}

// TestWhyNoAPI: who waits for an API server that ends again and again is told
// what it said last, and nothing of what ended with the boot before.
func TestWhyNoAPI(t *testing.T) {
	h, err := host.Local(t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Root.Close()
	healthz := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer healthz.Close()
	at := healthz.Listener.Addr().(*net.TCPAddr)
	m := &node.Machine{Host: h, Node: &config.Node{Kubelet: map[string]any{"healthzBindAddress": at.IP.String(), "healthzPort": int64(at.Port)}}}
	const log = "/var/log/pods/kube-system_kube-apiserver/kube-apiserver/0.log"
	for name, text := range map[string]string{log: "2026-11-25T18:00:00.123456789Z stderr F Error: unknown flag: --no-such-flag\n", kubelet.RunsWithFile: "digest"} {
		if err := errors.Join(h.MkdirAll(path.Dir(name), 0o755), h.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.MkdirAll(path.Dir(containerd.Socket), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", h.Path(containerd.Socket))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Add(time.Minute).UnixNano()
	container := func(name string, state cri.ContainerState, created int64) *cri.Container {
		return &cri.Container{Id: name, State: state, CreatedAt: created, Labels: map[string]string{"io.kubernetes.container.name": name}}
	}
	etcd, ended := container("etcd", cri.ContainerState_CONTAINER_RUNNING, now), container("kube-apiserver", cri.ContainerState_CONTAINER_EXITED, now)
	double := &runtimeDouble{containers: []*cri.Container{etcd, ended}, log: log}
	s := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(s, double)
	go s.Serve(l)
	defer s.Stop()
	says := func(want string) {
		t.Helper()
		if got, _ := whyNoAPI(t.Context(), m, syscall.ECONNREFUSED); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	says("kube-apiserver has ended, and the kubelet starts it again: Error: unknown flag: --no-such-flag")
	// A newer one is just being tried, and will end as well.
	double.code = 1
	double.containers = append(double.containers, container("kube-apiserver", cri.ContainerState_CONTAINER_RUNNING, now+1))
	says("the API server does not listen yet; kube-apiserver has ended before: Error: unknown flag: --no-such-flag")
	double.code = 0
	says("the API server does not listen yet")
	// It gets on as its log grows, and further when it listens and its checks pass.
	far := func(err error) int64 { _, far := whyNoAPI(t.Context(), m, err); return far }
	silent := far(syscall.ECONNREFUSED)
	if err := h.WriteFile(log, []byte("2026-11-25T18:00:00.1Z stderr F Error: unknown flag: --no-such-flag\nand more than before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	grown, listens := far(syscall.ECONNREFUSED), far(unhealthy{failing: []string{"etcd", "rbac"}, passing: 1})
	green := far(unhealthy{failing: []string{"rbac"}, passing: 2})
	if !(silent < grown && grown < listens && listens < green) {
		t.Errorf("how far: silent %d, log grown %d, listens %d, one more check green %d; want them to grow", silent, grown, listens, green)
	}
	double.containers = double.containers[:2]
	double.log = "/nowhere"
	says("kube-apiserver has ended, and the kubelet starts it again")
	ended.CreatedAt = time.Now().Add(-time.Hour).UnixNano()
	says("the kubelet has not started kube-apiserver yet")
	ended.State = cri.ContainerState_CONTAINER_RUNNING
	says("the API server does not listen yet")
}
