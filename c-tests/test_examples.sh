#!/bin/sh
# The example programs do what they say. test_examples.sh BINDIR, or EXAMPLES=FOLDER where they lie elsewhere.
# RCG_TEST_HOST is the address that they use: with one of an RDMA device they go over that.
set -eu

host=${RCG_TEST_HOST:-127.0.0.1}
bindir=${EXAMPLES:-${1:?usage: test_examples.sh BINDIR}}
tmp=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || :
    rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

if [ ! -x "$bindir/hello_server" ]; then
    echo "no examples in $bindir" >&2
    exit 1
fi

"$bindir/manual" "$host" >"$tmp/manual"
grep -qx answered "$tmp/manual"

# Starts a server, which says where it listens: $port. Its output is in $tmp/server.
start() {
    : >"$tmp/server"
    "$bindir/$1" "$host" 0 >"$tmp/server" 2>&1 &
    server=$!
    port=
    for _ in $(seq 300); do
        port=$(sed -n 's/^port //p' "$tmp/server")
        [ -z "$port" ] || break
        sleep 0.02
    done
}
# Waits for its end.
ended() {
    wait "$server"
    server=
}

start rpc_echo_server
"$bindir/rpc_echo_client" "$host" "$port" >"$tmp/client"
ended
grep -qx "echo of 100000 octets: as sent" "$tmp/client"

start hello_server
"$bindir/hello_client" "$host" "$port"
ended
grep -qx "message 'done'; the buffer says: hello, memory of another process" "$tmp/server"

# nobody listens there any more: one line says so, and the exit status
if "$bindir/hello_client" "$host" "$port" 2>"$tmp/refused"; then exit 1; fi
grep -q "$port" "$tmp/refused"
echo "examples: passed"
