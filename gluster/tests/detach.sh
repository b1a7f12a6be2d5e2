#!/usr/bin/env bash
# Two replicated volumes of transport rdma, which one daemon heals: when one is stopped, the daemon takes its graph apart, and
# waits until each of its clients is down.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
make_bricks
start_glusterd
b=$WORK/bricks log=$WORK/log/glustershd.log
for v in v w; do
    gluster volume create $v replica 2 transport rdma 10.77.0.1:"$b/$v"1 10.77.0.2:"$b/$v"2 force
    gluster volume start $v
done
count() { grep -c "$1" "$log"; }
attached() { test "$(count "Connected, attached to remote volume.*bricks/$1[12]")" = 2; }
await 30 attached v
await 30 attached w

daemon=$(pgrep -f 'process-name glustershd')
# The thread that takes a graph apart tells each client first.
apart() {
    test "$(count "$1-client-[01]: current graph is no longer active")" = 2 || return 1
    ! grep -qx glfs_graph_clea /proc/"$daemon"/task/*/comm
}
gluster volume stop v
await 20 apart v

# The other's graph is whole.
mkdir -p "$WORK/mnt/w"
await 30 mount_volume w "$WORK/mnt/w"
kill -KILL "$(brick_pid "$b/w2")"
"$BIN/files" stream "$WORK/mnt/w/load" 8
gluster volume start w force
await 60 healed
COPIES=2 compare_bricks "$WORK/mnt/w" "$b/w1" "$b/w2"
test "$(pgrep -f 'process-name glustershd')" = "$daemon"

umount "$WORK/mnt/w"
gluster volume stop w
nothing_left
no_errors
stop_glusterd
