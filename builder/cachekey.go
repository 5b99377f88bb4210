package builder

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kbuild/kbuild/builder/base"
)

// cacheKey names what decides the outputs' bytes: the Plan, and what it leaves
// to the machine that builds, which are the trees, kbuild-firstboot and kbuild
// itself.
func (p *Plan) cacheKey(env Env, trees ...base.Tree) (string, error) {
	plan, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintln(h, digest(plan))
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

// upToDate says whether dir holds the whole outputs of a build of this key.
func upToDate(dir, key string) bool {
	if _, err := os.Stat(filepath.Join(dir, "SHA256SUMS")); err != nil {
		return false // written last: without it the build is not whole
	}
	b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return false
	}
	var m Manifest
	if json.Unmarshal(b, &m) != nil || m.Inputs != key {
		return false
	}
	for _, f := range m.Files {
		if st, err := os.Stat(filepath.Join(dir, f.Name)); err != nil || st.Size() != f.Size {
			return false
		}
	}
	return true
}
