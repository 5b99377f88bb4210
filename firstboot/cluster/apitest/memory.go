package apitest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// Memory starts an API server that keeps objects by their path, counts their
// versions, and knows neither defaults nor validation. A merge patch works as
// it should; server-side apply replaces what is there.
func Memory(t testing.TB) *Server {
	t.Helper()
	m := &memory{objects: map[string]map[string]any{}}
	web := httptest.NewServer(m)
	t.Cleanup(web.Close)
	return &Server{URL: web.URL, AdminConf: kubeconfig(t, web.URL, nil)}
}

type memory struct {
	mu      sync.Mutex
	version int
	objects map[string]map[string]any // by path
}

func (m *memory) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	code, body := m.answer(req)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(body)
}

func (m *memory) answer(req *http.Request) (int, any) {
	at := path.Clean(req.URL.Path)
	if body, ok := discovery(at); ok && req.Method == http.MethodGet {
		return http.StatusOK, body
	}
	resource := schema.GroupResource{Resource: at}
	have := m.objects[at]
	var sent map[string]any
	if req.Method != http.MethodGet && req.Method != http.MethodDelete {
		var err error
		if sent, err = decode(req); err != nil {
			return failed(apierrors.NewBadRequest(err.Error()))
		}
	}
	switch {
	case req.Method == http.MethodPost:
		name, _ := meta(sent)["name"].(string)
		at = path.Join(at, name)
		if m.objects[at] != nil {
			return failed(apierrors.NewAlreadyExists(resource, name))
		}
		return http.StatusCreated, m.put(at, sent)
	case req.Method == http.MethodGet && have == nil && plural(at):
		return http.StatusOK, m.list(at)
	case req.Method == http.MethodPatch && strings.Contains(req.Header.Get("Content-Type"), "apply"):
		return http.StatusOK, m.put(at, sent)
	case have == nil:
		return failed(apierrors.NewNotFound(resource, path.Base(at)))
	case req.Method == http.MethodGet:
		return http.StatusOK, have
	case req.Method == http.MethodDelete:
		delete(m.objects, at)
		return http.StatusOK, have
	}
	if v := meta(sent)["resourceVersion"]; v != nil && v != "" && v != meta(have)["resourceVersion"] {
		return failed(apierrors.NewConflict(resource, path.Base(at), fmt.Errorf("the object was changed in the meantime")))
	}
	if req.Method == http.MethodPatch {
		sent = mergePatch(have, sent).(map[string]any)
	}
	return http.StatusOK, m.put(at, sent)
}

// decode reads a request's object: YAML or JSON for patches and manifests,
// protobuf from typed clients.
func decode(req *http.Request) (map[string]any, error) {
	b, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(req.Header.Get("Content-Type"), "protobuf") {
		var o map[string]any
		err := yaml.Unmarshal(b, &o)
		return o, err
	}
	o, _, err := scheme.Codecs.UniversalDeserializer().Decode(b, nil, nil)
	if err != nil {
		return nil, err
	}
	return runtime.DefaultUnstructuredConverter.ToUnstructured(o)
}

// put stores an object; one that is the same stays as it was.
func (m *memory) put(at string, o map[string]any) map[string]any {
	have := m.objects[at]
	if have != nil {
		meta(o)["uid"], meta(o)["resourceVersion"] = meta(have)["uid"], meta(have)["resourceVersion"]
		if equality.Semantic.DeepEqual(have, o) {
			return have
		}
	}
	m.version++
	if have == nil {
		meta(o)["uid"] = fmt.Sprintf("uid-%d", m.version)
	}
	meta(o)["resourceVersion"] = fmt.Sprint(m.version)
	m.objects[at] = o
	return o
}

func (m *memory) list(at string) map[string]any {
	items := []any{}
	list := map[string]any{"metadata": map[string]any{}} // typed clients know the kind
	for _, p := range slices.Sorted(maps.Keys(m.objects)) {
		// A list without a namespace is of all of them.
		everywhere, _ := path.Match(path.Join(path.Dir(at), "namespaces/*", path.Base(at), "*"), p)
		if path.Dir(p) == at || everywhere {
			items = append(items, m.objects[p])
			list["apiVersion"], list["kind"] = m.objects[p]["apiVersion"], fmt.Sprint(m.objects[p]["kind"], "List")
		}
	}
	list["items"] = items
	return list
}

// plural says whether a path ends in a resource and not in an object's name:
// /api/v1/nodes, /apis/apps/v1/namespaces/kube-system/deployments.
func plural(at string) bool {
	p := strings.Split(strings.TrimPrefix(at, "/"), "/")
	if p[0] == "api" {
		p = append([]string{"apis", ""}, p[1:]...)
	}
	p = p[min(3, len(p)):]
	return len(p) == 1 || len(p) == 3 && p[0] == "namespaces"
}

func meta(o map[string]any) map[string]any {
	md, ok := o["metadata"].(map[string]any)
	if !ok {
		md = map[string]any{}
		o["metadata"] = md
	}
	return md
}

// mergePatch is RFC 7396.
func mergePatch(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, _ := target.(map[string]any)
	t = maps.Clone(t)
	if t == nil {
		t = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(t, k)
		} else {
			t[k] = mergePatch(t[k], v)
		}
	}
	return t
}

func failed(e *apierrors.StatusError) (int, any) {
	return int(e.ErrStatus.Code), e.ErrStatus
}

// discovery knows the kinds that tests apply by manifest.
func discovery(at string) (any, bool) {
	switch at {
	case "/version":
		return map[string]any{"major": "1", "minor": "19", "gitVersion": "v1.19.12"}, true
	case "/api":
		return map[string]any{"kind": "APIVersions", "versions": []string{"v1"}}, true
	case "/apis":
		return map[string]any{"kind": "APIGroupList", "apiVersion": "v1", "groups": []any{}}, true
	case "/api/v1":
		return map[string]any{"kind": "APIResourceList", "groupVersion": "v1", "resources": []any{
			map[string]any{"name": "namespaces", "kind": "Namespace", "namespaced": false, "verbs": []string{"patch"}},
			map[string]any{"name": "configmaps", "kind": "ConfigMap", "namespaced": true, "verbs": []string{"patch"}},
			map[string]any{"name": "secrets", "kind": "Secret", "namespaced": true, "verbs": []string{"patch"}},
		}}, true
	}
	return nil, false
}
