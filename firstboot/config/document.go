package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	yaml "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/version"

	"github.com/kbuild/kbuild/firstboot/config/schema"
	"github.com/kbuild/kbuild/images"
)

// Document is configuration text and where it was found.
type Document struct {
	Source string // for people: "credential kbuild.userdata"
	Data   []byte
	Baked  bool // it is part of the image, beneath the node's own user-data
	kept   bool // it is what a cluster keeps: written by programs, read as kubeadm reads it
}

// MaxSize is the size of a Document that is still read, in bytes.
const MaxSize = 1 << 20

// object is one YAML document: an object of a known kind, checked against the
// kind's fields.
type object struct {
	doc   Document
	kind  string
	api   string
	old   bool           // the image's kubeadm no longer reads this version of its API
	value map[string]any // JSON-like: map[string]any, []any, string, bool, int64, float64
	lines map[string]pos // where each field and list element is; "" is the object itself
}

type pos struct{ line, column int }

// Kinds that are not Kubernetes' own.
const (
	nodeMetadataAPI  = "kbuild.dev/v1alpha1"
	nodeMetadataKind = "NodeMetadata"
)

// read splits d into its objects and checks each against its kind.
func read(s *schema.Schema, rel images.Release, d Document, probs *Problems) []object {
	d.Data = Text(d.Data)
	if len(d.Data) > MaxSize {
		probs.add(Problem{Source: d.Source, What: fmt.Sprintf("%d bytes is more than the %d that are read", len(d.Data), MaxSize), Remedy: "make it smaller; manifests belong into the image (kbuild image --manifest)"})
		return nil
	}
	if bytes.IndexByte(d.Data, 0) >= 0 {
		probs.add(Problem{Source: d.Source, What: "it is binary, not YAML", Remedy: "give it as plain text or gzip, and as base64 only where the platform's own encoding asks for it"})
		return nil
	}
	var objs []object
	seen := map[string]int{}
	dec := yaml.NewDecoder(bytes.NewReader(d.Data))
	for {
		var n yaml.Node
		err := decode(dec, &n)
		if errors.Is(err, io.EOF) {
			return objs
		}
		if err != nil {
			p := Problem{Source: d.Source, Remedy: "check indentation (spaces, no tabs), colons and quotes around there"}
			p.Line, p.What = syntaxError(err)
			if line, column, what, remedy := whyNotYAML(d.Data, p.Line); line > 0 {
				p.Line, p.Column, p.What, p.Remedy = line, column, what, remedy
			}
			p.What, p.Excerpt = "it is not valid YAML: "+p.What, excerpt(d.Data, p.Line, p.Column)
			probs.add(p)
			return objs
		}
		if n.Kind != yaml.DocumentNode || len(n.Content) != 1 || isNull(n.Content[0]) {
			continue // an empty document, as between two "---"
		}
		o, ok := readObject(s, rel, d, n.Content[0], probs)
		if !ok {
			continue
		}
		line := n.Content[0].Line
		if first, dup := seen[o.kind]; dup {
			probs.add(Problem{Source: d.Source, Line: line, Field: o.kind, What: fmt.Sprintf("this kind is there already, at line %d", first), Remedy: "keep one document of each kind", Excerpt: excerpt(d.Data, line, 0)})
			continue
		}
		seen[o.kind] = line
		if first := mixed(objs, o); first != "" {
			at := o.lines[""]
			probs.add(Problem{Source: d.Source, Line: at.line, Column: at.column, Field: o.kind, What: fmt.Sprintf("it is of %s, and a document before it of %s", o.api, first), Remedy: "write all of kubeadm's kinds in one version of its API", Excerpt: excerpt(d.Data, at.line, at.column)})
			continue
		}
		objs = append(objs, o)
	}
}

// mixed returns the version of kubeadm's API that objs are of, if o is of another.
func mixed(objs []object, o object) string {
	for _, before := range objs {
		if strings.HasPrefix(before.api, kubeadmGroup) && strings.HasPrefix(o.api, kubeadmGroup) && before.api != o.api {
			return before.api
		}
	}
	return ""
}

// decode reads the next document. The YAML library has panicked on garbage
// before; what it reads here comes from outside.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%v", r)
		}
	}()
	return dec.Decode(n)
}

var yamlLine = regexp.MustCompile(`^yaml: (?:[a-z ]*)?line (\d+):\s*(?:column \d+:\s*)?`)

