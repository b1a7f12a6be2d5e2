#!/usr/bin/env bash
# The engine against raw perftest on the same device in the same boot: half the round trip of a Send, bandwidth of Write and
# Read, in turns, so that what disturbs the machine meets both alike; medians, and ours as a multiple of perftest's. Figures
# only: nothing is too slow, but a program that fails fails the suite. With BED_FIGURES=all the message rate as well, by Writes
# of 64 octets, and rsockets by rstream.
#   figures.sh [DEVICE/PROVIDER...], all pairs without arguments. Runs in the test bed's machine.
# BED_ROUNDS, FIGURES_LAT_ITERS, FIGURES_BW_ITERS, FIGURES_RATE_ITERS: how often.
# Items are called by name.
# shellcheck disable=SC2317
# shellcheck source=testbed/lib.sh
. testbed/lib.sh

# set-up and its end, perftest's device, our provider, the address of both; both sides of either are on that one device. Of two
# devices with one address rdma_cm would take the first, whatever perftest's -d says.
PAIRS=(
    "bed_rxe bed_rxe_down rxe0 verbs $DUM4"
    "bed_siw bed_siw_down siw0 verbs $DUM4"
)
ROUNDS=${BED_ROUNDS:-3}
LAT_ITERS=${FIGURES_LAT_ITERS:-1000}
BW_ITERS=${FIGURES_BW_ITERS:-500}
RATE_ITERS=${FIGURES_RATE_ITERS:-20000}
TESTS=(send_lat write_bw read_bw)
[[ ${BED_FIGURES:-} != all ]] || TESTS+=(write_rate)
LAT_SIZE=64
BW_SIZE=65536
DEPTH=128
LIMIT=120

# The pid of a server of this item's, which must not outlive it.
server=
stop() { [[ ! $server ]] || kill "$server" 2>/dev/null || :; }
listens() { "$@" || ! kill -0 "$server" 2>/dev/null; }
ready() { grep -q '^listening' "$work/server"; }

# The options that perftest's measurement and ours have in common, as perftest calls them.
options() {
    case $1 in
        send_lat) echo "-n $LAT_ITERS -s $LAT_SIZE" ;;
        write_rate) echo "-n $RATE_ITERS -s $LAT_SIZE -t $DEPTH -l 1" ;;
        *) echo "-n $BW_ITERS -s $BW_SIZE -t $DEPTH -l 1" ;;
    esac
}

