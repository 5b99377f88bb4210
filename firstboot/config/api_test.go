package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/kbuild/kbuild/images"
)

func loadIn(t *testing.T, version, text string) (*Node, []string, error) {
	t.Helper()
	return Load(images.Baked{Release: release(t, version), CNI: "none"}, machine(), Document{Source: "test", Data: []byte(text)})
}

// Every version of the config API is read by each release that can, and means the
// same in all of them.
func TestAPIs(t *testing.T) {
	const old = `kind: InitConfiguration
nodeRegistration: {kubeletExtraArgs: {v: "4"}}
---
apiVersion: kubeadm.k8s.io/API
kind: ClusterConfiguration
apiServer: {extraArgs: {v: "2", audit-log-path: /a}, timeoutForControlPlane: 8m0s}
etcd: {local: {extraArgs: {quota-backend-bytes: "1"}}}
`
	texts := map[string]string{
		"v1beta1": old, "v1beta2": old, "v1beta3": old,
		"v1beta4": `kind: InitConfiguration
nodeRegistration: {kubeletExtraArgs: [{name: v, value: "4"}]}
timeouts: {controlPlaneComponentHealthCheck: 8m0s}
---
apiVersion: kubeadm.k8s.io/API
kind: ClusterConfiguration
apiServer: {extraArgs: [{name: v, value: "2"}, {name: audit-log-path, value: /a}]}
etcd: {local: {extraArgs: [{name: quota-backend-bytes, value: "1"}]}}
`}
	for _, known := range images.Known() {
		rel := release(t, known.Newest)
		for api, text := range texts {
			text := "apiVersion: kubeadm.k8s.io/API\n" + text
			n, warnings, err := loadIn(t, rel.Version, strings.ReplaceAll(text, "API", api))
			if newer := olderAPI(rel.ConfigAPI, api); newer != (err != nil) {
				t.Errorf("%s, %s: %v", rel.Version, api, err)
			} else if newer {
				continue
			}
			if converted := strings.Contains(strings.Join(warnings, "\n"), "no longer reads"); converted != olderAPI(api, rel.ConfigAPIs[0]) {
				t.Errorf("%s, %s: warnings %q", rel.Version, api, warnings)
			}
			want := Args{"v": {"2"}, "audit-log-path": {"/a"}}
			if rel.Has(images.FactAuthorizationModeInConfig) {
				want.Set(authorizationMode, "Node,RBAC")
			}
			if d := cmp.Diff(want, n.Cluster.APIServer.ExtraArgs); d != "" {
				t.Errorf("%s, %s: %s", rel.Version, api, d)
			}
			limit, given := n.ControlPlaneTimeout()
			if n.Init.NodeRegistration.KubeletExtraArgs.Get("v") != "4" || n.Cluster.Etcd.Local.ExtraArgs.Get("quota-backend-bytes") != "1" || limit.String() != "8m0s" || !given {
				t.Errorf("%s, %s: %+v %+v %s", rel.Version, api, n.Init, n.Cluster, limit)
			}
			if s := n.Sources["cluster.apiServer.extraArgs.audit-log-path"]; !strings.HasPrefix(s, "test, line ") {
				t.Errorf("%s, %s: the flag's source is %q", rel.Version, api, s)
			}
		}
	}
}