func syntaxError(err error) (line int, what string) {
	s := err.Error()
	if m := yamlLine.FindStringSubmatch(s); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits
		return line, secretText.ReplaceAllString(s[len(m[0]):], redacted)
	}
	return 0, secretText.ReplaceAllString(strings.TrimPrefix(s, "yaml: "), redacted)
}

// readObject checks one document of d. A field with a problem is not in the
// object's value; it returns false where the document cannot be read at all.
func readObject(s *schema.Schema, rel images.Release, d Document, n *yaml.Node, probs *Problems) (object, bool) {
	at := func(m *yaml.Node, field, what, remedy string) {
		probs.add(Problem{Source: d.Source, Line: m.Line, Column: m.Column, Field: field, What: what, Remedy: remedy, Excerpt: excerpt(d.Data, m.Line, m.Column)})
	}
	if n.Kind != yaml.MappingNode {
		at(n, "", "a document must be a mapping with apiVersion and kind", "begin it with `apiVersion: kbuild.dev/v1alpha1` and `kind: NodeMetadata`, or with kubeadm's kinds")
		return object{}, false
	}
	o := object{doc: d, lines: map[string]pos{"": {n.Line, n.Column}}}
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch n.Content[i].Value {
		case "apiVersion":
			o.api = n.Content[i+1].Value
		case "kind":
			o.kind = n.Content[i+1].Value
		}
	}
	if o.api == "" || o.kind == "" {
		at(n, "", "apiVersion or kind is missing", "begin each document with both, e.g. `apiVersion: "+nodeMetadataAPI+"` and `kind: "+nodeMetadataKind+"`")
		return object{}, false
	}
	c := converter{schema: s, doc: d, kind: o.kind, lines: o.lines, probs: probs}
	if o.api == nodeMetadataAPI && o.kind == nodeMetadataKind {
		o.value = c.object(n, nodeMetadataFields(s), "", true)
		return o, true
	}
	of, old := schemaOf(s, rel, d, o.api, o.kind)
	if of == nil {
		what, remedy := wrongKind(s, rel, o.api, o.kind)
		at(n, "", what, remedy)
		return object{}, false
	}
	c.schema, o.old = of, old
	o.value = c.object(n, of.Types[of.Kinds[o.api+"/"+o.kind]], "", true)
	if strings.HasPrefix(o.api, kubeadmGroup) {
		o.common()
	}
	return o, true
}

// wrongKind says what is wrong with a kind that the schema does not have.
func wrongKind(s *schema.Schema, rel images.Release, api, kind string) (what, remedy string) {
	var apis, kinds []string
	for k := range s.Kinds {
		i := strings.LastIndexByte(k, '/')
		if k[i+1:] == kind {
			apis = append(apis, k[:i])
		}
		if k[:i] == api {
			kinds = append(kinds, k[i+1:])
		}
	}
	if kind == nodeMetadataKind {
		apis = append(apis, nodeMetadataAPI)
	}
	if api == nodeMetadataAPI {
		kinds = append(kinds, nodeMetadataKind)
	}
	what = fmt.Sprintf("Kubernetes %s has no kind %q in %q", rel.Version, kind, api)
	slices.SortFunc(apis, func(a, b string) int {
		return version.CompareKubeAwareVersionStrings(b[strings.LastIndexByte(b, '/')+1:], a[strings.LastIndexByte(a, '/')+1:])
	})
	switch {
	case len(apis) > 0:
		remedy = "write `apiVersion: " + apis[0] + "`"
		if v, ok := strings.CutPrefix(api, kubeadmGroup); ok && !olderAPI(v, rel.ConfigAPIs[0]) {
			remedy += " and its fields"
			if hasLists(api) && !hasLists(apis[0]) {
				remedy += ": there, extraArgs are `name: value` lines, and timeoutForControlPlane and discovery.timeout stand for timeouts"
			}
			if rel.ConfigAPI == "v1beta2" {
				remedy += "; patches and skipPhases go into a " + nodeMetadataKind
			}
			remedy += " (kubeadm converts to newer versions only)"
		}
	case len(kinds) > 0:
		remedy = "kinds of that version are " + list(kinds)
	default:
		remedy = "a node reads kubeadm's InitConfiguration and ClusterConfiguration, KubeletConfiguration, KubeProxyConfiguration and " + nodeMetadataKind
	}
	return what, remedy
}
