package images

import "fmt"

// CheckUpgradeFrom returns nil if a node of Kubernetes version old can be
// upgraded to r by booting another image, else why not. The rules are those of
// kubeadm for a control plane (cmd/kubeadm/app/phases/upgrade/policy.go): no
// minor release is skipped, and there is no downgrade. A rollback to a node's own
// backup is not checked here.
func (r Release) CheckUpgradeFrom(old string) error {
	from, err := Assume(old)
	if err != nil {
		return fmt.Errorf("this image does not know the node's version: %w", err)
	}
	_, a, p, err := parse(from.Version)
	if err != nil {
		return err
	}
	_, b, q, err := parse(r.Version)
	switch {
	case err != nil:
		return err
	case b > a+1:
		return fmt.Errorf("cannot upgrade from Kubernetes %s to %s: minor versions are upgraded one after another; upgrade to v1.%d first", from.Version, r.Version, a+1)
	case b < a || b == a && q < p:
		return fmt.Errorf("cannot downgrade from Kubernetes %s to %s: it is older, and this node has no backup of it", from.Version, r.Version)
	}
	return nil
}

// Targets are the versions that a node of version old can be upgraded to, oldest
// first:
// the newest known patch of its own minor release and of the next one.
func Targets(old string) []string {
	var targets []string
	for _, known := range Known() {
		r, err := Lookup(known.Newest)
		if err == nil && r.Version != old && r.CheckUpgradeFrom(old) == nil {
			targets = append(targets, r.Version)
		}
	}
	return targets
}

// Before says whether r is an older version of Kubernetes than version; false if
// that cannot be read.
func (r Release) Before(version string) bool {
	_, a, p, err := parse(r.Version)
	_, b, q, err2 := parse(version)
	return err == nil && err2 == nil && (a < b || a == b && p < q)
}

// Reached says whether r is of a minor release, as in "1.25", or of a later one;
// false if that cannot be read.
func (r Release) Reached(minor string) bool {
	_, a, _, err := parse(r.Version)
	_, b, _, err2 := parse(minor + ".0")
	return err == nil && err2 == nil && a >= b
}

// ReadsEtcd says whether the etcd of r can use the data of another release's etcd,
// given by its image's tag ("3.4.13-0"): etcd reads what another patch of the same
// minor version wrote, and nothing newer.
func (r Release) ReadsEtcd(tag string) bool {
	var a, b, c, d int
	_, err := fmt.Sscanf(r.Etcd.Tag, "%d.%d.", &a, &b)
	_, err2 := fmt.Sscanf(tag, "%d.%d.", &c, &d)
	return err == nil && err2 == nil && (a > c || a == c && b >= d)
}
