#!/usr/bin/env bash
# Everything that must hold. `check.sh quick`: formatting, lints, Rust tests. `check.sh full`: that, the installed product,
# and the test bed's suites in a virtual machine. `check.sh kernel`: what the suites need, and they. Goes on after a failure;
# logs are in build/logs and build/testbed/out.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

TOP=$PWD
LOGS=$TOP/build/logs
ROOT=$TOP/build/check-root
BIN=$TOP/build/check-bin
ASAN_BIN=$TOP/build/asan-bin
WORK=$TOP/build/check-work
TARGET=${CARGO_TARGET_DIR:-$TOP/target}
CARGO=${CARGO:-cargo}
CC=${CC:-cc}
CXX=${CXX:-c++}
HEADER=$ROOT/include/rdmacm_gluster.h
NODE=RDMACM_GLUSTER_0.1
# C programs that run under the address sanitizer on devices.
BED_ASAN="bed_say test_smoke test_ops test_memory test_flush"
# Seconds: one C test; anything that compiles or runs many tests.
TEST_LIMIT=120
LONG_LIMIT=1800
# A panic in the library must be seen as what it is.
export RUST_BACKTRACE=1
unset MAKEFLAGS MAKELEVEL

# shellcheck source=scripts/items.sh
. scripts/items.sh

# ---- quick ----

quick() {
    item "cargo fmt" "$CARGO" fmt --all --check
    item "cargo clippy" timeout $LONG_LIMIT "$CARGO" clippy --locked --workspace --all-targets -- -D warnings
    item "cargo test" timeout $LONG_LIMIT "$CARGO" test --locked --workspace
}

# What src/verbs/sys writes down because rdma-sys lacks it, or has it by hand.
numbers_of_rdma_cm() {
    cat >"$WORK/numbers.c" <<'C'
#include <rdma/rdma_cma.h>
_Static_assert(RDMA_OPTION_ID == 0 && RDMA_OPTION_ID_REUSEADDR == 1 && RDMA_OPTION_ID_AFONLY == 2, "options");
_Static_assert(sizeof(struct ibv_send_wr) == 128 && sizeof(struct ibv_wc) == 48, "work");
_Static_assert(sizeof(struct rdma_cm_event) == 80 && sizeof(struct ibv_async_event) == 16, "events");
C
    "$CC" -std=c11 -fsyntax-only "$WORK/numbers.c"
}

# rdma-sys makes its bindings with whichever libclang there is; those of the default are used everywhere else.
newer_libclang() {
    LIBCLANG_PATH=/usr/lib/llvm-19/lib CARGO_TARGET_DIR=$TARGET/libclang-19 \
        timeout $LONG_LIMIT "$CARGO" check --locked --lib
}

# ---- the product as it is installed ----

install_product() {
    rm -rf "$ROOT"
    make --no-print-directory install DESTDIR= PREFIX="$ROOT" LIBDIR="$ROOT/lib" INCLUDEDIR="$ROOT/include" \
        MANDIR="$ROOT/share/man"
}

# What DESTDIR changes is where files go, not what they say; uninstall leaves none.
install_and_uninstall() {
    local stage=$WORK/stage
    rm -rf "$stage"
    make --no-print-directory install DESTDIR="$stage" PREFIX=/usr LIBDIR=/usr/lib/here
    find "$stage" ! -type d | sort
    test -L "$stage/usr/lib/here/librdmacm-gluster.so"
    if grep -rn "$stage" "$stage/usr/lib/here/pkgconfig"; then
        echo "the .pc file names the staging directory"
        return 1
    fi
    grep -x 'libdir=/usr/lib/here' "$stage/usr/lib/here/pkgconfig/rdmacm-gluster.pc"
    make --no-print-directory uninstall DESTDIR="$stage" PREFIX=/usr LIBDIR=/usr/lib/here
    test -z "$(find "$stage" ! -type d)"
}

