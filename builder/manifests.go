package builder

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"
)

// manifestImages are the images that the objects of a multi-document YAML
// file name in an "image" field of a container, wherever the pod template
// is.
func manifestImages(file string, data []byte) ([]string, error) {
	var refs []string
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc any
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return refs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read manifest %s: %w", file, err)
		}
		if doc == nil {
			continue
		}
		obj, ok := doc.(map[string]any)
		if !ok || obj["kind"] == nil || obj["apiVersion"] == nil {
			return nil, fmt.Errorf("cannot bake manifest %s: a document has no apiVersion and kind", file)
		}
		refs = append(refs, containerImages(obj)...)
	}
}

func containerImages(v any) []string {
	var refs []string
	switch v := v.(type) {
	case map[string]any:
		for key, sub := range v {
			list, isList := sub.([]any)
			if isList && (key == "containers" || key == "initContainers") {
				for _, c := range list {
					if m, ok := c.(map[string]any); ok {
						if ref, ok := m["image"].(string); ok && ref != "" {
							refs = append(refs, ref)
						}
					}
				}
				continue
			}
			refs = append(refs, containerImages(sub)...)
		}
	case []any:
		for _, sub := range v {
			refs = append(refs, containerImages(sub)...)
		}
	}
	return refs
}
