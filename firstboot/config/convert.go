package config

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kbuild/kbuild/firstboot/config/schema"
)

// converter turns the YAML of one document into JSON-like values, and notes
// every field that its kind does not have, or has with another type.
type converter struct {
	schema *schema.Schema
	doc    Document
	kind   string
	lines  map[string]pos
	probs  *Problems
	visits int // nodes seen, aliases followed included
	depth  int
	// tooMuch says that the bounds below are passed: nothing more is read.
	tooMuch bool
}

// A document may name a node many times with aliases; these bound what it
// unfolds to.
const (
	maxVisits = 200_000
	maxDepth  = 64
)

func (c *converter) problem(n *yaml.Node, path, what, remedy string) {
	field := strings.TrimSpace(c.kind + " " + path)
	c.probs.add(Problem{Source: c.doc.Source, Line: n.Line, Column: n.Column, Field: field, What: what, Remedy: remedy, Excerpt: excerpt(c.doc.Data, n.Line, n.Column)})
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// object converts a mapping whose fields are known. top is true for the
// document itself, which has apiVersion and kind besides.
func (c *converter) object(n *yaml.Node, fields map[string]string, path string, top bool) map[string]any {
	out := map[string]any{}
	for _, p := range c.pairs(n, path) {
		key, val := p.key, p.value
		name := key.Value
		if top && (name == "apiVersion" || name == "kind" || strings.HasPrefix(name, "x-") && val.Anchor != "") {
			continue // x-… only holds what is named elsewhere
		}
		typ, ok := fields[name]
		if !ok {
			c.problem(key, path, fmt.Sprintf("unknown field %q", printable(name)), didYouMean(name, fields))
			continue
		}
		c.lines[join(path, name)] = pos{key.Line, key.Column}
		if v, ok := c.value(val, schema.Parse(typ), join(path, name)); ok {
			out[name] = v
		}
	}
	return out
}

// enter counts a node that is looked at, and says whether there may be more;
// the caller leaves it with c.depth--.
func (c *converter) enter(n *yaml.Node, path string) bool {
	c.visits++
	c.depth++
	if !c.tooMuch && (c.visits > maxVisits || c.depth > maxDepth) {
		c.problem(n, path, "the document is too deep, or its aliases unfold to too much", "write it without aliases")
		c.tooMuch = true
	}
	return !c.tooMuch
}

// value converts n to type t. It returns false where there is nothing to use:
// a null or a problem.
func (c *converter) value(n *yaml.Node, t schema.Type, path string) (any, bool) {
	defer func() { c.depth-- }()
	if !c.enter(n, path) {
		return nil, false
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n == nil {
		return nil, false
	}
	if isNull(n) {
		c.null(n, t, path)
		return nil, false
	}
	if p, ok := t.Pointer(); ok {
		return c.value(n, p, path)
	}
	if elem, ok := t.List(); ok {
		return c.list(n, elem, path)
	}
	if elem, ok := t.Map(); ok {
		return c.mapping(n, elem, path)
	}
	if name, ok := t.Struct(); ok {
		if n.Kind != yaml.MappingNode {
			c.problem(n, path, "it must be a mapping (fields below it), not "+describe(n), "indent its fields below it")
			return nil, false
		}
		return c.object(n, c.schema.Types[name], path, false), true
	}
	return c.scalar(n, t.Name, path)
}

func (c *converter) list(n *yaml.Node, elem schema.Type, path string) (any, bool) {
	if n.Kind != yaml.SequenceNode {
		c.problem(n, path, "it must be a list, not "+describe(n), "put each element on a line of its own, after \"- \"")
		return nil, false
	}
	out := []any{}
	for i, e := range n.Content {
		p := fmt.Sprintf("%s[%d]", path, i)
		c.lines[p] = pos{e.Line, e.Column}
		if v, ok := c.value(e, elem, p); ok {
			out = append(out, v)
		}
	}
	return out, true
}

func (c *converter) mapping(n *yaml.Node, elem schema.Type, path string) (any, bool) {
	if n.Kind != yaml.MappingNode {
		c.problem(n, path, "it must be a mapping, not "+describe(n), "write `name: value` lines indented below it")
		return nil, false
	}
	out := map[string]any{}
	for _, e := range c.pairs(n, path) {
		p := join(path, e.key.Value)
		c.lines[p] = pos{e.key.Line, e.key.Column}
		if v, ok := c.value(e.value, elem, p); ok {
			out[e.key.Value] = v
		}
	}
	return out, true
}

func (c *converter) scalar(n *yaml.Node, typ, path string) (any, bool) {
	bad := func(want, remedy string) (any, bool) {
		c.problem(n, path, "it must be "+want+", not "+describe(n), remedy)
		return nil, false
	}
	if n.Kind != yaml.ScalarNode {
		return bad(article(typ), "write one value there")
	}
	tag := n.ShortTag()
	switch typ {
	case "string":
		return c.text(n, tag, path)
	case "bool":
		var b bool
		if tag != "!!bool" && !(tag == "!!str" && n.Style == 0) || n.Decode(&b) != nil {
			return bad("true or false", "write it without quotes")
		}
		return b, true
	case "int", "int32", "int64", "uint32", "uint64", "byte":
		var i int64
		if tag != "!!int" || n.Decode(&i) != nil || !fits(i, typ) {
			return bad("a whole number that fits "+typ, "write it as digits, without quotes")
		}
		return i, true
	case "float32", "float64":
		var f float64
		if tag != "!!int" && tag != "!!float" || n.Decode(&f) != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return bad("a number", "write it as digits, without quotes")
		}
		return f, true
	case "duration":
		if _, err := time.ParseDuration(n.Value); err != nil || tag != "!!str" {
			return bad("a duration", "write a number with its unit, as in 30s, 4m0s or 24h")
		}
		return n.Value, true
	case "nanoseconds":
		var i int64
		if tag == "!!int" && n.Decode(&i) == nil {
			return i, true
		}
		if _, err := time.ParseDuration(n.Value); err != nil {
			return bad("a duration", "write a number with its unit, as in 5s")
		}
		return n.Value, true
	case "time":
		if _, err := time.Parse(time.RFC3339, n.Value); err != nil {
			return bad("a time", "write it as in 2030-01-31T12:00:00Z")
		}
		return n.Value, true
	case "quantity":
		if _, err := resource.ParseQuantity(n.Value); err != nil {
			return bad("a quantity", "write a number with its unit, as in 512Mi or 2")
		}
		return n.Value, true
	}
	return bad("of type "+typ, "leave it out: this kbuild cannot read it")
}

// text converts a scalar for a text field. Like kubeadm it takes no number or
// boolean for text (`v: 4` among extraArgs), and no word that YAML 1.1, which
// kubeadm reads, takes for a boolean.
func (c *converter) text(n *yaml.Node, tag, path string) (any, bool) {
	if n.Style == 0 && !c.visible(n, path) {
		return nil, false
	}
	word := []string{"y", "n", "yes", "no", "on", "off"}
	switch {
	case tag != "!!str" && tag != "!!timestamp":
		c.problem(n, path, "it must be text, not "+describe(n), "put it in quotes")
		return nil, false
	case n.Style == 0 && slices.Contains(word, strings.ToLower(n.Value)):
		c.problem(n, path, "it must be text, not a word that YAML takes for true or false", "put it in quotes")
		return nil, false
	}
	return n.Value, true
}

func fits(i int64, typ string) bool {
	switch typ {
	case "int32":
		return i >= math.MinInt32 && i <= math.MaxInt32
	case "uint32":
		return i >= 0 && i <= math.MaxUint32
	case "uint64":
		return i >= 0
	case "byte":
		return i >= 0 && i <= math.MaxUint8
	}
	return true
}

// describe says what a node is, without its value: that may be a secret.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int":
		return "this number"
	case "!!float":
		return "this fraction"
	case "!!bool":
		return "true or false"
	case "!!str":
		return "this text"
	}
	return "this"
}

func article(typ string) string {
	switch typ {
	case "string":
		return "text"
	case "bool":
		return "true or false"
	}
	return "a " + typ
}
