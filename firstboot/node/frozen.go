package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/kbuild/kbuild/firstboot/config"
	"github.com/kbuild/kbuild/firstboot/host"
)

// Keys of config.Node's Sources under which stands what the whole of it was made
// from: where the user-data was and its digest, and the digest of the image's own
// configuration.
const (
	UserDataSource = "userdata"
	ImageSource    = "image"
)

// MadeFrom names what a frozen configuration was made from, without telling what
// is in it. A record that a step keeps carries it: what was found or judged for
// other user-data does not count.
func MadeFrom(n *config.Node) string {
	return n.Sources[UserDataSource] + "; " + n.Sources[ImageSource]
}

// Load reads what this machine knows of itself: its frozen configuration, and on
// one that joins what it has found of its cluster, if it has. False is that it
// is no node yet.
func Load(h *host.Host) (*config.Node, bool, error) {
	if !h.Exists(ConfigFile) {
		return nil, false, nil
	}
	n, err := Frozen(h)
	if err != nil || !n.Role.Joins() {
		return n, err == nil, err
	}
	in, err := readCluster(h)
	if err != nil {
		return nil, false, err
	}
	if in != nil && (in.MadeFrom == MadeFrom(n) || h.Exists(KubeletKubeconfig)) {
		n = n.In(in.Cluster)
	}
	return n, true, nil
}

// Frozen reads the frozen configuration alone, for the machine as it is now.
func Frozen(h *host.Host) (*config.Node, error) {
	n := &config.Node{}
	b, err := h.ReadFile(ConfigFile)
	if err != nil {
		return nil, fmt.Errorf("cannot read the frozen configuration: %w", err)
	}
	if err := strictly(b, n); err != nil {
		return nil, fmt.Errorf("cannot read the frozen configuration %s: %w; it was not written by this kbuild: wipe the var partition to set the node up anew", ConfigFile, err)
	}
	n.CgroupDriver = cgroupDriver(h)
	return n, nil
}

// Freeze writes the frozen configuration.
func (m *Machine) Freeze(n *config.Node) error {
	if err := m.Host.MkdirAll("/var/lib/kbuild", 0o755); err != nil {
		return err
	}
	return m.Host.WriteJSON(ConfigFile, n)
}

// inCluster is the content of ClusterFile. A record from before there was
// MadeFrom counts on a machine that has joined; any other finds its cluster
// again.
type inCluster struct {
	config.Cluster
	MadeFrom string `json:"madeFrom,omitempty"`
}

// readCluster reads what was found of the cluster; nil is nothing.
func readCluster(h *host.Host) (*inCluster, error) {
	b, err := h.ReadFile(ClusterFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the frozen configuration of the cluster: %w", err)
	}
	in := &inCluster{}
	if err := strictly(b, in); err != nil {
		return nil, fmt.Errorf("cannot read the frozen configuration of the cluster %s: %w; it was not written by this kbuild: wipe the var partition to join anew", ClusterFile, err)
	}
	return in, nil
}

// FreezeCluster writes what node n has found of its cluster.
func (m *Machine) FreezeCluster(n *config.Node, found config.Cluster) error {
	return m.Host.WriteJSON(ClusterFile, inCluster{found, MadeFrom(n)})
}

// strictly decodes JSON that holds no unknown field.
func strictly(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// Joined says whether this machine is a node of its cluster: its kubelet has a
// kubeconfig of its own.
func (m *Machine) Joined() bool { return m.Host.Exists(KubeletKubeconfig) }

// Resetting says whether a reset of this machine has begun.
func Resetting(h *host.Host) bool { return h.Exists(ResetFile) }

// BootBegan is when this boot began: the hostname step wrote this file then,
// before the kubelet came.
func (m *Machine) BootBegan() (time.Time, error) {
	st, err := m.Host.Root.Stat(strings.TrimPrefix(HostsFile, "/"))
	if err != nil {
		return time.Time{}, fmt.Errorf("cannot tell when this boot began: %w", err)
	}
	return st.ModTime(), nil
}
