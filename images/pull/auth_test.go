package pull

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Credentials come from Docker's config, and are in no error and no report.
func TestCredentials(t *testing.T) {
	const password = "open-sesame"
	s := newServer(t)
	img := image(t, "amd64", layer(1, 10))
	ref := s.push(t, "image:v1", img)
	s.misbehave("/v2/", 1000, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if u, p, _ := r.BasicAuth(); u != "ali" || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="cave"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})

	o := options(t, ref)
	if _, err := Pull(t.Context(), o); err == nil || !strings.Contains(err.Error(), "401") || !strings.Contains(err.Error(), "log in") {
		t.Errorf("without credentials: %v", err)
	}
	config := func(password string) {
		c := `{"auths": {"` + s.host + `": {"username": "ali", "password": "` + password + `"}}}`
		if err := os.WriteFile(filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"), []byte(c), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config(password + "-wrong")
	var reports strings.Builder
	o.Report = Lines(&reports)
	if _, err := Pull(t.Context(), o); err == nil || strings.Contains(err.Error()+reports.String(), password) {
		t.Errorf("with wrong credentials: %v\n%s", err, &reports)
	}
	config(password)
	if _, err := Pull(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	check(t, o.Dir)
}

// A redirect's signature stays out of errors.
func TestRedirect(t *testing.T) {
	s := newServer(t)
	ref := s.push(t, "image:v1", image(t, "amd64", layer(1, 10)))
	s.misbehave("/blobs/", 1000, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, "http://127.0.0.1:1/store?signature=secret", http.StatusTemporaryRedirect)
	})
	if _, err := Pull(t.Context(), options(t, ref)); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error: %v", err)
	}
}
