package host

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// WaitFile returns when something happens to name or beside it (it came, was
// written, renamed or removed), or when ctx ends. Where its directory does not
// exist yet the nearest directory above it is watched. Look at the file before
// as well as after: what happened before the call is not seen.
func (h *Host) WaitFile(ctx context.Context, name string) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		<-ctx.Done()
		return
	}
	f := os.NewFile(uintptr(fd), "inotify")
	defer f.Close()
	dir := path.Dir(path.Clean("/" + name))
	const events = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_CLOSE_WRITE | unix.IN_DELETE | unix.IN_ATTRIB
	for {
		_, err := unix.InotifyAddWatch(fd, h.Path(dir), events)
		if err == nil || dir == "/" {
			break
		}
		dir = path.Dir(dir)
	}
	if deadline, ok := ctx.Deadline(); ok {
		f.SetReadDeadline(deadline)
	}
	defer context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })()
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, err := f.Read(buf)
		if err != nil || n == 0 {
			<-ctx.Done()
			return
		}
		// In the file's own directory only its name counts; above, anything.
		if dir != path.Dir(path.Clean("/"+name)) || strings.Contains(string(buf[:n]), filepath.Base(name)) {
			return
		}
	}
}
