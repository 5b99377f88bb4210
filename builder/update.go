package builder

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/kbuild/kbuild/images"
)

// writeUpdate writes what the slot's files in dir are.
func (p *Plan) writeUpdate(dir, rootHash string) error {
	u := images.Update{Kbuild: p.Kbuild, Arch: p.Spec.Arch, BuildTime: p.Spec.Epoch, Release: p.Want.Release, RootHash: rootHash, TrialBoots: p.Spec.TrialBoots, SecureBoot: p.Spec.SecureBootCert != ""}
	for what, part := range map[string]*images.Part{images.UpdateRoot: &u.Root, images.UpdateVerity: &u.Verity, images.UpdateUKI: &u.UKI} {
		f, err := outputFile(dir, images.UpdateName(p.Spec.Version, rootHash, what))
		if err != nil {
			return err
		}
		*part = images.Part(f)
	}
	b, err := json.MarshalIndent(u, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, images.UpdateFile), append(b, '\n'), 0o644)
}
