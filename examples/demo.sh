#!/bin/sh
# The demonstration: demo.sh BINDIR WORKDIR
# BINDIR holds demo_server and demo_client; files go to WORKDIR. DEMO_FILE names another file to send, of any size.
set -eu

bindir=${1:?usage: demo.sh BINDIR WORKDIR}
workdir=${2:?usage: demo.sh BINDIR WORKDIR}
host=${DEMO_HOST:-127.0.0.1}
mkdir -p "$workdir"
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || :
    rm -f "$workdir/client-sent" "$workdir/client-read" "$workdir/server-written" "$workdir/server-sent"
}
trap cleanup EXIT
trap 'exit 1' INT TERM HUP

# A file of 64 MiB, no two blocks of which are the same.
file=${DEMO_FILE:-$workdir/demo-file}
[ -s "$file" ] || head -c 67108864 /dev/urandom >"$file"

: >"$workdir/server.log"
"$bindir/demo_server" "$host" 0 "$workdir" >"$workdir/server.log" 2>&1 &
server=$!
port=
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    port=$(sed -n 's/^port //p' "$workdir/server.log")
    [ -z "$port" ] || break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
if [ -z "$port" ]; then
    cat "$workdir/server.log"
    echo "demo: the server did not start" >&2
    exit 1
fi

status=0
"$bindir/demo_client" "$host" "$port" "$file" "$workdir" || status=1
if [ "$status" -eq 0 ]; then
    wait "$server" || status=1
    server=
fi
cat "$workdir/server.log"

for copy in client-read server-written server-sent; do
    cmp "$file" "$workdir/$copy" || status=1
done
if [ "$status" -eq 0 ]; then echo "demo: passed"; else echo "demo: FAILED" >&2; fi
exit "$status"