header_alone() {
    local language=$1 standard=$2 compiler=$CC
    [[ $language == c ]] || compiler=$CXX
    echo '#include <rdmacm_gluster.h>' >"$WORK/header.$language"
    echo 'int unit_has_a_declaration;' >>"$WORK/header.$language"
    "$compiler" -x "$language" "-std=$standard" -Wall -Wextra -pedantic -Werror "-I$ROOT/include" -c -o /dev/null \
        "$WORK/header.$language"
}

# What programs write with its macros, in C and in C++; designated members exist from C++20 on. -Wextra would have C++ name
# every member.
header_macros() {
    cat >"$WORK/macros.c" <<'C'
#include <rdmacm_gluster.h>
#if RCG_VERSION < ((RCG_VERSION_MAJOR << 16) | (RCG_VERSION_MINOR << 8))
#error "the version macros disagree"
#endif
size_t use(rcg_sge *sge, void *user, uint64_t addr, uint32_t key, uint32_t n);
size_t use(rcg_sge *sge, void *user, uint64_t addr, uint32_t key, uint32_t n)
{
    int app = 0;
    rcg_op ops[] = {
        RCG_OP_SEND(sge, n, user), RCG_OP_SEND_IMM(sge, 1, 7, NULL), RCG_OP_SEND_INV(sge, 1, key, user),
        RCG_OP_SEND_COPY("done", 4, &app), RCG_OP_SEND_COPY(NULL, 0, NULL), RCG_OP_WRITE(sge, 1, addr, key, NULL),
        RCG_OP_WRITE_IMM(sge, 1, addr, key, 7, user), RCG_OP_READ(sge, n, addr, key, user),
    };
    rcg_engine_attr engine = { RCG_ENGINE_ATTR_INIT };
    rcg_channel_attr channel = { RCG_CHANNEL_ATTR_INIT };
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT };
    rcg_accept_attr accept = { RCG_ACCEPT_ATTR_INIT };
    rcg_arena_attr arena = { RCG_ARENA_ATTR_INIT };
    rcg_rpc_attr rpc = { RCG_RPC_ATTR_INIT };
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT };
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT };
    rcg_rpc_info calls = { RCG_RPC_INFO_INIT };
    rcg_limits limits = { RCG_LIMITS_INIT };
    rcg_error error = { RCG_ERROR_INIT };
    rcg_conn_info conn = { RCG_CONN_INFO_INIT };
    rcg_listener_info listener = { RCG_LISTENER_INFO_INIT };
    rcg_stats stats = { RCG_STATS_INIT };
#if defined(__cplusplus) && __cplusplus < 202002L
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT };
#else
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .timeout_ms = 5000 };
#endif
    return sizeof ops + engine.size + channel.size + listen.size + accept.size + arena.size + limits.size + error.size +
           conn.size + listener.size + stats.size + connect.size + rpc.size + request.size + response.size + calls.size + (size_t)app;
}
C
    local standard flags=(-Wall -Wextra -Wno-missing-field-initializers -pedantic -Werror "-I$ROOT/include" -fsyntax-only)
    for standard in c99 c11 c17; do "$CC" -x c "-std=$standard" "${flags[@]}" "$WORK/macros.c"; done
    for standard in c++11 c++17 c++20; do "$CXX" -x c++ "-std=$standard" "${flags[@]}" "$WORK/macros.c"; done
}

# The functions of the header, of the map, the exported symbols, the manual pages: one sorted name a line.
header_functions() {
    "$CC" -fpreprocessed -dD -E -P "$HEADER" 2>/dev/null | grep -v '^#' | grep -v '^ *typedef .*(\*' |
        grep -oE '\brcg_[a-z0-9_]+ *\(' | tr -d ' (' | LC_ALL=C sort -u
}
map_functions() { sed -n 's/^[[:space:]]*\(rcg_[a-z0-9_]*\);$/\1/p' abi/librdmacm-gluster.map | LC_ALL=C sort -u; }
exported_symbols() {
    nm -D --defined-only --with-symbol-versions "$ROOT/lib/librdmacm-gluster.so" | awk '$2 != "A" { print $3 }'
}
debian_symbols() { sed -n 's/^ \(rcg_[a-z0-9_]*\)@.*/\1/p' debian/librdmacm-gluster0.symbols | LC_ALL=C sort -u; }
manual_pages() { find man -name 'rcg_*.3' -printf '%f\n' | sed 's/\.3$//' | LC_ALL=C sort -u; }

