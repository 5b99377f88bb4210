package slot

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"runtime"
	"slices"
	"time"

	"github.com/kbuild/kbuild/firstboot/host"
	"github.com/kbuild/kbuild/firstboot/outcome"
	"github.com/kbuild/kbuild/images"
)

// chunk is how much is written before it is brought to the disk and written
// down as there: what a cut costs at most.
const chunk = 32 << 20

// Stage puts the update that where names (a URL or a directory) whole into the
// other slot, and goes on with one that was cut. Nothing boots from it before
// Apply. A refusal leaves the node as it was.
func Stage(ctx context.Context, h *host.Host, baked images.Baked, where string) (Record, error) {
	d, list, err := look(ctx, h)
	if err != nil {
		return Record{}, err
	}
	if d.onTrial(list) {
		return Record{}, outcome.Refuse("the image that runs is on trial itself: until it is known to be healthy, the other slot is what the node falls back to (`kbuild-firstboot status`)")
	}
	src, err := openSource(h, where)
	if err != nil {
		return Record{}, err
	}
	u, err := src.update(ctx, baked)
	if err != nil {
		return Record{}, err
	}
	if err := checkFits(h, d, list, baked, u); err != nil {
		return Record{}, err
	}
	rec, err := ReadRecord(h)
	if err != nil {
		return rec, err
	}
	rec.settle(h, d, list)
	if !slices.Equal(rec.Update.Parts(), u.Parts()) || rec.Update.RootHash != u.RootHash || rec.Outcome != Pending || rec.Begun.IsZero() {
		rec = Record{Source: where, From: baked.Release.Version, Update: u, Begun: h.Now().UTC(), PendingEvent: rec.PendingEvent}
	}
	rec.Source = where
	if e := find(list, d.Other); e != nil && d.Other.Hash() == u.RootHash && !rec.Staged.IsZero() && !e.Bad() {
		h.Log.Info("this update is staged already", slog.String("version", u.Release.Version))
		return rec, nil
	}
	return rec, stager{h, src, &d, &rec}.stage(ctx, list)
}

// look is what every command begins with.
func look(ctx context.Context, h *host.Host) (Disk, []Entry, error) {
	d, err := FindDisk(ctx, h)
	if err != nil {
		return d, nil, err
	}
	if err := mountESP(ctx, h); err != nil {
		return d, nil, err
	}
	list, err := entries(h)
	return d, list, err
}

// checkFits says why this node cannot or must not take u.
func checkFits(h *host.Host, d Disk, list []Entry, baked images.Baked, u images.Update) error {
	own := baked.Release.Version
	switch {
	case u.Arch != runtime.GOARCH:
		return outcome.Refuse("this update is for %s, and this machine is %s", u.Arch, runtime.GOARCH)
	case u.RootHash == d.Running.Hash():
		return outcome.Refuse("this node runs this very image already")
	case u.Release.Version == own && u.BuildTime.Before(baked.BuildTime):
		return outcome.Refuse("this update was built at %s, before the image that runs (%s): `kbuild-firstboot upgrade rollback` goes back to what the other slot holds", u.BuildTime.Format(time.RFC3339), baked.BuildTime.Format(time.RFC3339))
	}
	if err := u.Release.CheckUpgradeFrom(own); err != nil {
		return outcome.Refuse("%w", err)
	}
	if secure, err := secureBoot(h); err != nil {
		return err
	} else if secure && !u.SecureBoot {
		return outcome.Refuse("this machine's firmware boots only what is signed (Secure Boot), and the update's kernel is not: build it with --secure-boot-key and --secure-boot-cert")
	}
	for _, p := range []struct {
		part images.Part
		into Partition
	}{{u.Root, d.Other.Root}, {u.Verity, d.Other.Verity}} {
		if p.part.Size > p.into.Size {
			return outcome.Refuse("%s takes %d MiB, and its partition %s has %d MiB: bake fewer container images", p.part.Name, mib(p.part.Size), p.into.Node, p.into.Size>>20)
		}
	}
	if u.UKI.Size > maxUKI {
		return outcome.Refuse("%s takes %d MiB, more than the %d MiB that are possible", u.UKI.Name, mib(u.UKI.Size), maxUKI>>20)
	}
	free, err := freeOnESP(h)
	if err != nil {
		return err
	}
	for _, e := range list { // what goes before the new one comes
		if e.Hash == d.Running.Hash()[:16] {
			continue
		}
		if st, err := h.Root.Stat(path.Join(linuxDir, e.file())[1:]); err == nil {
			free += st.Size()
		}
	}
	if want := u.UKI.Size + 1<<20; free < want {
		return outcome.Refuse("the EFI system partition has room for %d MiB, and %s takes %d MiB: remove what is on it beside kbuild's", free>>20, u.UKI.Name, mib(want))
	}
	return nil
}

func mib(n int64) int64 { return (n + 1<<20 - 1) >> 20 }

// stager is one run of Stage that writes.
type stager struct {
	h   *host.Host
	src source
	d   *Disk
	rec *Record
}

