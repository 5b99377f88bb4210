package cluster

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// Info is the ConfigMap cluster-info, by which a joining node that holds a
// token finds the API server and its CA: a kubeconfig with the one cluster of
// adminConf's current context and no user. The controller manager
// (BootstrapSigner) adds a signature for each token.
func Info(adminConf []byte) (*corev1.ConfigMap, error) {
	kc, err := clientcmd.Load(adminConf)
	if err != nil {
		return nil, fmt.Errorf("cannot read the administrator's kubeconfig: %w", err)
	}
	current, ok := kc.Contexts[kc.CurrentContext]
	if !ok || kc.Clusters[current.Cluster] == nil {
		return nil, fmt.Errorf("cannot read the administrator's kubeconfig: its current context %q names no cluster", kc.CurrentContext)
	}
	c := kc.Clusters[current.Cluster]
	// The fields and their order are those that kubeadm's client library
	// writes: a signature covers the bytes.
	type entry struct {
		Cluster map[string]any `json:"cluster"`
		Name    string         `json:"name"`
	}
	b, err := yaml.Marshal(struct {
		APIVersion     string   `json:"apiVersion"`
		Clusters       []entry  `json:"clusters"`
		Contexts       []any    `json:"contexts"`
		CurrentContext string   `json:"current-context"`
		Kind           string   `json:"kind"`
		Preferences    struct{} `json:"preferences"`
		Users          []any    `json:"users"`
	}{
		APIVersion: "v1",
		Kind:       "Config",
		Clusters: []entry{{Cluster: map[string]any{
			"certificate-authority-data": c.CertificateAuthorityData,
			"server":                     c.Server,
		}}},
	})
	if err != nil {
		return nil, err
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "cluster-info", Namespace: metav1.NamespacePublic},
		Data:       map[string]string{"kubeconfig": string(b)},
	}, nil
}