same_names() {
    diff -u --label "$1" --label "$3" <("$2") <("$4") || {
        echo "lines with - are only in the $1, with + only in the $3"
        return 1
    }
}
same_as_header() {
    test -n "$(header_functions)"
    same_names header header_functions "$1" "$2"
}
exported_names() { exported_symbols | sed "s/@@$NODE\$//" | LC_ALL=C sort -u; }

soname() {
    local library=$ROOT/lib/librdmacm-gluster.so
    readelf -d "$library" | grep -F 'Library soname: [librdmacm-gluster.so.0]'
    readelf -d "$library" | grep -E 'BIND_NOW|FLAGS.*NOW'
    readelf -lW "$library" | grep GNU_RELRO
    ! readelf -dW "$library" | grep -E 'TEXTREL|RPATH|RUNPATH'
}

# Those of the shared library are those of the manual, with as many arguments, and each is somewhere. --gc-sections leaves
# notes of functions that are gone without a place.
tracepoints() {
    readelf -n "$ROOT/lib/librdmacm-gluster.so" >"$WORK/notes"
    same_names manual manual_tracepoints library library_tracepoints
    ! grep 'Location: 0x0*,' "$WORK/notes"
}
manual_tracepoints() {
    sed -n 's/\\f[BIR]//g; s/^\([a-z_]*\)(\(.*\))$/\1 \2/p' man/rdmacm-gluster-tracepoints.7 |
        awk '{ print "rdmacm_gluster", $1, NF - 1 }' | LC_ALL=C sort
}
library_tracepoints() {
    awk '/Provider:/ { provider = $2 } /Name:/ { name = $2 } /Arguments:/ { print provider, name, NF - 1 }' "$WORK/notes" |
        LC_ALL=C sort -u
}

native_libraries() {
    local said template
    timeout $LONG_LIMIT "$CARGO" rustc --locked --lib --crate-type staticlib -- --print native-static-libs \
        >"$WORK/native-libraries" 2>&1
    said=$(sed -n 's/^note: native-static-libs: //p' "$WORK/native-libraries")
    template=$(sed -n 's/^Libs\.private: //p' pkgconfig/rdmacm-gluster.pc.in)
    test -n "$said"
    diff -u --label rustc --label Libs.private <(tr ' ' '\n' <<<"$said" | LC_ALL=C sort -u) \
        <(tr ' ' '\n' <<<"$template" | LC_ALL=C sort -u)
}

# ---- Debian packages ----

# Version and state are those of Cargo.toml and CHANGELOG.md.
debian_changelog() {
    local state='[0-9-]*'
    [[ $(dpkg-parsechangelog -S Version) == "$(cargo_version)" ]]
    [[ $(dpkg-parsechangelog -S Distribution) != UNRELEASED ]] || state=unreleased
    grep -m 1 '^## ' CHANGELOG.md | grep -x "## $(cargo_version) ($state)"
}

# The crates that are linked, and that all are free to use under Expat; rdma-sys says so in a file.
debian_copyright() {
    "$CARGO" tree --locked -p rcg -e normal,no-proc-macro --prefix none -f '{p} {l}' | grep -v " ($TOP" >"$WORK/crates"
    diff -u --label debian/copyright --label linked \
        <(sed -n 's/^  \([A-Za-z0-9_-]*\): .*/\1/p' debian/copyright | LC_ALL=C sort) \
        <(cut -d ' ' -f 1 "$WORK/crates" | LC_ALL=C sort -u)
    ! grep -v '^rdma-sys ' "$WORK/crates" | grep -vw MIT
}

# ---- C programs ----

# build_c OUTPUT SOURCE-OR-FLAG...: a C program against the installed library.
build_c() {
    local output=$1 flags
    shift
    read -ra flags < <(pkg-config --cflags --libs rdmacm-gluster)
    "$CC" -O2 -g -Wall -Wextra -Werror -o "$output" "$@" "${flags[@]}" -pthread
}

