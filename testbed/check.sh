#!/usr/bin/env bash
# Boots one machine that runs the suites, by default all: check.sh [SUITE...]; what they captured is read afterwards. The last
# line counts everything. Our library and programs must be built (make check-kernel does).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

out=build/testbed/out
mkdir -p "$out"
rm -rf "$out/logs" "$out/counts" "$out/failures" "$out/captures"
testbed/run.sh -t "${BED_LIMIT:-3600}" -o "$out" -- testbed/guest.sh "$@"
status=$?

TOP=$PWD
LOGS=$TOP/$out/logs/captures
mkdir -p "$LOGS"
# shellcheck source=scripts/items.sh
. scripts/items.sh
for capture in "$out"/captures/*.pcapng; do
    [[ -e $capture ]] || continue
    # shellcheck disable=SC2046
    item "tshark reads the capture $(basename "$capture" .pcapng)" testbed/peers/rpcrdma_capture.py "$capture" \
        $(<"$capture.kinds")
done
((failed == 0)) || printf 'captures: %s\n' "${failures[@]}" >>"$out/failures"
for counts in "$out"/counts/*; do
    [[ -s $counts ]] || continue
    read -r suite_passed suite_failed <"$counts"
    passed=$((passed + suite_passed))
    failed=$((failed + suite_failed))
done
# What stopped the machine, or what its kernel complained about, is a failure of its own.
if ((status != 0 && (status == 125 || failed == 0))); then
    echo "FAIL  the machine: status $status"
    failed=$((failed + 1))
    printf 'the machine: status %d\t%s\n' "$status" "$out/console.log" >>"$out/failures"
fi
# An empty bed proves nothing.
((passed + failed)) || failed=1
# For scripts/check.sh.
mkdir -p "$out/counts"
echo "$passed $failed" >"$out/total"
echo "$passed passed, $failed failed"
((failed == 0))
