#!/usr/bin/env bash
# The kernel's providers against themselves, through librdmacm alone: shows that the judge of the other suites works, and
# what rxe and siw do. Wants cm_peer in BED_BIN.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=testbed/lib.sh
. testbed/lib.sh
# shellcheck source=testbed/pairs.sh
. testbed/pairs.sh

PORT=7471
CM=$BED_BIN/cm_peer

# kernel_pair ADDRESS SCENARIO [OPTION...]
kernel_pair() {
    local address=$1 scenario=$2
    shift 2
    pair "$CM" -l "$@" "$address" $PORT "$scenario" -- "$CM" "$@" "$address" $PORT "$scenario"
}

for device in rxe siw; do
    bed_$device
    # What siw does not have is refused.
    refused=()
    [[ $device == rxe ]] || refused=(--refused)
    for scenario in send write read reject early unborn badkey shortrecv; do
        item "$device: $scenario" kernel_pair "$DUM4" "$scenario"
    done
    for scenario in imm inv; do
        item "$device: $scenario" kernel_pair "$DUM4" "$scenario" "${refused[@]}"
    done
    item "$device: ird" kernel_pair "$DUM4" ird --ird 16 --ord 16
    item "$device: bulk" kernel_pair "$DUM4" bulk --bulk 32
    item "$device: many" kernel_pair "$DUM4" many --count 10
    item "$device: silent" kernel_pair "$DUM4" silent
    item "$device: send over IPv6" kernel_pair "$DUM6" send
    bed_"$device"_down
done
item "nothing is left in the kernel" bed_no_kernel_objects
suite_end
