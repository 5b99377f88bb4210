package guest

import "time"

// Ping identifies one boot of the machine.
type Ping struct {
	Boot time.Time `json:"boot"` // when PID 1 started
}

// Ready is how far the node is. A field is true only for what was seen since
// this boot: a Ready condition from before a reboot does not count.
type Ready struct {
	API       bool   `json:"api"`       // the API server says ok on /readyz
	Node      bool   `json:"node"`      // this node's Ready condition is True
	CoreDNS   bool   `json:"coreDNS"`   // every replica is ready; not looked at on a worker
	KubeProxy bool   `json:"kubeProxy"` // this node's pod is ready
	Firstboot string `json:"firstboot"` // what kbuild-firstboot says it does, one line
	Waiting   string `json:"waiting"`   // the first thing that is missing; empty when all is there
}

// PodArgs says what the test workload is made of.
type PodArgs struct {
	Image string `json:"image"` // a CoreDNS image that is baked in
}

// Pod is how far the test workload is: a Deployment whose pod serves
// CoreDNS's health page, behind a Service.
type Pod struct {
	Phase     string `json:"phase"`
	PodIP     string `json:"podIP"`
	ClusterIP string `json:"clusterIP"`
	Answer    string `json:"answer"`  // body got from the Service's cluster IP, on the node
	Waiting   string `json:"waiting"` // empty when the answer is there
}

// PodsArgs says what the workload on every node is made of.
type PodsArgs struct {
	Image string `json:"image"` // a CoreDNS image that is baked in
	Nodes int    `json:"nodes"` // on how many nodes a pod must run
}

// Pods is how far the workload on every node is: a DaemonSet of the same pods
// as Pod's, behind a Service.
type Pods struct {
	Answers map[string]string `json:"answers"` // by node: what its pod answered to the pod on this node
	Service string            `json:"service"` // what the Service answered to the pod on this node
	Waiting string            `json:"waiting"` // empty when all answers are there
}

// Disk is what the machine's disk and mounts are.
type Disk struct {
	RootType     string   `json:"rootType"`     // "erofs"
	RootSource   string   `json:"rootSource"`   // "/dev/dm-0"
	RootReadOnly bool     `json:"rootReadOnly"` // by mount flags
	RootWrite    string   `json:"rootWrite"`    // error of trying to write into /usr; empty when it could
	Verity       bool     `json:"verity"`       // root's device is a dm-verity target, by its dm UUID
	VerityStatus string   `json:"verityStatus"` // "V" verified, "C" corrupted; empty when not asked for
	VarType      string   `json:"varType"`      // "ext4"
	VarSource    string   `json:"varSource"`
	VarBytes     int64    `json:"varBytes"`  // size of the file system
	DiskBytes    int64    `json:"diskBytes"` // size of the disk that holds /var
	Partitions   []Part   `json:"partitions"`
	Cmdline      string   `json:"cmdline"`
	Routes       []string `json:"routes"` // default routes, as /proc/net/route gives them
}

// Part is one partition.
type Part struct {
	Device string `json:"device"`
	Label  string `json:"label"`
	Bytes  int64  `json:"bytes"`
}

// Tree is what must be the same after a reboot: files by path, API objects by
// "api:KIND/NAMESPACE/NAME".
type Tree map[string]string

// Images is what the container runtime holds.
type Images struct {
	Images []Image `json:"images"`
	// ContentBytes is the size of all blobs in containerd's content store.
	// LayerBytes is the size of all files in its snapshots that are no
	// container's own: more than nothing means that a layer was written.
	ContentBytes int64 `json:"contentBytes"`
	LayerBytes   int64 `json:"layerBytes"`
	Linked       int   `json:"linked"` // snapshots that are links into the image's root
}

// Image is one image as the CRI lists it.
type Image struct {
	Tags   []string `json:"tags"`
	Pinned bool     `json:"pinned"`
}

// ExecArgs is a command to run in the machine.
type ExecArgs struct {
	Argv    []string `json:"argv"`
	Seconds int      `json:"seconds,omitempty"` // limit; 60 when zero
	Stdin   string   `json:"stdin,omitempty"`
}

// Exec is how a command ended. Stdout and Stderr are cut to their last 256 KiB.
type Exec struct {
	Code   int    `json:"code"`
	Stdout string `json:"stdout"`
	Stderr string `json:"stderr"`
}

// Kubeconfig is the cluster administrator's kubeconfig. It is a secret.
type Kubeconfig struct {
	Data []byte `json:"data"`
}

// TimesArgs says whose Ready condition is looked at.
type TimesArgs struct {
	Node string `json:"node,omitempty"` // empty is any node
}

// Times is when things were first seen in this boot, for benchmarks. A zero
// time has not been seen yet. The checker begins to look at the first request
// for a node.
type Times struct {
	API   time.Time `json:"api"`   // the API server says ok on /healthz
	Ready time.Time `json:"ready"` // the node's Ready condition is True
}
