package templates

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/images"
	"github.com/kbuild/kbuild/test-vm/golden"
)

// nodeParams are those of a first control plane of version on a machine that
// has all of the directories of CA certificates.
func nodeParams(t *testing.T, version string) PodParams {
	t.Helper()
	rel, err := images.Lookup(version)
	if err != nil {
		t.Fatal(err)
	}
	n := &config.Node{Role: config.RoleInit}
	n.Init.NodeRegistration.Name = "n1"
	n.Init.LocalAPIEndpoint = config.APIEndpoint{AdvertiseAddress: "10.0.0.1", BindPort: 6443}
	n.Cluster.KubernetesVersion = version
	n.Cluster.CertificatesDir = "/etc/kubernetes/pki"
	n.Cluster.ClusterName = "kubernetes"
	n.Cluster.Networking = config.Networking{ServiceSubnet: "10.96.0.0/12", PodSubnet: "10.244.0.0/16", DNSDomain: "cluster.local"}
	n.Cluster.Etcd.Local = &config.LocalEtcd{DataDir: "/var/lib/etcd"}
	return PodParams{Node: n, Release: rel, Exists: func(string) bool { return true }}
}

// podsOf are all static pods of p, by name.
func podsOf(p PodParams) map[string]*corev1.Pod {
	pods := map[string]*corev1.Pod{Etcd: EtcdPod(p)}
	for _, pod := range ControlPlanePods(p) {
		pods[pod.Name] = pod
	}
	return pods
}

// TestNewestPods holds the static pods of the newest version.
func TestNewestPods(t *testing.T) {
	pods := podsOf(nodeParams(t, "v1.37.2"))
	var got strings.Builder
	for _, name := range []string{Etcd, APIServer, ControllerManager, Scheduler} {
		b, err := yaml.Marshal(pods[name])
		if err != nil {
			t.Fatal(err)
		}
		got.WriteString("--- # " + name + "\n" + string(b))
	}
	golden.Compare(t, filepath.Join("testdata", "pods.v1.37.2.golden"), got.String())
}

// TestPodsByMinor: each line is something about the static pods and the minors
// in which it is so, as read in their kubeadm; every minor is asked.
func TestPodsByMinor(t *testing.T) {
	flag := func(pod, flag string) func(map[string]*corev1.Pod) bool {
		return func(pods map[string]*corev1.Pod) bool {
			return slices.Contains(pods[pod].Spec.Containers[0].Command, flag)
		}
	}
	mounts := func(pod, path string) func(map[string]*corev1.Pod) bool {
		return func(pods map[string]*corev1.Pod) bool {
			return slices.ContainsFunc(pods[pod].Spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == path })
		}
	}
	// Paths of the probes: alive, ready, started; a dash is none.
	probes := func(pod, want string) func(map[string]*corev1.Pod) bool {
		return func(pods map[string]*corev1.Pod) bool {
			var got []string
			c := pods[pod].Spec.Containers[0]
			for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
				if p == nil {
					got = append(got, "-")
				} else {
					got = append(got, p.HTTPGet.Path)
				}
			}
			return strings.Join(got, " ") == want
		}
	}
	every := func(is func(*corev1.Pod) bool) func(map[string]*corev1.Pod) bool {
		return func(pods map[string]*corev1.Pod) bool {
			some := false
			for name, pod := range pods {
				if is(pod) != is(pods[APIServer]) {
					t.Errorf("%s is not as %s", name, APIServer)
				}
				some = some || is(pod)
			}
			return some
		}
	}
	const newest = 37
	for what, c := range map[string]struct {
		from, to int
		is       func(map[string]*corev1.Pod) bool
	}{
		"API server: insecure port":       {19, 21, flag(APIServer, "--insecure-port=0")},
		"controller manager: port":        {19, 22, flag(ControllerManager, "--port=0")},
		"scheduler: port":                 {19, 22, flag(Scheduler, "--port=0")},
		"issuer":                          {20, newest, flag(APIServer, "--service-account-issuer=https://kubernetes.default.svc.cluster.local")},
		"signing key":                     {20, newest, flag(APIServer, "--service-account-signing-key-file=/etc/kubernetes/pki/sa.key")},
		"node mask":                       {19, 19, flag(ControllerManager, "--node-cidr-mask-size=24")},
		"dual-stack gate: API server":     {19, 22, flag(APIServer, "--feature-gates=IPv6DualStack=false")},
		"dual-stack gate: scheduler":      {19, 22, flag(Scheduler, "--feature-gates=IPv6DualStack=false")},
		"authorization":                   {19, newest, flag(APIServer, "--authorization-mode=Node,RBAC")},
		"FlexVolume":                      {19, 35, mounts(ControllerManager, "/usr/libexec/kubernetes/kubelet-plugins/volume/exec")},
		"/etc/pki":                        {19, 30, mounts(APIServer, "/etc/pki")},
		"/etc/pki/ca-trust":               {31, newest, mounts(APIServer, "/etc/pki/ca-trust")},
		"/etc/pki/tls/certs":              {31, newest, mounts(ControllerManager, "/etc/pki/tls/certs")},
		"/usr/share/ca-certificates":      {19, newest, mounts(ControllerManager, "/usr/share/ca-certificates")},
		"API server: probes":              {19, newest, probes(APIServer, "/livez /readyz /livez")},
		"controller manager: probes":      {19, newest, probes(ControllerManager, "/healthz - /healthz")},
		"scheduler: healthz":              {19, 31, probes(Scheduler, "/healthz - /healthz")},
		"scheduler: livez":                {32, newest, probes(Scheduler, "/livez /readyz /livez")},
		"etcd: health":                    {19, 24, probes(Etcd, "/health - /health")},
		"etcd: health with queries":       {25, 30, probes(Etcd, "/health?exclude=NOSPACE&serializable=true - /health?serializable=false")},
		"etcd: livez":                     {31, newest, probes(Etcd, "/livez /readyz /readyz")},
		"etcd: experimental corrupt":      {22, 33, flag(Etcd, "--experimental-initial-corrupt-check=true")},
		"etcd: corrupt gate":              {34, newest, flag(Etcd, "--feature-gates=InitialCorruptCheck=true")},
		"etcd: experimental notification": {25, 33, flag(Etcd, "--experimental-watch-progress-notify-interval=5s")},
		"etcd: notification":              {34, newest, flag(Etcd, "--watch-progress-notify-interval=5s")},
		"etcd: memory": {20, newest, func(p map[string]*corev1.Pod) bool {
			return p[Etcd].Spec.Containers[0].Resources.Requests.Memory().String() == "100Mi"
		}},
		"seccomp": {22, newest, every(func(p *corev1.Pod) bool {
			return p.Spec.SecurityContext != nil && p.Spec.SecurityContext.SeccompProfile.Type == "RuntimeDefault"
		})},
		"priority": {25, newest, every(func(p *corev1.Pod) bool { return p.Spec.Priority != nil && *p.Spec.Priority == 2000001000 })},
		"named port": {34, newest, every(func(p *corev1.Pod) bool {
			c := p.Spec.Containers[0]
			return len(c.Ports) == 1 && c.Ports[0].Name == "probe-port" && c.LivenessProbe.HTTPGet.Port.String() == "probe-port" && c.StartupProbe.HTTPGet.Port.String() == "probe-port"
		})},
	} {
		for _, known := range images.Known() {
			p := nodeParams(t, known.Newest)
			p.Node.Cluster.FeatureGates = map[string]bool{"IPv6DualStack": false}
			minor := p.Release.Minor()
			if got, want := c.is(podsOf(p)), c.from <= minor && minor <= c.to; got != want {
				t.Errorf("%s: %s: %t, want %t", known.Newest, what, got, want)
			}
		}
	}
}

