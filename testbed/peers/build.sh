#!/usr/bin/env bash
# build.sh BIN_DIR: compiles the peers. cm_peer needs librdmacm and libibverbs only; the others librdmacm-gluster, where
# pkg-config finds it.
set -euo pipefail
BIN=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")"
CC=${CC:-cc}
FLAGS=(-std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Werror)

compile() {
    local program=$1
    shift
    "$CC" "${FLAGS[@]}" -o "$BIN/$program" "$@"
}

read -ra RCG <<<"$(pkg-config --cflags --libs rdmacm-gluster)"
LIBDIR=$(pkg-config --variable=libdir rdmacm-gluster)
compile cm_peer cm_peer.c peer.c session.c scenarios.c -lrdmacm -libverbs
compile rcg_peer rcg_peer.c peer.c session.c scenarios.c "${RCG[@]}" "-Wl,-rpath,$LIBDIR"
for program in rcg_rping rcg_cmatose rcg_perf rcg_bench; do
    compile $program $program.c "${RCG[@]}" "-Wl,-rpath,$LIBDIR"
done
