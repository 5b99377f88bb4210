package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Overlay are the values that an image's own configuration has put over the
// cluster's ClusterConfiguration, by their place in it (RFC 6901).
type Overlay map[string]OverlayValue

// OverlayValue is one of them.
type OverlayValue struct {
	Value  any `json:"value"`
	Before any `json:"before,omitempty"` // what was there; nil is nothing
}

// OverlayCluster puts over a ClusterConfiguration, as the cluster keeps it, what the
// image's own configuration says of the node n, and puts back what was there
// before another image put something else over it: over tells of that, and of
// what is put over it after this. What administrators wrote stays. An empty doc stands
// for n's own configuration, which is the cluster's first.
func (n *Node) OverlayCluster(doc []byte, over Overlay) ([]byte, Overlay, error) {
	own, err := generic(n.Cluster)
	if err != nil || n.Role.Joins() { // its image's word on a cluster does not count
		return doc, over, err
	}
	says := map[string]any{}
	n.says(own, nil, says)
	next := Overlay{}
	if len(doc) == 0 {
		for p, v := range says {
			next[p] = OverlayValue{Value: v}
		}
		return doc, next, nil
	}
	var m map[string]any
	if err := yaml.Unmarshal(doc, &m); err != nil {
		return nil, over, fmt.Errorf("cannot read ClusterConfiguration: %w", err)
	}
	if m == nil {
		return doc, over, nil
	}
	lists := commonCluster(m) || hasLists(fmt.Sprint(m["apiVersion"]))
	changed := false
	for _, p := range slices.Sorted(maps.Keys(over)) {
		if _, again := says[p]; !again && same(valueAt(m, p), over[p].Value) {
			setAt(m, keysOf(p), over[p].Before)
			changed = true
		}
	}
	for _, p := range slices.Sorted(maps.Keys(says)) {
		v, now := says[p], valueAt(m, p)
		l, again := over[p]
		if !again || !same(now, l.Value) {
			l.Before = now // an administrator's
		}
		next[p] = OverlayValue{v, l.Before}
		if !same(now, v) {
			setAt(m, keysOf(p), v)
			changed = true
		}
	}
	if !changed {
		return doc, next, nil
	}
	if lists {
		listFlags(m)
	}
	out, err := yaml.Marshal(m)
	return out, next, err
}

// says notes in all the values of the cluster's configuration that the image's
// own says.
func (n *Node) says(m map[string]any, at []string, all map[string]any) {
	for k, v := range m {
		p := append(slices.Clone(at), k)
		if sub, ok := v.(map[string]any); ok {
			n.says(sub, p, all)
		} else if strings.HasPrefix(n.Sources["cluster."+strings.Join(p, ".")], BakedSource) {
			all[pointer(p)] = v
		}
	}
}

func pointer(path []string) string {
	var b strings.Builder
	for _, k := range path {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(k))
	}
	return b.String()
}

func keysOf(pointer string) []string {
	keys := strings.Split(strings.TrimPrefix(pointer, "/"), "/")
	for i, k := range keys {
		keys[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(k)
	}
	return keys
}

// valueAt is what is at a place in m; nil is nothing.
func valueAt(m map[string]any, pointer string) any {
	var v any = m
	for _, k := range keysOf(pointer) {
		sub, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = sub[k]
	}
	return v
}

// setAt puts v there; nil takes away what is there, and what is empty then.
func setAt(m map[string]any, keys []string, v any) {
	k, rest := keys[0], keys[1:]
	if len(rest) == 0 {
		if m[k] = v; v == nil {
			delete(m, k)
		}
		return
	}
	sub, ok := m[k].(map[string]any)
	if !ok {
		if v == nil {
			return
		}
		sub = map[string]any{}
	}
	setAt(sub, rest, v)
	if m[k] = sub; len(sub) == 0 {
		delete(m, k)
	}
}
