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

# io TRANSPORT PATTERN BLOCK JOBS: KiB a second.
io() {
    fio --name=x --directory="$m/$1" --size=128m --bs="$3" --rw="$2" --numjobs="$4" --runtime="${SECONDS_EACH:-3}" \
        --time_based --ioengine=psync --direct=1 --group_reporting --output-format=terse 2>/dev/null |
        awk -F';' '{ print $7 + $48 }'
}
files() {
    local start=$EPOCHREALTIME
    mkdir -p "$m/$1/$1"
    "$BIN/files" write "$m/$1/$1" 300
    awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%d\n", 300 / (b - a) }'
}

for ((round = 0; round < ${ROUNDS:-5}; round++)); do
    for job in "write 1m 1" "write 1m 4" "read 1m 1" "read 1m 4" "randwrite 4k 1" "randwrite 4k 8" "randread 4k 1" "randread 4k 8"; do
        # shellcheck disable=SC2086
        for transport in tcp rdma; do echo "$job $transport $(io $transport $job)"; done
    done
    for transport in tcp rdma; do echo "files 0-20k 1 $transport $(files $transport)"; done
done | awk '{ k = $1 " " $2 " " $3; if (!(k in seen)) { seen[k] = 1; order[++n] = k } list[k, $4] = list[k, $4] " " $5 }
    function median(text, v, c, i, j, t) {
        c = split(text, v, " ")
        for (i = 1; i <= c; i++) for (j = i + 1; j <= c; j++) if (v[j] + 0 < v[i] + 0) { t = v[i]; v[i] = v[j]; v[j] = t }
        return v[int((c + 1) / 2)]
    }
    END { for (i = 1; i <= n; i++) { t = median(list[order[i], "tcp"]); r = median(list[order[i], "rdma"])
          printf "%-18s tcp %8d  rdma %8d  ratio %.2f\n", order[i], t, r, r / t } }'
umount "$m/rdma" "$m/tcp"
stop_glusterd
