package testvm

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// march is a cluster of a control plane and a worker on its way through the
// versions of Kubernetes.
type march struct {
	t          *testing.T
	cp, worker Machine
	operator   operator
	service    *outage
	rows       []string // of the table that it prints
	said       []string // what plans said of removed APIs
	written    int      // ConfigMaps
}

// between are the versions of a way, oldest first, from one to another. Each end
// is a version, or a minor release ("v1.34"); empty is the whole way.
func between(all []string, from, to string) ([]string, error) {
	is := func(want string) func(string) bool {
		return func(v string) bool { return v == want || strings.HasPrefix(v, want+".") }
	}
	first, last := 0, len(all)-1
	if from != "" {
		first = slices.IndexFunc(all, is(from))
	}
	if to != "" {
		last = slices.IndexFunc(all, is(to))
	}
	if first < 0 || last < 0 || first >= last {
		return nil, fmt.Errorf("cannot go from %q to %q: the way is %s", from, to, strings.Join(all, ", "))
	}
	return all[first : last+1], nil
}

func TestBetween(t *testing.T) {
	all := []string{"v1.2.9", "v1.19.12", "v1.20.15", "v1.21.14"}
	for _, x := range []struct{ from, to, want string }{
		{"", "", "v1.2.9 v1.19.12 v1.20.15 v1.21.14"},
		{"v1.19", "v1.20.15", "v1.19.12 v1.20.15"},
		{"v1.2", "", "v1.2.9 v1.19.12 v1.20.15 v1.21.14"},
		{"v1.20", "v1.20", ""},
		{"v1.21", "v1.19", ""},
		{"v1.18", "", ""},
	} {
		got, err := between(all, x.from, x.to)
		if strings.Join(got, " ") != x.want || (err == nil) != (x.want != "") {
			t.Errorf("from %q to %q: %q, %v", x.from, x.to, got, err)
		}
	}
}

// TestScenarioMarch takes one cluster from FROM to TO, the oldest and the newest
// pinned version, through one version of every minor release between, by the
// operator's command alone. At each step ConfigMaps are written, and everything
// that was there before must be there after; a Service is asked all the way. It
// prints a table.
func TestScenarioMarch(t *testing.T) {
	containers(t)
	dir := imagesDir(t)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	way, err := between(pinned(t), os.Getenv("FROM"), os.Getenv("TO"))
	if err != nil {
		t.Fatal(err)
	}
	logf("the way: %s", strings.Join(way, ", "))
	first := buildImage(t, way[0])
	t.Cleanup(func() { // after the machines have ended
		for _, v := range way {
			removeImage(t, v)
		}
	})
	t.Setenv("KBUILD_IMAGE", first.Dir)
	m := beginMarch(t, first)
	defer func() {
		logf("from %s to %s, one run:\n\n%s\n\nThe Service was asked %d times, steps and builds of images included, and did not answer %d times.\n%s",
			way[0], way[len(way)-1], strings.Join(m.rows, "\n"), m.service.asked.Load(), m.service.failed.Load(), strings.Join(m.said, "\n"))
	}()
	for i, version := range way[1:] {
		m.step(buildImage(t, version))
		removeImage(t, way[i])
	}
}

// beginMarch makes the cluster.
func beginMarch(t *testing.T, image Image) *march {
	t.Helper()
	n := wire(t)
	id := newIdentity(t)
	endpoint := n.Address(11) + ":6443"
	add := func(k int, role, name string, fields ...string) Machine {
		o := on(n, k, name, metadata(t, n, k, role, name, fields...))
		o.Next = &image // the first step changes it
		return boot(t, o)
	}
	m := &march{t: t, rows: []string{"| to | API away | whole step | objects kept | requests without an answer |", "|---|---|---|---|---|"}}
	m.cp = add(11, "init", "cp", "endpoint: "+endpoint, "token: "+token, id.field())
	m.worker = add(14, "worker", "worker", joinFields(endpoint, pin(t, id.cert))...)
	waitReady(t, m.cp)
	waitReady(t, m.worker)
	deploy(t, m.cp, "answering", answering, flannelOf(t, baked(t, m.cp)))
	m.operator = newOperator(t, n, m.cp)
	m.service = watchOutage(t, n, n.Address(11), n.Address(14))
	return m
}

