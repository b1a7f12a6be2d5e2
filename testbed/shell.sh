#!/usr/bin/env bash
# A shell in the test bed's machine, with devices up: shell.sh [rxe|siw|wire...], by default rxe. The functions of lib.sh are
# there: bed_siw, bed_wire, bed_kernel_objects and the rest. The host's files are read-only, or change for as long as the
# machine lives; exit ends it.
set -euo pipefail
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=testbed/cache.sh
. "$TOP/testbed/cache.sh"

(($#)) || set -- rxe
for device in "$@"; do
    case $device in
        rxe | siw | wire) ;;
        *)
            echo "usage: shell.sh [rxe|siw|wire...]" >&2
            exit 2
            ;;
    esac
done
[[ -t 0 && -t 1 ]] || {
    echo "shell.sh: not at a terminal: use testbed/run.sh -- COMMAND" >&2
    exit 2
}
"$TOP/testbed/setup.sh"
cache_complete

out=$TOP/build/testbed/shell
mkdir -p "$out"
cat >"$out/rc" <<RC
cd $TOP
export BED_IN=1 BED_OUT=$out BED_SIW_KO=$SIW_KO BED_BIN=$TOP/build/check-bin BED_ROOT=$TOP/build/check-root
export LD_LIBRARY_PATH=$TOP/build/check-root/lib PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
set -- shell
. testbed/lib.sh
set +u +o pipefail
for device in $*; do bed_\$device; done
PS1='bed# '
rdma link
RC
cat >"$out/shell" <<SHELL
#!/bin/bash
exec bash --noprofile --rcfile $out/rc -i
SHELL
chmod +x "$out/shell"

export PATH=$CACHE/venv/bin:$PATH:/usr/sbin:/sbin
exec vng -r "$VMLINUZ" --disable-kvm --force-9p --cpus 2 --memory 2G --rwdir "$out" --shell "$out/shell" \
    --append mitigations=off
