package pull

import (
	"fmt"
	"io"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Kind is the kind of an Event.
type Kind int

// The kinds of events, with the fields that they fill.
const (
	Resolved Kind = iota // Image, Blobs: what the image consists of
	Bytes                // Digest, Bytes: how much of a blob is here; less than before when it begins again
	Retrying             // Image, Err, Wait: a request failed and is made again after Wait
	Done                 // Image, Digest: the image is whole; Digest is that of its manifest
)

// Event is something that happened in a pull.
type Event struct {
	Kind   Kind
	Image  string
	Blobs  []Blob
	Digest v1.Hash
	Bytes  int64
	Err    error
	Wait   time.Duration
}

// state adds events up. Blobs that images share count once in the total.
type state struct {
	order  []string
	images map[string][]Blob
	done   map[string]bool
	have   map[v1.Hash]int64
	size   map[v1.Hash]int64
}

func newState() *state {
	return &state{images: map[string][]Blob{}, done: map[string]bool{}, have: map[v1.Hash]int64{}, size: map[v1.Hash]int64{}}
}

func (s *state) add(e Event) {
	switch e.Kind {
	case Resolved:
		s.order = append(s.order, e.Image)
		s.images[e.Image] = e.Blobs
		for _, b := range e.Blobs {
			s.size[b.Digest] = b.Size
		}
	case Bytes:
		s.have[e.Digest] = e.Bytes
	case Done:
		s.done[e.Image] = true
	}
}

func (s *state) image(name string) (have, all int64) {
	for _, b := range s.images[name] {
		have, all = have+s.have[b.Digest], all+b.Size
	}
	return have, all
}

func (s *state) total() (have, all int64) {
	for h, n := range s.size {
		have, all = have+s.have[h], all+n
	}
	return have, all
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// Lines is a reporter for logs: a line for each complete image, for each retried
// request, and for the total every ten seconds.
func Lines(w io.Writer) func(Event) {
	s, said := newState(), time.Now()
	return func(e Event) {
		s.add(e)
		have, all := s.total()
		total := fmt.Sprintf("%d of %d images, %s of %s", len(s.done), len(s.order), size(have), size(all))
		switch {
		case e.Kind == Done:
			_, n := s.image(e.Image)
			fmt.Fprintf(w, "pulled %s (%s); %s\n", e.Image, size(n), total)
		case e.Kind == Retrying:
			fmt.Fprintf(w, "%s: %s; trying again in %v\n", e.Image, oneLine(e.Err), e.Wait.Round(time.Millisecond))
		case e.Kind == Bytes && time.Since(said) >= 10*time.Second:
			fmt.Fprintf(w, "pulling: %s\n", total)
		default:
			return
		}
		said = time.Now()
	}
}
