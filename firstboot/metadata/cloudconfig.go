package metadata

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"github.com/kbuild/kbuild/firstboot/config"
)

// cloudKey is the key of a cloud-config that holds kbuild's documents.
const cloudKey = "kbuild"

// cloudConfig takes kbuild's documents out of a cloud-config: the value of its
// key kbuild is text that holds them, or one document as a mapping. Its other
// keys are for cloud-init, which does not run here.
func (u *unwrapper) cloudConfig(d config.Document) (config.Document, error) {
	top, err := oneMapping(d.Data)
	if err != nil {
		return d, fmt.Errorf("its #cloud-config %w", err)
	}
	out := config.Document{Source: part(d, "key "+cloudKey+" of its #cloud-config")}
	var others []string
	for i := 0; i+1 < len(top.Content); i += 2 {
		key, value := top.Content[i], top.Content[i+1]
		if key.Value != cloudKey {
			others = append(others, fmt.Sprintf("%.40q", key.Value))
			continue
		}
		next := 0 // the line where the next key stands
		if i+2 < len(top.Content) {
			next = top.Content[i+2].Line
		}
		if out.Data != nil {
			return d, fmt.Errorf("its #cloud-config has the key %s twice, the second time at line %d: keep one", cloudKey, key.Line)
		}
		out.Data, err = documentsOf(d.Data, value, next)
		if err != nil {
			return d, fmt.Errorf("key %s of its #cloud-config, at line %d, %w", cloudKey, value.Line, err)
		}
	}
	if out.Data == nil {
		return d, fmt.Errorf("its #cloud-config has no key %s: add `%s: |` with the documents indented below it", cloudKey, cloudKey)
	}
	if len(others) > 0 {
		slices.Sort(others)
		u.warnings = append(u.warnings, fmt.Sprintf("%s: only key %s of the #cloud-config is read; ignored are %s", d.Source, cloudKey, strings.Join(others, ", ")))
	}
	if len(out.Data) > config.MaxSize {
		return d, fmt.Errorf("it is %w", errTooLarge)
	}
	return out, nil
}

// oneMapping parses b as one YAML document that is a mapping.
func oneMapping(b []byte) (top *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("is not YAML: %v", r)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); err != nil {
		return nil, fmt.Errorf("is not valid YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("is more than one YAML document: put what kbuild shall read under one key " + cloudKey)
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("is no mapping: write keys and values below the first line")
	}
	return doc.Content[0], nil
}

// documentsOf is the text of the documents that are the value of a key in text,
// at the lines where they stand there if that can be. next is the line of the
// next key, 0 if there is none.
func documentsOf(text []byte, v *yaml.Node, next int) ([]byte, error) {
	for v.Kind == yaml.AliasNode {
		v = v.Alias
	}
	switch v.Kind {
	case yaml.ScalarNode:
		if v.ShortTag() != "!!str" {
			return nil, errors.New("is neither text nor a mapping: write `|` behind the key and the documents indented below it")
		}
		// What a literal block holds begins on the line after its "|".
		at := v.Line - 1
		if v.Style&yaml.LiteralStyle != 0 {
			at++
		}
		return []byte(strings.Repeat("\n", at) + v.Value), nil
	case yaml.MappingNode:
		left := maxNodes
		whole := withoutAliases(v, &left)
		if left < 0 {
			return nil, fmt.Errorf("has more than %d values", maxNodes)
		}
		b, err := encodeYAML(whole)
		if err != nil {
			return nil, fmt.Errorf("cannot be read: %w", err)
		}
		if own := cutOut(text, v, next); sameYAML(own, b) {
			return own, nil
		}
		return b, nil // it leans on an anchor, perhaps outside
	}
	return nil, errors.New("is a list: write one document as a mapping, or several as text (`|`)")
}

// encodeYAML is yaml.Marshal, with the caution of decodeYAML.
func encodeYAML(v any) (b []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("it is not YAML: %v", r)
		}
	}()
	return yaml.Marshal(v)
}

// maxNodes bounds what a mapping is to hold: aliases of aliases grow fast.
const maxNodes = 1 << 16

// withoutAliases is a copy of n, of at most left nodes, in which each alias is
// replaced by what it stands for.
func withoutAliases(n *yaml.Node, left *int) *yaml.Node {
	for n.Kind == yaml.AliasNode && *left >= 0 {
		*left--
		n = n.Alias
	}
	if *left--; *left < 0 {
		return n
	}
	c := *n
	c.Anchor, c.Content = "", nil
	for _, below := range n.Content {
		if *left >= 0 {
			c.Content = append(c.Content, withoutAliases(below, left))
		}
	}
	return &c
}

// cutOut is what stands in text from v on and before line next, where it
// stands: what is before it becomes empty lines and spaces.
func cutOut(text []byte, v *yaml.Node, next int) []byte {
	lines := strings.SplitAfter(string(text), "\n")
	if v.Line < 1 || v.Line > len(lines) {
		return nil
	}
	if next >= v.Line && next <= len(lines) {
		lines = lines[:next-1]
	}
	if v.Line > len(lines) {
		return nil
	}
	first := []rune(lines[v.Line-1])
	if v.Column-1 > len(first) {
		return nil
	}
	return []byte(strings.Repeat("\n", v.Line-1) + strings.Repeat(" ", v.Column-1) + string(first[v.Column-1:]) + strings.Join(lines[v.Line:], ""))
}

// sameYAML says whether a and b hold the same single document.
func sameYAML(a, b []byte) bool {
	x, err := oneMapping(a)
	if err != nil {
		return false
	}
	y, err := oneMapping(b)
	return err == nil && reflect.DeepEqual(bare(x), bare(y))
}

// bare is a node's content without its places, comments and style.
func bare(n *yaml.Node) any {
	if n.Kind == yaml.ScalarNode {
		return [2]string{n.ShortTag(), n.Value}
	}
	out := []any{n.Kind}
	for _, c := range n.Content {
		out = append(out, bare(c))
	}
	return out
}