func (s stager) stage(ctx context.Context, list []Entry) error {
	u := s.rec.Update
	gen := 0
	for _, e := range list {
		gen = max(gen, e.Generation+1)
	}
	s.rec.Staged, s.rec.Applied, s.rec.Failures = time.Time{}, time.Time{}, nil
	if err := s.rec.Write(s.h); err != nil {
		return err
	}
	// Nothing boots what the slot held until now, and then nothing in it counts.
	if err := removeOthers(s.h, s.d.Running); err != nil {
		return err
	}
	if s.d.Other.Hash() != u.RootHash {
		if err := s.fill(ctx); err != nil {
			return err
		}
	}
	if err := s.d.Other.verify(ctx, s.h, u.RootHash); err != nil {
		return errors.Join(fmt.Errorf("what was written is not what the update's root hash stands for: %w", err), s.discard(ctx))
	}
	label := u.Release.Version
	if err := s.d.name(ctx, s.h, u.RootHash, "root_"+label, "verity_"+label); err != nil {
		return err
	}
	e := Entry{Version: label, Generation: gen, Hash: u.RootHash[:16], Left: -1, Staged: true}
	if err := s.kernel(ctx, e); err != nil {
		return err
	}
	s.rec.Staged, s.rec.Written = s.h.Now().UTC(), nil
	return s.rec.Write(s.h)
}

// fill writes root and hashes into the slot.
func (s stager) fill(ctx context.Context) error {
	if s.d.Other.Root.Label != emptyLabel || len(s.rec.Written) == 0 {
		if err := s.discard(ctx); err != nil {
			return err
		}
	}
	for _, p := range []struct {
		part images.Part
		into Partition
	}{{s.rec.Update.Root, s.d.Other.Root}, {s.rec.Update.Verity, s.d.Other.Verity}} {
		if err := s.copy(ctx, p.part, p.into); err != nil {
			return err
		}
	}
	return nil
}

// discard makes the slot one that counts for nothing, and what was written of
// the update so far, too.
func (s stager) discard(ctx context.Context) error {
	s.rec.Written = map[string]int64{}
	if err := s.rec.Write(s.h); err != nil {
		return err
	}
	placeholder := make([]byte, 32)
	rand.Read(placeholder)
	return s.d.name(ctx, s.h, hex.EncodeToString(placeholder), emptyLabel, emptyLabel)
}

// copy fetches one file into a partition, from where a cut has left it. A
// source that breaks off is asked again a few times.
func (s stager) copy(ctx context.Context, part images.Part, into Partition) error {
	f, err := s.h.Root.OpenFile(into.Node[1:], os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("cannot write slot %s: %w", s.d.Other.Name, err)
	}
	defer f.Close()
	sum := sha256.New()
	at := s.rec.Written[part.Name]
	if at > part.Size {
		at = 0
	}
	if at > 0 {
		s.h.Log.Info("going on with an update that was cut", slog.String("file", part.Name), slog.Int64("MiB", at>>20), slog.Int64("of", mib(part.Size)))
		if _, err := io.CopyN(sum, f, at); err != nil {
			return fmt.Errorf("cannot read slot %s: %w", s.d.Other.Name, err)
		}
	}
	for try := 1; at < part.Size; try++ {
		begun := at
		at, err = s.pour(ctx, part, f, sum, at)
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return fmt.Errorf("stopped at %d of %d MiB of %s; run it again to go on: %w", at>>20, mib(part.Size), part.Name, context.Cause(ctx))
		case errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("cannot fetch %s from %s: %w", part.Name, s.src.name, err)
		case at > begun:
			try = 0
		}
		if try >= 5 {
			return fmt.Errorf("cannot fetch %s from %s: %d of %d MiB have come; run it again to go on: %w", part.Name, s.src.name, at>>20, mib(part.Size), err)
		}
		s.h.Log.Warn("the source broke off; asking again", slog.String("file", part.Name), slog.Any("error", err))
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(try) * time.Second):
		}
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != part.SHA256 {
		err := fmt.Errorf("%s from %s is not the file that %s names (SHA-256 %s, want %s): the upload is not whole or the file damaged; it is discarded", part.Name, s.src.name, images.UpdateFile, got, part.SHA256)
		return errors.Join(err, s.discard(ctx))
	}
	return nil
}

// pour copies what comes until it ends, and returns how far it came. sum has
// taken all bytes up to there.
func (s stager) pour(ctx context.Context, part images.Part, to *os.File, sum hash.Hash, at int64) (int64, error) {
	body, err := s.src.open(ctx, part.Name, at)
	if err != nil {
		return at, err
	}
	defer body.Close()
	for at < part.Size {
		n, err := io.Copy(io.MultiWriter(io.NewOffsetWriter(to, at), sum), io.LimitReader(body, min(chunk, part.Size-at)))
		at += n
		if syncErr := to.Sync(); syncErr != nil {
			return at, fmt.Errorf("cannot write slot %s: %w", s.d.Other.Name, syncErr)
		}
		s.rec.Written[part.Name] = at
		if writeErr := s.rec.Write(s.h); writeErr != nil {
			return at, writeErr
		}
		s.h.Log.Info("writing the update", slog.String("file", part.Name), slog.Int64("MiB", at>>20), slog.Int64("of", mib(part.Size)))
		if err != nil {
			return at, err
		}
		if n == 0 {
			return at, io.ErrUnexpectedEOF
		}
	}
	return at, nil
}

// kernel puts the update's kernel on the ESP.
func (s stager) kernel(ctx context.Context, e Entry) error {
	u := s.rec.Update
	b, err := s.src.small(ctx, u.UKI.Name, maxUKI)
	if err != nil {
		return err
	}
	if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != u.UKI.SHA256 {
		return fmt.Errorf("%s from %s is not the file that %s names: the upload is not whole or the file damaged", u.UKI.Name, s.src.name, images.UpdateFile)
	}
	// FAT knows no modes: this is the one that the mount gives to every file.
	if err := s.h.WriteFile(path.Join(linuxDir, e.file()), b, 0o600); err != nil {
		return err
	}
	return syncESP(s.h)
}
