package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// ReadJSON reads a file in which a step writes down how far it is; the zero
// value is that there is none.
func ReadJSON[T any](h *Host, file string) (T, error) {
	var v T
	b, err := h.ReadFile(file)
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

// WriteJSON writes such a file, for root alone.
func (h *Host) WriteJSON(file string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", file, err)
	}
	return h.WriteFile(file, append(b, '\n'), 0o600)
}
