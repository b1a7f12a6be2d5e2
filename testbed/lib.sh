# shellcheck shell=bash
# Sourced by the suites, which run in the virtual machine (run.sh): devices, and the tests' results.
#
#   . testbed/lib.sh
#   item "what is tested" COMMAND...     as in scripts/check.sh; logs are in $BED_OUT/logs/SUITE
#   suite_end                            prints the counts and exits: the last line of each suite
#
# The bed_ functions leave what is there already; they are called in the suite itself, not in an item, so that what they
# set up is there for all items. If one fails, the suite ends as failed.

if [[ ${BED_IN:-} != 1 ]]; then
    echo "testbed/lib.sh: this runs in the test bed's machine: testbed/run.sh -- $0" >&2
    exit 1
fi
set -uo pipefail

TOP=$PWD
BED_SUITE=$(basename "$0" .sh)
LOGS=$BED_OUT/logs/$BED_SUITE
mkdir -p "$LOGS" "$BED_OUT/counts"
rm -f "$LOGS"/*.log "$BED_OUT/counts/$BED_SUITE"
# shellcheck source=scripts/items.sh
. scripts/items.sh

# Ends the suite. The counts are read by guest.sh: a suite that left none has died.
suite_end() {
    ((failed == 0)) || printf "$BED_SUITE: %s\n" "${failures[@]}" >>"$BED_OUT/failures"
    echo "$passed $failed" >"$BED_OUT/counts/$BED_SUITE"
    finish
}

bed_die() {
    echo "testbed: $*" >&2
    exit 1
}

# await SECONDS COMMAND...: until the command succeeds; for what tells nobody that it has happened.
await() {
    local end=$((SECONDS + $1 + 1))
    shift
    until "$@"; do
        ((SECONDS < end)) || return 1
        sleep 0.05
    done
}

# await_listen PORT [SECONDS] [COMMAND-PREFIX...]: until someone listens on a TCP port, as our own listeners and siw's do,
# with a prefix such as bed_user elsewhere. rxe's don't: await_rdma_listen.
await_listen() {
    local port=$1 seconds=${2:-60}
    shift $(($# < 2 ? $# : 2))
    await "$seconds" bed_listens "$port" "$@"
}
bed_listens() {
    local port=$1
    shift
    [[ $("$@" ss -Hltn "sport = :$port") ]]
}

# await_rdma_listen PORT [SECONDS]: until an rdma_cm id listens on the port, whatever the device.
await_rdma_listen() {
    await "${2:-60}" bed_rdma_listens "$1" || return
    # The kernel tells the state a moment before connections are taken: by then the listener waits for events.
    await 2 bed_rdma_listener_sleeps "$1" || :
}
bed_rdma_listener() { rdma res show cm_id 2>/dev/null | grep "state LISTEN .*src-addr [^ ]*:$1 "; }
bed_rdma_listens() {
    local found
    found=$(bed_rdma_listener "$1") || return 1
    [[ $found != *"link siw"* ]] || bed_listens "$1"
}
bed_rdma_listener_sleeps() {
    local pid
    pid=$(bed_rdma_listener "$1" | sed -n 's/.* pid \([0-9]*\) .*/\1/p' | head -n 1)
    [[ $pid ]] || return 0
    ! cut -d' ' -f3 /proc/"$pid"/task/*/stat 2>/dev/null | grep -qv S
}

# ---- devices ----

DUM4=10.9.0.1
DUM6=fd09::1
# The two ends of bed_wire: the kernel's and the user's.
WIRE_KERNEL4=10.9.1.1 WIRE_USER4=10.9.1.2
WIRE_KERNEL6=fd09:1::1 WIRE_USER6=fd09:1::2

bed_has_link() { ip link show "$1" >/dev/null 2>&1; }
bed_has_device() { [[ -e /sys/class/infiniband/$1 ]]; }

# Commands for ip(8), one a line.
bed_all() { ip -batch - || bed_die "$1"; }

# Links get their MAC addresses from us: udev gives one that has none chosen a persistent one, at some moment after its creation,
# and siw finds addresses by the MAC that its link had when the device was added.

# The kernel's modules, lo, and dum0 with DUM4 and DUM6. All RDMA addresses of the bed are on dum0 or on the wire.
bed_net() {
    # Of this suite's own processes.
    ulimit -l unlimited
    bed_has_link dum0 && return
    ip link set lo up
    modprobe -a ib_core iw_cm libcrc32c crc32_generic ib_uverbs rdma_ucm dummy veth || bed_die "no RDMA modules"
    [[ -c /dev/infiniband/rdma_cm ]] || await 10 test -c /dev/infiniband/rdma_cm || bed_die "no /dev/infiniband/rdma_cm"
    bed_all "no dum0" <<DUM0
link add dum0 address 02:09:00:00:00:01 type dummy
link set dum0 up
addr add $DUM4/24 dev dum0
addr add $DUM6/64 dev dum0 nodad
DUM0
}

# bed_device NAME TYPE NETDEV
bed_device() {
    bed_has_device "$1" && return
    rdma link add "$1" type "$2" netdev "$3" || bed_die "no device $1"
    await 10 bed_active "$1" || bed_die "device $1 is not active"
    await 10 bed_has_uverbs "$1" || bed_die "device $1 can't be opened by programs"
}
bed_has_uverbs() {
    local ibdev name
    for ibdev in /sys/class/infiniband_verbs/uverbs*/ibdev; do
        name=$(basename "$(dirname "$ibdev")")
        [[ -e $ibdev && $(<"$ibdev") == "$1" && -c /dev/infiniband/$name ]] && return
    done
    return 1
}
bed_active() { rdma link show "$1/1" 2>/dev/null | grep -q 'state ACTIVE'; }

