#!/bin/sh
# Process 1 of the Ignition scenario's Debian: does what the initrd of an
# operating system that boots with Ignition does, with the real engine and the
# stages in its order, and becomes systemd. Only the first boot has the engine
# work; that is when systemd enables what the presets say, too.
set -eu
PATH=/usr/sbin:/usr/bin
export PATH
become() { exec /usr/lib/systemd/systemd; }
grep -qx uninitialized /etc/machine-id || become
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mount -t tmpfs -o mode=0755 tmpfs /run
exec >/dev/console 2>&1
modprobe virtio_net
modprobe qemu_fw_cfg
ip link set lo up
dev=$(basename "$(echo /sys/class/net/e*)")
ip address add 10.0.2.15/24 dev "$dev"
ip link set "$dev" up
mkdir -p /run/ignition
for stage in fetch-offline fetch kargs disks mount files umount; do
	echo "ignition: stage $stage"
	if ! ignition --platform=qemu --root=/ --stage=$stage --log-to-stdout; then
		echo "ignition: stage $stage failed"
		sleep 5
		poweroff -f
	fi
done
ip link set "$dev" down
ip address flush dev "$dev"
become
