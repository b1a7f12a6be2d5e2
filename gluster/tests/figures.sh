#!/usr/bin/env bash
# Figures, not a test: one volume of transport tcp,rdma, mounted twice, and fio on both in turn. Wants fio.
#   gluster/tests/lab.sh build/rdma.so build/gluster-lab gluster/tests/figures.sh     with BIN, ROUNDS, SECONDS_EACH
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
make_bricks
start_glusterd
b=$WORK/bricks m=$WORK/mnt
{
    gluster volume create v transport tcp,rdma 10.77.0.1:"$b/1"
    gluster volume start v
} >/dev/null
mount_volume v "$m/rdma" transport=rdma
mount_volume v "$m/tcp"

# Clock ticks that brick and client have used.
cpu() { awk '{ used += $14 + $15 } END { print used }' "/proc/$(brick_pid "$b/1")/stat" "/proc/$(pgrep -f "glusterfs.*$m/$1")/stat"; }

# measure TRANSPORT COMMAND...: what it prints, KiB in all and seconds, as KiB a second and ticks a GiB.
measure() {
    local before after
    before=$(cpu "$1")
    "${@:2}" >"$WORK/figure"
    after=$(cpu "$1")
    awk -v ticks=$((after - before)) '{ printf "%d %d\n", $1 / $2, ticks * 1048576 / $1 }' "$WORK/figure"
}
io() {
    fio --name=x --directory="$m/$1" --size=128m --bs="$3" --rw="$2" --numjobs="$4" --runtime="${SECONDS_EACH:-3}" \
        --time_based --ioengine=psync --direct=1 --group_reporting --output-format=terse 2>/dev/null |
        awk -F';' '{ kib = $6 + $47; rate = $7 + $48; print kib, kib / rate }'
}
# Small files of 10 KB each, a KiB for a file.
files() {
    local start=$EPOCHREALTIME
    mkdir -p "$m/$1/$1"
    "$BIN/files" write "$m/$1/$1" 300
    awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { print 300, b - a }'
}

for ((round = 0; round < ${ROUNDS:-5}; round++)); do
    for job in "write 1m 1" "write 1m 4" "read 1m 1" "read 1m 4" "randwrite 4k 1" "randwrite 4k 8" "randread 4k 1" "randread 4k 8"; do
        # shellcheck disable=SC2086
        for transport in tcp rdma; do echo "$job $transport $(measure $transport io $transport $job)"; done
    done
    for transport in tcp rdma; do echo "files 10k 1 $transport $(measure $transport files $transport)"; done
done | awk '{ k = $1 " " $2 " " $3; if (!(k in seen)) { seen[k] = 1; order[++n] = k }
      rate[k, $4] = rate[k, $4] " " $5; cost[k, $4] = cost[k, $4] " " $6 }
    function median(text, v, c, i, j, t) {
        c = split(text, v, " ")
        for (i = 1; i <= c; i++) for (j = i + 1; j <= c; j++) if (v[j] + 0 < v[i] + 0) { t = v[i]; v[i] = v[j]; v[j] = t }
        return v[int((c + 1) / 2)]
    }
    END { for (i = 1; i <= n; i++) { k = order[i]; t = median(rate[k, "tcp"]); r = median(rate[k, "rdma"])
          a = median(cost[k, "tcp"]); b = median(cost[k, "rdma"])
          printf "%-16s KiB/s: tcp %7d rdma %7d ratio %.2f   CPU: tcp %6d rdma %6d ratio %.2f\n", k, t, r, r / t, a, b, b / a } }'
umount "$m/rdma" "$m/tcp"
stop_glusterd
