package config

import "io"

// Tokens fills in and checks bootstrap tokens for which there is no node, as
// Load does with those of an InitConfiguration. A token that is empty is made
// of random (nil: the system's). The error is Problems.
func Tokens(tokens []BootstrapToken, random io.Reader) ([]BootstrapToken, error) {
	n := &Node{Role: RoleInit, Sources: map[string]string{}}
	n.Init.BootstrapTokens = tokens
	if err := defaultTokens(n, random); err != nil {
		return nil, err
	}
	v := &validator{node: n}
	v.tokens()
	return n.Init.BootstrapTokens, v.probs.err()
}
