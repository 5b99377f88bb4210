package testvm

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// backing is what an overlay was made over. An overlay holds only differences:
// over another disk than that it is garbage.
type backing struct {
	Path  string    `json:"path"`
	Size  int64     `json:"size"`
	Mtime time.Time `json:"mtime"`
}

func backingOf(disk string) (backing, error) {
	st, err := os.Stat(disk)
	if err != nil {
		return backing{}, err
	}
	return backing{disk, st.Size(), st.ModTime().UTC()}, nil
}

// ErrOtherImage says that a machine's directory holds a disk that was made
// over another image than the one to boot.
var ErrOtherImage = errors.New("the machine's disk was made over another image")

// checkBacking compares disk with what the overlay in the directory was made
// over; recordBacking notes it.
func (s *scratch) checkBacking(disk string) error {
	b, err := os.ReadFile(s.path("backing.json"))
	if err != nil {
		return err
	}
	var was backing
	if err := json.Unmarshal(b, &was); err != nil {
		return err
	}
	now, err := backingOf(disk)
	if err != nil {
		return err
	}
	if now != was {
		return fmt.Errorf("%w: %s of %s, and now %s of %s", ErrOtherImage, was.Path, was.Mtime.Format(time.DateTime), now.Path, now.Mtime.Format(time.DateTime))
	}
	return nil
}

func (s *scratch) recordBacking(disk string) error {
	was, err := backingOf(disk)
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
