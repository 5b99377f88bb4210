package identity

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
)

// platform is how much user-data a platform accepts.
type platform struct {
	limit  int  // bytes
	base64 bool // counted after base64
}

// platforms are the limits that the platforms document.
func platforms() map[string]platform {
	return map[string]platform{
		"aws":          {16 << 10, false},  // EC2 RunInstances, UserData: 16 KB before base64
		"azure":        {65535, false},     // OSProfile.customData: 65535 bytes when decoded
		"cloudstack":   {32 << 10, true},   // vm.userdata.max.length, default
		"digitalocean": {64 << 10, false},  // API v2, droplets: user_data
		"gce":          {256 << 10, false}, // one metadata value
		"hetzner":      {32 << 10, false},  // API, servers: user_data
		"openstack":    {65535, true},      // nova, servers: user_data
		"virtualbox":   {1023, false},      // guest properties: 1 KiB with its final NUL
		"vmware":       {64 << 10, true},   // a guestinfo value (open-vm-tools, GuestMsg)
	}
}

// Platforms are the names of the platforms whose limits are known.
func Platforms() []string { return slices.Sorted(maps.Keys(platforms())) }

// Fits says how much of the limit of a platform, one of Platforms, user-data
// uses. If it is too large, the error says what to do about it.
func Fits(name string, data []byte) (string, error) {
	p := platforms()[name]
	size := p.size(len(data))
	if size <= p.limit {
		return fmt.Sprintf("%d of the %d bytes that %s allows%s", size, p.limit, name, p.how()), nil
	}
	remedy := "use another way, such as a volume (--format nocloud-iso)"
	if packed := p.size(gzipped(data)); packed <= p.limit {
		remedy = fmt.Sprintf("compress it: gzip -9 makes it %d bytes, and nodes read gzip; or %s", packed, remedy)
	}
	return "", fmt.Errorf("the user-data is %d bytes%s, but %s allows only %d: %s", size, p.how(), name, p.limit, remedy)
}

func (p platform) size(n int) int {
	if p.base64 {
		return base64.StdEncoding.EncodedLen(n)
	}
	return n
}

func (p platform) how() string {
	if p.base64 {
		return " (after base64)"
	}
	return ""
}

// gzipped is the size of data when it is compressed.
func gzipped(data []byte) int {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level exists
	w.Write(data)                                         // a buffer never fails
	w.Close()
	return b.Len()
}
