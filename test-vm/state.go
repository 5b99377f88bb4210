package testvm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// backing is the disk that an overlay belongs to. An overlay holds only
// differences: with another disk it is garbage.
type backing struct {
	Path string `json:"path"`
	ID   string `json:"id"` // "sha256:…" from manifest.json, else size and time
}

func backingOf(i Image) (backing, error) {
	if i.diskSHA256 != "" {
		return backing{i.Disk, "sha256:" + i.diskSHA256}, nil
	}
	st, err := os.Stat(i.Disk)
	if err != nil {
		return backing{}, err
	}
	return backing{i.Disk, fmt.Sprintf("%d bytes of %s", st.Size(), st.ModTime().UTC().Format(time.RFC3339Nano))}, nil
}

// ErrOtherImage says that a machine's directory holds a disk that was made
// over another image than the one to boot.
var ErrOtherImage = errors.New("the machine's disk was made over another image")

// checkBacking compares the image's disk with what the overlay in the directory was made
// over; recordBacking notes it.
func (s *scratch) checkBacking(i Image) error {
	b, err := os.ReadFile(s.path("backing.json"))
	if err != nil {
		return err
	}
	var was backing
	if err := json.Unmarshal(b, &was); err != nil {
		return err
	}
	now, err := backingOf(i)
	if err != nil {
		return err
	}
	if now != was {
		return fmt.Errorf("%w: %s (%s), and now it is %s (%s)", ErrOtherImage, was.Path, was.ID, now.Path, now.ID)
	}
	return nil
}

func (s *scratch) recordBacking(i Image) error {
	was, err := backingOf(i)
	if err != nil {
		return err
	}
	b, err := json.Marshal(was)
	if err != nil {
		return err
	}
	return os.WriteFile(s.path("backing.json"), b, 0o600)
}

// Attach returns the VM that another process started in dir and left running,
// or an error that is fs.ErrNotExist when none runs there.
func Attach(dir string) (Machine, error) {
	s := &scratch{dir: dir}
	var err error
	if s.rec, err = readRecord(dir); err != nil {
		return nil, err
	}
	if !s.rec.Machine.alive() {
		return nil, fmt.Errorf("no machine runs in %s: %w", dir, os.ErrNotExist)
	}
	v := &virtual{s: s, o: Options{Keep: true, Dir: dir, Log: func(string, ...any) {}}}
	v.client.Path = s.path("share", "checker.sock")
	return v, nil
}
