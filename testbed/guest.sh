#!/usr/bin/env bash
# Runs in the machine: the suites, by default all, one after the other. guest.sh [SUITE...]. Each leaves its counts, "passed
# failed", in $BED_OUT/counts; one that leaves none, whatever it says, has failed.
set -uo pipefail
[[ ${BED_IN:-} == 1 ]] || {
    echo "guest.sh: for the test bed's machine: see testbed/check.sh" >&2
    exit 1
}
(($#)) || set -- testbed/suites/*.sh
mkdir -p "$BED_OUT/counts"
code=0

# What a suite has left is not the next one's.
clean() {
    local device
    rdma link show 2>/dev/null | sed -n 's|^link \([^/]*\)/.*|\1|p' | while read -r device; do
        rdma link delete "$device"
    done
    ip link delete wirek 2>/dev/null
    ip netns delete user 2>/dev/null
}

for suite in "$@"; do
    name=$(basename "$suite" .sh)
    counts=$BED_OUT/counts/$name
    rm -f "$counts"
    echo "suite $name"
    # A process group of its own, all of which goes when the suite is over.
    timeout --kill-after=10 "${BED_SUITE_LIMIT:-1800}" bash "$suite" &
    group=$!
    wait $group
    status=$?
    kill -KILL -- -$group 2>/dev/null
    if [[ ! -s $counts ]]; then
        echo "FAIL  suite $name ended without counts (status $status)"
        printf 'suite %s ended without counts (status %d)\t\n' "$name" "$status" >>"$BED_OUT/failures"
        echo "0 1" >"$counts"
    fi
    [[ $(<"$counts") == *' 0' ]] || code=1
    clean
    echo
done
exit $code
