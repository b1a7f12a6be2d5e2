#!/usr/bin/env bash
# Makes the virtual machine's parts: Debian's kernel, the siw module that it lacks, virtme-ng. They go into a cache (see
# cache.sh); when it is complete this is over at once. Remove the cache to get a newer kernel. Debian 12 or later, amd64.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/packages.sh
. ../scripts/packages.sh
# shellcheck source=testbed/cache.sh
. ./cache.sh

die() {
    echo "testbed/setup: $*" >&2
    exit 1
}
say() { echo "testbed/setup: $*"; }

[[ $(uname -m) == x86_64 ]] || die "only x86_64 is supported, this is $(uname -m)"

need qemu-system-x86_64 qemu-system-x86
need modprobe kmod
need ip iproute2
need busybox busybox-static
need /etc/rdma/modules rdma-core
need rping rdmacm-utils
need ibv_devices ibverbs-utils
need ib_send_bw perftest
need /usr/include/rdma/rdma_cma.h librdmacm-dev
need /usr/include/infiniband/verbs.h libibverbs-dev
# The kernel's NFS, another client of it, what shakes it, and what reads it on the wire.
need rpc.nfsd nfs-kernel-server
need mount.nfs nfs-common
need rpcbind rpcbind
need fio fio
need nfs-cp libnfs-utils
need tshark tshark
need dumpcap wireshark-common
need setfacl acl
need_gluster
need flock util-linux
need xz xz-utils
need tar tar
need make make
need gcc gcc
need strip binutils
need patch patch
# The tools of the kernel's build that Debian ships are linked with these.
compgen -G '/usr/lib/*/libelf.so.1' >/dev/null || missing+=(libelf1)
compgen -G '/usr/lib/*/libcrypto.so.3' >/dev/null || missing+=(libssl3)
/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
install_missing

mkdir -p "$CACHE"
# Whoever comes while another sets up waits, and finds it done.
exec 9>"$CACHE/lock"
flock -w 1800 9 || die "another set-up has held $CACHE/lock for half an hour"
cache_complete && exit 0

for tool in apt-get apt-cache dpkg; do
    command -v $tool >/dev/null 2>&1 || die "the kernel comes from Debian's packages, but there is no $tool here"
done
rm -rf "$CACHE/stamp" "$CACHE/build" "$CACHE/kernel" "$CACHE/venv" "$SIW_KO"
build=$CACHE/build
mkdir "$build" "$CACHE/kernel"
log=$CACHE/setup.log
: >"$log"
trap 'code=$?; ((code == 0)) || { tail -n 30 "$log"; echo "testbed/setup: failed; all of the log is in $log"; } >&2' EXIT

# The first dependency of package $1 that matches $2.
depends() {
    local found
    found=$(apt-cache depends --no-recommends --no-suggests "$1" 2>>"$log" | sed -n "s/^ *Depends: *\($2\)$/\1/p" | head -n 1)
    [[ $found ]] || die "package $1 is unknown or depends on no $2: is there an entry for Debian main in apt's sources?"
    echo "$found"
}
version() { apt-cache show --no-all-versions "$1" | sed -n 's/^Version: //p'; }

# fetch PACKAGE[=VERSION]: its .deb, unpacked in no way, is $deb.
fetch() {
    say "downloading $1"
    (cd "$build" && timeout 1200 apt-get -q -o APT::Sandbox::User=root download "$1") >>"$log" 2>&1 ||
        die "can't download $1"
    deb=$(compgen -G "$build/${1%%=*}_*.deb")
}
unpack() {
    fetch "$1"
    dpkg -x "$deb" "$build"
    rm -f "$deb"
}

((EUID != 0)) || timeout 600 apt-get -q update >>"$log" 2>&1 || die "apt-get update failed"

image=$(depends linux-image-amd64 'linux-image-[0-9].*')
release=${image#linux-image-}
wanted=$(version "$image")
unpack "$image=$wanted"
mv "$build/boot" "$CACHE/kernel/boot"
mkdir "$CACHE/kernel/lib"
if [[ -d $build/lib/modules ]]; then modules=$build/lib/modules; else modules=$build/usr/lib/modules; fi
mv "$modules" "$CACHE/kernel/lib/modules"
modules=$CACHE/kernel/lib/modules/$release
# What drives a PC's devices only costs time: udev would load it for what QEMU emulates, for 20 s.
kept='crypto|fs|lib|mm|net|security|arch/x86/crypto|drivers/(block|char|infiniband|md|net|nvme|target|virtio)'
(cd "$modules/kernel" && find . -regextype posix-extended -name '*.ko*' ! -regex "\./($kept)/.*" -delete)

# siw, from the source of the same version. Nothing is installed: the headers are used where they are unpacked.
shipped=$(find "$modules" -name 'siw.ko*' -print -quit)
if [[ $shipped ]]; then
    say "this kernel comes with siw"
    ln -s "$shipped" "$SIW_KO"
else
    headers=linux-headers-$release
    common=$(depends "$headers" 'linux-headers-.*-common')
    kbuild=$(depends "$headers" 'linux-kbuild-.*')
    compiler=$(depends "$headers" 'linux-compiler-gcc-.*')
    compiler=$(grep -o 'gcc-[0-9]*' <<<"$compiler")
    need "$compiler" "$compiler"
    install_missing
    unpack "$headers=$wanted"
    unpack "$common"
    unpack "$kbuild"
    series=$(grep -oE '^[0-9]+\.[0-9]+' <<<"$wanted")
    fetch "linux-source-$series=$wanted"
    say "building siw for $release"
    mkdir "$build/siw"
    dpkg --fsys-tarfile "$deb" | tar -xO --wildcards "./usr/src/linux-source-*.tar.xz" |
        tar -xJ -C "$build/siw" --strip-components=5 "linux-source-$series/drivers/infiniband/sw/siw"
    # It goes where the source is as it was; a newer one may have no need of it.
    if patch -s -p2 --dry-run -d "$build/siw" <siw.patch >>"$log" 2>&1; then
        patch -s -p2 -d "$build/siw" <siw.patch >>"$log" 2>&1 || die "can't patch siw"
    else
        say "siw.patch does not fit this siw: connections on one host may stand still at their beginning"
    fi
    # This is the one absolute path in the packages.
    sed -i "s|^include /usr/src/|include $build/usr/src/|" "$build/usr/src/$headers/Makefile"
    timeout 1200 make -C "$build/usr/src/$headers" M="$build/siw" CONFIG_RDMA_SIW=m modules >>"$log" 2>&1 ||
        die "can't build siw"
    strip --strip-debug "$build/siw/siw.ko"
    mkdir "$modules/extra"
    cp "$build/siw/siw.ko" "$modules/extra/"
    ln -s "$modules/extra/siw.ko" "$SIW_KO"
fi
PATH=$PATH:/usr/sbin:/sbin depmod -b "$CACHE/kernel" "$release"

say "installing virtme-ng"
# A python3 that comes first in PATH may lack venv or be about to be replaced; Debian's own will stay.
for python in /usr/bin/python3 python3; do
    if "$python" -m venv --clear "$CACHE/venv" &&
        timeout 600 "$CACHE/venv/bin/python" -m pip install -q -r requirements.txt &&
        "$CACHE/venv/bin/vng" --version; then
        break
    fi
done >>"$log" 2>&1
[[ -x $CACHE/venv/bin/vng ]] || die "can't install virtme-ng into a Python virtual environment"

rm -rf "$build"
echo "$BED_SETUP $release" >"$CACHE/stamp"
cache_complete || die "something is missing in $CACHE"
say "ready: Linux $release ($wanted) in $CACHE"
