package converge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/kbuild/kbuild/firstboot/host"
)

// StatusFile holds the Status of the last pass, as JSON. It holds no secrets
// and everybody may read it.
const StatusFile = "/run/kbuild/status.json"

// State is how a whole pass stands.
type State string

const (
	StateNone    State = "none"    // no pass was started since boot
	StateRunning State = "running" // steps run or wait
	StateDone    State = "done"    // every step holds
	StateFailed  State = "failed"  // a step ended with an error
	StateStopped State = "stopped" // a signal ended it
)

// StepState is how one step stands; it is also the journal's KBUILD_RESULT.
type StepState string

const (
	StepPending   StepState = "pending"   // not begun
	StepChecking  StepState = "checking"  // is it already so?
	StepWorking   StepState = "working"   // it is being made so
	StepWaiting   StepState = "waiting"   // for what Why says
	StepDone      StepState = "done"      // made so in this pass
	StepUnchanged StepState = "unchanged" // was already so
	StepSkipped   StepState = "skipped"   // left out as asked
	StepFailed    StepState = "failed"    // for what Why says
	StepStopped   StepState = "stopped"   // by a signal, or because another step failed
)

func (s StepState) active() bool {
	return s == StepChecking || s == StepWorking || s == StepWaiting
}

// Status is one pass through the list, as it stands.
type Status struct {
	State   State             `json:"state"`
	Step    string            `json:"step,omitempty"`  // first step that is at work
	Why     string            `json:"why,omitempty"`   // what it waits for
	Since   time.Time         `json:"since,omitzero"`  // when it began
	Error   string            `json:"error,omitempty"` // why the pass failed
	Started time.Time         `json:"started,omitzero"`
	Ended   time.Time         `json:"ended,omitzero"`
	Steps   []StepStatus      `json:"steps"`
	Sources map[string]string `json:"sources,omitempty"` // where each value of the node's configuration came from
}

// StepStatus is one step of a pass.
type StepStatus struct {
	Name    string    `json:"name"`
	State   StepState `json:"state"`
	Why     string    `json:"why,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Seconds float64   `json:"seconds"` // from its beginning to its last transition, waiting included

	told   string // last transition that was logged
	worked bool   // that work began was logged
}

// ReadStatus reads the status of the last pass since boot.
func ReadStatus(h *host.Host) (Status, error) {
	b, err := h.ReadFile(StatusFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Status{State: StateNone}, nil
	}
	var s Status
	if err == nil {
		err = json.Unmarshal(b, &s)
	}
	if err != nil {
		return s, fmt.Errorf("cannot read %s: %w", StatusFile, err)
	}
	return s, nil
}

// Summary is the status in one line.
func (s *Status) Summary() string {
	switch {
	case s.Error != "":
		return "cannot finish " + s.Error
	case s.State == StateDone:
		return "all steps hold"
	case s.Step != "" && s.Why != "":
		return s.Step + ": waiting: " + s.Why
	case s.Step != "":
		return s.Step
	case s.State == "" || s.State == StateNone:
		return "no run since boot"
	default:
		return string(s.State)
	}
}

func (s *Status) find(name string) *StepStatus {
	for i := range s.Steps {
		if s.Steps[i].Name == name {
			return &s.Steps[i]
		}
	}
	return nil
}

func (s *Status) write(h *host.Host) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return h.WriteFile(StatusFile, append(b, '\n'), 0o644)
}
