#!/usr/bin/env bash
# Runs one command, as root, in a virtual machine whose kernel has RDMA, and exits with its status.
#   run.sh [-t SECONDS] [-m MEMORY] [-o OUTDIR] -- COMMAND [ARGS...]
# The machine sees the host's files, read-only or with changes that vanish; only OUTDIR (build/testbed/out) persists. It has
# no network. The command runs in the checkout's directory and finds in its environment BED_IN=1, BED_OUT (OUTDIR),
# BED_SIW_KO, BED_BIN and BED_ROOT (our programs and library: build/check-bin and build/check-root unless set by the caller)
# and whatever else the caller has in BED_* and RCG_*. Its output comes out as it appears; the console is in
# OUTDIR/console.log, the kernel's messages in OUTDIR/dmesg.txt. 125: the machine died, or the time (600 s) was over, or its
# kernel complained.
set -uo pipefail
TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit 125
# shellcheck source=testbed/cache.sh
. "$TOP/testbed/cache.sh"

die() {
    echo "testbed/run: $*" >&2
    exit 125
}
usage() {
    echo "usage: run.sh [-t SECONDS] [-m MEMORY] [-o OUTDIR] -- COMMAND [ARGS...]" >&2
    exit 125
}

limit=600
memory=2G
out=$TOP/build/testbed/out
while getopts t:m:o: option; do
    case $option in
        t) limit=$OPTARG ;;
        m) memory=$OPTARG ;;
        o) out=$OPTARG ;;
        *) usage ;;
    esac
done
shift $((OPTIND - 1))
if (($# == 0)) || [[ ! $limit =~ ^[1-9][0-9]*$ ]]; then usage; fi

"$TOP/testbed/setup.sh" >&2 || exit 125
cache_complete || die "the set-up left nothing usable in $CACHE"

mkdir -p "$out" || die "can't make $out"
out=$(cd "$out" && pwd)
# These go through the kernel's command line.
for path in "$TOP" "$out" "$CACHE"; do
    [[ $path =~ ^[A-Za-z0-9/._+@:-]+$ ]] || die "the path $path has a character that can't be passed to the machine"
done
exec 8>"$out/.lock"
flock -n 8 || die "another machine uses $out: choose one with -o"
rm -f "$out"/{status,console.log,dmesg.txt,.command.sh}

# What runs in the machine. The status is written last, and by a rename: it is there whole or not at all.
{
    echo '#!/usr/bin/env bash'
    for name in "${!BED_@}" "${!RCG_@}"; do
        [[ $name == BED_SETUP ]] || printf 'export %s=%q\n' "$name" "${!name}"
    done
    printf 'export BED_IN=1 BED_OUT=%q BED_SIW_KO=%q BED_BIN=%q BED_ROOT=%q\n' "$out" "$SIW_KO" \
        "${BED_BIN:-$TOP/build/check-bin}" "${BED_ROOT:-$TOP/build/check-root}"
    printf 'cd %q || exit\n' "$TOP"
    printf 'command=('
    printf '%q ' "$@"
    printf ')\n'
    cat <<'GUEST'
export LD_LIBRARY_PATH=$BED_ROOT/lib PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec 2>&1
# Tasks that hang must show before the time is over; an emulated processor needs some time, though.
echo 60 >/proc/sys/kernel/hung_task_timeout_secs
"${command[@]}" </dev/null
status=$?
dmesg >"$BED_OUT/dmesg.txt"
echo $status >"$BED_OUT/.status"
mv "$BED_OUT/.status" "$BED_OUT/status"
sync
# All is said: no need to stop services one by one.
poweroff -f >/dev/null 2>&1
GUEST
} >"$out/.command.sh"

# The machine and all that belongs to it are in one session of their own. `timeout` is in there too: it ends the machine
# even where this script is gone.
export PATH=$CACHE/venv/bin:$PATH:/usr/sbin:/sbin
machine=
# shellcheck disable=SC2317
stop() {
    [[ ! $machine ]] || kill -KILL -- "-$machine" 2>/dev/null
}
trap stop EXIT
trap 'exit 130' INT TERM HUP
# Pipes, not files: QEMU opens what it is given once more, and would truncate a file.
exec 7> >(exec cat 8>&-)
output=$!
exec 6> >(exec cat >"$out/console.log" 7>&- 8>&-)
console=$!
start=$SECONDS
# Before what else is tested here, if that is permitted: a processor that stands still for a time slice shows races of the
# kernel's that no machine has (siw.patch).
first=()
[[ $(nice -n -10 nice 2>/dev/null) != -10 ]] || first=(nice -n -10)
# Where the processor is emulated and shared, stalls say nothing: their detectors are off.
setsid "${first[@]}" timeout --signal=TERM --kill-after=5 "$limit" \
    vng -r "$VMLINUZ" --disable-kvm --force-9p --cpus 2 --memory "$memory" --rwdir "$out" --verbose \
    --append mitigations=off --append rcupdate.rcu_cpu_stall_suppress=1 --append nosoftlockup --append log_buf_len=4M -- bash "$out/.command.sh" \
    </dev/null >&7 2>&6 6>&- 7>&- 8>&- &
machine=$!
exec 6>&- 7>&-
wait "$machine"
stop
wait "$output" "$console"

# fail STATUS WHY
fail() {
    echo "testbed/run: $2; the console (${out#"$TOP"/}/console.log) ends so:"
    tr -d '\r' <"$out/console.log" | grep -avF 'speed is unknown' | tail -n "${TAIL:-30}" | sed 's/^/     | /'
    exit "$1"
} >&2

# A process that crashed ("traps:") is that process's test's business.
complaints='BUG: |WARNING: |Oops|general protection|unable to handle|Kernel panic|blocked for more than|refcount_t: '
found=$(cat "$out/console.log" "$out/dmesg.txt" 2>/dev/null | tr -d '\r' | grep -avF 'traps: ' | grep -aE "$complaints" |
    sort -u)
if [[ $found ]]; then
    printf 'testbed/run: the kernel complained:\n%s\n' "$found" >&2
    fail 125 "a complaint of the kernel fails the run"
fi
if [[ ! -s $out/status ]]; then
    ((SECONDS - start < limit)) || fail 125 "not done within $limit s"
    fail 125 "the machine died without a status"
fi
status=$(<"$out/status")
((status == 0)) || fail "$status" "the command failed with status $status"
exit 0
