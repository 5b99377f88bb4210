package source

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// transcript is the file that keeps everything the commands of a build print,
// which an error names: NAME.log in the cache, until the next build of that
// name.
func (s store) transcript(name string) (*os.File, error) {
	dir := filepath.Join(s.dir, "log")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cannot use the cache: %w", err)
	}
	return os.Create(filepath.Join(dir, name+".log"))
}

// lineCounter counts the lines that are written to it.
type lineCounter struct {
	n    int
	each func(n int)
}

func (c *lineCounter) Write(p []byte) (int, error) {
	c.n += bytes.Count(p, []byte("\n"))
	c.each(c.n)
	return len(p), nil
}
