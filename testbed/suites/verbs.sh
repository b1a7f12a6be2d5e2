#!/usr/bin/env bash
# Our `verbs` provider on the kernel's rxe and siw, against a peer on plain librdmacm, and against the unmodified rping. Wants
# the peers in BED_BIN.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=testbed/lib.sh
. testbed/lib.sh
# shellcheck source=testbed/pairs.sh
. testbed/pairs.sh

PORT=7471
CM=$BED_BIN/cm_peer
OURS=("$BED_BIN/rcg_peer" --provider verbs)
OUR_CMATOSE=("$BED_BIN/rcg_cmatose" -P verbs)

# we_connect ADDRESS "SCENARIO..." [OPTION...]; we_listen likewise. The options are both ends', but those in MINE ours alone.
MINE=()
we_connect() {
    local address=$1 scenarios
    read -ra scenarios <<<"$2"
    shift 2
    pair "$CM" -l "$@" "$address" $PORT "${scenarios[@]}" -- "${OURS[@]}" "${MINE[@]}" "$@" "$address" $PORT "${scenarios[@]}"
}
we_listen() {
    local address=$1 scenarios
    read -ra scenarios <<<"$2"
    shift 2
    pair "${OURS[@]}" "${MINE[@]}" -l "$@" "$address" $PORT "${scenarios[@]}" -- "$CM" "$@" "$address" $PORT "${scenarios[@]}"
}

# The unmodified rping, which checks the data (-V).
rping_listens() {
    local UNTIL=(await_rdma_listen $PORT)
    pair rping -s -a "$DUM4" -p $PORT -C 20 -S 1000 -V -- \
        "$BED_BIN/rcg_rping" -p verbs -C 20 -S 1000 "$DUM4" $PORT
}
rping_connects() {
    pair "$BED_BIN/rcg_rping" -p verbs -l -C 20 -S 1000 "$DUM4" $PORT -- rping -c -a "$DUM4" -p $PORT -C 20 -S 1000 -V
}

for device in rxe siw; do
    bed_$device
    # What siw does not have is refused.
    refused=()
    [[ $device == rxe ]] || refused=(--refused)
    for role in connect listen; do
        run=we_$role
        for scenario in send write read reject early badkey shortrecv silent; do
            item "$device, we $role: $scenario" "$run" "$DUM4" "$scenario"
        done
        item "$device, we $role: imm" "$run" "$DUM4" imm "${refused[@]}"
        item "$device, we $role: ird" "$run" "$DUM4" ird --ird 16 --ord 16
        item "$device, we $role: many" "$run" "$DUM4" many --count 20
        item "$device, we $role: bulk" "$run" "$DUM4" bulk --bulk 32
        MINE=(--lent)
        item "$device, we $role: buffers of the library's" "$run" "$DUM4" "send read"
        MINE=()
        item "$device, we $role: IPv6" "$run" "$DUM6" "send write read reject"
    done
    item "$device: rping -s" rping_listens
    item "$device: rping -c" rping_connects
    for tool in ucmatose cmtime; do
        item "$device: $tool listens" ${tool}_listens "$DUM4"
        item "$device: $tool connects" ${tool}_connects "$DUM4"
    done
    bed_"$device"_down
done
item "nothing is left in the kernel" bed_no_kernel_objects
suite_end
