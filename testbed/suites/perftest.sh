#!/usr/bin/env bash
# Unmodified perftest on a device of the kernel's, and our side of it (testbed/peers/rcg_perf.c) on a provider of ours: each
# program in both roles. Runs in the test bed's machine:  perftest.sh [DEVICE/PROVIDER...], all pairs without arguments.
# Items are called by name.
# shellcheck disable=SC2317
# shellcheck source=testbed/lib.sh
. testbed/lib.sh

# set-up and its end, perftest's device and address, our provider and address, and how our side is run if not plainly. Of two
# devices with one address rdma_cm would take the first, whatever perftest's -d says.
PAIRS=(
    "bed_wire : siwv $WIRE_KERNEL4 iwarp $WIRE_USER4 bed_user"
    "bed_rxe bed_rxe_down rxe0 $DUM4 verbs $DUM4"
    "bed_siw bed_siw_down siw0 $DUM4 verbs $DUM4"
)
# program, iterations (with send_bw the receive queue has 512), octets; lengths that are no multiple of four or of an MTU
RUNS=(
    "send_bw 20 4096" "send_bw 1200 1001"
    "write_bw 100 65536"
    "read_bw 100 65536"
    "send_lat 100 64"
    "write_lat 20 30001"
)

# Both ends of one run. Neither waits longer than LIMIT.
LIMIT=120
ours() {
    # shellcheck disable=SC2086
    $prefix timeout $((LIMIT + 5)) "$BED_BIN/rcg_perf" --provider "$provider" --port "$port" --timeout "$LIMIT" \
        -n "$iterations" -s "$size" "$@"
}
# siw has one GID, rxe's first one with IPv4 is found: no -x for either. -F: no word about the processor's frequency.
theirs() {
    timeout "$LIMIT" "ib_$program" -R -d "$device" -F -p "$port" -n "$iterations" -s "$size" "$@"
}
ready() { grep -q '^listening' "$work/ours" || ! kill -0 "$server" 2>/dev/null; }

show() {
    sed 's/^/perftest: /' "$work/theirs"
    sed 's/^/ours: /' "$work/ours"
}
stop() {
    [[ ! $server ]] || kill "$server" 2>/dev/null || :
    show
    rm -rf "$work"
}

# Both have to say that all has been done: perftest by its line of figures, ours by its counts.
check() {
    grep -Eq "^ *$size +$iterations +[0-9.]+ " "$work/theirs"
    grep -q "^$program $1: $iterations x $size octets, .* provider $provider, device $our_device\$" "$work/ours"
    case $program-$1 in
        *_lat-*) grep -q " $iterations operations, $iterations messages," "$work/ours" ;;
        send_bw-server) grep -q " 0 operations, $iterations messages," "$work/ours" ;;
        *-client) grep -q " $iterations operations, 0 messages," "$work/ours" ;;
    esac
}

begin() {
    work=$(mktemp -d)
    server=
    : >"$work/ours"
    : >"$work/theirs"
    trap stop EXIT
}
we_serve() {
    begin
    ours --bind "$our_address" "$program" >"$work/ours" 2>&1 &
    server=$!
    await "$LIMIT" ready
    theirs "$our_address" >"$work/theirs" 2>&1
    wait "$server"
    server=
    check server
}
# rcg_perf tries until there is a listener.
they_serve() {
    begin
    theirs >"$work/theirs" 2>&1 &
    server=$!
    ours "$program" "$their_address" >"$work/ours" 2>&1
    wait "$server"
    server=
    check client
}

[[ -x $BED_BIN/rcg_perf ]] || bed_die "no rcg_perf in $BED_BIN"
command -v ib_send_bw >/dev/null || bed_die "no perftest"
port=18600
for pair in "${PAIRS[@]}"; do
    read -r setup end device their_address provider our_address prefix <<<"$pair"
    (($# == 0)) || [[ " $* " == *" $device/$provider "* ]] || continue
    our_device=$device
    [[ $provider == verbs ]] || our_device=tcp
    "$setup"
    for run in "${RUNS[@]}"; do
        read -r program iterations size <<<"$run"
        item "$device/$provider: ib_$program asks us, $iterations x $size" we_serve
        port=$((port + 1))
        item "$device/$provider: we ask ib_$program, $iterations x $size" they_serve
        port=$((port + 1))
    done
    item "$device/$provider: the kernel has nothing left" bed_no_kernel_objects
    "$end"
done
suite_end
