package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kbuild/kbuild/firstboot/config/schema"
	"github.com/kbuild/kbuild/images"
)

// BakedSource is the source of the image's own configuration.
const BakedSource = "image " + images.BakedConfig

// replaceable are the paths below which another image's own configuration counts
// on a node that is there already. What a cluster, or a node, is made with and
// keeps for good (networks, names, addresses, certificates) is not among them.
func replaceable() []string {
	return []string{
		"cluster.apiServer.extraArgs", "cluster.apiServer.extraVolumes", "cluster.apiServer.timeoutForControlPlane",
		"cluster.apiServer.extraEnvs", "cluster.controllerManager", "cluster.scheduler",
		"cluster.etcd.local.extraArgs", "cluster.etcd.local.extraEnvs", "cluster.featureGates",
		"kubelet", "kubeProxy",
		"init.nodeRegistration.kubeletExtraArgs", "init.patches", "init.timeouts",
	}
}

// ApplyImageConfig returns the node n with what doc, this image's own configuration, says
// in place of what that of the image before said; doc may be empty. User-data
// stays over it. Changed are the paths whose values are others now, kept those
// in doc that a node keeps for good.
func (n *Node) ApplyImageConfig(baked images.Baked, m Machine, doc Document) (applied *Node, changed, kept []string, err error) {
	s, err := schema.Load(baked.Release.Minor())
	if err != nil {
		return nil, nil, nil, err
	}
	l := &layers{kinds: map[string]map[string]any{}, sources: map[string]string{}, role: n.Role}
	if len(doc.Data) > 0 {
		l.lay(read(s, baked.Release, doc, &l.probs))
		l.role = n.Role
	}
	if err := l.probs.err(); err != nil {
		return nil, nil, nil, withExcerpts(err, []Document{doc})
	}
	if n.Role.Joins() {
		l.dropCluster()
	}
	cur, err := generic(n)
	if err != nil {
		return nil, nil, nil, err
	}
	next := map[string]any{}
	for kind, v := range l.kinds {
		next[kind] = v
	}
	r := imageChange{n.Sources, l.sources, maps.Clone(n.Sources), nil, nil}
	for _, kind := range []string{"init", "cluster", "kubelet", "kubeProxy"} {
		c, _ := cur[kind].(map[string]any)
		v, _ := next[kind].(map[string]any)
		if c != nil {
			r.merge(c, v, kind)
		}
	}
	cur["sources"] = r.sources
	applied = &Node{}
	if err := into(cur, applied); err != nil {
		return nil, nil, nil, fmt.Errorf("cannot lay the image's configuration under the node's: %w", err)
	}
	if !n.Role.Joins() {
		defaultCluster(applied, baked)
		defaultKubelet(applied, baked.Release, m)
		defaultKubeProxy(applied, baked.Release)
	}
	slices.Sort(r.changed)
	slices.Sort(r.kept)
	return applied, r.changed, r.kept, nil
}

// generic is v as JSON has it.
func generic(v any) (map[string]any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var m map[string]any
	return m, json.Unmarshal(b, &m)
}

// imageChange is one ApplyImageConfig.
type imageChange struct {
	before, baked map[string]string // sources of the node's values, and of the new ones
	sources       map[string]string // of the node's values afterwards
	changed, kept []string
}

// merge lays next over what of cur is not the user's, and takes from cur what
// only the image before said.
func (r *imageChange) merge(cur, next map[string]any, path string) {
	keys := map[string]bool{}
	for k := range cur {
		keys[k] = true
	}
	for k := range next {
		keys[k] = true
	}
	for k := range keys {
		p := path + "." + k
		c, have := cur[k]
		v, want := next[k]
		cm, cIsMap := c.(map[string]any)
		vm, vIsMap := v.(map[string]any)
		if (cIsMap || !have) && (vIsMap || !want) {
			before := len(cm)
			if cm == nil {
				cm = map[string]any{}
			}
			r.merge(cm, vm, p)
			if len(cm) > 0 {
				cur[k] = cm
			} else if before > 0 {
				delete(cur, k)
			}
			continue
		}
		given := r.before[p]
		ours := strings.HasPrefix(given, BakedSource)
		if !ours && (!want || have && given != "" && given != sourceDefault) || k == "apiVersion" || k == "kind" {
			continue
		}
		if want && same(c, v) {
			continue
		}
		if !slices.ContainsFunc(replaceable(), func(a string) bool { return p == a || strings.HasPrefix(p, a+".") }) {
			r.kept = append(r.kept, p)
			continue
		}
		r.changed = append(r.changed, p)
		maps.DeleteFunc(r.sources, func(s, _ string) bool { return s == p || strings.HasPrefix(s, p+"[") })
		if !want {
			delete(cur, k)
			continue
		}
		cur[k] = v
		for s, at := range r.baked {
			if s == p || strings.HasPrefix(s, p+"[") {
				r.sources[s] = at
			}
		}
	}
}

// same says whether two values are one in JSON.
func same(a, b any) bool {
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err == nil && err2 == nil && string(x) == string(y)
}
