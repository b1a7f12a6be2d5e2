#!/usr/bin/env bash
# A stock GlusterFS with our transport on kernel devices: of what gluster/check.sh runs over TCP, one part over rxe and another
# over siw, as each takes minutes here. BED_GLUSTER="distribute replicate volfiles" runs all of these on both. Wants what
# `gluster/check.sh ROOT build` has built.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=testbed/lib.sh
. testbed/lib.sh

W=/tmp/gluster # all that is written is here
export BIN=$TOP/build/gluster-bin LAB_NET=here PROVIDER=verbs
# Emulated processors: a megabyte or some files a second.
export SLOW=8 MIB=8 COUNT=60 NAMES=100 SMALL=40 LOAD=12

bed_bricks() {
    modprobe -a fuse loop xfs || bed_die "no file systems"
    mkdir -p $W && mount -t tmpfs -o size=1200m tmpfs $W || bed_die "no tmpfs"
    for last in 1 2 3 4 5 6 7 8 9; do
        ip addr add "10.77.0.$last/24" dev dum0 || bed_die "no addresses"
    done
    ip addr add fd77::1/64 dev dum0 nodad || bed_die "no addresses"
}

scenario() {
    local code=0
    timeout --kill-after=10 "${BED_GLUSTER_LIMIT:-900}" gluster/tests/lab.sh "$BIN/rdma.so" $W/lab "gluster/tests/$1.sh" || code=$?
    if ((code)); then
        grep -rhE ' [EC] \[|MSGID: 1030' $W/lab/log | tail -n 40
        cp -r $W/lab/log "$LOGS/$DEVICE-$1"
    fi
    return $code
}

declare -A usual=([rxe]=distribute [siw]=replicate)
bed_net
bed_bricks
for DEVICE in ${BED_DEVICES:-rxe siw}; do
    bed_"$DEVICE"
    for name in ${BED_GLUSTER:-${usual[$DEVICE]}}; do item "$DEVICE: $name" scenario "$name"; done
    item "$DEVICE: nothing is left in the kernel" bed_no_kernel_objects
    bed_"$DEVICE"_down
done
for last in 1 2 3 4 5 6 7 8 9; do ip addr del "10.77.0.$last/24" dev dum0; done
ip addr del fd77::1/64 dev dum0
umount $W
suite_end
