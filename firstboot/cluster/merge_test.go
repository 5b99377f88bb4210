package cluster

import (
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// TestMerge3: an image's change is made, a person's stays, and of what both
// changed the person's stays and is named.
func TestMerge3(t *testing.T) {
	for name, c := range map[string]struct{ was, want, have, merged, theirs string }{
		"nobody changed anything":     {"{a: 1}", "{a: 1}", "{a: 1}", "{a: 1}", "[]"},
		"the image did":               {"{a: 1}", "{a: 2}", "{a: 1, default: x}", "{a: 2, default: x}", "[]"},
		"a person did":                {"{a: 1}", "{a: 1}", "{a: 2}", "{a: 2}", "[]"},
		"both, elsewhere":             {"{a: 1, b: 1}", "{a: 2, b: 1}", "{a: 1, b: 3}", "{a: 2, b: 3}", "[]"},
		"both, alike":                 {"{a: 1}", "{a: 2}", "{a: 2}", "{a: 2}", "[]"},
		"both":                        {"{m: {a: 1}}", "{m: {a: 2}}", "{m: {a: 3}}", "{m: {a: 3}}", "[m.a]"},
		"the image adds":              {"{}", "{a: {b: 1}}", "{c: 1}", "{a: {b: 1}, c: 1}", "[]"},
		"the image adds to a default": {"{}", "{a: 2}", "{a: 1}", "{a: 2}", "[]"},
		"a person adds":               {"{a: 1}", "{a: 2}", "{a: 1, mine: yes}", "{a: 2, mine: yes}", "[]"},
		"the image removes":           {"{a: 1, b: 2}", "{b: 2}", "{a: 1, b: 2}", "{b: 2}", "[]"},
		"what a person changed":       {"{a: 1}", "{}", "{a: 3}", "{a: 3}", "[a]"},
		"a person removes":            {"{a: 1, b: 1}", "{a: 1, b: 2}", "{b: 1}", "{b: 2}", "[]"},
		"what the image changes":      {"{a: 1}", "{a: 2}", "{}", "{}", "[a]"},
		"lists by name": {"{c: [{name: x, i: 1, d: 0}, {name: w, i: 1}]}", "{c: [{name: x, i: 2, d: 0}, {name: w, i: 1}, {name: z}]}",
			"{c: [{name: mine}, {name: x, i: 1, d: 5}, {name: w, i: 1}]}", "{c: [{name: mine}, {name: x, i: 2, d: 5}, {name: w, i: 1}, {name: z}]}", "[]"},
		"in a list by name":    {"{c: [{name: x, i: 1}]}", "{c: [{name: x, i: 2}]}", "{c: [{name: x, i: 3}]}", "{c: [{name: x, i: 3}]}", "['c[x].i']"},
		"an item removed":      {"{c: [{name: x}, {name: w}]}", "{c: [{name: x}]}", "{c: [{name: x}, {name: w}]}", "{c: [{name: x}]}", "[]"},
		"other lists":          {"{c: [1, 2]}", "{c: [1, 3]}", "{c: [1, 2]}", "{c: [1, 3]}", "[]"},
		"other lists, edited":  {"{c: [1, 2]}", "{c: [1, 3]}", "{c: [1, 2, 9]}", "{c: [1, 2, 9]}", "[c]"},
		"a list with defaults": {"{c: [{k: 1}]}", "{c: [{k: 2}]}", "{c: [{k: 1, default: x}]}", "{c: [{k: 2}]}", "[]"},
	} {
		merged, theirs := merge3("", parsed(t, c.was), parsed(t, c.want), parsed(t, c.have))
		if !reflect.DeepEqual(merged, parsed(t, c.merged)) {
			t.Errorf("%s: %v, want %s", name, merged, c.merged)
		}
		if got := append([]string{}, theirs...); !reflect.DeepEqual(any(got), any(names(t, c.theirs))) {
			t.Errorf("%s: theirs are %q, want %s", name, theirs, c.theirs)
		}
	}
}

// TestBefore: what is recorded is read as it was, and a Secret's text is compared
// with the data that the API server makes of it.
func TestBefore(t *testing.T) {
	read := func(text string) Object {
		t.Helper()
		objs, err := ParseManifest("x.yaml", []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: till}\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		return objs[0]
	}
	old, next := read("stringData: {a: old, b: old}"), read("stringData: {a: new, b: new}")
	have := read("data: {a: b2xk, b: bWluZQ==}") // old, mine
	objs, err := objectsOf([]runtime.Object{old})
	if err != nil {
		t.Fatal(err)
	}
	packed, err := pack(objs)
	if err != nil {
		t.Fatal(err)
	}
	before := unpack(packed)
	if !reflect.DeepEqual(before, objs) {
		t.Errorf("read %v, want %v", before, objs)
	}
	was, ours := before.of(next)
	want, err := unstructuredOf(next)
	if err != nil || !ours {
		t.Fatal(ours, err)
	}
	merged, theirs := mergeObject(next, was, ours, want, have.Object)
	if data := merged["data"]; !reflect.DeepEqual(data, parsed(t, "{a: bmV3, b: bWluZQ==}")) {
		t.Errorf("the data are %v", data)
	}
	if len(theirs) != 1 || theirs[0] != "Secret till was edited, and keeps its data.b" {
		t.Errorf("theirs are %q", theirs)
	}
	if next.Object["stringData"] == nil {
		t.Error("the manifest's own object has changed")
	}
}

func parsed(t *testing.T, text string) (v any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func names(t *testing.T, text string) []string {
	t.Helper()
	out := []string{}
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}
