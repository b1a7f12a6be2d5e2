#!/usr/bin/env bash
# What the test bed runs on each of its devices, whose processors are emulated: one distributed and replicated volume of
# transport rdma, two FUSE clients, gfapi, and a brick that is killed under load and heals.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
make_bricks
small=${SMALL:-100} mib=${MIB:-16}
start_glusterd
b=$WORK/bricks m=$WORK/mnt
gluster volume create v replica 2 transport rdma 10.77.0.1:"$b/1" 10.77.0.2:"$b/2" 10.77.0.3:"$b/3" 10.77.0.4:"$b/4" force
gluster volume start v
# Bricks sign in when they have started.
await 30 mount_volume v "$m/a" transport=rdma
mount_volume v "$m/b"

"$BIN/files" write "$m/a" "$small"
"$BIN/files" check "$m/b" "$small"
"$BIN/files" xattrs "$m/a/xattrs"
"$BIN/files" locks "$m/a/lock" "$m/b/lock"
"$BIN/gfapi" v 10.77.0.1 "$mib"
over_rdma gfapi.log

# One of the two that the file is on.
"$BIN/files" stream "$m/a/load" "$mib" &
writer=$!
await 20 test -s "$m/a/load"
for i in 1 3; do [[ ! -e $b/$i/load || -k $b/$i/load ]] || kill -KILL "$(brick_pid "$b/$i")"; done
wait $writer
mkdir "$m/a/away"
"$BIN/files" write "$m/a/away" $((small / 2))
gluster volume start v force
await 60 healed
"$BIN/files" compare "$m/b/load" "$mib"
"$BIN/files" check "$m/b/away" $((small / 2))
COPIES=2 compare_bricks "$m/a" "$b/1" "$b/2" "$b/3" "$b/4"
over_rdma "*a.log"
over_rdma glustershd.log

umount "$m/a" "$m/b"
gluster volume stop v
gluster volume delete v
nothing_left
no_errors
stop_glusterd
