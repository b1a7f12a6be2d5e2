#!/usr/bin/env bash
# The C programs and tests of the provider iwarp, over the kernel's software devices: the same sources, told by the environment
# where they run (c-tests/helpers.h). What a device can't do is a test's own business; a test of which nothing is left there
# is not listed. BED_DEVICES: other than rxe and siw.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=testbed/lib.sh
. testbed/lib.sh

# Seconds, for one program; a fifth of it is usual.
LIMIT=400

export RCG_TEST_HOST=$DUM4 RCG_TEST_HOST6=$DUM6 RCG_TEST_LIGHT=1
# An emulated processor: everything takes ten times as long, and more where others use it too.
export RCG_TEST_SLOW=${RCG_TEST_SLOW:-10}

# Runs a program; the kernel must then hold what it held before, a listed device no object more.
leaves_nothing() {
    local before=$1 code=0
    shift
    timeout --kill-after=10 $LIMIT "$@" || code=$?
    [[ $code != 77 ]] || echo "skipped, which counts as failed"
    [[ $code != 124 && $code != 137 ]] || echo "not done within $LIMIT s"
    await 20 same_objects "$before" || {
        echo "the kernel held: $before"
        echo "and holds now:   $(bed_kernel_objects)"
        rdma res show qp
        rdma res show cm_id
        return 1
    }
    return $code
}
same_objects() { [[ $(bed_kernel_objects) == "$1" ]]; }

c_test() {
    local device=$1 name=$2
    RCG_TEST_PROVIDER=verbs RCG_TEST_DEVICE=$device leaves_nothing "$(bed_kernel_objects)" "$BED_BIN/$name"
}

# The examples say nothing of providers: they take what the address has.
examples() { leaves_nothing "$(bed_kernel_objects)" c-tests/test_examples.sh "$BED_BIN"; }

# The demonstration says what it has gone over. Its file is so small that all messages of it find a receive: there is no
# back-pressure on iWARP.
demo() {
    local work=$BED_OUT/demo
    mkdir -p "$work"
    head -c 3000000 /dev/urandom >"$work/demo-file"
    DEMO_HOST=$DUM4 DEMO_FILE=$work/demo-file leaves_nothing "$(bed_kernel_objects)" examples/demo.sh "$BED_BIN" "$work" |
        tee "$LOGS/demo.out"
    grep -q "^client: connected over ${1}0," "$LOGS/demo.out"
    grep -q "^server: connected over ${1}0," "$LOGS/demo.out"
}

# On iWARP a message without a receive ends the connection: there is no back-pressure to be tested.
tests_of() {
    echo smoke ops connect_cycle memory flush faults misuse random_calls post_cost rpc rpc_misuse rpc_peers
    [[ $1 != rxe ]] || echo backpressure
}

for device in ${BED_DEVICES:-rxe siw}; do
    "bed_$device"
    item "$device: examples" examples
    item "$device: demo" demo "$device"
    for test in $(tests_of "$device"); do
        item "$device: test_$test" c_test "$device" "test_$test"
    done
    item "$device: nothing is left in the kernel" bed_no_kernel_objects
    item "$device: goes" "bed_${device}_down"
done

suite_end
