# Runs in a mount namespace of its own, so that nothing of it outlives the
# container: joins the machine's cgroups, mounts its root and /var, and becomes
# systemd-nspawn with the arguments given.
#   KBT_CGROUPS  directories to join
#   KBT_ROOT     the image's root: an erofs file, or a directory
#   KBT_MNT      where it is mounted, read-only
#   KBT_VAR      an ext4 image for /var; empty where KBT_VARDIR is the directory itself.
#                (noinit_itable: nobody writes to it but the node, for benchmarks)
#   KBT_VARDIR   what is bound as /var
#   KBT_FIRSTBOOT  where the image's kbuild-firstboot is copied to; may be empty
set -eu
for c in $KBT_CGROUPS; do echo $$ >"$c/cgroup.procs"; done
if [ -f "$KBT_ROOT" ]; then
	mount -t erofs -o loop,ro "$KBT_ROOT" "$KBT_MNT"
else
	mount --bind "$KBT_ROOT" "$KBT_MNT"
	mount -o remount,bind,ro "$KBT_MNT"
fi
[ -z "$KBT_VAR" ] || mount -t ext4 -o loop,noinit_itable "$KBT_VAR" "$KBT_VARDIR"
[ -z "$KBT_FIRSTBOOT" ] || cp "$KBT_MNT/usr/bin/kbuild-firstboot" "$KBT_FIRSTBOOT"
exec systemd-nspawn "$@"
