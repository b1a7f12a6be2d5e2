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
