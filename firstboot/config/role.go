package config

import (
	"fmt"
	"strings"
)

// setRole finds out what the objects of one document make of the node. A
// NodeMetadata says it; of kubeadm's kinds, the one that is there does.
func (l *layers) setRole(objs []object) {
	var said Role // by NodeMetadata
	var of, meta object
	implied := Role("")
	for _, o := range objs {
		role := Role("")
		switch o.kind {
		case "InitConfiguration":
			role = RoleInit
		case "JoinConfiguration":
			role = RoleWorker
			if _, ok := o.lines["controlPlane"]; ok {
				role = RoleControlPlane
			}
		case nodeMetadataKind:
			if v, ok := o.value["role"]; ok {
				said, meta = Role(v.(string)), o
			}
		}
		if role != "" && implied != "" {
			l.refuse(o, "", of.kind+" and "+o.kind+" exclude each other: a node makes a cluster or joins one", "keep one of the two")
			return
		}
		if role != "" {
			implied, of = role, o
		}
	}
	switch {
	case said != "" && said != RoleInit && !said.Joins():
		l.refuse(meta, "role", fmt.Sprintf("%q is no role", printable(string(said))), "write init, control-plane or worker")
	case said != "" && implied != "" && said != implied:
		l.refuse(meta, "role", fmt.Sprintf("the %s beside it makes the node a %s", of.kind, implied), fmt.Sprintf("write `role: %s`, or remove the %s; a JoinConfiguration with controlPlane makes a control-plane node, one without a worker", implied, of.kind))
	case said != "":
		l.role, l.sources["role"] = said, lineOf(meta, "role")
	case implied != "":
		l.role, l.sources["role"] = implied, lineOf(of, "")
	case l.role == "":
		for _, o := range objs {
			if o.kind == "ClusterConfiguration" && !o.doc.Baked {
				l.role, l.sources["role"] = RoleInit, lineOf(o, "")
			}
		}
	}
}

// lineOf is the place of a field, as in Node.Sources.
func lineOf(o object, field string) string {
	return fmt.Sprintf("%s, line %d", o.doc.Source, o.lines[field].line)
}

// layJoin puts a JoinConfiguration where a Node holds it: partly in init, as
// every role has it there.
func layJoin(o object, own map[string]map[string]any, where map[string]string) {
	init, join := map[string]any{}, map[string]any{}
	for name, v := range o.value {
		switch name {
		case "nodeRegistration", "patches", "skipPhases", "timeouts":
			init[name] = v
		case "controlPlane":
			for k, x := range v.(map[string]any) {
				init[k] = x
			}
		default:
			join[name] = v
		}
	}
	own["init"], own["join"] = init, join
	for p := range o.lines {
		if p != "" && p != "controlPlane" {
			where[joinPath(p)] = lineOf(o, p)
		}
	}
}

// joinPath is where a Node holds a field of JoinConfiguration.
func joinPath(p string) string {
	if rest, ok := strings.CutPrefix(p, "controlPlane."); ok {
		return "init." + rest
	}
	switch top, _, _ := strings.Cut(strings.NewReplacer("[", ".").Replace(p), "."); top {
	case "nodeRegistration", "patches", "skipPhases", "timeouts":
		return "init." + p
	}
	return "join." + p
}

// fieldName is how people know the value at a path of Node.Sources on a node
// of role: "ClusterConfiguration networking.podSubnet".
func fieldName(path string, role Role) string {
	prefix, rest, _ := strings.Cut(path, ".")
	top, _, _ := strings.Cut(rest, ".")
	switch {
	case prefix == "init" && (top == "pki" || strings.HasPrefix(top, "patches") || strings.HasPrefix(top, "skipPhases")):
		return nodeMetadataKind + " " + rest
	case prefix == "init" && role.Joins() && strings.HasPrefix(top, "nodeRegistration"):
		return "JoinConfiguration " + rest
	case prefix == "init" && role.Joins():
		return "JoinConfiguration controlPlane." + rest
	}
	for kind, p := range prefixes() {
		if p == prefix {
			return kind + " " + rest
		}
	}
	return rest
}

// notFor says what to do about a field that is not for a node's role.
func notFor(f field, role Role) string {
	switch {
	case !role.Joins():
		return "remove it; it is for nodes that join"
	case role == RoleWorker && strings.Contains(f.roles, "c"):
		return "remove it; it is for control-plane nodes"
	}
	return "remove it; the first control plane says it for the whole cluster"
}

// dropCluster forgets what only a first control plane configures, which may be
// baked into the image: a node that joins has it from its cluster.
func (l *layers) dropCluster() {
	if c := l.kinds["cluster"]; c != nil {
		l.kinds["cluster"] = map[string]any{}
		if v, ok := c["kubernetesVersion"]; ok {
			l.kinds["cluster"]["kubernetesVersion"] = v
		}
	}
	delete(l.kinds, "kubelet")
	delete(l.kinds, "kubeProxy")
	for _, name := range []string{"bootstrapTokens", "uploadCerts", "pki"} {
		delete(l.kinds["init"], name)
	}
	for p := range l.sources {
		for _, gone := range []string{"cluster.", "kubelet.", "kubeProxy.", "init.bootstrapTokens", "init.uploadCerts", "init.pki"} {
			if strings.HasPrefix(p, gone) && p != "cluster.kubernetesVersion" {
				delete(l.sources, p)
			}
		}
	}
}
