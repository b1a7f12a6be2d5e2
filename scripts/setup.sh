#!/usr/bin/env bash
# Installs what building and testing need and this machine lacks. Debian and Ubuntu; touches nothing when all is there.
set -euo pipefail

missing=()

# need PROGRAM-OR-FILE PACKAGE
need() {
    case $1 in
        /*) [[ -e $1 ]] || missing+=("$2") ;;
        *) command -v "$1" >/dev/null 2>&1 || [[ -x /usr/sbin/$1 || -x /sbin/$1 ]] || missing+=("$2") ;;
    esac
}

if ! command -v "${CARGO:-cargo}" >/dev/null 2>&1; then
    echo "setup: no cargo in PATH. Install a Rust toolchain, 1.85 or later: https://rustup.rs" >&2
    exit 1
fi

need gcc gcc
need g++ g++
need /usr/include/stdio.h libc6-dev
need nm binutils
need make make
need pkg-config pkg-config
need ip iproute2
need mandoc mandoc
need timeout coreutils

if ((${#missing[@]} == 0)); then
    exit 0
fi
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
