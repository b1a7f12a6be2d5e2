# shellcheck shell=bash
# Sourced: where the test bed keeps what it has fetched and built, and whether that is complete.

# Raise it when setup.sh makes something else than before.
BED_SETUP=2
CACHE=${RCG_BED_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/librdmacm-gluster/testbed}
SIW_KO=$CACHE/siw.ko

# Sets KERNEL, a release such as 6.1.0-9-amd64. The stamp is written last, so that half a set-up has none.
cache_complete() {
    local setup
    { read -r setup KERNEL <"$CACHE/stamp"; } 2>/dev/null || return 1
    VMLINUZ=$CACHE/kernel/boot/vmlinuz-$KERNEL
    [[ $setup == "$BED_SETUP" && -s $VMLINUZ && -s $SIW_KO && -x $CACHE/venv/bin/vng ]]
}
