#!/usr/bin/env bash
# Mixed load for a long time, and what processes hold meanwhile: a replicated volume of transport rdma, one client that stays
# and one that comes and goes. Not part of make check.
#   gluster/tests/lab.sh build/rdma.so build/gluster-soak gluster/soak.sh     with BIN (gluster/check.sh ROOT build), MINUTES
# Prints a line for each process every EVERY seconds, and at the end medians of the first tenth behind the warm-up, which is
# another tenth, and of the last. Fails if a load fails, or if descriptors or threads have become more.
# shellcheck source=gluster/tests/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/tests/lib.sh"
make_bricks
minutes=${MINUTES:-30} every=${EVERY:-30}
b=$WORK/bricks m=$WORK/mnt
start_glusterd
{
    gluster volume create v replica 3 transport rdma 10.77.0.1:"$b/1" 10.77.0.2:"$b/2" 10.77.0.3:"$b/3" force
    gluster volume start v
} >/dev/null
mount_volume v "$m/stays"
end=$((SECONDS + minutes * 60))

# repeat COMMAND...: in a directory of its own by each mount, until the time is over. The first failure ends all.
repeat() {
    local rounds=0
    while ((SECONDS < end)) && [[ ! -e $WORK/failed ]]; do
        "$@" || { echo "failed: $*" | tee "$WORK/failed"; return 1; }
        rounds=$((rounds + 1))
    done
    echo "rounds of $1: $rounds"
}
small() {
    mkdir -p "$m/stays/small"
    "$BIN/files" write "$m/stays/small" 200 && "$BIN/files" check "$m/stays/small" 200 && rm -r "$m/stays/small"
}
large() { "$BIN/files" stream "$m/stays/large" 64 && "$BIN/files" compare "$m/stays/large" 64 && rm "$m/stays/large"; }
odd() {
    "$BIN/files" xattrs "$m/stays/xattrs" && "$BIN/files" direct "$m/stays/direct" && rm "$m/stays/xattrs" "$m/stays/direct"
    sleep 1
}
comes() {
    mount_volume v "$m/comes" && "$BIN/files" locks "$m/stays/lock" "$m/comes/lock" &&
        "$BIN/files" stream "$m/comes/other" 8 && "$BIN/files" compare "$m/stays/other" 8 && umount "$m/comes"
    local rc=$?
    sleep 3
    return "$rc"
}

# NAME PID: seconds, RSS in KiB, descriptors, threads.
sample() {
    local rss threads
    rss=$(awk '/^VmRSS/ { print $2 }' "/proc/$2/status")
    threads=$(awk '/^Threads/ { print $2 }' "/proc/$2/status")
    printf '%s %d %d %d %d\n' "$1" $((SECONDS)) "$rss" "$(find "/proc/$2/fd" -mindepth 1 | wc -l)" "$threads"
}
samples() {
    local i
    while ((SECONDS < end)); do
        for i in 1 2 3; do sample "brick$i" "$(brick_pid "$b/$i")"; done
        sample client "$(pgrep -f "glusterfs .*$m/stays")"
        sample glusterd "$(cat /run/glusterd.pid)"
        sleep "$every"
    done
}

jobs=()
for load in small large odd comes; do
    repeat $load &
    jobs+=($!)
done
samples | tee "$WORK/samples"
bad=0
for job in "${jobs[@]}"; do wait "$job" || bad=1; done
awk '{ n[$1]++; rss[$1, n[$1]] = $3; fds[$1, n[$1]] = $4; threads[$1, n[$1]] = $5 }
    function median(list, name, from, to, v, c, i, j, t) {
        for (i = from; i <= to; i++) v[++c] = list[name, i]
        for (i = 1; i <= c; i++) for (j = i + 1; j <= c; j++) if (v[j] < v[i]) { t = v[i]; v[i] = v[j]; v[j] = t }
        return v[int((c + 1) / 2)]
    }
    END { for (name in n) { tenth = int(n[name] / 10); tenth = tenth > 0 ? tenth : 1
              r = median(rss, name, tenth + 1, 2 * tenth); R = median(rss, name, n[name] - tenth + 1, n[name])
              f = median(fds, name, tenth + 1, 2 * tenth); F = median(fds, name, n[name] - tenth + 1, n[name])
              t = median(threads, name, tenth + 1, 2 * tenth); T = median(threads, name, n[name] - tenth + 1, n[name])
              printf "%-9s RSS %d -> %d KiB, descriptors %d -> %d, threads %d -> %d\n", name, r, R, f, F, t, T
              bad += F > f + 2 || T > t + 2 }
          exit bad > 0 }' "$WORK/samples" || bad=1
umount "$m/stays"
gluster volume stop v >/dev/null
nothing_left
no_errors
stop_glusterd
exit $bad
