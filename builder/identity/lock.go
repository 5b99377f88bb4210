package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/kbuild/kbuild/firstboot/config"
)

// Lock encrypts the secrets of a directory. Its zero value leaves them as they
// are.
type Lock struct {
	recipients []age.Recipient
	names      []string // of recipients, as in recipients.txt
	identity   []byte   // identity.age; nil without a passphrase
}

// NewLock encrypts to age recipients ("age1…") and to a passphrase; either may
// be missing. The passphrase decrypts a key that is stored in the directory, so
// that it is asked for and stretched only once for all files.
func NewLock(recipients []string, passphrase config.Secret) (Lock, error) {
	var l Lock
	if passphrase != "" {
		own, err := age.GenerateX25519Identity()
		if err != nil {
			return l, fmt.Errorf("cannot create a key: %w", err)
		}
		stretched, err := age.NewScryptRecipient(passphrase.Reveal())
		if err != nil {
			return l, fmt.Errorf("cannot use the passphrase: %w", err)
		}
		var b bytes.Buffer
		a := armor.NewWriter(&b)
		if err := encrypt(a, []byte(own.String()+"\n"), stretched); err != nil {
			return l, err
		}
		if err := a.Close(); err != nil {
			return l, err
		}
		l.identity = b.Bytes()
		recipients = append([]string{own.Recipient().String()}, recipients...)
	}
	for _, r := range recipients {
		parsed, err := age.ParseRecipients(strings.NewReader(r))
		if err != nil || len(parsed) != 1 {
			// The text may be a secret key, given by mistake.
			return l, errors.New("cannot encrypt to the given recipient: want an age public key, as in age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p; `age-keygen` creates one")
		}
		l.recipients = append(l.recipients, parsed[0])
		l.names = append(l.names, r)
	}
	return l, nil
}

// seal turns the files of an identity into those that are written.
func (l Lock) seal(files []file) ([]file, error) {
	if len(l.recipients) == 0 {
		return files, nil
	}
	sealed := []file{{recipientsFile, []byte(strings.Join(l.names, "\n") + "\n"), false}}
	if l.identity != nil {
		sealed = append(sealed, file{passphraseFile, l.identity, true})
	}
	for _, f := range files {
		if f.secret {
			var b bytes.Buffer
			if err := encrypt(&b, f.data, l.recipients...); err != nil {
				return nil, err
			}
			f.name, f.data = f.name+ageSuffix, b.Bytes()
		}
		sealed = append(sealed, f)
	}
	return sealed, nil
}

func encrypt(to io.Writer, plain []byte, recipients ...age.Recipient) error {
	w, err := age.Encrypt(to, recipients...)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return fmt.Errorf("cannot encrypt: %w", err)
	}
	return nil
}

// decrypt decrypts what encrypt made, or age with or without armor.
func decrypt(b []byte, keys ...age.Identity) ([]byte, error) {
	var r io.Reader = bytes.NewReader(b)
	if bytes.HasPrefix(b, []byte(armor.Header)) {
		r = armor.NewReader(r)
	}
	plain, err := age.Decrypt(r, keys...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(plain)
}

// Ask asks a person for the passphrase of what.
type Ask func(what string) (config.Secret, error)

// Keys reads an age identity file: secret keys, or secret keys encrypted with
// a passphrase, for which ask is called. name is the file's, for errors.
func Keys(name string, b []byte, ask Ask) ([]age.Identity, error) {
	if bytes.HasPrefix(b, []byte(armor.Header)) || bytes.HasPrefix(b, []byte("age-encryption.org/")) {
		pass, err := ask(name)
		if err != nil {
			return nil, err
		}
		stretched, err := age.NewScryptIdentity(pass.Reveal())
		if err != nil {
			return nil, fmt.Errorf("cannot use the passphrase: %w", err)
		}
		if b, err = decrypt(b, stretched); err != nil {
			return nil, fmt.Errorf("cannot open %s: %w: is it the right passphrase?", name, err)
		}
	}
	keys, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("cannot read the age identity file %s: %w: give the file that `age-keygen -o FILE` wrote", name, err)
	}
	return keys, nil
}
