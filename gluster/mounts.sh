#!/usr/bin/env bash
# Clients that mount, write 8 MiB and leave, one after another, and what the brick and glusterd hold. Not part of make check.
#   gluster/tests/lab.sh build/rdma.so build/gluster-mounts gluster/mounts.sh     with BIN as soak.sh, TRANSPORT, MOUNTS
# shellcheck source=gluster/tests/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/tests/lib.sh"
make_bricks
brick=$WORK/bricks/1 at=$WORK/mnt/a
start_glusterd
gluster volume create v transport "${TRANSPORT:-rdma}" "10.77.0.1:$brick" force >/dev/null
gluster volume start v >/dev/null
rss() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
for i in $(seq 0 "${MOUNTS:-200}"); do
    mount_volume v "$at"
    "$BIN/files" stream "$at/file" 8 >/dev/null
    umount "$at"
    ((i % 25)) || echo "after $i: RSS of the brick $(rss "$(brick_pid "$brick")") KiB, of glusterd $(rss "$(cat /run/glusterd.pid)")"
done
gluster volume stop v >/dev/null
stop_glusterd
