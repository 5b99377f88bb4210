package progress

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lines is a Log that keeps what it was told.
type lines struct {
	mu  sync.Mutex
	all []string
}

func (l *lines) log(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, fmt.Sprintf(format, args...))
}

// Quick work is one line, long work is never silent, and work that failed is
// told by its error alone.
func TestTask(t *testing.T) {
	for _, c := range []struct {
		name  string
		takes time.Duration
		err   error
		want  []string
	}{
		{"quick", 2 * time.Second, nil, []string{"compiling kube: 2 s"}},
		{"long", 70 * time.Second, nil, []string{
			"compiling kube …",
			"compiling kube: 12 packages, 35 s",
			"compiling kube: 12 packages, 65 s",
			"compiling kube: 70 s",
		}},
		{"failed", 6 * time.Second, errors.New("no"), []string{"compiling kube …"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l lines
				task := Log(l.log).Task("compiling kube")
				task.Far("%d packages", 12)
				time.Sleep(c.takes)
				task.End(c.err)
				if !slices.Equal(l.all, c.want) {
					t.Errorf("got %q, want %q", l.all, c.want)
				}
			})
		})
	}
}
