#!/usr/bin/env bash
# The transport under a stock GlusterFS of this machine: `gluster/check.sh ROOT [NAME...]`. ROOT: where the library is
# installed. Each gluster/tests/NAME.sh runs in namespaces of its own (lab.sh) and is an item; `build` only builds. As root.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
TOP=$PWD
LOGS=$TOP/build/logs/gluster
ROOT=$(realpath "$1")
LAB=$TOP/build/gluster-lab
export BIN=$TOP/build/gluster-bin
shift
# shellcheck source=scripts/items.sh
. scripts/items.sh
(($#)) || set -- distribute replicate detach volfiles

plugin() {
    make --no-print-directory install-gluster PREFIX="$ROOT" LIBDIR="$ROOT/lib" GLUSTER_TRANSPORTDIR="$BIN" UNITDIR="$BIN"
    local exports
    exports=$(nm -D --defined-only "$BIN/rdma.so" | awk '{ print $3 }' | sort | tr '\n' ' ')
    test "$exports" = "fini init options reconfigure tops "
    readelf -dW "$BIN/rdma.so" | grep NODELETE
}

programs() {
    local flags
    read -ra flags < <(pkg-config --cflags --libs glusterfs-api)
    cc -O2 -g -Wall -Wextra -Werror -o "$BIN/files" gluster/tests/files.c
    cc -O2 -g -Wall -Wextra -Werror -o "$BIN/gfapi" gluster/tests/gfapi.c "${flags[@]}"
}

scenario() {
    local code=0
    timeout --kill-after=10 300 gluster/tests/lab.sh "$BIN/rdma.so" "$LAB" "gluster/tests/$1.sh" || code=$?
    ((code == 0)) || grep -rhE ' [EC] \[|MSGID: 1030' "$LAB/log" | tail -n 40
    return $code
}

mkdir -p "$LOGS" "$BIN"
rm -f "$LOGS"/*.log
item "gluster: the transport builds" plugin
item "gluster: programs build" programs
[[ $1 != build ]] || finish
for name in "$@"; do item "gluster: $name" scenario "$name"; done
rm -rf "$LAB"
finish
