#!/usr/bin/env bash
# Installs the packages in build/deb, tests them as a distribution would (debian/tests), and removes them: in namespaces where
# what is written to /usr, /etc and /var is seen by nobody else and gone at the end. As root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ ${1:-} != --inside ]]; then
    exec unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private "${BASH_SOURCE[0]}" --inside
fi

unset LD_LIBRARY_PATH PKG_CONFIG_PATH
ip link set lo up
packages=(librdmacm-gluster0 librdmacm-gluster-dev librdmacm-gluster-tools glusterfs-rdma)
multiarch=/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
gluster=$(dpkg-query -W -f '${source:Upstream-Version}' libglusterfs-dev)
work=$PWD/build/deb-check
rm -rf "$work"
mkdir -p "$work/tmp" "$work/layers"
mount -t tmpfs -o mode=755 none "$work/layers"
for place in usr etc var; do
    mkdir "$work/layers/$place" "$work/layers/$place.work"
    mount -t overlay -o "lowerdir=/$place,upperdir=$work/layers/$place,workdir=$work/layers/$place.work" overlay "/$place"
done
mount -t tmpfs none /usr/local
mount -t tmpfs none /run
mkdir /run/lock

# files PACKAGE FILE...: these, manual pages and documents aside, and nothing else.
files() {
    local package=$1
    shift
    diff -u --label "expected of $package" --label found <(printf '%s\n' "$@" | sort) \
        <(dpkg -L "$package" | while read -r path; do [[ -d $path ]] || echo "$path"; done |
            grep -v '^/usr/share/\(man\|doc\)/' | sort)
}

# depends PACKAGE DEPENDENCY...
depends() {
    local found dependency
    found=", $(dpkg-query -W -f '${Depends}' "$1"),"
    for dependency in "${@:2}"; do
        [[ $found == *", $dependency,"* || $found == *", $dependency ("* ]] ||
            { echo "$1 does not depend on $dependency:$found"; return 1; }
    done
}

export DEBIAN_FRONTEND=noninteractive
debs=()
for package in "${packages[@]}"; do debs+=("build/deb/${package}_${version}_$(dpkg --print-architecture).deb"); done
dpkg --force-unsafe-io --no-triggers -i "${debs[@]}"

files librdmacm-gluster0 "$multiarch/librdmacm-gluster.so.${version%%.*}" "$multiarch/librdmacm-gluster.so.$version"
files librdmacm-gluster-dev /usr/include/rdmacm_gluster.h "$multiarch/librdmacm-gluster.a" "$multiarch/librdmacm-gluster.so" \
    "$multiarch/pkgconfig/rdmacm-gluster.pc"
files librdmacm-gluster-tools /lib/systemd/system/rcg-rpc-proxy@.service /usr/bin/rcg /usr/lib/tmpfiles.d/rcg.conf \
    /usr/share/bash-completion/completions/rcg
files glusterfs-rdma /lib/systemd/system/glusterd.service.d/rdma.conf \
    "$(dirname "$(dpkg -L glusterfs-common | grep '/rpc-transport/socket\.so$')")/rdma.so"
diff -u <(find man -name '*.[378]' -printf '%f.gz\n' | sort) \
    <(dpkg -L "${packages[@]}" | sed -n 's|^/usr/share/man/man[378]/||p' | sort)

depends librdmacm-gluster0 libc6 libibverbs1 librdmacm1
depends librdmacm-gluster-dev "librdmacm-gluster0 (= $version)" libibverbs-dev librdmacm-dev
depends librdmacm-gluster-tools libibverbs1 librdmacm1
# One release of GlusterFS.
depends glusterfs-rdma "glusterfs-common (>= $gluster)" "glusterfs-common (<< ${gluster%.*}.$((${gluster##*.} + 1))~)" \
    libgfrpc0 libglusterfs0 librdmacm-gluster0

pkg-config --cflags --libs rdmacm-gluster | grep -x -- '-lrdmacm-gluster *'
[[ $(pkg-config --modversion rdmacm-gluster) == "$version" ]]
[[ $(rcg --version) == "rcg $version" ]]
# What is to be mended otherwise is not asked here.
doctor() { (rcg doctor --provider iwarp || true) | grep -A 1 '^[a-zA-Z]* *gluster .*rdma\.so'; }
doctor | grep "^ok .*$multiarch/glusterfs/$gluster/rpc-transport/rdma\.so"
grep -x 'ExecStart=/usr/bin/rcg .*' /lib/systemd/system/rcg-rpc-proxy@.service
for name in examples transport; do
    mkdir "$work/tmp/$name"
    AUTOPKGTEST_TMP=$work/tmp/$name timeout 60 "debian/tests/$name"
done

dpkg --no-triggers -P glusterfs-rdma
doctor | grep 'fix: install the package glusterfs-rdma'
dpkg --no-triggers -P "${packages[@]:0:3}"
# What was removed is a character device in the upper layer.
left=$(find "$work/layers/usr" "$work/layers/etc" ! -type d ! -type c)
[[ -z $left ]] || { echo "left after removal: $left"; exit 1; }
