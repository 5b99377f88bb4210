package metadata

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kbuild/kbuild/firstboot/host"
)

// vmware reads guestinfo keys, by the names that cloud-init's VMware source
// gave them. A value of "---" is how that source empties one.
func vmware(_ context.Context, h *host.Host) (Found, error) {
	if !on(h, []mark{{dmi + "sys_vendor", "VMware, Inc."}}) {
		return Found{}, errNone
	}
	if h.GuestInfo == nil {
		return Found{}, errors.New("nobody can be asked for guestinfo")
	}
	data, err := guestInfo(h, "userdata")
	if err == nil && data == nil {
		err = errNone
	}
	if err != nil {
		return Found{}, err
	}
	meta, err := guestInfo(h, "metadata")
	if err != nil {
		return Found{}, err
	}
	f := given("VMware guestinfo.userdata", data)
	if err := f.instance(meta); err != nil {
		return Found{}, fmt.Errorf("guestinfo.metadata: %w", err)
	}
	return f, nil
}

// guestInfo is the value of a key, decoded as the key's own encoding says; nil
// if it is empty.
func guestInfo(h *host.Host, key string) ([]byte, error) {
	v, err := h.GuestInfo(key)
	if err != nil || strings.TrimSpace(v) == "" || strings.TrimSpace(v) == "---" {
		return nil, err
	}
	encoding, err := h.GuestInfo(key + ".encoding")
	if err != nil {
		return nil, err
	}
	b, err := decodeAs(encoding, v)
	if err != nil {
		return nil, fmt.Errorf("guestinfo.%s: %w", key, err)
	}
	return gunzip(b)
}
