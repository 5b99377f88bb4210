package config

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// Reveal returns the secret in the clear. Whoever calls it answers for where
// it goes.
func (s Secret) Reveal() string { return string(s) }

func (s Secret) String() string       { return redacted }
func (s Secret) GoString() string     { return redacted }
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format writes "[redacted]" for every verb, so that no %q, %x or %d of a
// struct that holds a Secret gives it away.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue is what a log shows of a node. A log handler would otherwise write
// it as JSON, which holds secrets in the clear.
func (n Node) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("role", string(n.Role)),
		slog.String("name", n.Init.NodeRegistration.Name),
		slog.String("address", n.Init.LocalAPIEndpoint.AdvertiseAddress),
	)
}
