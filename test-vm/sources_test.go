package testvm

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// Every way of giving a machine its user-data reaches the node, and status
// tells which one it was.
func TestScenarioSources(t *testing.T) {
	if Lane(*lane) != VM {
		t.Skip("fw_cfg and volumes are a VM's: -lane vm")
	}
	text := "apiVersion: kbuild.dev/v1alpha1\nkind: NodeMetadata\nrole: init\nname: told\n"
	for name, o := range map[string]Options{
		"fw_cfg":  {FwCfg: text},
		"NoCloud": {NoCloud: map[string]string{"user-data": text, "meta-data": "instance-id: i-1\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			o.Name = "untold"
			m := boot(t, o)
			ctx, cancel := context.WithTimeoutCause(t.Context(), limit(), errors.New("time is up"))
			defer cancel()
			var status struct{ Sources map[string]string }
			err := Wait(ctx, m, logf, "the metadata step", func(ctx context.Context) (string, error) {
				var e guest.Exec
				if err := m.Ask(ctx, guest.CmdExec, guest.ExecArgs{Argv: []string{"kbuild-firstboot", "status", "-o", "json"}}, &e); err != nil {
					return "", err
				}
				if json.Unmarshal([]byte(e.Stdout), &status) != nil || status.Sources == nil {
					return "status names no sources yet: " + e.Stdout + e.Stderr, nil
				}
				return "", nil
			})
			if err != nil {
				t.Fatal(err)
			}
			want := "credential"
			if name == "NoCloud" {
				want = "NoCloud"
			}
			if got := status.Sources["userdata"]; !strings.Contains(got, want) {
				t.Errorf("user-data came from %q, want %s", got, want)
			}
			e := ask[guest.Exec](t, m, guest.CmdExec, guest.ExecArgs{Argv: []string{"hostname"}})
			if strings.TrimSpace(e.Stdout) != "told" {
				t.Errorf("the machine is called %q, want told", e.Stdout)
			}
		})
	}
}
