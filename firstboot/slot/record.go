package slot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/images"
)

// lockFile keeps two from changing the slots, or the record, at the same time.
const lockFile = "/run/kbuild/upgrade.lock"

// Lock keeps others from changing the slots until unlock is called.
func Lock(h *host.Host) (unlock func(), err error) {
	unlock, err = h.Lock(lockFile)
	if err != nil {
		return nil, fmt.Errorf("another command changes the slots: %w", err)
	}
	return unlock, nil
}

// recordFile tells about the last update of this node.
const recordFile = "/var/lib/kbuild/upgrade.json"

// Outcome is how an update came out.
type Outcome string

const (
	Pending    Outcome = ""            // not yet
	Kept       Outcome = "kept"        // the new slot is blessed
	FellBack   Outcome = "fell back"   // it was given up, and the old slot runs
	RolledBack Outcome = "rolled back" // by hand
)

// Record is one update of this node. Times are zero while it has not come to
// that.
type Record struct {
	Source string        `json:"source"`
	From   string        `json:"from"` // version of Kubernetes
	Update images.Update `json:"update"`
	Begun  time.Time     `json:"begun"`
	// Written are the bytes of each file that are in the slot for sure.
	Written map[string]int64 `json:"written,omitempty"`
	Staged  time.Time        `json:"staged,omitzero"`  // it is whole in the other slot
	Applied time.Time        `json:"applied,omitzero"` // a boot of it was asked for
	// Failures are boots of the new slot that were not healthy, as far as they
	// could say.
	Failures []Failure `json:"failures,omitempty"`
	Outcome  Outcome   `json:"outcome,omitempty"`
	Ended    time.Time `json:"ended,omitzero"`
	// PendingEvent is why this update, or one before it, was given up, while the cluster
	// does not know yet.
	PendingEvent string `json:"untold,omitempty"`
}

// Failure is a boot that was given up.
type Failure struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason"`
}

// Why says why a new slot was given up.
func (r Record) Why() string {
	if n := len(r.Failures); n > 0 {
		return r.Failures[n-1].Reason
	}
	return "its boots ended before the node could say why: a kernel panic, a damaged root, an initrd that failed, or a hang"
}

// ReadRecord reads the record of the last update; of none it is zero.
func ReadRecord(h *host.Host) (Record, error) {
	var r Record
	b, err := h.ReadFile(recordFile)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return r, fmt.Errorf("cannot read %s: %w", recordFile, err)
	}
	return r, nil
}

// Write writes it down.
func (r Record) Write(h *host.Host) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return h.WriteFile(recordFile, append(b, '\n'), 0o644)
}