# rxe0 on dum0: RoCE v2. In the machine's own network namespace only: rxe of Linux 6.1 knows no other.
bed_rxe() {
    bed_net
    modprobe rdma_rxe || bed_die "no rdma_rxe"
    bed_device rxe0 rxe dum0
}
bed_rxe_down() { ! bed_has_device rxe0 || rdma link delete rxe0; }

# A request that is posted when siw's socket is full may be sent by two threads at once, and come out garbled
# (doc/architecture.md); so the sockets get room.
bed_load_siw() {
    [[ -e /sys/module/siw ]] && return
    sysctl -qw net.ipv4.tcp_wmem="4096 8388608 16777216" || bed_die "no room for siw's sockets"
    insmod "$BED_SIW_KO" || bed_die "no siw"
}

# siw0 on dum0: iWARP, by the kernel.
bed_siw() {
    bed_net
    bed_load_siw
    bed_device siw0 siw dum0
}
bed_siw_down() { ! bed_has_device siw0 || rdma link delete siw0; }

# bed_wire [MTU]: kernel siw on one end of a wire, a network namespace `user` without any RDMA device on the other. Each side
# reaches the other's address over the wire alone. Called again, it sets the MTU.
bed_wire() {
    local mtu=${1:-1500}
    bed_net
    bed_load_siw
    if ! bed_has_link wirek; then
        bed_all "no wire" <<WIRE
netns add user
link add wirek address 02:09:01:00:00:01 type veth peer name wireu address 02:09:01:00:00:02 netns user
link set wirek up
addr add $WIRE_KERNEL4/24 dev wirek
addr add $WIRE_KERNEL6/64 dev wirek nodad
WIRE
        bed_user ip -batch - <<WIRE || bed_die "no wire"
link set lo up
link set wireu up
addr add $WIRE_USER4/24 dev wireu
addr add $WIRE_USER6/64 dev wireu nodad
WIRE
    fi
    if ! ip link set wirek mtu "$mtu" || ! bed_user ip link set wireu mtu "$mtu"; then bed_die "no MTU $mtu"; fi
    bed_device siwv siw wirek
}
bed_wire_down() {
    ! bed_has_device siwv || rdma link delete siwv
    ! bed_has_link wirek || ip link delete wirek
    [[ ! -e /run/netns/user ]] || ip netns delete user
}
# A command on the user's side of the wire.
bed_user() { ip netns exec user "$@"; }

# ---- what the kernel holds ----

# One line for each device, "rxe0 pd 0 cq 0 qp 0 cm_id 0 mr 0": objects that belong to processes. The kernel's own
# (its comm is in brackets) don't count. `rdma res` has all.
bed_kernel_objects() {
    local path device kind line
    for path in /sys/class/infiniband/*; do
        [[ -e $path ]] || continue
        device=${path##*/}
        line=$device
        for kind in pd cq qp cm_id mr; do
            line+=" $kind $(rdma res show $kind dev "$device" 2>/dev/null | grep -vc 'comm \[')"
        done
        echo "$line"
    done
}

# Succeeds once no process has any; the kernel frees some a moment after a process has gone.
bed_no_kernel_objects() {
    await "${1:-10}" bed_objects_gone || {
        bed_kernel_objects
        rdma res show qp
        rdma res show cm_id
        return 1
    }
}
bed_objects_gone() { ! bed_kernel_objects | grep -q ' [1-9]'; }
