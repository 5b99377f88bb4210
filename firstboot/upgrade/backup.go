package upgrade

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/kubelet"
	"github.com/kbuild/kbuild/firstboot/node"
	"github.com/kbuild/kbuild/firstboot/outcome"
)

const (
	// BackupDir is the backup of a node in the version before this one: the files
	// below it at their paths, and backupRecord. It is there whole or not at all.
	BackupDir    = "/var/lib/kbuild/kept"
	backupRecord = BackupDir + "/kept.json"
	partialDir   = "/var/lib/kbuild/.keeping" // BackupDir while it is being made
)

// Backup says what BackupDir is.
type Backup struct {
	Version string    `json:"version"` // of Kubernetes, that it is a backup of
	To      string    `json:"to"`      // the version that the node moved to
	Etcd    string    `json:"etcd"`    // tag of the etcd that it moved to
	Data    string    `json:"data"`    // directory of etcd's data; empty without a member here
	Time    time.Time `json:"time"`
}

// ReadBackup reads what this node has backed up; of none it is zero.
func ReadBackup(m *node.Machine) (Backup, error) { return host.ReadJSON[Backup](m.Host, backupRecord) }

// backupPaths are what a move changes: in order, with what counts most last.
func backupPaths() []string {
	return []string{
		kubelet.ConfigFile, kubelet.InstanceFile, kubelet.FlagsFile,
		node.ClusterFile, node.EtcdJoinFile,
		"/etc/kubernetes",
	}
}

// etcdData is where the member of this node has its data; empty without one.
func etcdData(m *node.Machine, n *config.Node) string {
	if n.Role == config.RoleWorker {
		return ""
	}
	dir := "/var/lib/etcd" // kubeadm's default, of a node that joined too
	if l := n.Cluster.Etcd.Local; l != nil && l.DataDir != "" {
		dir = l.DataDir
	}
	if !m.Host.Exists(path.Join(dir, "member")) {
		return ""
	}
	return dir
}

// makeBackup copies what the move of n, as it is in its cluster, from version old to
// this image's will change. etcd does not run yet, so its data is copied as it
// lies: log and database, the last write included.
func makeBackup(m *node.Machine, n *config.Node, old string) error {
	h := m.Host
	paths := append(backupPaths(), node.ConfigFile)
	data := etcdData(m, n)
	if data != "" {
		paths = append([]string{path.Join(data, "member")}, paths...)
	}
	if err := checkRoom(h, paths); err != nil {
		return err
	}
	if err := h.RemoveAll(partialDir); err != nil {
		return err
	}
	err := h.Do("copy what a move changes", func() error {
		if err := h.Root.MkdirAll(strings.TrimPrefix(partialDir, "/"), 0o700); err != nil {
			return err
		}
		for _, p := range paths {
			if err := copyTree(h, p, partialDir+p); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot keep a copy of the node: %w", err)
	}
	rel := m.Baked.Release
	k := Backup{Version: old, To: rel.Version, Etcd: rel.Etcd.Tag, Data: data, Time: h.Now().UTC()}
	if err := m.Host.WriteJSON(path.Join(partialDir, path.Base(backupRecord)), k); err != nil {
		return err
	}
	if err := h.RemoveAll(BackupDir); err != nil { // of the move before this one
		return err
	}
	return h.Rename(partialDir, BackupDir)
}

// restore puts in place what was kept of this image's version. Data of etcd stays
// as it is, with everything that was written meanwhile, where this version's
// etcd reads it.
func restore(m *node.Machine, k Backup) error {
	h := m.Host
	if err := k.checkEtcd(m.Baked.Release); err != nil {
		return err
	}
	for _, p := range backupPaths() {
		if err := restoreTree(h, BackupDir+p, p); err != nil {
			return fmt.Errorf("cannot undo the move to %s: %w", k.To, err)
		}
	}
	if err := restoreTree(h, BackupDir+node.ConfigFile, node.ConfigFile); err != nil {
		return fmt.Errorf("cannot undo the move to %s: %w", k.To, err)
	}
	return dropBackup(h)
}

// dropBackup removes what is kept. Its name goes first: a copy that is removed in
// part must not be taken for a whole one by a move that follows.
func dropBackup(h *host.Host) error {
	if err := h.RemoveAll(partialDir); err != nil {
		return err
	}
	if h.Exists(BackupDir) {
		if err := h.Rename(BackupDir, partialDir); err != nil {
			return err
		}
	}
	return h.RemoveAll(partialDir)
}

// checkRoom refuses to copy paths where they do not fit beside what is there.
func checkRoom(h *host.Host, paths []string) error {
	var size int64
	for _, p := range paths {
		err := fs.WalkDir(h.Root.FS(), strings.TrimPrefix(p, "/"), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return ignoreMissing(err)
			}
			info, err := d.Info()
			if err == nil {
				size += info.Size()
			}
			return ignoreMissing(err)
		})
		if err != nil {
			return err
		}
	}
	const spare = 64 << 20 // for what the new version writes until it is Ready
	free, err := h.Probe.Space("/var/lib/kbuild")
	if err != nil {
		return fmt.Errorf("cannot ask how much room there is: %w", err)
	}
	if want := uint64(size) + spare; free < want {
		return outcome.Refuse("cannot move this node to another version: /var has %d MiB free, and a copy of what the move changes (certificates, configuration, etcd) takes %d MiB; make room or grow the disk", free>>20, want>>20)
	}
	return nil
}
