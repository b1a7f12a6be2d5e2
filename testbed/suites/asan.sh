#!/usr/bin/env bash
# A core of the C programs over the kernel's devices, with the library and the programs under the address sanitizer: nothing
# touched that is not ours, nothing leaked. Wants the programs in BED_ASAN_BIN.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=testbed/lib.sh
. testbed/lib.sh

export RCG_TEST_HOST=$DUM4 RCG_TEST_HOST6=$DUM6 RCG_TEST_LIGHT=1 RCG_TEST_SLOW=20 RCG_TEST_PROVIDER=verbs
# libibverbs keeps what it has read of its drivers.
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1
export LSAN_OPTIONS=suppressions=$PWD/scripts/lsan.supp:print_suppressions=0

sanitized() {
    local device=$1 name=$2
    shift 2
    RCG_TEST_DEVICE=$device timeout --kill-after=10 240 "$BED_ASAN_BIN/$name" "$@"
}

for device in rxe siw; do
    "bed_$device"
    item "$device, asan: bed_say" sanitized "$device" bed_say "$DUM4"
    for name in test_smoke test_ops test_memory test_flush; do
        item "$device, asan: $name" sanitized "$device" "$name"
    done
    "bed_${device}_down"
done
suite_end
