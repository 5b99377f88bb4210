package reset

import (
	"strings"
	"testing"

	"github.com/kbuild/kbuild/firstboot/kubelet"
)

func TestMountsBelow(t *testing.T) {
	got := mountsBelow([]byte("22 1 0:21 / / rw - erofs x ro\n40 22 0:30 / /var/lib/kubelet/pods/a/volumes/b rw - tmpfs tmpfs rw\n"+
		"41 22 0:31 / /var/lib/kubelet/pods/a\\040b rw - tmpfs tmpfs rw\n42 22 0:31 / /var/lib/kubelet2/x rw - tmpfs tmpfs rw\n"), kubelet.Dir)
	if strings.Join(got, "|") != "/var/lib/kubelet/pods/a/volumes/b|/var/lib/kubelet/pods/a b" {
		t.Errorf("%q", got)
	}
}
