#!/usr/bin/env bash
# Our `iwarp` provider against the kernel's siw, over a wire: our end in a network namespace that has no RDMA device. Wants
# the peers in BED_BIN. BULK: MiB of `bulk`, an eighth of it where frames are short.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
# shellcheck source=testbed/lib.sh
. testbed/lib.sh
# shellcheck source=testbed/pairs.sh
. testbed/pairs.sh

PORT=7471
BULK=${BULK:-256}
CM=$BED_BIN/cm_peer
OURS=(ip netns exec user "$BED_BIN/rcg_peer" --provider iwarp)
OUR_CMATOSE=(ip netns exec user "$BED_BIN/rcg_cmatose" -P iwarp)
OUR_RPING=(ip netns exec user "$BED_BIN/rcg_rping")
KERNEL=([4]=$WIRE_KERNEL4 [6]=$WIRE_KERNEL6)
USER_END=([4]=$WIRE_USER4 [6]=$WIRE_USER6)

# we_connect FAMILY "SCENARIO..." "OPTIONS OF OURS" "OPTIONS OF THE KERNEL'S"; we_listen likewise.
we_connect() {
    local address=${KERNEL[$1]} scenarios ours theirs
    read -ra scenarios <<<"$2"
    read -ra ours <<<"${3:-}"
    read -ra theirs <<<"${4:-}"
    pair "$CM" -l "${theirs[@]}" "$address" $PORT "${scenarios[@]}" -- \
        "${OURS[@]}" "${ours[@]}" "$address" $PORT "${scenarios[@]}"
}
we_listen() {
    local address=${USER_END[$1]} scenarios ours theirs
    read -ra scenarios <<<"$2"
    read -ra ours <<<"${3:-}"
    read -ra theirs <<<"${4:-}"
    pair "${OURS[@]}" -l "${ours[@]}" "$address" $PORT "${scenarios[@]}" -- \
        "$CM" "${theirs[@]}" "$address" $PORT "${scenarios[@]}"
}

# terminates TIME: those that siw has told of since. The kernel's log forgets its beginning, so that a difference of counts is
# none.
terminates() { dmesg | tr -d '[]' | awk -v since="$1" '$1 > since && /siw: got TERMINATE/' ; }

# All five kinds of bad access of the kernel's end, each answered by our Terminate.
kernel_sees_terminate() {
    local start
    echo "the kernel sees our Terminates" >/dev/kmsg
    start=$(dmesg | tail -n 1 | tr -d '[]' | awk '{ print $1 }')
    "$@"
    terminates "$start"
    [[ $(terminates "$start" | wc -l) == 5 ]]
}

# The unmodified rping, which checks the data (-V).
rping_listens() {
    local address=${KERNEL[$1]} UNTIL=(await_listen $PORT)
    pair rping -s -a "$address" -p $PORT -C 20 -S 1000 -V -- \
        "${OUR_RPING[@]}" -C 20 -S 1000 -c "$2" "$address" $PORT
}
rping_connects() {
    local address=${USER_END[$1]}
    pair "${OUR_RPING[@]}" -l -C 20 -S 1000 -c "$2" "$address" $PORT -- rping -c -a "$address" -p $PORT -C 20 -S 1000 -V
}

bed_wire 1500
for role in connect listen; do
    run=we_$role
    for scenario in send write read reject early shortrecv many; do
        item "we $role: $scenario" "$run" 4 "$scenario"
    done
    # A TCP connection that is closed before siw has accepted it ends siw's listener (Linux 6.1), so only its end does that.
    [[ $role == connect ]] || item "we $role: unborn" "$run" 4 unborn
    item "we $role: badkey, and siw sees our Terminates" kernel_sees_terminate "$run" 4 badkey
    item "we $role: imm is refused" "$run" 4 imm --refused --refused
    # The kernel's end can't send it, ours can; it takes effect there.
    item "we $role: inv" "$run" 4 inv "" --refused
    item "we $role: ird" "$run" 4 ird "--ird 16 --ord 16" "--ird 16 --ord 16"
    item "we $role: silent" "$run" 4 silent
    item "we $role: buffers of the library's" "$run" 4 "send read" "--lent"
done

for tool in ucmatose cmtime; do
    item "$tool listens" ${tool}_listens "$WIRE_KERNEL4"
    item "$tool connects" ${tool}_connects "$WIRE_USER4"
done

for mtu in 1500 9000; do
    bed_wire $mtu
    # Few frames of 1500 octets a second get through an emulated processor.
    bulk=$BULK hows=("4 on" "6 auto")
    [[ $mtu == 9000 ]] || bulk=$((BULK / 8)) hows=("4 off" "6 on")
    for how in "${hows[@]}"; do
        read -r family crc <<<"$how"
        for role in connect listen; do
            item "we $role, MTU $mtu, IPv$family, CRC $crc" "we_$role" "$family" "send write read badkey reject" "--crc $crc"
        done
        item "rping -s, MTU $mtu, IPv$family, CRC $crc" rping_listens "$family" "$crc"
        item "rping -c, MTU $mtu, IPv$family, CRC $crc" rping_connects "$family" "$crc"
    done
    for crc in on off; do
        item "we connect, MTU $mtu, revision 1, CRC $crc" we_connect 4 "send write read badkey reject" "--crc $crc --mpa 1"
    done
    for role in connect listen; do
        item "we $role, MTU $mtu: bulk of $bulk MiB" "we_$role" 4 bulk "--bulk $bulk --crc on" "--bulk $bulk"
        # All of it once is enough: who has connected makes no difference for data.
        bulk=$((BULK / 8))
    done
done
item "nothing is left in the kernel" bed_no_kernel_objects
suite_end
