#!/usr/bin/env bash
# Installs what building and testing need and this machine lacks. Debian and Ubuntu; touches nothing when all is there.
set -euo pipefail
# shellcheck source=scripts/packages.sh
. "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

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
need /usr/include/rdma/rdma_cma.h librdmacm-dev
need /usr/include/infiniband/verbs.h libibverbs-dev
# rdma-sys makes its bindings with libclang, of whichever version.
compgen -G '/usr/lib/llvm-*/lib/libclang.so' >/dev/null || need /nonexistent libclang-dev
# `setup.sh check`: what `make check` wants beyond that.
if [[ ${1:-} == check ]]; then
    need /usr/lib/llvm-19/lib/libclang.so libclang-19-dev
    need python3 python3
    need_gluster
    need_packaging
fi
# `setup.sh bench`: what the library is measured beside.
if [[ ${1:-} == bench ]]; then
    need python3 python3
    need fi_pingpong libfabric-bin
    need /usr/include/rdma/fi_rma.h libfabric-dev
    need ucx_perftest ucx-utils
    need valgrind valgrind
    need strace strace
fi
install_missing
