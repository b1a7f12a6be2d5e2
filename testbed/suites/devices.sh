#!/usr/bin/env bash
# Devices that go and come back, and what a person reads when something is missing or not permitted. Wants bed_devices and
# bed_say in BED_BIN.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=testbed/lib.sh
. testbed/lib.sh

SAY=$BED_BIN/bed_say
OTHER4=10.9.2.1

# said STATUS TEXT... -- COMMAND...: ends with this status, and its output has all texts.
said() {
    local want=$1 texts=() text output status=0
    shift
    while [[ $1 != -- ]]; do
        texts+=("$1")
        shift
    done
    shift
    output=$("$@" 2>&1) || status=$?
    echo "$output"
    for text in "${texts[@]}"; do
        [[ $output == *"$text"* ]] || { echo "-- does not say: $text"; return 1; }
    done
    ((status == want)) || { echo "-- status $status, expected $want"; return 1; }
}

# nobody COMMAND...: without privileges, CAP_IPC_LOCK among them.
nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all --inh-caps -all "$@"; }
nobody_locks() { (ulimit -l "$1" && shift && nobody "$@"); }

# ---- what is missing ----

item "no device: said quietly" said 1 "provider verbs: this machine has no RDMA device" "rdma link add" -- "$SAY"
item "no device: auto is TCP, and stderr is empty" said 0 -- bash -c '"$0" 2>&1 >/dev/null | grep . && exit 1; exit 0' "$SAY"

bed_rxe
item "rxe: a connection to itself" said 0 "hello over rxe0" -- "$SAY" "$DUM4"
item "rxe: an address that no device serves" said 1 "no RDMA device of this machine serves the address" -- "$SAY" 192.0.2.7

chmod 600 /dev/infiniband/*
item "not permitted: rdma_cm" said 1 "/dev/infiniband/rdma_cm: Permission denied" "group \`rdma\`" -- nobody "$SAY"
chmod 666 /dev/infiniband/rdma_cm
item "not permitted: verbs" said 1 "uverbs" "Permission denied" "group \`rdma\`" -- nobody "$SAY"
chmod 666 /dev/infiniband/*
item "permitted: as nobody" said 0 "hello over rxe0" -- nobody "$SAY" "$DUM4"
item "locked memory: none" said 1 "failed" "locked-memory limit 0 B" "LimitMEMLOCK=infinity" -- nobody_locks 0 "$SAY" "$DUM4"

modprobe -r rdma_ucm
item "no rdma_ucm" said 1 "/dev/infiniband/rdma_cm: No such file" "modprobe rdma_ucm" -- "$SAY"
modprobe rdma_ucm || bed_die "no rdma_ucm"
await 10 test -c /dev/infiniband/rdma_cm || bed_die "no /dev/infiniband/rdma_cm"

# ---- devices that go ----

item "rxe, the only device, goes under load and comes back" "$BED_BIN/bed_devices" rxe rxe0 dum0 "$DUM4"

bed_all "no dum1" <<DUM1
link add dum1 address 02:09:02:00:00:01 type dummy
link set dum1 up
addr add $OTHER4/24 dev dum1
DUM1
bed_load_siw
bed_device siw1 siw dum1

item "rxe goes under load and comes back" "$BED_BIN/bed_devices" rxe rxe0 dum0 "$DUM4" "$OTHER4"
item "siw goes under load and comes back" "$BED_BIN/bed_devices" siw siw1 dum1 "$OTHER4" "$DUM4"
item "nothing is left in the kernel" bed_no_kernel_objects
suite_end
