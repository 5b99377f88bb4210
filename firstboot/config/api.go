package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/version"

	"github.com/kbuild/kbuild/firstboot/config/schema"
	"github.com/kbuild/kbuild/images"
)

// Every version of kubeadm's config API is read into one shape, that of the types
// in this package, and written from it. What the versions spell differently is
// said here:
//
//   - flags are a map, or since v1beta4 a list of names and values;
//   - patches are a directory, below a field of that name;
//   - a field that a version does not have is left out when that is written, as
//     kubeadm does.

const kubeadmGroup = "kubeadm.k8s.io/"

// olderAPI says whether a is an older version of the config API than b.
func olderAPI(a, b string) bool { return version.CompareKubeAwareVersionStrings(a, b) < 0 }

// schemaOf returns the schema with which a document of d is read: that of the
// image's version, or, for a version of kubeadm's API that this does not read, the
// newest that does; old says that it is one which the image's kubeadm no longer
// reads. A newer API is read only of what a cluster keeps.
func schemaOf(s *schema.Schema, rel images.Release, d Document, api, kind string) (of *schema.Schema, old bool) {
	if _, ok := s.Kinds[api+"/"+kind]; ok {
		return s, false
	}
	v, ok := strings.CutPrefix(api, kubeadmGroup)
	if !ok {
		return nil, false
	}
	old = olderAPI(v, rel.ConfigAPIs[0])
	if !old && !d.kept {
		return nil, false
	}
	of, err := schema.Find(api + "/" + kind)
	if err != nil {
		return nil, false
	}
	return of, old
}

// flagFields are the fields of each kind that hold a component's flags.
func flagFields(kind string) []string {
	switch kind {
	case "ClusterConfiguration":
		return []string{"apiServer.extraArgs", "controllerManager.extraArgs", "scheduler.extraArgs", "etcd.local.extraArgs"}
	case "InitConfiguration", "JoinConfiguration":
		return []string{"nodeRegistration.kubeletExtraArgs"}
	}
	return nil
}

// common gives an object of kubeadm's group the shape that all versions have here.
func (o *object) common() {
	for _, path := range flagFields(o.kind) {
		o.flags(path)
	}
	if p, ok := o.value["patches"].(map[string]any); ok {
		delete(o.value, "patches")
		if dir, ok := p["directory"]; ok {
			o.value["patches"], o.lines["patches"] = dir, o.lines["patches.directory"]
		}
		delete(o.lines, "patches.directory")
	}
}

// flags makes the list of flags at path a map, and the lines of its elements those
// of the flags.
func (o *object) flags(path string) {
	at := strings.LastIndexByte(path, '.')
	parent, ok := valueAt(o.value, pointer(strings.Split(path[:at], "."))).(map[string]any)
	if !ok {
		return
	}
	list, ok := parent[path[at+1:]].([]any)
	if !ok {
		return
	}
	parent[path[at+1:]] = flagMap(list)
	for i, e := range list {
		p := path + "[" + strconv.Itoa(i) + "]"
		if arg, ok := e.(map[string]any); ok {
			o.lines[path+"."+fmt.Sprint(arg["name"])] = o.lines[p]
		}
		maps.DeleteFunc(o.lines, func(q string, _ pos) bool { return q == p || strings.HasPrefix(q, p+".") })
	}
}

// flagMap is a list of {name, value} as Args has it in JSON.
func flagMap(list []any) map[string]any {
	m := map[string]any{}
	for _, e := range list {
		arg, _ := e.(map[string]any)
		name, _ := arg["name"].(string)
		value, _ := arg["value"].(string)
		switch was := m[name].(type) {
		case nil:
			m[name] = value
		case []any:
			m[name] = append(was, value)
		default:
			m[name] = []any{was, value}
		}
	}
	return m
}

// flagList is the opposite of flagMap: sorted by name, as flags have no order here.
func flagList(m map[string]any) []any {
	list := []any{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		values, several := m[name].([]any)
		if !several {
			values = []any{m[name]}
		}
		for _, v := range values {
			list = append(list, map[string]any{"name": name, "value": v})
		}
	}
	return list
}

// commonCluster gives a ClusterConfiguration as a cluster keeps it the shape that
// all versions have here, and says whether its flags were a list.
func commonCluster(m map[string]any) (lists bool) {
	for _, path := range flagFields("ClusterConfiguration") {
		p := pointer(strings.Split(path, "."))
		if list, ok := valueAt(m, p).([]any); ok {
			lists = true
			setAt(m, keysOf(p), flagMap(list))
		}
	}
	return lists
}

// listFlags is the opposite of commonCluster where flags are a list.
func listFlags(m map[string]any) {
	for _, path := range flagFields("ClusterConfiguration") {
		p := pointer(strings.Split(path, "."))
		if flags, ok := valueAt(m, p).(map[string]any); ok {
			setAt(m, keysOf(p), flagList(flags))
		}
	}
}

// hasLists says whether flags are a list in the given version of the config API,
// "kubeadm.k8s.io/v1beta4".
func hasLists(api string) bool {
	return !olderAPI(strings.TrimPrefix(api, kubeadmGroup), "v1beta4")
}