// step takes the cluster to the next image.
func (m *march) step(next Image) {
	t := m.t
	t.Helper()
	for _, machine := range []Machine{m.cp, m.worker} {
		if err := SetNext(machine, next); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		m.written++
		waitSh(t, m.cp, "a ConfigMap", configMap(fmt.Sprint("marched-", m.written), "--from-literal=value=before-"+next.Version))
	}
	before := m.objects()
	out, code := m.operator.kbuild("upgrade", "plan", "--to", next.Version)
	if code != 0 || strings.Contains(out, "Blocked:") {
		t.Fatalf("cannot go to %s: %d", next.Version, code)
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "Removed API:") {
			m.said = append(m.said, "Before "+next.Version+": "+strings.TrimSpace(line))
		}
	}
	asked, failed := m.service.asked.Load(), m.service.failed.Load()
	stop, err := WatchAPI(m.cp)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	m.apply(next)
	whole, away := time.Since(begun), stop()
	asked, failed = m.service.asked.Load()-asked, m.service.failed.Load()-failed

	after, kept := m.objects(), 0
	for o := range before {
		if after[o] {
			kept++
		} else {
			t.Errorf("%s is lost on the way to %s", o, next.Version)
		}
	}
	row := fmt.Sprintf("| %s | %.1f s | %.0f s | %d of %d | %d of %d |", next.Version, away.Seconds(), whole.Seconds(), kept, len(before), failed, asked)
	logf("%s", row)
	m.rows = append(m.rows, row)
}

// apply is the operator's command, and the machines' firmware: it boots what
// they have staged.
func (m *march) apply(next Image) {
	t := m.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*limit())
	defer cancel()
	swapped := make(chan error, 2)
	for _, machine := range []Machine{m.cp, m.worker} {
		go func() { swapped <- Swapped(ctx, machine, false) }()
	}
	_, code := m.operator.kbuild("upgrade", "apply", "--to", next.Version, "--source", "/var/tmp/next", "--node-timeout", limit().String(), "--yes")
	if code != 0 {
		t.Fatalf("kbuild upgrade apply --to %s: %d", next.Version, code)
	}
	for range 2 {
		if err := <-swapped; err != nil {
			t.Fatal(err)
		}
	}
	waitReady(t, m.cp)
	waitReady(t, m.worker)
	got := strings.Fields(sh(t, m.cp, adminKubectl+"get nodes --output=jsonpath='{range .items[*]}{.metadata.name}={.status.nodeInfo.kubeletVersion}{.spec.unschedulable} {end}'"))
	if want := []string{"cp=" + next.Version, "worker=" + next.Version}; !sameSet(got, want) {
		t.Fatalf("nodes %q, want %q, none cordoned", got, want)
	}
	waitSh(t, m.cp, "the pods", adminKubectl+"rollout status deployment answering --timeout=60s")
}

// objects are those of the namespace default, and the cluster's namespaces and
// nodes, each with its identity and, of the ConfigMaps written here, what is in
// it.
func (m *march) objects() map[string]bool {
	m.t.Helper()
	all := map[string]bool{}
	for _, o := range strings.Fields(sh(m.t, m.cp, adminKubectl+"get configmaps,deployments,poddisruptionbudgets,secrets,services,serviceaccounts,namespaces,nodes"+
		" --output=jsonpath='{range .items[*]}{.kind}/{.metadata.name}={.metadata.uid}={.data.value} {end}'")) {
		all[o] = true
	}
	if len(all) < m.written {
		m.t.Fatalf("%d objects, of which %d ConfigMaps were written: %v", len(all), m.written, all)
	}
	return all
}
