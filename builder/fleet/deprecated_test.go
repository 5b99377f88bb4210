package fleet

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// deprecatedMetrics is a part of what an API server v1.24 says of itself.
const deprecatedMetrics = `# HELP apiserver_request_total [STABLE] Counter of apiserver requests.
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",dry_run="",group="policy",resource="poddisruptionbudgets",scope="cluster",subresource="",verb="LIST",version="v1beta1"} 2
# HELP apiserver_requested_deprecated_apis [STABLE] Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.
# TYPE apiserver_requested_deprecated_apis gauge
apiserver_requested_deprecated_apis{group="",removed_release="",resource="componentstatuses",subresource="",version="v1"} 1
apiserver_requested_deprecated_apis{group="autoscaling",removed_release="1.26",resource="horizontalpodautoscalers",subresource="",version="v2beta2"} 1
apiserver_requested_deprecated_apis{group="policy",removed_release="1.25",resource="poddisruptionbudgets",subresource="",version="v1beta1"} 1
apiserver_requested_deprecated_apis{group="policy",removed_release="1.25",resource="poddisruptionbudgets",subresource="status",version="v1beta1"} 1
apiserver_requested_deprecated_apis{group="policy",removed_release="1.25",resource="podsecuritypolicies",subresource="",version="v1beta1"} 1
`

// askedServer is an API server that has been asked for deprecated APIs, and that
// holds some PodSecurityPolicies.
func askedServer(t *testing.T, policies int) *Fleet {
	t.Helper()
	group := func(name string, versions ...string) string {
		var all []string
		for _, v := range versions {
			all = append(all, fmt.Sprintf(`{"groupVersion":"%s/%s","version":"%[2]s"}`, name, v))
		}
		return fmt.Sprintf(`{"name":%q,"versions":[%s],"preferredVersion":%s}`, name, strings.Join(all, ","), all[0])
	}
	resources := func(gv string, names ...string) string {
		var all []string
		for _, n := range names {
			all = append(all, fmt.Sprintf(`{"name":%q,"namespaced":true,"kind":"Any","verbs":["list"]}`, n))
		}
		return fmt.Sprintf(`{"kind":"APIResourceList","groupVersion":%q,"resources":[%s]}`, gv, strings.Join(all, ","))
	}
	answers := map[string]string{
		"/metrics":             deprecatedMetrics,
		"/api":                 `{"kind":"APIVersions","versions":["v1"]}`,
		"/apis":                `{"kind":"APIGroupList","apiVersion":"v1","groups":[` + group("autoscaling", "v2", "v1", "v2beta2") + "," + group("policy", "v1", "v1beta1") + `]}`,
		"/apis/autoscaling/v2": resources("autoscaling/v2", "horizontalpodautoscalers"),
		"/apis/policy/v1":      resources("policy/v1", "poddisruptionbudgets"),
		"/apis/policy/v1beta1": resources("policy/v1beta1", "poddisruptionbudgets", "podsecuritypolicies"),
		"/apis/policy/v1beta1/podsecuritypolicies": `{"kind":"PodSecurityPolicyList","apiVersion":"policy/v1beta1","items":[` +
			strings.TrimSuffix(strings.Repeat(`{},`, policies), ",") + `]}`,
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, ok := answers[req.URL.Path]
		if !ok {
			http.Error(w, "not here: "+req.URL.Path, http.StatusNotFound)
			return
		}
		if req.URL.Path != "/metrics" {
			w.Header().Set("Content-Type", "application/json")
		}
		fmt.Fprint(w, body)
	}))
	t.Cleanup(web.Close)
	c, err := kubernetes.NewForConfig(&rest.Config{Host: web.URL})
	if err != nil {
		t.Fatal(err)
	}
	return &Fleet{Client: c}
}

func TestDeprecatedAPIs(t *testing.T) {
	budgets := DeprecatedAPI{"policy/v1beta1", "poddisruptionbudgets", "1.25", "policy/v1"}
	policies := DeprecatedAPI{"policy/v1beta1", "podsecuritypolicies", "1.25", ""}
	scalers := DeprecatedAPI{"autoscaling/v2beta2", "horizontalpodautoscalers", "1.26", "autoscaling/v2"}
	for n, want := range [][]DeprecatedAPI{{scalers, budgets}, {scalers, budgets, policies}} {
		c := Cluster{Version: "v1.24.17", Nodes: []Node{cp("a", "v1.24.17")}}
		askedServer(t, n).ObserveAPIs(t.Context(), &c)
		if diff := cmp.Diff(want, c.Deprecated); diff != "" || c.DeprecatedUnknown != "" {
			t.Errorf("%d PodSecurityPolicies: %s\n%s", n, c.DeprecatedUnknown, diff)
		}
		p, err := MakePlan(c, "v1.25.16")
		if err != nil {
			t.Fatal(err)
		}
		var removed []DeprecatedAPI
		for _, r := range p.Removed {
			removed = append(removed, r.DeprecatedAPI)
			if r.Use != "" && !strings.Contains(r.Remedy, "use "+r.Use) || r.Use == "" && !strings.Contains(r.Remedy, "kubectl get "+r.Resource) {
				t.Errorf("%s %s: %s", r.API, r.Resource, r.Remedy)
			}
		}
		if diff := cmp.Diff(want[1:], removed); diff != "" {
			t.Errorf("v1.25 removes:\n%s", diff)
		}
		if p, err := MakePlan(c, "v1.24.17"); err != nil || len(p.Removed) > 0 {
			t.Errorf("v1.24.17 removes %v: %v", p.Removed, err)
		}
	}
}

// TestDeprecatedAPIsUnknown: an operator who may not read metrics is told so, and
// can upgrade.
func TestDeprecatedAPIsUnknown(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "forbidden", http.StatusForbidden)
	}))
	defer web.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: web.URL})
	if err != nil {
		t.Fatal(err)
	}
	c := Cluster{Version: "v1.24.17", Nodes: []Node{cp("a", "v1.24.17")}}
	(&Fleet{Client: client}).ObserveAPIs(t.Context(), &c)
	p, err := MakePlan(c, "v1.25.16")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Notes) == 0 || !strings.Contains(p.Notes[0], "not known: cannot read the API server's metrics") || len(p.Blocked) > 0 {
		t.Errorf("notes %q, blocked by %q", p.Notes, p.Blocked)
	}
}

// TestSuccessor: what took the place of an API of another group, as Kubernetes'
// own types say.
func TestSuccessor(t *testing.T) {
	for _, x := range []struct{ group, version, resource, want string }{
		{"extensions", "v1beta1", "ingresses", "networking.k8s.io/v1"},
		{"batch", "v1beta1", "cronjobs", "batch/v1"},
		{"batch", "v1beta1", "elephants", ""},
		{"example.com", "v1", "elephants", ""},
	} {
		if got := successor(schema.GroupVersion{Group: x.group, Version: x.version}, x.resource); got != x.want {
			t.Errorf("%s/%s %s: %q, want %q", x.group, x.version, x.resource, got, x.want)
		}
	}
}