// TestPodsByPatch: what came with a patch release.
func TestPodsByPatch(t *testing.T) {
	for version, want := range map[string]string{
		"v1.22.9": "false false", "v1.22.10": "true false", "v1.23.6": "false false", "v1.23.7": "true false", "v1.24.0": "true false",
		"v1.25.11": "true false", "v1.25.12": "true true", "v1.26.6": "true false", "v1.26.7": "true true", "v1.27.0": "true true",
	} {
		pod := EtcdPod(nodeParams(t, version))
		check := slices.Contains(pod.Spec.Containers[0].Command, "--experimental-initial-corrupt-check=true")
		if got := fmt.Sprint(check, pod.Spec.Priority != nil); got != want {
			t.Errorf("%s: check for corruption, priority: %s, want %s", version, got, want)
		}
	}
}

// TestUserArgs: a user's flag takes the place of ours, also several times;
// until v1.31 all are sorted, later the user's come last.
func TestUserArgs(t *testing.T) {
	user := config.Args{"leader-elect": {"false"}, "a-flag": {"2", "1"}, "port": {"1"}}
	for version, want := range map[string]string{
		"v1.22.17": "--a-flag=1 --a-flag=2 --bind-address=127.0.0.1 --leader-elect=false --port=1",
		"v1.31.14": "--a-flag=1 --a-flag=2 --bind-address=127.0.0.1 --leader-elect=false --port=1",
		"v1.32.0":  "--bind-address=127.0.0.1 --a-flag=2 --a-flag=1 --leader-elect=false --port=1",
	} {
		p := nodeParams(t, version)
		p.Node.Cluster.Scheduler.ExtraArgs = user
		command := slices.DeleteFunc(podsOf(p)[Scheduler].Spec.Containers[0].Command[1:], func(a string) bool { return strings.Contains(a, "kubeconfig") })
		if got := strings.Join(command, " "); got != want {
			t.Errorf("%s: %s, want %s", version, got, want)
		}
	}
}

