package metadata

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

func TestVMware(t *testing.T) {
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	b64 := base64.StdEncoding.EncodeToString
	packed := b64(zipped(t, document))
	for name, c := range map[string]struct {
		keys              map[string]string
		data, source, err string
	}{
		"plain":         {map[string]string{"userdata": document}, document, "VMware guestinfo.userdata", ""},
		"base64":        {map[string]string{"userdata": b64([]byte(document)), "userdata.encoding": "base64"}, document, "VMware guestinfo.userdata", ""},
		"gzip+base64":   {map[string]string{"userdata": packed, "userdata.encoding": "gzip+base64"}, document, "VMware guestinfo.userdata", ""},
		"gz+b64":        {map[string]string{"userdata": packed, "userdata.encoding": "gz+b64"}, document, "VMware guestinfo.userdata", ""},
		"with metadata": {map[string]string{"userdata": document, "metadata": b64([]byte("instance-id: i-0123\nlocal-hostname: node-7\n")), "metadata.encoding": "b64"}, document, "VMware guestinfo.userdata", ""},
		"none":          {nil, "", "", ""},
		"emptied":       {map[string]string{"userdata": "---"}, "", "", ""},
		"unknown":       {map[string]string{"userdata": document, "userdata.encoding": "zstd"}, "", "", `guestinfo.userdata: its encoding is said to be "zstd"`},
		"not so":        {map[string]string{"userdata": document, "userdata.encoding": "base64"}, "", "", "guestinfo.userdata: it is not the base64"},
		"cut":           {map[string]string{"userdata": packed[:40], "userdata.encoding": "gzip+base64"}, "", "", "damaged gzip"},
		"bad metadata":  {map[string]string{"userdata": document, "metadata": "- a\n: :\n"}, "", "", "guestinfo.metadata: "},
	} {
		h := machine(t, map[string]string{dmi + "sys_vendor": "VMware, Inc.\n"})
		h.GuestInfo = func(key string) (string, error) { return c.keys[key], nil }
		f, err := Find(t.Context(), h)
		if string(f.UserData()) != c.data || f.Source != c.source || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q from %q, %v", name, f.UserData(), f.Source, err)
		}
		if name == "with metadata" && (f.InstanceID != "i-0123" || f.Hostname != "node-7") {
			t.Errorf("%s: %q %q", name, f.InstanceID, f.Hostname)
		}
	}
	h := machine(t, map[string]string{dmi + "sys_vendor": "VMware, Inc.\n"})
	h.GuestInfo = func(string) (string, error) { return "", errors.New("the backdoor is shut") }
	if _, err := Find(t.Context(), h); err == nil || !strings.Contains(err.Error(), "VMware guestinfo: the backdoor is shut") {
		t.Errorf("a shut backdoor: %v", err)
	}
	// Elsewhere nobody touches the port.
	h = machine(t, map[string]string{dmi + "sys_vendor": "QEMU\n"})
	h.GuestInfo = func(string) (string, error) { t.Error("asked"); return "", nil }
	if f, err := Find(t.Context(), h); err != nil || f.Source != "" {
		t.Errorf("%+v %v", f, err)
	}
}
