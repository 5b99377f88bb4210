package config

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config/schema"
	"github.com/kbuild/kbuild/images"
)

// ErrNoRole is the error of configuration that does not say what the node
// shall be: there is none at all, or only part of it is baked into the image.
var ErrNoRole = errors.New("no configuration says what this node shall be: give it user-data with `role: init`, `control-plane` or `worker` in a NodeMetadata, or with kubeadm's InitConfiguration or JoinConfiguration")

// Load reads a node's configuration: it parses docs, lays the later over the
// earlier, fills in what is missing from the image and the machine, and
// validates the whole. The warnings are for the log. The error is ErrNoRole,
// ErrNoAddress or Problems.
func Load(baked images.Baked, m Machine, docs ...Document) (*Node, []string, error) {
	l, err := parse(baked, docs...)
	if err != nil {
		return nil, nil, err
	}
	n, warnings, err := l.check(baked, m, docs)
	if err != nil {
		return nil, warnings, err
	}
	return n, warnings, nil
}

// check makes a node of the layers, fills in what is missing and validates the
// whole. The error is Problems where there are some: those of the documents'
// form and those of the values that could be read.
func (l *layers) check(baked images.Baked, m Machine, docs []Document) (*Node, []string, error) {
	n, err := l.node()
	if err != nil {
		return nil, nil, cmp.Or(l.probs.err(), err)
	}
	warnings := append(l.ignored, n.takeSocket()...)
	values, err := asProblems(Default(n, baked, m))
	if err != nil {
		return nil, warnings, cmp.Or(l.probs.err(), err)
	}
	said, err := Validate(n, baked)
	warnings = append(warnings, said...)
	more, err := asProblems(err)
	if err != nil {
		return nil, warnings, err
	}
	values = slices.Concat(values, placeholders(n), more).withExcerpts(docs)
	return n, warnings, l.probs.and(values).err()
}

// Parse reads docs, each strictly, and lays the later over the earlier: fields
// are merged, lists are replaced. Nothing is defaulted.
func Parse(baked images.Baked, docs ...Document) (*Node, error) {
	l, err := parse(baked, docs...)
	if err != nil {
		return nil, err
	}
	if err := l.probs.err(); err != nil {
		return nil, err
	}
	return l.node()
}

// parse lays docs over each other. What is wrong with their form is in the
// layers' problems; what could be read is there besides.
func parse(baked images.Baked, docs ...Document) (*layers, error) {
	s, err := schema.Load(baked.Release.Minor())
	if err != nil {
		return nil, err
	}
	l := &layers{kinds: map[string]map[string]any{}, sources: map[string]string{}}
	for _, d := range docs {
		l.lay(read(s, baked.Release, d, &l.probs))
	}
	return l, nil
}

// layers is the configuration so far.
type layers struct {
	kinds   map[string]map[string]any // by prefix: init, join, cluster, kubelet, kubeProxy
	sources map[string]string         // path → source, line
	role    Role
	ignored []string // warnings
	probs   Problems
}

// prefixes are the first parts of the paths in Node.Sources.
func prefixes() map[string]string {
	return map[string]string{
		"InitConfiguration":      "init",
		"JoinConfiguration":      "join",
		"ClusterConfiguration":   "cluster",
		"KubeletConfiguration":   "kubelet",
		"KubeProxyConfiguration": "kubeProxy",
	}
}

// lay lays the objects of one document over what is there.
func (l *layers) lay(objs []object) {
	own := map[string]map[string]any{}
	where := map[string]string{}
	l.setRole(objs)
	for _, o := range objs {
		if o.old {
			l.ignored = append(l.ignored, fmt.Sprintf("%s: the %s is of %s, which kubeadm of the image's version no longer reads: it is converted; write a version that it reads", lineOf(o, ""), o.kind, o.api))
		}
		if dry, _ := o.value["dryRun"].(bool); dry {
			l.refuse(o, "dryRun", "a node cannot be made for a try", "remove the field")
		}
		delete(o.value, "dryRun")
		switch {
		case o.kind == nodeMetadataKind:
			continue // below, when the others are known
		case o.kind == "ResetConfiguration" || o.kind == "UpgradeConfiguration":
			l.ignored = append(l.ignored, fmt.Sprintf("%s: the %s is not used: a node is reset and upgraded by another boot", lineOf(o, ""), o.kind))
			continue
		case o.kind == "ClusterStatus":
			l.refuse(o, "", "ClusterStatus is what kubeadm writes about a cluster, not configuration", "remove this document")
			continue
		case o.kind == "JoinConfiguration":
			layJoin(o, own, where)
			continue
		case l.role.Joins() && !o.doc.Baked:
			// As kubeadm join does: one file may be for all nodes of a cluster.
			l.ignored = append(l.ignored, fmt.Sprintf("%s: the %s is not used: a node that joins has the cluster's; what is its own belongs into NodeMetadata or JoinConfiguration", lineOf(o, ""), o.kind))
			continue
		}
		prefix := prefixes()[o.kind]
		own[prefix] = o.value
		for p, at := range o.lines {
			if p == "" {
				continue
			}
			where[prefix+"."+p] = fmt.Sprintf("%s, line %d", o.doc.Source, at.line)
		}
	}
	for _, o := range objs {
		if o.kind == nodeMetadataKind {
			l.metadata(o, own, where)
		}
	}
	for prefix, v := range own {
		if l.kinds[prefix] == nil {
			l.kinds[prefix] = map[string]any{}
		}
		l.merge(l.kinds[prefix], v, prefix)
	}
	for p, s := range where {
		l.sources[p] = s
	}
}

