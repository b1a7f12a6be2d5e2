#!/usr/bin/env bash
# Debian packages of this tree, and their source package, in build/deb. `make` has to have built the tree before: what cargo
# has made is taken as it is. Needs no root once the tools are there. `deb.sh lint` has lintian look at them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/packages.sh
. scripts/packages.sh

unset MAKEFLAGS MAKELEVEL
need_packaging
install_missing

out=$PWD/build/deb
source=$out/librdmacm-gluster-$(dpkg-parsechangelog -S Version)
rm -rf "$out"
mkdir -p "$source"
tar -c --exclude=./build --exclude=./target --exclude=./fuzz/target --exclude=./fuzz/artifacts --exclude=./.git . |
    tar -x -C "$source"

# A toolchain that came from no package: all other build dependencies are checked.
dpkg -S "$(command -v "${CARGO:-cargo}" || echo /none)" >/dev/null 2>&1 || export DEB_BUILD_PROFILES=pkg.librdmacm-gluster.rustup
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
(cd "$source" && CARGO=taken-as-built dpkg-buildpackage --no-sign)
rm -rf "$source"
[[ ${1:-} != lint ]] || lintian --fail-on error,warning "$out"/*.changes
ls -l "$out"
