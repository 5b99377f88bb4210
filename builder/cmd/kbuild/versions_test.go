package main

import (
	"encoding/json"
	"testing"

	"github.com/kbuild/kbuild/images"
)

func TestVersionsCommand(t *testing.T) {
	out := mustKbuild(t, "versions", "-o", "json")
	var all []minorVersion
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	known := images.Known()
	if len(all) != len(known) || all[0].Newest != known[len(known)-1].Newest {
		t.Fatalf("%d of %d versions, first %+v", len(all), len(known), all[0])
	}
	for _, m := range all {
		if m.Etcd == "" || m.CoreDNS == "" || m.Pause == "" || len(m.ConfigAPIs) == 0 {
			t.Errorf("%+v", m)
		}
	}
}
