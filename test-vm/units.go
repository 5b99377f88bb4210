package testvm

import (
	"fmt"

	"github.com/kbuild/kbuild/test-vm/guest"
)

// laneNetwork is a systemd.network(5) file that gives the card a fixed address
// and nothing else: no route, no name server.
func laneNetwork(match, address string) string {
	return "[Match]\n" + match + "\n[Network]\nAddress=" + address + "/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n"
}

// laneUnits are the system credentials that make the checker run in a machine
// without being part of the image: systemd-debug-generator makes units
// and drop-ins of them (systemd.system-credentials(7), systemd.extra-unit.* and
// systemd.unit-dropin.*, since systemd 256).
func laneUnits(lane Lane) map[string]string {
	m := map[string]string{
		"systemd.unit-dropin.multi-user.target~checker": "[Unit]\nWants=" + guest.Unit + "\n",
	}
	if lane == VM {
		// The drive is the program's bytes; no file system is needed.
		m["systemd.extra-unit."+guest.Unit] = fmt.Sprintf(`[Unit]
Description=kbuild test checker
DefaultDependencies=no
Wants=dev-disk-by\x2did-virtio\x2d%[1]s.device
After=dev-disk-by\x2did-virtio\x2d%[1]s.device
Conflicts=shutdown.target
Before=shutdown.target
[Service]
ExecStartPre=mkdir -p %[2]s
ExecStartPre=cp /dev/disk/by-id/virtio-%[1]s %[3]s
ExecStartPre=chmod 0700 %[3]s
ExecStart=%[3]s serve --port /dev/virtio-ports/%[4]s
Restart=on-failure
`, guest.Drive, guest.Dir, guest.Program, guest.Port)
		return m
	}
	m["systemd.extra-unit."+guest.Unit] = fmt.Sprintf(`[Unit]
Description=kbuild test checker
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
[Service]
ExecStart=%s serve --socket %s
Restart=on-failure
`, guest.Program, guest.Socket)
	m["systemd.extra-unit."+guest.PrepUnit] = fmt.Sprintf(`[Unit]
Description=Make this container fit for a kubelet
DefaultDependencies=no
After=local-fs.target
Before=containerd.service kubelet.service kbuild-firstboot.service
Conflicts=shutdown.target
Before=shutdown.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=%s prepare
`, guest.Program)
	m["systemd.unit-dropin.containerd.service~lane"] = "[Unit]\nRequires=" + guest.PrepUnit + "\nAfter=" + guest.PrepUnit + "\n"
	return m
}
