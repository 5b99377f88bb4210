package disk

import (
	"context"
	"path/filepath"

	"github.com/kbuild/kbuild/builder/base"
)

// Where the tools see the directories of key and certificate: the key is never
// copied.
const keyBind, certBind = "secure-boot-key", "secure-boot-cert"

func (s *SecureBoot) binds() []base.Bind {
	if s == nil {
		return nil
	}
	return []base.Bind{{Name: keyBind, Dir: filepath.Dir(s.Key)}, {Name: certBind, Dir: filepath.Dir(s.Cert)}}
}

func (s *SecureBoot) key() string  { return "/tmp/" + keyBind + "/" + filepath.Base(s.Key) }
func (s *SecureBoot) cert() string { return "/tmp/" + certBind + "/" + filepath.Base(s.Cert) }

// ukifyArgs have ukify sign what it makes.
func (s *SecureBoot) ukifyArgs() []string {
	if s == nil {
		return nil
	}
	return []string{"--signtool=systemd-sbsign", "--sign-kernel", "--secureboot-private-key=" + s.key(), "--secureboot-certificate=" + s.cert()}
}

// bootLoader returns where the tools find systemd-boot, signed if asked.
func (b *builder) bootLoader(ctx context.Context) (string, error) {
	const plain = "/usr/lib/systemd/boot/efi/systemd-bootx64.efi"
	s := b.SecureBoot
	if s == nil {
		return plain, nil
	}
	const signed = "/tmp/work/systemd-bootx64.efi"
	return signed, b.run(ctx, "/usr/lib/systemd/systemd-sbsign", "sign", "--private-key="+s.key(), "--certificate="+s.cert(), "--output="+signed, plain)
}
