package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/kbuild/kbuild/builder/base"
)

// inputs is a hash of everything that decides the outputs' bytes: the Plan,
// the trees, kbuild-firstboot, and kbuild itself.
func (p *Plan) inputs(env Env, trees ...base.Tree) (string, error) {
	plan := *p
	plan.Spec = p.byContent()
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(plan); err != nil {
		return "", err
	}
	h.Write(p.config)
	h.Write(p.merge)
	for _, der := range p.identity.Certificate {
		h.Write(der)
	}
	for _, t := range slices.Concat(p.Tree, p.Sysext) { // manifests and the like, by content
		fmt.Fprintln(h, t.Path, t.SHA256)
	}
	for _, t := range trees {
		fmt.Fprintln(h, t.Key)
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	for _, file := range []string{self, env.Firstboot} {
		sum, err := hashFile(file)
		if err != nil {
			return "", err
		}
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// upToDate says whether dir holds the whole outputs of a build from the same
// inputs.
func upToDate(dir, inputs string) bool {
	if _, err := os.Stat(filepath.Join(dir, "SHA256SUMS")); err != nil {
		return false // written last: without it the build is not whole
	}
	b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return false
	}
	var m Manifest
	if json.Unmarshal(b, &m) != nil || m.Inputs != inputs {
		return false
	}
	for _, f := range m.Files {
		if st, err := os.Stat(filepath.Join(dir, f.Name)); err != nil || st.Size() != f.Size {
			return false
		}
	}
	return true
}
