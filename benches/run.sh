#!/bin/sh
# Bandwidth and round trips against a raw TCP loop in the same run: run.sh [--short] BINDIR
# Short mode takes less than 15 s. BENCH_CONGESTION names another congestion control than reno.
set -eu
short=
if [ "${1:-}" = --short ]; then
    short=--short
    shift
fi
bindir=${1:?usage: run.sh [--short] BINDIR}
printf 'machine: %s, %s processors, Linux %s, load %s\n' \
    "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(nproc)" "$(uname -r)" \
    "$(cut -d ' ' -f 1-3 /proc/loadavg)"
exec "$bindir/bw" $short
