package firstboot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// readState reads a file in which a step keeps how far it is; the zero value is
// that there is none.
func readState[T any](r *Run, file string) (T, error) {
	var v T
	b, err := r.Host.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		return v, fmt.Errorf("cannot read %s: %w", file, err)
	}
	return v, nil
}

// writeState writes such a file, for root alone.
func writeState(r *Run, file string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	return r.Host.WriteFile(file, append(b, '\n'), 0o600)
}
