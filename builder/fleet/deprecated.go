package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// DeprecatedAPI is an API that has been asked for and that a later version of
// Kubernetes does not serve.
type DeprecatedAPI struct {
	API      string `json:"api"`      // "policy/v1beta1"
	Resource string `json:"resource"` // "poddisruptionbudgets"
	Removed  string `json:"removed"`  // the first minor release without it: "1.25"
	// Use is the API that serves the same objects, now and afterwards:
	// "policy/v1". Empty where there is none.
	Use string `json:"use,omitempty"`
}

// ObserveAPIs adds to what was seen of a cluster which deprecated APIs are in use,
// as far as the API server that answers knows: it counts since it has started.
// Where that cannot be found out, the cluster says why.
func (f *Fleet) ObserveAPIs(ctx context.Context, c *Cluster) {
	b, err := f.Client.CoreV1().RESTClient().Get().AbsPath("/metrics").Do(ctx).Raw()
	if err != nil {
		c.DeprecatedUnknown = fmt.Sprintf("cannot read the API server's metrics: %v", err)
		return
	}
	for _, d := range requestedAPIs(string(b)) {
		d.Use = f.replacement(d)
		// Kubernetes' own garbage collector asks for each group's preferred
		// version. A kind that its group has in no other version is therefore
		// always in use; where none of its objects exists, nothing is lost.
		group, _, _ := strings.Cut(d.API, "/")
		if !strings.HasPrefix(d.Use, group+"/") && f.none(ctx, d) {
			continue
		}
		c.Deprecated = append(c.Deprecated, d)
	}
}

var (
	deprecatedMetric = regexp.MustCompile(`(?m)^apiserver_requested_deprecated_apis\{(.*)\} `)
	metricLabel      = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)
)

// requestedAPIs reads the API server's metrics, in Prometheus' text format.
func requestedAPIs(metrics string) []DeprecatedAPI {
	all := map[DeprecatedAPI]bool{}
	for _, line := range deprecatedMetric.FindAllStringSubmatch(metrics, -1) {
		label := map[string]string{}
		for _, l := range metricLabel.FindAllStringSubmatch(line[1], -1) {
			label[l[1]] = l[2]
		}
		// What no release has taken away yet has no removed_release. Each
		// subresource has a line of its own.
		if label["removed_release"] != "" {
			gv := schema.GroupVersion{Group: label["group"], Version: label["version"]}
			all[DeprecatedAPI{API: gv.String(), Resource: label["resource"], Removed: label["removed_release"]}] = true
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b DeprecatedAPI) int {
		return cmp.Or(cmp.Compare(a.API, b.API), cmp.Compare(a.Resource, b.Resource))
	})
}

// replacement is the API that serves the same objects: the one that Kubernetes'
// own types name, else the preferred one of the same group. It must be served
// already. Empty where there is none.
func (f *Fleet) replacement(d DeprecatedAPI) string {
	gv, err := schema.ParseGroupVersion(d.API)
	if err != nil {
		return ""
	}
	candidates := []string{successor(gv, d.Resource)}
	if groups, err := f.Client.Discovery().ServerGroups(); err == nil {
		for _, g := range groups.Groups {
			if g.Name == gv.Group {
				candidates = append(candidates, g.PreferredVersion.GroupVersion)
			}
		}
	}
	for _, c := range candidates {
		if c == "" || c == d.API {
			continue
		}
		list, err := f.Client.Discovery().ServerResourcesForGroupVersion(c)
		if err != nil {
			continue
		}
		for _, r := range list.APIResources {
			if r.Name == d.Resource {
				return c
			}
		}
	}
	return ""
}

// successor is the API that Kubernetes' types name in place of a deprecated one.
// They know no more of those that were removed long ago.
func successor(gv schema.GroupVersion, resource string) string {
	for kind := range scheme.Scheme.KnownTypes(gv) {
		if plural, _ := meta.UnsafeGuessKindToResource(gv.WithKind(kind)); plural.Resource != resource {
			continue
		}
		o, err := scheme.Scheme.New(gv.WithKind(kind))
		if err != nil {
			return ""
		}
		if o, ok := o.(interface {
			APILifecycleReplacement() schema.GroupVersionKind
		}); ok {
			return o.APILifecycleReplacement().GroupVersion().String()
		}
	}
	return ""
}

// none says that the cluster has no object of a deprecated API.
func (f *Fleet) none(ctx context.Context, d DeprecatedAPI) bool {
	b, err := f.Client.CoreV1().RESTClient().Get().AbsPath("/apis/"+d.API+"/"+d.Resource).Param("limit", "1").SetHeader("Accept", "application/json").Do(ctx).Raw()
	var list struct{ Items []json.RawMessage }
	return err == nil && json.Unmarshal(b, &list) == nil && len(list.Items) == 0
}

// remedy says what to do before a version that does not serve the API.
func (d DeprecatedAPI) remedy() string {
	if d.Use != "" {
		return fmt.Sprintf("make its clients use %s, which serves the same objects, before the upgrade", d.Use)
	}
	return "no other API serves its objects, and they cannot be reached after the upgrade: save those that you need (kubectl get " + d.Resource + " --all-namespaces -o yaml), and see https://kubernetes.io/docs/reference/using-api/deprecation-guide/ for what takes their place"
}
