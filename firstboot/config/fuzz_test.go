package config

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// Whatever the bytes are, the outcome is a valid node or an error that names
// its source; a node can be frozen, thawed and written.
func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.yaml", "testdata/examples/*.yaml", "testdata/kubeadm/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	bk := baked(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		n, _, err := Load(bk, machine(), Document{Source: "fuzz", Data: data})
		if err != nil {
			var p Problems
			if errors.As(err, &p) && len(p) == 0 {
				t.Error("no problem in Problems")
			}
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		b, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		var back Node
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if _, err := Validate(&back, bk); err != nil {
			t.Errorf("valid, frozen and thawed, it is not: %v", err)
		}
		for _, n := range []*Node{n, &back} {
			if _, err := MarshalCluster(n, bk.Release); err != nil {
				t.Error(err)
			}
			if _, err := MarshalKubelet(n, bk.Release); err != nil {
				t.Error(err)
			}
			if _, err := MarshalKubeProxy(n, bk.Release); err != nil {
				t.Error(err)
			}
		}
	})
}
