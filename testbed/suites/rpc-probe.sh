#!/usr/bin/env bash
# Our requester against the kernel's NFS server, case by case: calls of all forms, and headers that make no sense. Over rxe,
# over siw, and by our own iWARP over TCP towards kernel siw. Wants bed_rpc_probe in BED_BIN.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=testbed/lib.sh
. testbed/lib.sh
# shellcheck source=testbed/nfsd.sh
. testbed/nfsd.sh

PROBE=$BED_BIN/bed_rpc_probe
export RCG_TEST_SLOW=${RCG_TEST_SLOW:-10}

# probe NAME PROVIDER ADDRESS COMMAND-PREFIX...: all cases in one process; where one fails, those behind it in another. Each
# case is an item.
probe() {
    local name=$1 said=$LOGS/$1.out status cases case
    export RCG_TEST_PROVIDER=$2 RCG_TEST_HOST=$3
    shift 3
    mapfile -t cases < <("$PROBE" --list)
    while ((${#cases[@]})); do
        "$@" "$PROBE" $KERNEL_RDMA_PORT $EXPORT "${cases[@]}" >"$said" 2>&1
        status=$?
        for case in "${cases[@]}"; do
            cases=("${cases[@]:1}")
            item "$name: $case" has_passed "$case" "$said" || break
        done
    done
    item "$name: the probe leaves nothing" has_left_nothing $status
}
has_passed() { grep -x "passed: $1" "$2" || { cat "$2"; return 1; }; }
has_left_nothing() { echo "its status is $1" && (($1 == 0)) && bed_no_kernel_objects; }

bed_net
bed_nfsd
for device in rxe siw; do
    bed_$device
    probe $device verbs "$DUM4"
    bed_${device}_down
done
bed_wire
probe iwarp iwarp $WIRE_KERNEL4 bed_user
bed_wire_down
item "the kernel's server ends" bed_nfsd_ends
suite_end