# Shared and static: what a stranger does first.
consumer() {
    local how=$1 libs
    cat >"$WORK/consumer.c" <<'C'
#include <rdmacm_gluster.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    rcg_engine *engine = NULL;
    rcg_engine_attr attr = { RCG_ENGINE_ATTR_INIT };
    rcg_op op = RCG_OP_SEND_COPY("x", 1, NULL);
    uint32_t built = RCG_VERSION_MAJOR << 16 | RCG_VERSION_MINOR << 8 | RCG_VERSION_PATCH;
    int rc = rcg_engine_create(&attr, &engine);
    char text[64];

    snprintf(text, sizeof(text), "%u.%u.%u", RCG_VERSION_MAJOR, RCG_VERSION_MINOR, RCG_VERSION_PATCH);
    printf("library %s, header %s, engine %d\n", rcg_version_string(), text, rc);
    if (rc == 0)
        rc = rcg_engine_destroy(engine);
    return !(rc == 0 && rcg_version() == built && strcmp(text, rcg_version_string()) == 0 && op.flags == RCG_INLINE);
}
C
    case $how in
        shared) libs=$(pkg-config --libs rdmacm-gluster) ;;
        static) libs=$(pkg-config --static --libs rdmacm-gluster) && libs=${libs/-lrdmacm-gluster/-l:librdmacm-gluster.a} ;;
    esac
    # shellcheck disable=SC2046,SC2086
    "$CC" -std=c99 -Wall -Wextra -pedantic -Werror $(pkg-config --cflags rdmacm-gluster) -o "$WORK/consumer-$how" \
        "$WORK/consumer.c" $libs
    timeout 30 "$WORK/consumer-$how"
    if [[ $how == static ]]; then
        ! readelf -d "$WORK/consumer-static" | grep 'NEEDED.*rdmacm-gluster'
    fi
}

cargo_version() { sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1; }
version_agrees() { [[ $(pkg-config --modversion rdmacm-gluster) == "$(cargo_version)" ]]; }

