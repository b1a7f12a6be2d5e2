#!/usr/bin/env bash
# Runs a command where a stock GlusterFS finds our transport, in namespaces of its own: nothing of the host is changed, and
# nothing is left when the command has ended. Needs root and /dev/fuse.
#
#   lab.sh PLUGIN DIRECTORY COMMAND...
#
# LAB_NET=here: with the network as it is, where the addresses are already.
# PLUGIN: rdma.so. DIRECTORY: for bricks and logs, on a file system with trusted and user attributes; emptied first.
# The command finds GlusterFS's state and /run empty, the addresses 10.77.0.1 to 10.77.0.9 and fd77::1 on lo, and no other
# network. WORK is the directory.
set -euo pipefail

if [[ ${1:-} != --inside ]]; then
    plugin=$(realpath "$1")
    mkdir -p "$2"
    work=$(realpath "$2")
    find "$work" -mindepth 1 -delete
    shift 2
    # The end of the first process is that of all.
    net=--net
    [[ ${LAB_NET:-} != here ]] || net=
    # shellcheck disable=SC2086
    exec unshare $net --mount --pid --fork --kill-child --mount-proc --propagation private \
        "${BASH_SOURCE[0]}" --inside "$plugin" "$work" "$@"
fi

plugin=$2 work=$3
shift 3
if [[ ${LAB_NET:-} != here ]]; then
    ip link set lo up
    for last in 1 2 3 4 5 6 7 8 9; do ip addr add "10.77.0.$last/24" dev lo; done
    ip -6 addr add fd77::1/64 dev lo nodad
fi

transports=$(realpath "$(glusterfsd --print-xlatordir)/../rpc-transport")
mkdir -p "$work/transports" "$work/etc" "$work/log" "$work/bricks" "$work/mnt"
cp -a "$transports/." "$work/transports/"
cp "$plugin" "$work/transports/rdma.so"
cp -a /etc/glusterfs/. "$work/etc/"
# The edit that the README shows.
sed -i -e 's/^\( *option transport-type\) socket$/\1 socket,rdma/' \
    -e '/option transport-type/a\    option transport.rdma.listen-port 24008' "$work/etc/glusterd.vol"
mount --bind "$work/transports" "$transports"
mount --bind "$work/etc" /etc/glusterfs
# Geo-replication, which glusterd takes seconds to set up, is not there: so execve(2) says of this file.
gsyncd=$(dirname "$transports")/../gsyncd
printf '#!/nonexistent\n' >"$work/gsyncd"
chmod +x "$work/gsyncd"
[[ ! -e $gsyncd ]] || mount --bind "$work/gsyncd" "$gsyncd"
mkdir -p /var/lib/glusterd /var/log/glusterfs
mount -t tmpfs none /var/lib/glusterd
mount --bind "$work/log" /var/log/glusterfs
mount -t tmpfs none /run
mkdir -p /run/gluster /run/lock
export WORK=$work
"$@"