// metadata adds what a NodeMetadata says to the kinds of the same document.
func (l *layers) metadata(o object, own map[string]map[string]any, where map[string]string) {
	for _, f := range nodeMetadata() {
		if _, given := o.value[f.name]; given && !f.isFor(l.role) {
			l.refuse(o, f.name, fmt.Sprintf("it means nothing to a node of role %s", l.role), notFor(f, l.role))
		}
	}
	_, file := o.value["discoveryFile"]
	for _, name := range []string{"endpoint", "caCertHashes", "unsafeSkipCAVerification"} {
		if _, both := o.value[name]; both && file && l.role.Joins() {
			l.refuse(o, name, "the discovery file says this", "remove it, or remove discoveryFile")
			return
		}
	}
	for _, s := range settings(o, l.role) {
		prefix, path, _ := strings.Cut(s.to, ".")
		if own[prefix] == nil {
			own[prefix] = map[string]any{}
		}
		if !put(own[prefix], path, s.value) {
			l.refuse(o, s.from, fmt.Sprintf("%s says this too", fieldName(s.to, l.role)), "say it in one of the two places")
			continue
		}
		at := fmt.Sprintf("%s, line %d", o.doc.Source, o.lines[s.from].line)
		where[s.to] = at
		for p, q := range o.lines { // elements of a list, entries of a map
			if rest, ok := strings.CutPrefix(p, s.from); ok && rest != "" && s.from != "labels" && (rest[0] == '[' || rest[0] == '.') {
				where[s.to+rest] = fmt.Sprintf("%s, line %d", o.doc.Source, q.line)
			}
		}
	}
}

func (l *layers) refuse(o object, field, what, remedy string) {
	at := o.lines[field]
	l.probs.add(Problem{Source: o.doc.Source, Line: at.line, Column: at.column, Field: strings.TrimSpace(o.kind + " " + field), What: what, Remedy: remedy, Excerpt: excerpt(o.doc.Data, at.line, at.column)})
}

// put sets the value at path ("a.b" or "list[0].x") of m, and returns false if
// something is there already. Maps are merged key by key. A flag's name may
// hold no dot, so that a path is unambiguous.
func put(m map[string]any, path string, v any) bool {
	name, rest, more := strings.Cut(path, ".")
	if bare, ok := strings.CutSuffix(name, "[0]"); ok {
		if l, ok := m[bare].([]any); ok && len(l) > 0 {
			first, ok := l[0].(map[string]any)
			return ok && put(first, rest, v)
		}
		first := map[string]any{}
		m[bare] = []any{first}
		return put(first, rest, v)
	}
	if more {
		sub, ok := m[name].(map[string]any)
		if !ok {
			sub = map[string]any{}
			m[name] = sub
		}
		return put(sub, rest, v)
	}
	have, taken := m[name]
	if !taken {
		m[name] = v
		return true
	}
	a, aok := have.(map[string]any)
	b, bok := v.(map[string]any)
	if !aok || !bok {
		return false
	}
	for k := range b {
		if _, dup := a[k]; dup {
			return false
		}
	}
	for k, x := range b {
		a[k] = x
	}
	return true
}

// merge lays over on base. What a replaced value said of its sources is
// forgotten.
func (l *layers) merge(base, over map[string]any, path string) {
	for k, v := range over {
		p := path + "." + k
		vm, vok := v.(map[string]any)
		bm, bok := base[k].(map[string]any)
		if vok && bok {
			l.merge(bm, vm, p)
			continue
		}
		for s := range l.sources {
			if s == p || strings.HasPrefix(s, p+".") || strings.HasPrefix(s, p+"[") {
				delete(l.sources, s)
			}
		}
		base[k] = v
	}
}

// node makes a Node of the layers.
func (l *layers) node() (*Node, error) {
	if l.role == "" {
		return nil, ErrNoRole
	}
	if l.role.Joins() {
		l.dropCluster()
	}
	n := &Node{Role: l.role, Kubelet: l.kinds["kubelet"], KubeProxy: l.kinds["kubeProxy"], Sources: l.sources}
	if n.Kubelet == nil {
		n.Kubelet = map[string]any{}
	}
	if n.KubeProxy == nil {
		n.KubeProxy = map[string]any{}
	}
	n.Kubelet["apiVersion"], n.Kubelet["kind"] = "kubelet.config.k8s.io/v1beta1", "KubeletConfiguration"
	n.KubeProxy["apiVersion"], n.KubeProxy["kind"] = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"
	if err := into(l.kinds["init"], &n.Init); err != nil {
		return nil, fmt.Errorf("cannot read InitConfiguration: %w", err)
	}
	if err := into(l.kinds["join"], &n.Join); err != nil {
		return nil, fmt.Errorf("cannot read JoinConfiguration: %w", err)
	}
	if err := into(l.kinds["cluster"], &n.Cluster); err != nil {
		return nil, fmt.Errorf("cannot read ClusterConfiguration: %w", err)
	}
	return n, nil
}

// into fills a struct with checked values.
func into(m map[string]any, v any) error {
	if m == nil {
		return nil
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
