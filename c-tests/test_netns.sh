#!/bin/sh
# Two network namespaces joined by a veth pair: all operations between them, and what happens when the link goes.
# test_netns.sh BINDIR. Exit 0 passed, 1 failed, 77 could not be run here.
set -eu

bindir=${1:?usage: test_netns.sh BINDIR}
peer=$(cd "$bindir" && pwd)/test_netns_peer
left=rcg-a-$$
right=rcg-b-$$
tmp=$(mktemp -d)
pids=

cleanup() {
    for pid in $pids; do kill "$pid" 2>/dev/null || :; done
    ip netns del "$left" 2>/dev/null || :
    ip netns del "$right" 2>/dev/null || :
    rm -rf "$tmp"
}
mkfifo "$tmp/ops-server.in"
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

[ -x "$peer" ] || { echo "$peer is missing" >&2; exit 1; }
if ! command -v ip >/dev/null || ! ip netns add "$left" 2>"$tmp/err"; then
    echo "no network namespaces here: $(cat "$tmp/err" 2>/dev/null || echo 'iproute2 is missing')" >&2
    exit 77
fi
ip netns add "$right"
# Before the link exists, so that its addresses need no probing. Where this can't be set they are waited for.
for ns in "$left" "$right"; do
    ip netns exec "$ns" sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.dad_transmits=0 2>/dev/null || :
    ip -n "$ns" link set lo up
done
ip link add name va netns "$left" type veth peer name vb netns "$right"
ip -n "$left" addr add 10.77.0.1/24 dev va
ip -n "$right" addr add 10.77.0.2/24 dev vb
ip -n "$left" addr add fd77::1/64 dev va nodad
ip -n "$right" addr add fd77::2/64 dev vb nodad

fail() {
    echo "FAILED: $*" >&2
    for log in "$tmp"/*.log; do [ ! -s "$log" ] || sed "s|^|$(basename "$log"): |" "$log" >&2; done
    exit 1
}

# Waits until a command succeeds; there is no event for it.
await() {
    for _ in $(seq 300); do
        if "$@"; then return 0; fi
        sleep 0.02
    done
    return 1
}

links_ready() {
    for ns in "$left" "$right"; do
        [ "$(ip -n "$ns" -o link show type veth | grep -c 'state UP')" = 1 ] || return 1
        [ -z "$(ip -n "$ns" -6 addr show tentative | grep inet6)" ] || return 1
        [ -n "$(ip -n "$ns" -6 -o addr show scope link | grep fe80)" ] || return 1
    done
}

up() { # brings both ends up and waits for their addresses
    ip -n "$left" link set va up
    ip -n "$right" link set vb up
    ip -n "$right" -6 addr replace fd77::2/64 dev vb nodad # taking a link down takes its IPv6 addresses along
    ip -n "$left" -6 addr replace fd77::1/64 dev va nodad
    await links_ready || fail "the links do not come up"
    for host in 10.77.0.2 fd77::2; do
        ip netns exec "$left" "$peer" reach $host || fail "$host can't be reached"
    done
    link_local=$(ip -n "$right" -6 -o addr show dev vb scope link | awk '{ sub("/.*", "", $4); print $4; exit }')
}

# serve NAME ARGS...: starts a server in the right namespace, its input from a FIFO of its name; sets port and server
serve() {
    name=$1
    shift
    : >"$tmp/$name.log"
    ip netns exec "$right" "$peer" "$@" >"$tmp/$name.log" 2>&1 <>"$tmp/$name.in" &
    server=$!
    pids="$pids $server"
    await grep -q '^[0-9][0-9]*$' "$tmp/$name.log" || fail "the server on $2 does not start"
    port=$(grep -m1 '^[0-9][0-9]*$' "$tmp/$name.log")
}

operations() { # SERVER-HOST CLIENT-HOST
    serve ops-server server "$1"
    ip netns exec "$left" "$peer" client "$2" "$port" >"$tmp/client.log" 2>&1 || fail "operations with $2, MTU $mtu"
    wait "$server" || fail "the server of the operations with $2, MTU $mtu"
    echo "MTU $mtu, $(cat "$tmp/client.log")"
}

# watch N HOST HOW: a connection that is to die; its processes are named N-server and N-client
watch() {
    mkfifo "$tmp/$1-server.in" "$tmp/$1-client.in"
    serve "$1-server" watch-server "$2" $keepalive
    watched="$watched $server"
    : >"$tmp/$1-client.log"
    ip netns exec "$left" "$peer" watch-client "$2" "$port" $keepalive "$3" >"$tmp/$1-client.log" 2>&1 \
        <>"$tmp/$1-client.in" &
    pids="$pids $!"
    watched="$watched $!"
}

# link_goes NAMESPACE DEVICE: connections die within their keepalive when that end goes down, busy ones and idle ones
link_goes() {
    keepalive=2000
    watched=
    rm -f "$tmp"/[12]-*
    watch 1 10.77.0.2 busy
    watch 2 fd77::2 idle
    for name in 1-server 1-client 2-server 2-client; do
        await grep -q running "$tmp/$name.log" || fail "$name does not run"
    done
    ip -n "$1" link set "$2" down
    for name in 1-server 1-client 2-server 2-client; do echo down >"$tmp/$name.in"; done
    for pid in $watched; do wait "$pid" || fail "a connection with $2 down"; done
    for name in 1-server 1-client 2-server 2-client; do echo "$2 down, $name: $(grep dead "$tmp/$name.log")"; done
    up
}

connect_fails() { # HOST
    ip netns exec "$left" "$peer" fail-client "$1" 7471 1000 >"$tmp/client.log" 2>&1 || fail "connect to $1 with a link down"
    echo "$1: $(cat "$tmp/client.log")"
}

up
for mtu in 1500 9000; do
    ip -n "$left" link set va mtu $mtu
    ip -n "$right" link set vb mtu $mtu
    operations 10.77.0.2 10.77.0.2
    operations fd77::2 fd77::2
    operations "$link_local%vb" "$link_local%va"
done
operations 0.0.0.0 10.77.0.2
operations :: 10.77.0.2
operations :: fd77::2

link_goes "$right" vb
link_goes "$left" va

ip -n "$right" link set vb down
connect_fails 10.77.0.2
connect_fails fd77::2
ip -n "$left" link set va down
connect_fails 10.77.0.2
connect_fails fd77::2
connect_fails 192.0.2.1
up
operations 10.77.0.2 10.77.0.2
