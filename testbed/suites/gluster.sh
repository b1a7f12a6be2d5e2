#!/usr/bin/env bash
# A stock GlusterFS with our transport on kernel devices: gluster/tests/core.sh on rxe and on siw, and bricks and clients of which
# one has siw and the other our iWARP. BED_GLUSTER="distribute replicate volfiles" runs these on both devices, which takes an
# hour. Wants what `gluster/check.sh ROOT build` has built.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=testbed/lib.sh
. testbed/lib.sh

W=/tmp/gluster # all that is written is here
export BIN=${BED_GLUSTER_BIN:-$TOP/build/gluster-bin} LAB_NET=here PROVIDER=verbs
# Emulated processors: a megabyte or some files a second.
export SLOW=8 MIB=2 COUNT=60 NAMES=100 SMALL=8 LOAD=12

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

# The other end's network namespace goes in by a descriptor, as the names are hidden.
wire() {
    exec 9</run/netns/user
    NEAR=$WIRE_KERNEL4 FAR=$WIRE_USER4 scenario wire
}

bed_net
bed_bricks
for DEVICE in ${BED_DEVICES:-rxe siw}; do
    bed_"$DEVICE"
    for name in ${BED_GLUSTER:-core}; do item "$DEVICE: $name" scenario "$name"; done
    bed_"$DEVICE"_down
done
if [[ ! ${BED_GLUSTER:-} ]]; then
    bed_wire
    DEVICE=siwv
    item "a device at one end of the wire, TCP at the other" wire
fi
item "nothing is left in the kernel" bed_no_kernel_objects
bed_wire_down
# The first one last, as the others go with it.
for last in 9 8 7 6 5 4 3 2 1; do ip addr del "10.77.0.$last/24" dev dum0; done
ip addr del fd77::1/64 dev dum0
umount $W
suite_end