// Fields that came with v1beta3 and v1beta4.
func TestNewFields(t *testing.T) {
	n, warnings, err := loadIn(t, "v1.37.2", `apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
patches: {directory: /etc/patches}
skipPhases: [addon/kube-proxy]
nodeRegistration: {imagePullPolicy: IfNotPresent, imagePullSerial: false}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
encryptionAlgorithm: ECDSA-P384
certificateValidityPeriod: 48h
dns: {disabled: true}
proxy: {disabled: true}
apiServer:
  extraArgs:
  - {name: service-account-issuer, value: https://two.example}
  - {name: service-account-issuer, value: https://one.example}
  extraEnvs: [{name: GOGC, value: "50"}]
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: UpgradeConfiguration
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "UpgradeConfiguration is not used") {
		t.Errorf("%q", warnings)
	}
	if n.Init.Patches != "/etc/patches" || len(n.Init.SkipPhases) != 1 || !n.Cluster.DNS.Disabled || !n.Cluster.Proxy.Disabled || n.Cluster.EncryptionAlgorithm != "ECDSA-P384" {
		t.Errorf("%+v %+v", n.Init, n.Cluster)
	}
	b, err := MarshalCluster(n, release(t, "v1.37.2"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `apiServer:
  extraArgs:
  - name: service-account-issuer
    value: https://two.example
  - name: service-account-issuer
    value: https://one.example
  extraEnvs:
  - name: GOGC
    value: "50"
apiVersion: kubeadm.k8s.io/v1beta4
caCertificateValidityPeriod: 87600h0m0s
certificateValidityPeriod: 48h0m0s
certificatesDir: /etc/kubernetes/pki
clusterName: kubernetes
controllerManager: {}
dns:
  disabled: true
encryptionAlgorithm: ECDSA-P384
etcd:
  local:
    dataDir: /var/lib/etcd
imageRepository: registry.k8s.io
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
networking:
  dnsDomain: cluster.local
  serviceSubnet: 10.96.0.0/12
proxy:
  disabled: true
scheduler: {}
`
	if d := cmp.Diff(want, string(b)); d != "" {
		t.Error(d)
	}
}

// What does not go is said in one place each, and with what to do.
func TestNewFieldsRefused(t *testing.T) {
	for name, c := range map[string]struct{ version, text, want string }{
		"two versions":    {"v1.31.14", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n---\napiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\n", "it is of kubeadm.k8s.io/v1beta3, and a document before it of kubeadm.k8s.io/v1beta4"},
		"a field's past":  {"v1.37.2", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\napiServer: {timeoutForControlPlane: 4m0s}\n", `unknown field "timeoutForControlPlane"`},
		"its future":      {"v1.34.4", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\netcd: {external: {endpoints: [https://192.0.2.9:2379], httpEndpoints: [http://192.0.2.9:2381], caFile: /a, certFile: /b, keyFile: /c}}\n", `unknown field "httpEndpoints"`},
		"dry run":         {"v1.37.2", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\ndryRun: true\n", "cannot be made for a try"},
		"algorithm":       {"v1.33.13", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nencryptionAlgorithm: ECDSA-P384\n", "knows no algorithm"},
		"gate":            {"v1.37.2", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nfeatureGates: {NodeLocalCRISocket: true}\n", "has no feature gate"},
		"rootless":        {"v1.37.2", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nfeatureGates: {RootlessControlPlane: true}\n", "without root"},
		"period":          {"v1.37.2", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\ncertificateValidityPeriod: 0s\n", "longer than zero"},
		"secret variable": {"v1.37.2", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nscheduler: {extraEnvs: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}\n", "no Secret"},
		"pull policy":     {"v1.37.2", "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nnodeRegistration: {imagePullPolicy: Sometimes}\n", "is no pull policy"},
		"experimental":    {"v1.37.2", "apiVersion: kubeadm.k8s.io/v1\nkind: InitConfiguration\n", "write `apiVersion: kubeadm.k8s.io/v1beta4` and its fields"},
		"all":             {"v1.27.16", "apiVersion: kubeadm.k8s.io/v1beta3\nkind: InitConfiguration\nnodeRegistration: {ignorePreflightErrors: [all]}\n", `"all" cannot be used`},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := loadIn(t, c.version, c.text); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// A cluster's configuration goes through all versions with its nodes, and keeps
// what it says.
func TestMoveClusterThrough(t *testing.T) {
	doc := []byte(`apiVersion: kubeadm.k8s.io/v1beta2
kind: ClusterConfiguration
apiServer:
  extraArgs: {authorization-mode: "Node,RBAC", v: "2"}
  timeoutForControlPlane: 4m0s
clusterName: prod
dns: {type: CoreDNS}
etcd: {local: {dataDir: /var/lib/etcd}}
imageRepository: k8s.gcr.io
kubernetesVersion: v1.19.12
networking: {dnsDomain: cluster.local, serviceSubnet: 10.96.0.0/12}
scheduler: {}
`)
	for _, known := range images.Known() {
		rel := release(t, known.Newest)
		var err error
		if doc, err = MoveCluster(doc, rel); err != nil {
			t.Fatalf("%s: %v", rel.Version, err)
		}
		var m map[string]any
		if err := yaml.Unmarshal(doc, &m); err != nil {
			t.Fatal(err)
		}
		commonCluster(m)
		if m["apiVersion"] != kubeadmGroup+rel.ConfigAPI || m["kubernetesVersion"] != rel.Version || m["imageRepository"] != rel.Registry || m["clusterName"] != "prod" || valueAt(m, "/apiServer/extraArgs/v") != "2" {
			t.Fatalf("%s:\n%s", rel.Version, doc)
		}
	}
	const want = `apiServer:
  extraArgs:
  - name: authorization-mode
    value: Node,RBAC
  - name: v
    value: "2"
apiVersion: kubeadm.k8s.io/v1beta4
caCertificateValidityPeriod: 87600h0m0s
certificateValidityPeriod: 8760h0m0s
certificatesDir: ""
clusterName: prod
controllerManager: {}
dns: {}
encryptionAlgorithm: RSA-2048
etcd:
  local:
    dataDir: /var/lib/etcd
imageRepository: registry.k8s.io
kind: ClusterConfiguration
kubernetesVersion: v1.37.2
networking:
  dnsDomain: cluster.local
  serviceSubnet: 10.96.0.0/12
proxy: {}
scheduler: {}
`
	if d := cmp.Diff(strings.ReplaceAll(want, "certificatesDir: \"\"\n", ""), string(doc)); d != "" {
		t.Error(d)
	}
}

// A frozen node goes on in the next version without what that does not know.
func TestMoveToVersions(t *testing.T) {
	n, _, err := loadIn(t, "v1.22.17", "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nfeatureGates: {IPv6DualStack: true}\n")
	if err != nil {
		t.Fatal(err)
	}
	if valueAt(n.Kubelet, "/featureGates/IPv6DualStack") != true {
		t.Fatalf("%v", n.Kubelet["featureGates"])
	}
	was := n
	for _, c := range []struct{ version, taints string }{
		{"v1.23.17", "node-role.kubernetes.io/master:NoSchedule"},
		{"v1.24.17", "node-role.kubernetes.io/master:NoSchedule node-role.kubernetes.io/control-plane:NoSchedule"},
		{"v1.25.16", "node-role.kubernetes.io/control-plane:NoSchedule"},
		{"v1.30.14", "node-role.kubernetes.io/control-plane:NoSchedule"},
	} {
		n = n.MoveTo(images.Baked{Release: release(t, c.version)})
		var taints []string
		for _, t := range n.Init.NodeRegistration.Taints {
			taints = append(taints, t.ToString())
		}
		if got := strings.Join(taints, " "); got != c.taints {
			t.Errorf("%s: taints %s", c.version, got)
		}
		if valueAt(n.Kubelet, "/featureGates/IPv6DualStack") != nil || valueAt(n.KubeProxy, "/featureGates/IPv6DualStack") != nil || n.Cluster.FeatureGates[dualStackGate] {
			t.Errorf("%s: %v %v %v", c.version, n.Kubelet, n.KubeProxy, n.Cluster.FeatureGates)
		}
	}
	if len(n.Cluster.APIServer.ExtraArgs) != 0 {
		t.Errorf("%v", n.Cluster.APIServer.ExtraArgs)
	}
	if was.Cluster.APIServer.ExtraArgs.Get(authorizationMode) == "" || !was.Cluster.FeatureGates[dualStackGate] || valueAt(was.Kubelet, "/featureGates/IPv6DualStack") != true {
		t.Error("MoveTo has changed the node that it was called on")
	}
}

// The image's word over the cluster's configuration finds its flags in lists, too.
func TestOverlayLists(t *testing.T) {
	baked := images.Baked{Release: release(t, "v1.37.2"), CNI: "none"}
	image := Document{Source: BakedSource, Baked: true, Data: []byte("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\napiServer: {extraArgs: [{name: v, value: \"3\"}]}\n")}
	n, _, err := Load(baked, machine(), image, Document{Source: "user", Data: []byte(short)})
	if err != nil {
		t.Fatal(err)
	}
	doc := []byte("apiServer:\n  extraArgs:\n  - name: v\n    value: \"2\"\n  - name: a\n    value: x\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n")
	got, over, err := n.OverlayCluster(doc, nil)
	if err != nil {
		t.Fatal(err)
	}
	const want = "apiServer:\n  extraArgs:\n  - name: a\n    value: x\n  - name: v\n    value: \"3\"\napiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n"
	if d := cmp.Diff(want, string(got)); d != "" {
		t.Error(d)
	}
	if again, _, err := n.OverlayCluster(got, over); err != nil || string(again) != want {
		t.Errorf("%v\n%s", err, again)
	}
}
