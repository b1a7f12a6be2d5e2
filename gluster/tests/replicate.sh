#!/usr/bin/env bash
# A replicated volume, transport tcp,rdma: clients over both, gfapi, a brick that is killed under load and heals, and glusterd
# that is started again.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
make_bricks
small=${SMALL:-200} load=${LOAD:-64}
start_glusterd
b=$WORK/bricks m=$WORK/mnt
gluster volume create v replica 3 transport tcp,rdma 10.77.0.1:"$b/1" 10.77.0.2:"$b/2" 10.77.0.3:"$b/3" force
gluster volume start v
# A port for each, of all bricks.
ports() { test "$(gluster volume status v | awk '/bricks\/[0-9]/ && $(NF - 3) > 0 && $(NF - 2) > 0 && $(NF - 3) != $(NF - 2)' | wc -l)" = 3; }
await 10 ports
mount_volume v "$m/rdma" transport=rdma
mount_volume v "$m/tcp"
over_rdma "*rdma.log"

"$BIN/files" write "$m/rdma" "$small"
"$BIN/files" check "$m/tcp" "$small"
"$BIN/files" xattrs "$m/rdma/xattrs"
"$BIN/files" locks "$m/rdma/lock" "$m/tcp/lock"
"$BIN/gfapi" v /var/lib/glusterd/vols/v/v.rdma-fuse.vol
over_rdma gfapi.log

# Killed while it is written to; the writer does not notice. Files of before are written while it is away.
"$BIN/files" stream "$m/rdma/load" "$load" &
writer=$!
await 20 test -s "$m/rdma/load"
kill -KILL "$(brick_pid "$b/2")"
wait $writer
"$BIN/files" write "$m/rdma" $((small * 3 / 2))
"$BIN/files" compare "$m/tcp/load" "$load"
gluster volume start v force
await 60 healed
test "$(gluster volume heal v info | awk '/^Number of entries:/ { n += $4 } /is not connected/ { n++ } END { print n }')" = 0
"$BIN/files" check "$m/rdma" $((small * 3 / 2))
COPIES=3 compare_bricks "$m/rdma" "$b/1" "$b/2" "$b/3"
# It was not only healed: the client writes to it again.
connected() { test "$(grep -c 'Connected, attached to remote volume' "$WORK"/log/*rdma.log)" -gt 3; }
await 30 connected

stop_glusterd
"$BIN/files" stream "$m/rdma/without" 8
start_glusterd
umount "$m/tcp"
# Bricks sign in again when they notice.
await 30 mount_volume v "$m/tcp" transport=rdma
"$BIN/files" compare "$m/tcp/without" 8

umount "$m/rdma" "$m/tcp"
gluster volume stop v

# From both to RDMA only, which is what the daemon that heals uses then. The brick's port is another one each time.
gluster volume set v config.transport rdma
gluster volume start v
mount_volume v "$m/rdma"
kill -KILL "$(brick_pid "$b/3")"
"$BIN/files" stream "$m/rdma/more" 8
gluster volume start v force
await 60 healed
COPIES=3 compare_bricks "$m/rdma" "$b/1" "$b/2" "$b/3"
over_rdma glustershd.log
umount "$m/rdma"
gluster volume stop v
gluster volume delete v
nothing_left
no_errors
stop_glusterd
