package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Args are the flags of a component, by name without leading dashes. They have
// no order: configuration is laid together from several documents, and what a
// flag means does not depend on others. Where an order is needed it is that of
// the names.
type Args map[string]Values

// Values are those of one flag: one, or several in their order where the flag is
// given more than once, which configuration has allowed since v1beta4. In JSON one
// value is text and several are a list.
type Values []string

// Get is the value that counts where a flag has one: its last. It is empty where
// the flag is not given.
func (a Args) Get(name string) string {
	if v := a[name]; len(v) > 0 {
		return v[len(v)-1]
	}
	return ""
}

// Set gives a flag one value in place of all that it has; the map must be made.
func (a Args) Set(name, value string) { a[name] = Values{value} }

// Lines are the flags as they are written on a command line, "--name=value",
// sorted by name.
func (a Args) Lines() []string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(a)) {
		for _, v := range a[name] {
			lines = append(lines, "--"+name+"="+v)
		}
	}
	return lines
}

func (v Values) MarshalJSON() ([]byte, error) {
	if len(v) == 1 {
		return json.Marshal(v[0])
	}
	return json.Marshal([]string(v))
}

func (v *Values) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*v = Values{one}
		return nil
	}
	var all []string
	if err := json.Unmarshal(b, &all); err != nil {
		return fmt.Errorf("a flag's value must be text or a list of texts: %w", err)
	}
	*v = all
	return nil
}