# Each appends one number to the file of this measurement: microseconds or MiB/s.
perftest_once() {
    local column=4
    [[ $1 != send_lat ]] || column=5 # the median
    trap stop EXIT
    # shellcheck disable=SC2046
    set -- "$1" "ib_${1/rate/bw}" -R -d "$device" -F -p "$port" $(options "$1")
    timeout "$LIMIT" "${@:2}" >"$work/server" 2>&1 &
    server=$!
    await 30 listens bed_rdma_listens "$port"
    timeout "$LIMIT" "${@:2}" "$address" >"$work/client" 2>&1 || {
        cat "$work/client" "$work/server"
        return 1
    }
    wait "$server"
    server=
    cat "$work/client"
    awk -v column="$column" '/^ *#bytes/ { table = 1; next }
        table && NF >= column { print $column; found = 1; exit } END { exit !found }' "$work/client" >>"$work/$1.perftest"
}
# rstream's transfers go there and back in turns, so that its time is half a round trip, or one way.
rstream_once() {
    local arguments=(-I "$LAT_ITERS" -C 1 -S "$LAT_SIZE") wanted="\$NF"
    [[ $1 == send_lat ]] || arguments=(-I 5 -C $((BW_ITERS / 10)) -S "$BW_SIZE") wanted="$BW_SIZE / \$NF * 1e6 / 1048576"
    trap stop EXIT
    timeout "$LIMIT" rstream -b "$address" -p "$port" -T n "${arguments[@]}" >"$work/server" 2>&1 &
    server=$!
    await 30 listens bed_rdma_listens "$port"
    timeout "$LIMIT" rstream -s "$address" -p "$port" -T n "${arguments[@]}" >"$work/client" 2>&1 || {
        cat "$work/client" "$work/server"
        return 1
    }
    wait "$server"
    server=
    cat "$work/client"
    awk "\$1 != \"name\" && NF >= 7 { print $wanted; found = 1; exit } END { exit !found }" "$work/client" >>"$work/$1.rstream"
}
ours_once() {
    local iters=$BW_ITERS size=$BW_SIZE
    [[ $1 != write_rate ]] || iters=$RATE_ITERS size=$LAT_SIZE
    trap stop EXIT
    timeout "$LIMIT" "$BED_BIN/rcg_bench" server --provider "$provider" --port "$port" --bind "$address" --depth "$DEPTH" \
        >"$work/server" 2>&1 &
    server=$!
    await 30 listens ready
    timeout "$LIMIT" "$BED_BIN/rcg_bench" client --provider "$provider" --port "$port" --only "${1/rate/bw}" \
        --depth "$DEPTH" --lat-iters "$LAT_ITERS" --lat-size "$LAT_SIZE" --bw-iters "$iters" --bw-size "$size" "$address" \
        >"$work/client" 2>&1 || {
        cat "$work/client" "$work/server"
        return 1
    }
    wait "$server"
    server=
    cat "$work/client"
    grep -qx "provider $provider, device $device" "$work/client"
    awk -v name="${1/rate/bw}" '$1 == name { print $2; found = 1 } END { exit !found }' "$work/client" >>"$work/$1.ours"
}

median() {
    sort -g "$1" 2>/dev/null |
        awk '{ v[NR] = $1 }
            END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2; else print "-" }'
}
report() {
    local test unit
    printf '\n%s, provider %s: medians of %s rounds, emulated processors: only the ratios mean anything\n' \
        "$device" "$provider" "$ROUNDS"
    for test in "${TESTS[@]}"; do
        unit=MiB/s
        [[ $test != send_lat ]] || unit=us
        awk -v test="$test" -v unit="$unit" -v a="$(median "$work/$test.perftest")" -v b="$(median "$work/$test.ours")" \
            -v c="$(median "$work/$test.rstream")" \
            'BEGIN { ratio = a == "-" || b == "-" || !a ? "-" : sprintf("%.2f", b / a)
                printf "%-10s perftest %10s %-5s  ours %10s %-5s  ratio %s  rstream %10s\n", test, a, unit, b, unit, ratio, c }'
    done | tee -a "$BED_OUT/figures.txt"
    # For benches/bed.py.
    for test in "${TESTS[@]}"; do
        for who in perftest ours rstream; do
            [[ ! -e $work/$test.$who ]] || echo "$device $test $who $(tr '\n' ' ' <"$work/$test.$who")"
        done
    done >>"$BED_OUT/figures.raw"
    echo
}

[[ -x $BED_BIN/rcg_bench ]] || bed_die "no rcg_bench in $BED_BIN"
command -v ib_send_bw >/dev/null || bed_die "no perftest"
port=18700
for pair in "${PAIRS[@]}"; do
    read -r setup end device provider address <<<"$pair"
    (($# == 0)) || [[ " $* " == *" $device/$provider "* ]] || continue
    "$setup"
    work=$(mktemp -d)
    for round in $(seq "$ROUNDS"); do
        for test in "${TESTS[@]}"; do
            item "$device: ib_$test, round $round" perftest_once "$test"
            case ${BED_FIGURES:-}-$test in
                all-send_lat | all-write_bw) item "$device: rstream for $test, round $round" rstream_once "$test" ;;
            esac
            item "$device/$provider: ours, $test, round $round" ours_once "$test"
            port=$((port + 1))
        done
    done
    printf '%s/%s\n' "$device" "$provider" >>"$BED_OUT/figures.txt"
    report
    rm -rf "$work"
    "$end"
done
suite_end
