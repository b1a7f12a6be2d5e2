#!/usr/bin/env bash
# A distributed volume, transport rdma: the volume's life, and all kinds of file operations by two FUSE clients.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
make_bricks
start_glusterd
b=$WORK/bricks m=$WORK/mnt
gluster volume create v transport rdma 10.77.0.1:"$b/1" 10.77.0.2:"$b/2" 10.77.0.3:"$b/3"
gluster volume info v | grep -x 'Transport-type: rdma'
gluster volume start v
mount_volume v "$m/a" transport=rdma
mount_volume v "$m/b"

"$BIN/files" stream "$m/a/large" "${MIB:-256}"
"$BIN/files" compare "$m/b/large" "${MIB:-256}"
"$BIN/files" write "$m/a" "${COUNT:-2000}"
"$BIN/files" check "$m/b" "${COUNT:-2000}"
mkdir "$m/a/names"
"$BIN/files" names "$m/a/names" "${NAMES:-600}"
test "$(find "$m/b/names" -mindepth 1 | wc -l)" = $((${NAMES:-600} + 12))
"$BIN/files" xattrs "$m/a/xattrs"
"$BIN/files" direct "$m/a/direct"
"$BIN/files" locks "$m/a/lock" "$m/b/lock"
mv "$m/a/d0" "$m/a/moved"
ln "$m/a/d1/f20" "$m/a/hard"
ln -s d1/f20 "$m/a/soft"
cmp "$m/b/hard" "$m/b/soft"
rm -r "$m/a/d2"
test ! -e "$m/b/d2/f40"
compare_bricks "$m/a" "$b/1" "$b/2" "$b/3"

# A server that sets no store by clients it does not know.
gluster volume set v auth.allow 10.77.0.1
gluster volume set v auth.reject 10.77.0.9
umount "$m/b"
mount_volume v "$m/b"
cmp "$m/a/hard" "$m/b/hard"
gluster volume status v clients | grep -E '10\.77\.0\.1:[0-9]+ +[0-9]+ +[0-9]+'

# What statedumps tell, of a client, with GlusterFS's own counter, and of a brick.
kill -USR1 "$(pgrep -f "glusterfs.*$m/a")" "$(brick_pid "$b/1")"
dumped() { grep -rhqs "$@" /run/gluster; }
await 20 dumped '^total_bytes_written=[1-9][0-9]\{6\}'
await 20 dumped '^\[rdma\.link\.v-client-2\.10\.77\.0\.3:'
await 20 dumped '^calls_taken=[1-9]'
dumped "^provider=${PROVIDER:-iwarp}"

umount "$m/a" "$m/b"
gluster volume stop v
gluster volume delete v
nothing_left
over_rdma "*a.log"
no_errors
stop_glusterd