// TestAuthorization: what kubeadm makes of a user's modes.
func TestAuthorization(t *testing.T) {
	for _, c := range []struct{ version, mode, file, want string }{
		{"v1.29.15", "", "", "--authorization-mode=Node,RBAC"},
		{"v1.29.15", "Node,Odd,Webhook", "", "--authorization-mode=Node,Webhook"},
		{"v1.29.15", "Odd", "", "--authorization-mode=Node,RBAC"},
		{"v1.29.15", "", "/f", "--authorization-config=/f --authorization-mode=Node,RBAC"},
		{"v1.30.0", "", "", "--authorization-mode=Node,RBAC"},
		{"v1.30.0", "Node,Odd,Webhook", "", "--authorization-mode=Node,Odd,Webhook"},
		{"v1.30.0", "", "/f", "--authorization-config=/f"},
		{"v1.37.2", "Node", "/f", "--authorization-config=/f --authorization-mode=Node"},
	} {
		p := nodeParams(t, c.version)
		user := config.Args{}
		if c.mode != "" {
			user.Set("authorization-mode", c.mode)
		}
		if c.file != "" {
			user.Set("authorization-config", c.file)
		}
		p.Node.Cluster.APIServer.ExtraArgs = user
		command := slices.DeleteFunc(podsOf(p)[APIServer].Spec.Containers[0].Command, func(a string) bool { return !strings.HasPrefix(a, "--authorization") })
		if got := strings.Join(command, " "); got != c.want {
			t.Errorf("%s, mode %q, file %q: %s, want %s", c.version, c.mode, c.file, got, c.want)
		}
	}
}

// TestEtcdTag: which of etcd's flags are experimental depends on its image in
// two minors only.
func TestEtcdTag(t *testing.T) {
	for _, c := range []struct {
		version, tag string
		stable       bool
	}{
		{"v1.33.0", "3.6.5-0", false},
		{"v1.34.0", "", true}, {"v1.34.0", "3.6.5-0", true}, {"v1.34.0", "v3.7.0", true}, {"v1.34.0", "3.5.24-0", false},
		{"v1.34.0", "3.6.0-0", false}, // as kubeadm compares: before 3.6.0
		{"v1.35.0", "mine", false}, {"v1.35.0", "3.6.0", true},
		{"v1.36.0", "3.5.24-0", true}, {"v1.36.0", "mine", true},
	} {
		p := nodeParams(t, c.version)
		p.Node.Cluster.Etcd.Local.ImageTag = c.tag
		command := strings.Join(EtcdPod(p).Spec.Containers[0].Command, " ")
		stable := strings.Contains(command, " --feature-gates=InitialCorruptCheck=true") && strings.Contains(command, " --watch-progress-notify-interval=5s")
		experimental := strings.Contains(command, " --experimental-initial-corrupt-check=true") && strings.Contains(command, " --experimental-watch-progress-notify-interval=5s")
		if stable != c.stable || experimental == stable {
			t.Errorf("%s with etcd %q: stable %t, experimental %t", c.version, c.tag, stable, experimental)
		}
	}
	p := nodeParams(t, "v1.34.4")
	p.Node.Cluster.KubernetesVersion = "v1.33.0" // whose etcd is 3.5
	if c := strings.Join(EtcdPod(p).Spec.Containers[0].Command, " "); !strings.Contains(c, "--experimental-initial") {
		t.Errorf("etcd of a cluster of v1.33: %s", c)
	}
}

// TestEnvironment: what the user gives a component wins over the machine's
// proxies; etcd is not told of these.
func TestEnvironment(t *testing.T) {
	p := nodeParams(t, "v1.37.2")
	p.Env = []string{"no_proxy=a", "HTTPS_PROXY=b", "HTTP_PROXY=", "PATH=/bin"}
	mine := []corev1.EnvVar{{Name: "no_proxy", Value: "mine"}, {Name: "A", Value: "1"}, {Name: "A", Value: "2"}}
	p.Node.Cluster.Scheduler.ExtraEnvs, p.Node.Cluster.Etcd.Local.ExtraEnvs = mine, mine
	pods := podsOf(p)
	for name, want := range map[string][]corev1.EnvVar{
		APIServer: {{Name: "HTTPS_PROXY", Value: "b"}, {Name: "no_proxy", Value: "a"}},
		Scheduler: {{Name: "A", Value: "2"}, {Name: "HTTPS_PROXY", Value: "b"}, {Name: "no_proxy", Value: "mine"}},
		Etcd:      {{Name: "A", Value: "2"}, {Name: "no_proxy", Value: "mine"}},
	} {
		if d := cmp.Diff(want, pods[name].Spec.Containers[0].Env); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// TestEtcdPort: the port that is probed is the one of the user's metrics URL, by
// number or by name.
func TestEtcdPort(t *testing.T) {
	for version, want := range map[string]string{"v1.33.0": "4001", "v1.34.0": "probe-port"} {
		p := nodeParams(t, version)
		p.Node.Cluster.Etcd.Local.ExtraArgs = config.Args{"listen-metrics-urls": {"https://10.0.0.1:4001,http://127.0.0.1:2381"}}
		c := EtcdPod(p).Spec.Containers[0]
		get := c.StartupProbe.HTTPGet
		if get.Port.String() != want || get.Host != "10.0.0.1" || get.Scheme != corev1.URISchemeHTTPS {
			t.Errorf("%s: probe %v, want port %s", version, get, want)
		}
		if want == "probe-port" && c.Ports[0].ContainerPort != 4001 {
			t.Errorf("%s: ports %v", version, c.Ports)
		}
	}
}
