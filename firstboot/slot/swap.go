package slot

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

// Apply has the boot loader try the staged update from the next boot on. It
// does not reboot.
func Apply(ctx context.Context, h *host.Host) (Record, error) {
	d, list, err := look(ctx, h)
	if err != nil {
		return Record{}, err
	}
	rec, err := ReadRecord(h)
	if err != nil {
		return rec, err
	}
	e := find(list, d.Other)
	if e == nil || rec.Staged.IsZero() || rec.Update.RootHash != d.Other.Hash() || e.Bad() || e.Left < 0 && !e.Staged {
		return rec, outcome.Refuse("nothing is staged: `kbuild-firstboot upgrade stage SOURCE` comes first")
	}
	// Before the kernel is in the list: however it comes to be booted, it was
	// meant to.
	rec.Applied = h.Now().UTC()
	if err := rec.Write(h); err != nil {
		return rec, err
	}
	next := *e
	next.Left, next.Done, next.Staged = rec.Update.TrialBoots, 0, false
	return rec, rename(h, *e, next)
}

// Cancel takes a staged update, or one that was staged in part or applied and
// not booted yet, out again. What the other slot held before is gone already.
func Cancel(ctx context.Context, h *host.Host) error {
	d, list, err := look(ctx, h)
	if err != nil {
		return err
	}
	if d.onTrial(list) {
		return outcome.Refuse("the image that runs is on trial: the other slot is what the node falls back to")
	}
	rec, err := ReadRecord(h)
	rec.settle(h, d, list)
	switch {
	case err != nil:
		return err
	case rec.Begun.IsZero() || rec.Outcome != Pending || rec.Update.RootHash == d.Running.Hash():
		return outcome.Refuse("there is no update to cancel")
	}
	return clearOther(ctx, h, d, rec)
}

// DropOther makes the other slot one that counts for nothing, for a machine
// that begins anew.
func DropOther(ctx context.Context, h *host.Host) error {
	d, list, err := look(ctx, h)
	if err != nil {
		return err
	}
	if d.onTrial(list) {
		return outcome.Refuse("the image that runs is on trial: the other slot is what the node falls back to")
	}
	return clearOther(ctx, h, d, Record{})
}

// clearOther empties the other slot, of which rec tells; why an update was given
// up stays to be told.
func clearOther(ctx context.Context, h *host.Host, d Disk, rec Record) error {
	rec.Applied = time.Time{} // what has no kernel any more has not fallen back
	if err := rec.Write(h); err != nil {
		return err
	}
	if err := removeOthers(h, d.Running); err != nil {
		return err
	}
	rec = Record{PendingEvent: rec.PendingEvent}
	if err := (stager{h: h, d: &d, rec: &rec}).discard(ctx); err != nil {
		return err
	}
	if rec.PendingEvent != "" {
		return nil
	}
	return h.Remove(recordFile)
}

// Rollback has the boot loader start the other slot from the next boot on, by
// giving up the one that runs. It does not reboot. May says whether the node can
// go on with the version that the other slot holds.
func Rollback(ctx context.Context, h *host.Host, may func(version string) error) error {
	d, list, err := look(ctx, h)
	if err != nil {
		return err
	}
	own, other := find(list, d.Running), find(list, d.Other)
	switch {
	case own == nil:
		return outcome.Refuse("the kernel of the slot that runs is not where the boot loader counts (%s): this machine was not booted by it", linuxDir)
	case other == nil || other.Staged:
		return outcome.Refuse("the other slot has nothing to go back to")
	case other.Bad():
		return outcome.Refuse("the other slot holds %s, which was given up: it did not become healthy, or was rolled back from", other.Version)
	case other.Left > 0:
		return outcome.Refuse("the other slot holds %s, which was never kept: `kbuild-firstboot upgrade cancel` takes it out", other.Version)
	}
	if err := may(other.Version); err != nil {
		return err
	}
	// It may have lain there for long, and there is no way back from it.
	if err := d.Other.verify(ctx, h, d.Other.Hash()); err != nil {
		return outcome.Refuse("the other slot is damaged, its verity hashes do not match: %v", err)
	}
	rec, err := ReadRecord(h)
	if err != nil {
		return err
	}
	before := rec
	if rec.Update.RootHash == d.Running.Hash() {
		rec.Outcome, rec.Ended = RolledBack, h.Now().UTC()
		if err := rec.Write(h); err != nil {
			return err
		}
	}
	// One more than it was tried: it is not the name by which systemd-bless-boot
	// would know it.
	bad := *own
	bad.Left, bad.Done = 0, own.Done+1
	if err := rename(h, *own, bad); err != nil {
		return errors.Join(err, before.Write(h)) // it may have been blessed at this moment
	}
	return nil
}

