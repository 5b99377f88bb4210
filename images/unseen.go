package images

import (
	"fmt"
	"slices"
	"strings"
)

// UnseenPatch is the error of Lookup for a patch release that came after the
// newest one which this kbuild has read of its minor release.
type UnseenPatch struct{ Version, Newest string }

func (e UnseenPatch) Error() string {
	minor := e.Newest[:strings.LastIndexByte(e.Newest, '.')]
	return fmt.Sprintf("unknown Kubernetes version %s: the newest %s that this kbuild knows is %s; use that one, or a newer kbuild", e.Version, minor, e.Newest)
}

// Assume is Lookup for who only has to deal with a version, and makes nothing of
// it: an unseen patch release of a known minor has the facts of the newest known
// one.
func Assume(name string) (Release, error) {
	r, err := Lookup(name)
	unseen, ok := err.(UnseenPatch)
	if !ok {
		return r, err
	}
	if r, err = Lookup(unseen.Newest); err != nil {
		return r, err
	}
	r.Version = unseen.Version
	return r, nil
}

// Constants are what a patch release may change: the constants of its own kubeadm.
type Constants struct {
	Etcd         string // DefaultEtcdVersion: "3.6.5-0"
	EtcdBefore   string // of SupportedEtcdVersion, for the minor before
	ExternalEtcd string // MinExternalEtcdVersion
	CoreDNS      string // CoreDNSVersion: "v1.12.1"
	Pause        string // PauseVersion: "3.10.1"
	Registry     string // DefaultImageRepository
}

// WithConstants makes r, which Assume returned, the release of the given constants. What
// does not fit what is known of the minor release is an error, and is named:
// another minor version of etcd or CoreDNS would want another configuration.
func (r Release) WithConstants(c Constants) (Release, error) {
	var wrong []string
	same := func(name, now, known string) {
		family := func(s string) string {
			parts := strings.SplitN(strings.TrimPrefix(s, "v"), ".", 3)
			return strings.Join(parts[:min(2, len(parts))], ".")
		}
		if family(now) != family(known) {
			wrong = append(wrong, fmt.Sprintf("%s is %q, and %q in the newest patch release that this kbuild knows", name, now, known))
		}
	}
	same("DefaultEtcdVersion", c.Etcd, r.Etcd.Tag)
	same("CoreDNSVersion", c.CoreDNS, r.CoreDNS.Tag)
	if c.Registry != r.Registry {
		wrong = append(wrong, fmt.Sprintf("DefaultImageRepository is %q, not %q", c.Registry, r.Registry))
	}
	for name, value := range map[string]string{"PauseVersion": c.Pause, "MinExternalEtcdVersion": c.ExternalEtcd, "SupportedEtcdVersion": c.EtcdBefore} {
		if !tagFormat.MatchString(value) {
			wrong = append(wrong, fmt.Sprintf("%s is %q", name, value))
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return r, fmt.Errorf("cannot take Kubernetes %s for a patch release like those before it: %s; use a newer kbuild", r.Version, strings.Join(wrong, "; "))
	}
	r.Etcd.Tag, r.CoreDNS.Tag, r.Pause.Tag, r.ExternalEtcd = c.Etcd, c.CoreDNS, c.Pause, c.ExternalEtcd
	r.EtcdFor = map[int]string{r.Minor() - 1: c.EtcdBefore, r.Minor(): c.Etcd}
	r.Unseen = true
	return r, nil
}
