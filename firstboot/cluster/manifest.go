package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sort"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// Object is one object of a manifest and where it was read.
type Object struct {
	*unstructured.Unstructured
	File string
	Line int
}

func (o Object) String() string {
	return fmt.Sprintf("%s %s (%s, line %d)", o.GetKind(), nameOf(o), o.File, o.Line)
}

// ParseManifest reads the YAML or JSON documents of a manifest as kubectl does;
// empty ones are left out and lists are taken apart. An error names file, line
// and remedy.
func ParseManifest(file string, b []byte) ([]Object, error) {
	var objs []Object
	for _, d := range documents(b) {
		got, err := parseDocument(file, d)
		if err != nil {
			return nil, fmt.Errorf("cannot read manifest %s, document at line %d: %w", file, d.line, err)
		}
		objs = append(objs, got...)
	}
	return objs, nil
}

// document is one YAML document and the line it begins at.
type document struct {
	line int
	text []byte
}

func documents(b []byte) []document {
	docs := []document{{line: 1}}
	line := 0
	for text := range bytes.Lines(b) {
		line++
		if bytes.Equal(bytes.TrimRight(text, " \t\r\n"), []byte("---")) || bytes.HasPrefix(text, []byte("--- ")) {
			docs = append(docs, document{line: line + 1})
			continue
		}
		last := &docs[len(docs)-1]
		if last.text == nil && len(bytes.TrimSpace(text)) == 0 {
			last.line = line + 1
			continue
		}
		last.text = append(last.text, text...)
	}
	return docs
}

func parseDocument(file string, d document) ([]Object, error) {
	var content any
	if err := yaml.UnmarshalStrict(d.text, &content); err != nil {
		return nil, err
	}
	if content == nil {
		return nil, nil
	}
	fields, ok := content.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("want an object with apiVersion and kind, have %T", content)
	}
	// JSON numbers that are whole must be int64 for the converter.
	j, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{}
	if err := utiljson.Unmarshal(j, &u.Object); err != nil {
		return nil, err
	}
	if !u.IsList() {
		o, err := checked(Object{u, file, d.line})
		return []Object{o}, err
	}
	var objs []Object
	err = u.EachListItem(func(item runtime.Object) error {
		o, err := checked(Object{item.(*unstructured.Unstructured), file, d.line})
		objs = append(objs, o)
		return err
	})
	return objs, err
}

func checked(o Object) (Object, error) {
	switch {
	case o.GetAPIVersion() == "" || o.GetKind() == "":
		return o, fmt.Errorf("apiVersion or kind is missing: every object needs both")
	case o.GetName() == "" && o.GetGenerateName() != "":
		return o, fmt.Errorf("%s has generateName: give it a name, because a manifest is applied more than once", o.GetKind())
	case o.GetName() == "":
		return o, fmt.Errorf("%s has no metadata.name: give it one", o.GetKind())
	}
	return o, nil
}

// Typed decodes a manifest whose kinds client-go knows into their types, in
// the manifest's order.
func Typed(file string, b []byte) ([]runtime.Object, error) {
	objs, err := ParseManifest(file, b)
	if err != nil {
		return nil, err
	}
	var typed []runtime.Object
	for _, o := range objs {
		t, err := scheme.Scheme.New(o.GroupVersionKind())
		if err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", o, err)
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, t, true); err != nil {
			return nil, fmt.Errorf("cannot read %s: %w", o, err)
		}
		typed = append(typed, t)
	}
	return typed, nil
}

// inOrder sorts objects so that each comes after what it needs: namespaces,
// then CustomResourceDefinitions, then the rest as written.
func inOrder(objs []Object) []Object {
	sorted := append([]Object(nil), objs...)
	sort.SliceStable(sorted, func(i, j int) bool { return rank(sorted[i]) < rank(sorted[j]) })
	return sorted
}

func rank(o Object) int {
	gk := o.GroupVersionKind().GroupKind()
	switch {
	case gk.Group == "" && gk.Kind == "Namespace":
		return 0
	case gk.Group == "apiextensions.k8s.io" && gk.Kind == "CustomResourceDefinition":
		return 1
	}
	return 2
}
