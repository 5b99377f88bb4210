package config

import (
	"cmp"
	"fmt"
	"strings"
)

// What is fixed by the machine's container runtime: a node has one containerd,
// at CRISocket, and in an image it makes cgroups by way of systemd.

// cgroupDriver is what the machine's containerd uses, and so must the kubelet:
// with another one, no pod starts.
func (n *Node) cgroupDriver() string { return cmp.Or(n.CgroupDriver, "systemd") }

// dockershim is the socket that kubeadm up to v1.23 writes where none is given.
const dockershim = "/run/dockershim.sock"

// socketPath is the path that a CRI socket's address names: as a URL or not,
// and without the link /var/run.
func socketPath(s string) string {
	p := strings.TrimPrefix(s, "unix://")
	if rest, ok := strings.CutPrefix(p, "/var/run/"); ok {
		p = "/run/" + rest
	}
	return p
}

// takeSocket makes the CRI sockets that kubeadm itself writes into files the
// image's, and returns a warning where the file meant another one or spelled it
// otherwise.
func (n *Node) takeSocket() []string {
	s := &n.Init.NodeRegistration.CRISocket
	p := socketPath(*s)
	if *s == "" || strings.TrimPrefix(*s, "unix://") == CRISocket || p != CRISocket && p != dockershim {
		return nil
	}
	given := *s
	*s = CRISocket
	return []string{fmt.Sprintf("%s: criSocket %s is taken for this image's one container runtime, %s; remove the field", n.source("init.nodeRegistration.criSocket"), given, CRISocket)}
}

func (v *validator) cgroupDriver(at, d string) {
	if own := v.node.cgroupDriver(); d != "" && d != own {
		v.bad(at, fmt.Sprintf("this node's containerd uses the cgroup driver %s; with %q in the kubelet no pod would start", own, printable(d)), "remove the field, or write "+own)
	}
}

// takeCgroupDriver gives the kubelet of a node that joins its own machine's
// cgroup driver, and returns a warning where the cluster's is another.
func (n *Node) takeCgroupDriver() []string {
	d, _ := n.Kubelet["cgroupDriver"].(string)
	own := n.cgroupDriver()
	if d == "" || d == own {
		return nil
	}
	n.Kubelet["cgroupDriver"] = own
	return []string{fmt.Sprintf("the cluster's kubelets use the cgroup driver %q; this node's uses %s, as its containerd does", printable(d), own)}
}