readme_example() {
    awk '/^```c[[:space:]]*$/ { inside = 1; text = ""; next }
         inside && /^```/ { if (text ~ /int main/) { printf "%s", text; exit } inside = 0 }
         inside { text = text $0 "\n" }' README.md >"$WORK/readme.c"
    test -s "$WORK/readme.c"
    build_c "$WORK/readme" "$WORK/readme.c"
    timeout 60 "$WORK/readme"
}

# A test in a directory of its own and in bounded time.
run_test() {
    local code=0
    (cd "$WORK" && timeout --kill-after=10 $TEST_LIMIT "$@") || code=$?
    case $code in
        77) echo "check: skipped, which counts as failed" ;;
        124 | 137) echo "check: not done within $TEST_LIMIT s" ;;
    esac
    return $code
}

# All of them before the test bed starts, which runs them too.
c_programs() {
    local source
    for source in examples/*.c c-tests/*.c; do
        [[ -e $source ]] || continue
        item "$source builds" build_c "$BIN/$(basename "$source" .c)" -Ic-tests "$source"
    done
}

c_tests() {
    local source
    for source in c-tests/test_*.c; do
        item "$source" run_test "$BIN/$(basename "$source" .c)"
    done
    for source in c-tests/test_*.sh; do
        [[ -e $source ]] && item "$source" run_test "$TOP/$source" "$BIN"
    done
}

# ---- under AddressSanitizer ----

asan_rust() {
    local triple
    triple=$(rustc -vV | sed -n 's/^host: //p')
    # The compiler has the sanitizer on stable; only the flag that asks for it is not stable yet.
    LSAN_OPTIONS=suppressions=$TOP/scripts/lsan.supp:print_suppressions=0 \
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address CARGO_TARGET_DIR=$TARGET/asan \
        timeout $LONG_LIMIT "$CARGO" test --locked --target "$triple" --lib
}

# The library for C programs, with the run-time left to gcc's own.
asan_library() {
    local triple
    triple=$(rustc -vV | sed -n 's/^host: //p')
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address -Zexternal-clangrt" CARGO_TARGET_DIR=$TARGET/asan-c \
        CARGO_PROFILE_DEV_OPT_LEVEL=1 timeout $LONG_LIMIT "$CARGO" build --locked --target "$triple" --lib
    cp -f "$TARGET/asan-c/$triple/debug/librdmacm_gluster.a" "$ASAN_BIN/librdmacm-gluster-asan.a"
    nm "$ASAN_BIN/librdmacm-gluster-asan.a" 2>/dev/null | grep -c 'U __asan_report'
}

asan_build() {
    local output=$1 libs
    shift
    read -ra libs < <(sed -n 's/^Libs\.private: //p' pkgconfig/rdmacm-gluster.pc.in)
    "$CC" -O1 -g -Wall -Wextra -Werror -fsanitize=address -fno-omit-frame-pointer -Ic-tests "-I$ROOT/include" \
        -o "$output" "$@" "$ASAN_BIN/librdmacm-gluster-asan.a" "${libs[@]}" -pthread
}

asan_test() {
    ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1 TEST_LIMIT=$((TEST_LIMIT * 3)) \
        run_test "$ASAN_BIN/$1"
}

# A test of the stage itself: if an overflow in the library went unseen, a pass would say nothing.
asan_finds() {
    cat >"$WORK/overflow.c" <<'C'
#include <rdmacm_gluster.h>
#include <stdlib.h>

int main(void)
{
    rcg_engine *engine;
    /* One byte shorter than it says it is: the library reads beyond its end. */
    rcg_engine_attr *attr = calloc(1, sizeof(*attr) - 1);

    attr->size = sizeof(*attr);
    return rcg_engine_create(attr, &engine) == 1;
}
C
    asan_build "$ASAN_BIN/overflow" -Wno-error "$WORK/overflow.c"
    ! "$ASAN_BIN/overflow" >"$WORK/overflow.log" 2>&1
    cat "$WORK/overflow.log"
    grep -q 'ERROR: AddressSanitizer: heap-buffer-overflow' "$WORK/overflow.log"
}

asan_builds() {
    local name
    item "asan: the library for C" asan_library
    for name in $(sort -u c-tests/asan.list - <<<"${BED_ASAN// /$'\n'}"); do
        item "asan: c-tests/$name.c builds" asan_build "$ASAN_BIN/$name" "c-tests/$name.c"
    done
}

asan() {
    local name
    item "asan: Rust tests" asan_rust
    item "asan: finds the library's overflow" asan_finds
    item "asan: there are tests" test -s c-tests/asan.list
    for name in $(<c-tests/asan.list); do item "asan: c-tests/$name.c" asan_test "$name"; done
}

# ---- GlusterFS ----

# Its items are counted as ours.
gluster() {
    local counts
    gluster/check.sh "$ROOT" 2>&1 | tee "$WORK/gluster.log" | sed -u '/^$/d;/passed, .* failed$/d'
    counts=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$WORK/gluster.log")
    local ok=0 bad=1
    [[ -z $counts ]] || read -r ok bad <<<"$counts"
    passed=$((passed + ok))
    failed=$((failed + bad))
    ((bad == 0)) || failures+=("GlusterFS: $bad, see above")
}

# ---- in the virtual machine ----

BED_OUT=$TOP/build/testbed/out

# What the suites use: nothing of it may change while they run.
bed_builds() {
    c_programs
    asan_builds
    item "the test bed's peers build" testbed/peers/build.sh "$BIN"
    item "rcg for the test bed" cp build/rcg "$BIN/rcg"
}

# The machine is emulated and leaves processors idle, so that all else goes on beside it.
bed_starts() {
    rm -f "$BED_OUT/total"
    BED_BIN=$BIN BED_ROOT=$ROOT BED_ASAN_BIN=$ASAN_BIN setsid testbed/check.sh >"$LOGS/bed.log" 2>&1 </dev/null &
    bed=$!
    trap 'kill -TERM -- -$bed 2>/dev/null' EXIT
}

# What the suites have said since they started, and what they say until they end; their counts join ours.
bed_ends() {
    local bed_passed=0 bed_failed=1 told=()
    echo "     in the virtual machine:"
    tail --pid="$bed" -n +1 -f "$LOGS/bed.log" | sed -u '/./s/^/     /'
    wait "$bed"
    trap - EXIT
    [[ ! -s $BED_OUT/total ]] || read -r bed_passed bed_failed <"$BED_OUT/total"
    passed=$((passed + bed_passed))
    failed=$((failed + bed_failed))
    ((bed_failed == 0)) && return
    [[ ! -s $BED_OUT/failures ]] || mapfile -t told <"$BED_OUT/failures"
    failures+=("${told[@]/#/the test bed: }")
    ((${#told[@]})) || failures+=("the test bed: it did not run")
}

use_installed() { export PKG_CONFIG_PATH=$ROOT/lib/pkgconfig LD_LIBRARY_PATH=$ROOT/lib; }

kernel() {
    mkdir -p "$BIN" "$ASAN_BIN" "$WORK"
    item "make" timeout $LONG_LIMIT make --no-print-directory all
    item "make install" install_product
    use_installed
    bed_builds
    item "GlusterFS's transport for the test bed" gluster/check.sh "$ROOT" build
    bed_starts
    bed_ends
}

# ---- the rest ----

manual_is_clean() { mandoc -Tlint -Wwarning man/*.3 man/*.7 man/*.8; }

# build/ and target/ are ignored by git; anything else that changed was changed by this run.
tree_state() { git -c safe.directory='*' status --porcelain; }
tree_unchanged() {
    tree_state >"$WORK/tree.after"
    diff -u "$WORK/tree.before" "$WORK/tree.after"
}

full() {
    mkdir -p "$BIN" "$ASAN_BIN" "$WORK"
    find "$BIN" "$ASAN_BIN" "$WORK" -mindepth 1 -delete
    local git=yes
    tree_state >"$WORK/tree.before" 2>/dev/null || git=

    item "make" timeout $LONG_LIMIT make --no-print-directory all
    item "make install" install_product
    item "make install and uninstall with DESTDIR" install_and_uninstall
    item "debian/changelog" debian_changelog
    item "debian/copyright" debian_copyright
    item "Debian packages" env DPKG_DEB_COMPRESSOR_LEVEL=0 timeout $LONG_LIMIT scripts/deb.sh
    item "Debian packages installed" timeout $LONG_LIMIT scripts/deb-check.sh
    item "header alone, C99" header_alone c c99
    item "header alone, C11" header_alone c c11
    item "header alone, C++11" header_alone c++ c++11
    item "header alone, C++17" header_alone c++ c++17
    item "header's macros, C99 to C++20" header_macros
    item "map lists the header's functions" same_as_header map map_functions
    item "library exports the header's functions, versioned" same_as_header library exported_names
    item "Debian's symbols are the header's functions" same_as_header symbols debian_symbols
    item "each function has a manual page" same_as_header man manual_pages
    item "soname and hardening" soname
    item "tracepoints are those of the manual" tracepoints

    use_installed
    item "pkg-config knows the version" version_agrees
    item "C program, shared" consumer shared
    item "C program, static" consumer static
    item "README's example" readme_example
    bed_builds
    gluster
    bed_starts
    quick
    item "native libraries are those of Libs.private" native_libraries
    item "bindings by libclang 19" newer_libclang
    item "numbers of rdma_cm are those of the C headers" numbers_of_rdma_cm
    c_tests
    asan
    item "manual pages lint" manual_is_clean
    item "make demo" timeout $LONG_LIMIT make --no-print-directory demo
    bed_ends
    item "make bench-own" timeout $LONG_LIMIT make --no-print-directory bench-own
    cat "$LOGS"/*-make-bench-own.log
    if [[ $git ]]; then
        item "the run left the tree as it was" tree_unchanged
    else
        echo "     (not a git checkout: whether the tree stayed as it was is not checked)"
    fi
}

mkdir -p "$LOGS"
rm -f "$LOGS"/*.log
case ${1:-} in
    quick | full | kernel) "$1" ;;
    *)
        echo "usage: check.sh quick|full|kernel" >&2
        exit 2
        ;;
esac
finish
