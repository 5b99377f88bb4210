package upgrade

import (
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

// CheckTry says why this machine cannot try a new image; nil is that it can. One
// that is no node yet would become one of the new version, with no way back.
func CheckTry(m *node.Machine) error {
	switch {
	case node.Resetting(m.Host):
		return outcome.Refuse("this machine is being reset; let it become a new node first")
	case !m.Host.Exists(node.ConfigFile):
		return outcome.Refuse("this machine is no node yet, so nothing could tell whether the new image is healthy; give it user-data first, or install the new image")
	}
	return nil
}

// CheckRollback says why this node cannot go back to the version that its other
// slot holds; nil is that it can.
func CheckRollback(m *node.Machine, other string) error {
	own := m.Baked.Release.Version
	if other == own || !m.Host.Exists(node.ConfigFile) {
		return nil // nothing was moved, or there is no node yet
	}
	k, err := ReadBackup(m)
	if err != nil {
		return err
	}
	if k.Version != other || k.To != own {
		return outcome.Refuse("cannot go back to %s: this node was made in %s, and has no backup of that version; stage an image of this version or a newer one", other, own)
	}
	old, err := images.Assume(k.Version)
	if err != nil {
		return outcome.Refuse("%w", err)
	}
	return k.checkEtcd(old)
}

// checkEtcd says why release, which this is a backup of, could not go on with
// the data of etcd as it is now; nil is that it can, or that there is none.
func (b Backup) checkEtcd(release images.Release) error {
	if b.Data == "" || release.ReadsEtcd(b.Etcd) {
		return nil
	}
	return outcome.Refuse("cannot go back to %s: etcd %s has used this node's data, and %s's etcd %s does not read it; the data from before is in %s", b.Version, b.Etcd, b.Version, release.Etcd.Tag, BackupDir+b.Data)
}
