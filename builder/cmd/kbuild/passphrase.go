package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kbuild/kbuild/firstboot/config"
)

// askPassphrase asks on the terminal, without echo.
func askPassphrase(cmd *cobra.Command, prompt string) (config.Secret, error) {
	f, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", errors.New("cannot ask for a passphrase: standard input is not a terminal: for non-interactive use, encrypt with --encrypt-to and decrypt with --identity")
	}
	fmt.Fprint(cmd.ErrOrStderr(), prompt)
	b, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	if err != nil {
		return "", fmt.Errorf("cannot read the passphrase: %w", err)
	}
	if len(b) == 0 {
		return "", errors.New("the passphrase is empty: give one of several words")
	}
	return config.Secret(b), nil
}

// newPassphrase asks twice.
func newPassphrase(cmd *cobra.Command) (config.Secret, error) {
	one, err := askPassphrase(cmd, "Passphrase for the new directory: ")
	if err != nil {
		return "", err
	}
	two, err := askPassphrase(cmd, "The same again: ")
	if err == nil && one != two {
		err = errors.New("the two passphrases differ: try again")
	}
	return one, err
}
