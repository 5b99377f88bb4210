package firstboot

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
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
	if want := "not so yet: etcd, poststarthook/rbac/bootstrap-roles"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
	s.Close()
	if err := apiHealthy(t.Context(), c); err == nil || strings.Contains(err.Error(), "not so yet") {
		t.Errorf("error %v, want that nobody listens", err)
	}
}
