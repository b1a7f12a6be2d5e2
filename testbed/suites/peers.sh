#!/usr/bin/env bash
# The bed itself: the kernel's own tools talk to each other over its devices. What fails here is not ours.
# shellcheck source=testbed/lib.sh
. testbed/lib.sh

# Seconds, for one program.
LIMIT=60

# pair PORT SERVER CLIENT: two command lines of one program; both must succeed, and the server ends by itself.
pair() {
    local port=$1 server=0 client=0 pid
    # shellcheck disable=SC2086
    timeout $LIMIT $2 >"$LOGS/server.out" 2>&1 &
    pid=$!
    if await_rdma_listen "$port" 30; then
        # shellcheck disable=SC2086
        timeout $LIMIT $3 || client=$?
    else
        client=not-tried
    fi
    [[ $client == 0 ]] || kill $pid 2>/dev/null || :
    wait $pid || server=$?
    echo "client $client, server $server; the server said:"
    tr -c '[:print:]\n' ' ' <"$LOGS/server.out" | tail -n 20
    [[ $client == 0 && $server == 0 ]]
}

sees_device() { ibv_devices | grep -w "$1"; }

# -V: each side compares what it reads with what was to be there.
rping_pair() { pair 7471 "rping -s -a $1 -p 7471 -C 10 -S 4000 -V" "rping -c -a $1 -p 7471 -C 10 -S 4000 -V"; }

ucmatose_pair() {
    pair 7472 "ucmatose -b $1 -p 7472 -c 4 -C 10 -S 1000" "ucmatose -s $1 -p 7472 -c 4 -C 10 -S 1000"
    grep -q 'return status 0' "$LOGS/server.out"
}

# Its server goes on for ever.
cmtime_pair() {
    local pid code=0
    timeout $LIMIT cmtime -b "$1" -p 7473 -c 20 &
    pid=$!
    await_rdma_listen 7473 30
    timeout $LIMIT cmtime -s "$1" -p 7473 -c 20 || code=$?
    kill $pid
    wait $pid || :
    return $code
}

# perftest over rdma_cm; the result's line says how many iterations were made. Its client may send before its server has
# posted a receive: RoCE tries again, iWARP ends the connection (it has no RNR), so that there perftest needs some luck.
perftest_pair() {
    local test=$1 options="-R -F -d $2 -p 7474 -s 4096 -n 100" attempt
    for attempt in 1 2 3 4 5; do
        echo "attempt $attempt"
        if pair 7474 "$test $options" "$test $options $3" >"$LOGS/perftest.out" 2>&1; then
            cat "$LOGS/perftest.out"
            grep -qE '^ *4096 +100 ' "$LOGS/perftest.out"
            return
        fi
        cat "$LOGS/perftest.out"
    done
    return 1
}

device_suite() {
    local kind=$1 device=${1}0 test
    item "$kind: verbs sees the device" sees_device "$device"
    item "$kind: rping" rping_pair $DUM4
    item "$kind: rping, IPv6" rping_pair $DUM6
    item "$kind: ucmatose" ucmatose_pair $DUM4
    item "$kind: cmtime" cmtime_pair $DUM4
    for test in ib_send_bw ib_write_bw ib_read_bw; do
        item "$kind: $test" perftest_pair $test "$device" $DUM4
    done
    item "$kind: nothing is left in the kernel" bed_no_kernel_objects
    item "$kind: device goes" "bed_${kind}_down"
}

bed_rxe
device_suite rxe
bed_siw
device_suite siw

# From the namespace that has no device, in plain bash: an MPA request (revision 1, no flags, no data) and siw's reply.
mpa_over_wire() {
    local pid reply
    timeout $LIMIT rping -s -a "$1" -p 7475 -P >/dev/null 2>&1 &
    pid=$!
    await_listen 7475 30
    # shellcheck disable=SC2016
    reply=$(bed_user timeout $LIMIT bash -c 'exec 3<>"/dev/tcp/$0/7475"; printf "MPA ID Req Frame\0\1\0\0" >&3; head -c 16 <&3' "$1")
    kill $pid
    wait $pid || :
    [[ $reply == 'MPA ID Rep Frame' ]]
}

for mtu in 1500 9000; do
    bed_wire $mtu
    item "wire, MTU $mtu: siw answers" mpa_over_wire $WIRE_KERNEL4
    item "wire, MTU $mtu: siw answers, IPv6" mpa_over_wire $WIRE_KERNEL6
done
item "wire: nothing is left in the kernel" bed_no_kernel_objects

# Were failures not counted, a pass would say nothing.
failures_count() {
    mkdir -p "$LOGS/inner"
    cat >"$LOGS/inner/three.sh" <<'SUITE'
. testbed/lib.sh
item passes true
item fails false
item skips bash -c 'exit 77'
suite_end
SUITE
    echo 'exit 0' >"$LOGS/inner/dead.sh"
    ! BED_OUT=$LOGS/inner testbed/guest.sh "$LOGS/inner/three.sh" "$LOGS/inner/dead.sh" >"$LOGS/inner/out" || return 1
    cat "$LOGS/inner/out"
    grep -x '1 passed, 2 failed' "$LOGS/inner/out"
    [[ $(cat "$LOGS/inner/counts/three") == '1 2' && $(cat "$LOGS/inner/counts/dead") == '0 1' ]]
}
item "failed, skipped and dead tests count as failures" failures_count

suite_end
