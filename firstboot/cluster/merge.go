package cluster

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
)

// merge3 is what an object becomes that an earlier image made as was, this one
// wants as want, and the cluster holds as have, all of them decoded JSON and nil
// where there is nothing: what the image changed is changed, and what people
// changed stays. theirs are the fields that both changed, in which people win.
//
// What have holds beyond was may be the API server's defaults, and gives way
// where want says it. A list of objects that have names is merged by them, any
// other is one value.
func merge3(at string, was, want, have any) (merged any, theirs []string) {
	switch {
	case equality.Semantic.DeepEqual(was, want):
		return have, nil
	case areObjects(was, want, have):
		return mergeFields(at, asObject(was), asObject(want), asObject(have))
	case areNamed(was, want, have):
		return mergeNamed(at, named(was), named(want), named(have), have.([]any), want.([]any))
	case holds(have, want):
		return have, nil
	case holds(have, was) || was == nil:
		return want, nil
	}
	return have, []string{at}
}

func mergeFields(at string, was, want, have map[string]any) (any, []string) {
	out, all := map[string]any{}, []string(nil)
	keys := maps.Clone(have)
	maps.Copy(keys, want)
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		v, theirs := merge3(join(at, k), was[k], want[k], have[k])
		if v != nil {
			out[k] = v
		}
		all = append(all, theirs...)
	}
	return out, all
}

// mergeNamed keeps the order of have, and puts what is new behind it.
func mergeNamed(at string, was, want, have map[string]any, order, wanted []any) (any, []string) {
	var out []any
	var all []string
	done := map[string]bool{}
	for _, item := range slices.Concat(order, wanted) {
		name := nameIn(item)
		if done[name] {
			continue
		}
		done[name] = true
		v, theirs := merge3(fmt.Sprintf("%s[%s]", at, name), was[name], want[name], have[name])
		if v != nil {
			out = append(out, v)
		}
		all = append(all, theirs...)
	}
	return out, all
}

func join(at, field string) string {
	if at == "" {
		return field
	}
	return at + "." + field
}

// areObjects says whether want and have are objects, and was one or nothing.
func areObjects(was, want, have any) bool {
	_, w := want.(map[string]any)
	_, h := have.(map[string]any)
	_, o := was.(map[string]any)
	return w && h && (o || was == nil)
}

func asObject(v any) map[string]any { m, _ := v.(map[string]any); return m }

// areNamed is areObjects for lists that are merged by name.
func areNamed(was, want, have any) bool {
	return named(want) != nil && named(have) != nil && (was == nil || named(was) != nil)
}

// named is a list of objects by their names; nil if it is none.
func named(v any) map[string]any {
	list, ok := v.([]any)
	if !ok {
		return nil
	}
	m := map[string]any{}
	for _, item := range list {
		name := nameIn(item)
		if name == "" || m[name] != nil {
			return nil
		}
		m[name] = item
	}
	return m
}

func nameIn(item any) string {
	name, _ := asObject(item)["name"].(string)
	return name
}

// holds says whether have has all that part has.
func holds(have, part any) bool {
	switch p := part.(type) {
	case map[string]any:
		h, ok := have.(map[string]any)
		for k, v := range p {
			ok = ok && holds(h[k], v)
		}
		return ok || len(p) == 0 && have == nil
	case []any:
		h, ok := have.([]any)
		if !ok || len(h) != len(p) {
			return len(p) == 0 && have == nil
		}
		for i := range p {
			if !holds(h[i], p[i]) {
				return false
			}
		}
		return true
	}
	return equality.Semantic.DeepEqual(have, part)
}
