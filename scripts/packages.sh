# shellcheck shell=bash
# Sourced by what sets up a machine: `need` collects what is missing, `install_missing` installs it. Debian and Ubuntu.

missing=()

# need PROGRAM-OR-FILE PACKAGE
need() {
    case $1 in
        /*) [[ -e $1 ]] || missing+=("$2") ;;
        *) command -v "$1" >/dev/null 2>&1 || [[ -x /usr/sbin/$1 || -x /sbin/$1 ]] || missing+=("$2") ;;
    esac
}

# GlusterFS's transport. libglusterfs-dev does not say what its headers include.
need_gluster_headers() {
    need /usr/include/glusterfs/rpc/rpc-transport.h libglusterfs-dev
    compgen -G '/usr/include/*/urcu/compiler.h' >/dev/null || need /nonexistent liburcu-dev
    need /usr/include/uuid/uuid.h uuid-dev
    need /usr/include/tirpc/rpc/rpc.h libtirpc-dev
}

# And a stock GlusterFS to run it.
need_gluster() {
    need glusterd glusterfs-server
    need mount.glusterfs glusterfs-client
    need_gluster_headers
    need mkfs.xfs xfsprogs
    need ss iproute2
    need pgrep procps
}

# Debian packages of ours. What is only found by its files does not count as a build dependency.
need_packaging() {
    local package
    for package in debhelper dpkg-dev libclang-dev lintian; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    need_gluster_headers
}

install_missing() {
    ((${#missing[@]})) || return 0
    echo "setup: missing: ${missing[*]}"
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "setup: this is not a Debian system: please install what these packages hold" >&2
        exit 1
    fi
    if ((EUID != 0)); then
        echo "setup: not root. Please run: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q update
    apt-get -q -y install --no-install-recommends "${missing[@]}"
    missing=()
}
