package base

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// treeTime is what maintainer scripts take for the present, and the time of
// every file in the operating system's tree: 2025-01-01. Outputs carry their
// own build's SOURCE_DATE_EPOCH instead.
const treeTime = 1735689600

// recipe is what a tree is made of. Its hash is part of the tree's key, so
// changing any field, or bumping Revision when the code that works on the
// tree changes, makes a new tree.
type recipe struct {
	Name     string
	Revision int
	Suite    string
	Arch     string   // Debian's name; set by forArch
	Include  []string // packages, beside the essential ones and what they need
	Exclude  []string // dpkg path patterns that are not unpacked
	Keep     []string // patterns that are, though Exclude names them
	Hook     string   // shell that runs with the finished root as $1, before the packages are listed
	Node     bool     // this is a node's root: make it reproducible and fit for a read-only root
	Needs    int64    // bytes of disk space that making it takes
}

// forArch returns r for a GOARCH.
func (r recipe) forArch(goarch string) (recipe, error) {
	if goarch != "amd64" {
		return r, fmt.Errorf("architecture %q is not supported: use amd64", goarch)
	}
	r.Arch = "amd64"
	return r, nil
}

// Description tells what the node's operating system is made from, before
// its packages are resolved.
type Description struct {
	Suite   string   `json:"suite"`   // of Debian
	Arch    string   `json:"arch"`    // Debian's name
	Include []string `json:"include"` // packages asked for
	Recipe  string   `json:"recipe"`  // hash of the whole recipe, in hex
}

// Describe describes the operating system's tree for a GOARCH.
func Describe(goarch string) (Description, error) {
	r, err := osRecipe.forArch(goarch)
	return Description{Suite: r.Suite, Arch: r.Arch, Include: r.Include, Recipe: r.hash()}, err
}

func (r recipe) hash() string {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

var docs = []string{
	"/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*",
	"/usr/share/bug/*", "/usr/share/menu/*", "/usr/share/doc-base/*", "/usr/share/bash-completion/*",
	"/usr/share/zsh/*", "/usr/share/fish/*", "/usr/share/metainfo/*", "/usr/share/pixmaps/*",
}

var osRecipe = recipe{
	Name:     "os",
	Revision: 3,
	Suite:    "trixie",
	Include: []string{
		"linux-image-cloud-amd64", "kmod", "udev",
		"systemd-boot", "fdisk", // systemd-bless-boot; sfdisk, which names slots
		"systemd", "systemd-sysv", "systemd-resolved", "systemd-timesyncd", "systemd-repart", "systemd-cryptsetup", "cryptsetup-bin",
		"dbus", "libnss-myhostname", "ca-certificates", "e2fsprogs", "dosfstools", "mount", "util-linux",
		"containerd", "runc",
		"iptables", "nftables", "ipset", "conntrack", "iproute2", "ethtool", "socat", // what kubelet, kube-proxy and CNI plugins call
	},
	Exclude: append([]string{
		// Sources of the hardware database, which nothing on a node reads
		// but for the names of network interfaces.
		"/usr/lib/udev/hwdb.d/*",
		// Only shim v2 is used with runc; the others are for old versions of containerd.
		"/usr/bin/containerd-shim", "/usr/bin/containerd-shim-runc-v1", "/usr/bin/containerd-stress",
		"/etc/cron.d/*", "/etc/cron.daily/*", "/etc/init.d/*", "/etc/logrotate.d/*",
	}, docs...),
	Keep: []string{
		"/usr/lib/udev/hwdb.d/20-net-ifname.hwdb",
		"/usr/share/doc/*/copyright", // what is given away must say whose it is
	},
	// What was only needed for the installation is removed through dpkg, so that
	// the list of packages is correct.
	Hook: `
chroot "$1" systemctl enable systemd-networkd.service systemd-networkd-wait-online.service systemd-network-generator.service systemd-resolved.service systemd-timesyncd.service containerd.service
chroot "$1" systemctl disable getty@tty1.service e2scrub_all.timer e2scrub_reap.service dpkg-db-backup.timer remote-fs.target
chroot "$1" systemctl set-default multi-user.target
chroot "$1" systemctl mask ` + masked + `
chroot "$1" dpkg --purge --force-all initramfs-tools initramfs-tools-core initramfs-tools-bin klibc-utils libklibc dracut-install cpio openssl linux-base
chroot "$1" dpkg --purge --force-all debconf init-system-helpers sysvinit-utils perl-base
`,
	Node:  true,
	Needs: 1500 << 20,
}

// masked are units that make no sense on a read-only root without logins: what
// would write to /etc, /usr or the boot loader's partition, and what
// asks at the console.
const masked = `systemd-update-done.service ldconfig.service systemd-hwdb-update.service systemd-journal-catalog-update.service ` +
	`systemd-sysusers.service systemd-firstboot.service systemd-machine-id-commit.service systemd-hibernate-clear.service ` +
	`getty-static.service getty@.service serial-getty@.service console-getty.service container-getty@.service autovt@.service ` +
	`systemd-ask-password-console.path systemd-ask-password-wall.path ` +
	`systemd-boot-update.service systemd-boot-random-seed.service`

var toolsRecipe = recipe{
	Name:     "tools",
	Revision: 2,
	Suite:    "trixie",
	Include: []string{
		"systemd-repart", "systemd-ukify", "systemd-boot-efi", "erofs-utils", "cryptsetup-bin", "dosfstools", "mtools",
		"e2fsprogs", "fdisk", "qemu-utils", "zstd", "cpio", "binutils",
		"sbsigntool", // sbverify, which tests use to verify signatures
		"mount", "util-linux",
	},
	Exclude: docs,
	Needs:   1500 << 20,
}

var vmRecipe = recipe{
	Name:     "vm",
	Revision: 1,
	Suite:    "trixie",
	Include:  []string{"qemu-system-x86", "ovmf", "qemu-utils"},
	Exclude:  docs,
	Needs:    2500 << 20,
}

// debianRecipe is an ordinary Debian with a root that is written to: the
// stand-in for an operating system that boots with Ignition. It has what
// kbuild's system extension asks of such a one, and no container runtime.
var debianRecipe = recipe{
	Name:     "debian",
	Revision: 1,
	Suite:    "trixie",
	Include: []string{
		"linux-image-cloud-amd64", "kmod", "udev", "systemd", "systemd-sysv", "systemd-resolved",
		"systemd-container",                 // systemd-dissect
		"cryptsetup-bin", "libcryptsetup12", // dm-verity
		"libblkid1", // what the Ignition engine is linked with
		"dbus", "ca-certificates", "mount", "util-linux", "e2fsprogs", "passwd",
		"iptables", "conntrack", "iproute2", "ethtool", "socat",
	},
	Hook: `
chroot "$1" systemctl set-default multi-user.target
`,
	Needs: 1500 << 20,
}
