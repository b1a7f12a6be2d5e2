#!/usr/bin/env bash
# Builds the library, installs it into a scratch prefix, compiles the two demo programs through pkg-config as any user
# of the library would, and runs them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD/build/demo-root
bin=$PWD/build/demo-bin
work=$PWD/build/demo-work
rm -rf "$root" "$bin" "$work"
mkdir -p "$bin" "$work"

echo "demo: building and installing into ${root#"$PWD"/}"
make --no-print-directory install DESTDIR= PREFIX="$root" LIBDIR="$root/lib" INCLUDEDIR="$root/include" \
    MANDIR="$root/share/man" >"$work/install.log" 2>&1 || {
    tail -n 60 "$work/install.log" >&2
    echo "demo: the build failed" >&2
    exit 1
}

export PKG_CONFIG_PATH=$root/lib/pkgconfig
read -ra flags < <(pkg-config --cflags --libs rdmacm-gluster)
for name in demo_server demo_client; do
    echo "demo: ${CC:-cc} examples/$name.c -o $name \$(pkg-config --cflags --libs rdmacm-gluster)"
    "${CC:-cc}" -O2 -g -Wall -Wextra "examples/$name.c" -o "$bin/$name" "${flags[@]}"
done

LD_LIBRARY_PATH=$root/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec examples/demo.sh "$bin" "$work"
