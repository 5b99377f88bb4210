// Package guest is the protocol between the harness outside a test machine and
// the checker inside it. A request is one line of JSON, and so is its answer, over
// a unix socket (container lane) or a virtio-serial port (VM lane).
//
// A request carries an ID that its answer repeats, so that an answer that
// comes after the harness stopped waiting, or from before a reboot, is never
// taken for that of another request. Empty lines are ignored; both sides send one
// first, to end the half line that an interrupted connection may have left.
package guest

import "encoding/json"

// Names by which the two lanes reach the checker.
const (
	Port     = "kbuild.checker"         // virtio-serial port, below /dev/virtio-ports
	Drive    = "kbuildchecker"          // serial number of the virtio drive that is the checker's ELF file
	Dir      = "/run/kbuild-test"       // in the guest; bound from outside in the container lane
	Socket   = Dir + "/checker.sock"    // container lane
	Program  = Dir + "/checker"         // container lane: bound; VM lane: copied from the drive
	Unit     = "kbuild-checker.service" // runs `checker serve`
	PrepUnit = "kbuild-lane.service"    // container lane: runs `checker prepare` before containerd
)

// Request asks the checker for one thing.
type Request struct {
	ID   string          `json:"id"`
	Cmd  string          `json:"cmd"` // see the Cmd constants
	Args json.RawMessage `json:"args,omitempty"`
}

// Answer is what came of a Request: Error, or Result.
type Answer struct {
	ID     string          `json:"id"`
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// The requests. Each looks once and answers at once; the harness does the
// waiting.
const (
	CmdPing       = "ping"       // → Ping
	CmdReady      = "ready"      // → Ready
	CmdPod        = "pod"        // PodArgs → Pod
	CmdPods       = "pods"       // PodsArgs → Pods
	CmdDisk       = "disk"       // → Disk
	CmdTree       = "tree"       // → Tree
	CmdImages     = "images"     // → Images
	CmdExec       = "exec"       // ExecArgs → Exec
	CmdKubeconfig = "kubeconfig" // → Kubeconfig
	CmdTimes      = "times"      // TimesArgs → Times
)

// In a container for which the harness emulates slots (testvm.Options.Next):
// files in Dir that say that an update is staged or to be booted, and the program
// in /usr/bin whose place the real kbuild-firstboot takes.
const (
	Staged        = "staged"
	Applied       = "applied"
	RealFirstboot = "bootctl"
)
