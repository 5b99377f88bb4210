package config

import (
	"fmt"

	yaml "go.yaml.in/yaml/v3"

	"github.com/kbuild/kbuild/firstboot/config/schema"
)

// pair is a key of a mapping and its value.
type pair struct{ key, value *yaml.Node }

// pairs are the entries of a mapping: its own, then those that its merge keys
// (<<) add. Every problem with a key is noted.
func (c *converter) pairs(n *yaml.Node, path string) []pair {
	var own, merged []pair
	lines := map[string]int{} // of the mapping's own keys
	mergeAt := 0              // line of the last merge key
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Kind == yaml.ScalarNode && key.ShortTag() == "!!merge":
			merged, mergeAt = append(merged, c.merge(value, path)...), key.Line
		case key.Kind != yaml.ScalarNode:
			c.problem(key, path, "this key is no plain name", "write a name; structured keys are not read")
		case lines[key.Value] > 0:
			c.problem(key, path, fmt.Sprintf("field %q is there already, at line %d", printable(key.Value), lines[key.Value]), "keep one of the two")
		case !c.visible(key, path):
		default:
			lines[key.Value] = key.Line
			own = append(own, pair{key, value})
		}
	}
	have := map[string]bool{}
	for _, p := range merged {
		line := lines[p.key.Value]
		if line > 0 && line < mergeAt && !have[p.key.Value] {
			// kubeadm's YAML library takes the merged value here, others the
			// mapping's own.
			c.problem(p.key, path, fmt.Sprintf("field %q is merged over the one at line %d", printable(p.key.Value), line), "write the merge key (<<) before the mapping's own fields, which then count")
		}
		if line == 0 && !have[p.key.Value] {
			own = append(own, p)
		}
		have[p.key.Value] = true
	}
	return own
}

// merge are the entries that a merge key with this value adds
// (https://yaml.org/type/merge.html): those of a mapping, or of several, the
// first of which counts.
func (c *converter) merge(n *yaml.Node, path string) []pair {
	defer func() { c.depth-- }()
	if !c.enter(n, path) {
		return nil
	}
	switch {
	case n.Kind == yaml.AliasNode && n.Alias != nil:
		return c.merge(n.Alias, path)
	case n.Kind == yaml.MappingNode:
		c.visits += len(n.Content)
		return c.pairs(n, path)
	case n.Kind == yaml.SequenceNode:
		var all []pair
		for _, e := range n.Content {
			all = append(all, c.merge(e, path)...)
		}
		return all
	}
	c.problem(n, path, "a merge key (<<) takes a mapping, not "+describe(n), "write an alias of a mapping, as in `<<: *name`")
	return nil
}

// null notes a field without a value, but for the null that kubeadm itself
// writes where a list, mapping or pointer of its own is not set. In what a
// cluster keeps, null is an absent field, as it is to kubeadm.
func (c *converter) null(n *yaml.Node, t schema.Type, path string) {
	_, pointer := t.Pointer()
	_, list := t.List()
	_, mapping := t.Map()
	if c.doc.kept || n.Value != "" && (pointer || list || mapping) && !t.OmitEmpty && c.kind != nodeMetadataKind {
		return
	}
	at, what := *n, "null is no value of this field"
	if n.Value == "" {
		what = "the field has no value"
		at.Line, at.Column = c.lines[path].line, c.lines[path].column
	}
	_, fields := t.Struct()
	remedy := "write the value, or remove the line"
	switch {
	case fields || mapping:
		remedy = "indent its fields below it, or remove the line"
	case t.Name == "string":
		remedy += `; write "" for empty text`
	}
	c.problem(&at, path, what, remedy)
}