// State is how the other slot stands.
type State string

const (
	Empty   State = "empty"   // nothing in it counts
	Partial State = "partial" // an update is being written to it, or was cut
	Staged  State = "staged"  // an update is whole in it; apply boots it
	Next    State = "next"    // the next boot tries it
	Old     State = "old"     // what ran before; rollback boots it
	Bad     State = "bad"     // given up
)

// Status is how a node's slots stand.
type Status struct {
	Running struct {
		Slot     string `json:"slot"` // "a" or "b"
		Version  string `json:"version"`
		RootHash string `json:"rootHash"`
		OnTrial  bool   `json:"onTrial"`
	} `json:"running"`
	Other struct {
		Slot     string `json:"slot"`
		State    State  `json:"state"`
		Version  string `json:"version,omitempty"`
		RootHash string `json:"rootHash,omitempty"`
	} `json:"other"`
	Update *Record `json:"update,omitempty"` // the last one
}

// ReadStatus looks how the slots stand.
func ReadStatus(ctx context.Context, h *host.Host, baked images.Baked) (Status, error) {
	var st Status
	d, list, err := look(ctx, h)
	if err != nil {
		return st, err
	}
	rec, err := ReadRecord(h)
	if err != nil {
		return st, err
	}
	st.Running.Slot, st.Running.Version, st.Running.RootHash = d.Running.Name, baked.Release.Version, d.Running.Hash()
	st.Running.OnTrial = d.onTrial(list)
	st.Other.Slot = d.Other.Name
	e := find(list, d.Other)
	switch {
	case e == nil && len(rec.Written) > 0:
		st.Other.State = Partial
	case e == nil:
		st.Other.State = Empty
	case e.Staged:
		st.Other.State = Staged
	case e.Bad():
		st.Other.State = Bad
	case e.Left > 0:
		st.Other.State = Next
	default:
		st.Other.State = Old
	}
	if e != nil {
		st.Other.Version, st.Other.RootHash = e.Version, d.Other.Hash()
	}
	if !rec.Begun.IsZero() {
		rec.Outcome = result(rec, d, list)
		st.Update = &rec
	}
	return st, nil
}

// result is how an update came out, as the slots stand.
func result(rec Record, d Disk, list []Entry) Outcome {
	if rec.Outcome != Pending || rec.Applied.IsZero() {
		return rec.Outcome
	}
	other := find(list, d.Other)
	switch {
	case rec.Update.RootHash == d.Running.Hash() && !d.onTrial(list):
		return Kept
	case rec.Update.RootHash == d.Other.Hash() && (other == nil || other.Bad()):
		return FellBack
	}
	return Pending
}

// Settled returns the record, with how the update has come out, once it has;
// news is that this is not written down yet.
func Settled(ctx context.Context, h *host.Host) (rec Record, news bool, err error) {
	rec, err = ReadRecord(h)
	if err != nil || rec.Applied.IsZero() || rec.Outcome != Pending {
		return rec, false, err
	}
	d, list, err := look(ctx, h)
	if err != nil {
		return rec, false, err
	}
	rec.settle(h, d, list)
	return rec, rec.Outcome != Pending, nil
}

// Settle writes down what Settled says. Whoever calls it holds Lock.
func Settle(ctx context.Context, h *host.Host) (Record, error) {
	rec, news, err := Settled(ctx, h)
	if news {
		err = rec.Write(h)
	}
	return rec, err
}

// settle is Settled with the slots as they stand.
func (rec *Record) settle(h *host.Host, d Disk, list []Entry) {
	if rec.Applied.IsZero() || rec.Outcome != Pending {
		return
	}
	if rec.Outcome = result(*rec, d, list); rec.Outcome == Pending {
		return
	}
	rec.Ended = h.Now().UTC()
	if rec.Outcome == FellBack {
		rec.PendingEvent = fmt.Sprintf("the update to %s fell back to %s: %s", rec.Update.Release.Version, rec.From, rec.Why())
	}
}

// Fail writes down why this boot of a new slot is given up.
func Fail(h *host.Host, reason string) error {
	rec, err := ReadRecord(h)
	if err != nil || rec.Begun.IsZero() {
		return err
	}
	rec.Failures = append(rec.Failures, Failure{h.Now().UTC(), reason})
	return rec.Write(h)
}
