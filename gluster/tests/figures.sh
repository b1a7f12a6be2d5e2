#!/usr/bin/env bash
# Figures, not a test: one volume of transport tcp,rdma, mounted twice, and fio (libaio, O_DIRECT) on both in turn; and fio's
# gfapi on two volumes on the same disk, as gfapi takes TCP where a volume has both. Wants fio.
#   gluster/tests/lab.sh build/rdma.so build/gluster-lab gluster/tests/figures.sh     with BIN, ROUNDS, SECONDS_EACH
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
make_bricks
start_glusterd
b=$WORK/bricks m=$WORK/mnt
{
    gluster volume create v transport tcp,rdma 10.77.0.1:"$b/1"
    gluster volume start v
    for transport in tcp rdma; do
        gluster volume create g$transport transport $transport 10.77.0.1:"$b/g$transport"
        gluster volume start g$transport
    done
} >/dev/null
mount_volume v "$m/rdma" transport=rdma
mount_volume v "$m/tcp"

# Clock ticks that brick and client have used, where the client is not fio.
cpu() { [[ $2 == fuse ]] || { echo 0; return; }; awk '{ used += $14 + $15 } END { print used }' "/proc/$(brick_pid "$b/1")/stat" "/proc/$(pgrep -f "glusterfs.*$m/$1")/stat"; }

# measure TRANSPORT fuse|gfapi COMMAND...: what it prints, KiB in all and seconds, as KiB a second and ticks a GiB.
measure() {
    local before after
    before=$(cpu "$1" "$2")
    "${@:3}" >"$WORK/figure"
    after=$(cpu "$1" "$2")
    awk -v ticks=$((after - before)) '{ printf "%d %d\n", $1 / $2, ticks * 1048576 / $1 }' "$WORK/figure"
}
# io TRANSPORT fuse|gfapi RW BLOCK DEPTH
io() {
    local how=(--ioengine=libaio --direct=1 --directory="$m/$1")
    [[ $2 == fuse ]] || how=(--ioengine=gfapi_async --volume="g$1" --brick=10.77.0.1)
    fio --name=x "${how[@]}" --size=128m --bs="$4" --rw="$3" --iodepth="$5" --runtime="${SECONDS_EACH:-3}" \
        --time_based --output-format=terse 2>/dev/null | grep '^3;' |
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
    for job in "fuse write 1m 1" "fuse write 1m 8" "fuse read 1m 1" "fuse read 1m 8" "fuse randwrite 4k 1" "fuse randwrite 4k 16" \
        "fuse randread 4k 1" "fuse randread 4k 16" "gfapi write 1m 8" "gfapi read 1m 8" "gfapi randwrite 4k 16" "gfapi randread 4k 16"; do
        # shellcheck disable=SC2086
        for transport in tcp rdma; do echo "$job $transport $(measure $transport ${job%% *} io $transport $job)"; done
    done
    for transport in tcp rdma; do echo "fuse files 10k 1 $transport $(measure $transport fuse files $transport)"; done
done | awk '{ k = $1 " " $2 " " $3 " " $4; if (!(k in seen)) { seen[k] = 1; order[++n] = k }
      rate[k, $5] = rate[k, $5] " " $6; cost[k, $5] = cost[k, $5] " " $7 }
    function median(text, v, c, i, j, t) {
        c = split(text, v, " ")
        for (i = 1; i <= c; i++) for (j = i + 1; j <= c; j++) if (v[j] + 0 < v[i] + 0) { t = v[i]; v[i] = v[j]; v[j] = t }
        return v[int((c + 1) / 2)]
    }
    END { for (i = 1; i <= n; i++) { k = order[i]; t = median(rate[k, "tcp"]); r = median(rate[k, "rdma"])
          a = median(cost[k, "tcp"]); b = median(cost[k, "rdma"])
          printf "%-22s KiB/s: tcp %7d rdma %7d ratio %.2f   CPU: tcp %6d rdma %6d ratio %.2f\n", k, t, r, r / t, a, b, a ? b / a : 0 } }'
umount "$m/rdma" "$m/tcp"
stop_glusterd
