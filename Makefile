# librdmacm-gluster: cargo compiles, this file links, installs and checks.
# For packagers: make; make install DESTDIR= PREFIX= LIBDIR= INCLUDEDIR= MANDIR= BINDIR= UNITDIR= TMPFILESDIR=
#   COMPLETIONSDIR=
# GlusterFS's transport: make gluster; make install-gluster, the same and GLUSTER_TRANSPORTDIR=

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
BINDIR ?= $(PREFIX)/bin
UNITDIR ?= $(PREFIX)/lib/systemd/system
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
COMPLETIONSDIR ?= $(PREFIX)/share/bash-completion/completions
DESTDIR ?=

CARGO ?= cargo
CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
INSTALL ?= install

# The version has one source. The soname carries the major number only.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOVERSION := $(firstword $(subst ., ,$(VERSION)))
# What Rust's standard library needs; scripts/check.sh compares it with what rustc says.
NATIVE_LIBS := $(shell sed -n 's/^Libs\.private: //p' pkgconfig/rdmacm-gluster.pc.in)

ARCHIVE := $(CARGO_TARGET_DIR)/release/librdmacm_gluster.a
MAP := abi/librdmacm-gluster.map
NAME := librdmacm-gluster
SONAME := $(NAME).so.$(SOVERSION)
SHARED := $(NAME).so.$(VERSION)
MAN3 := $(wildcard man/*.3)
MAN7 := $(wildcard man/*.7)
MAN8 := $(wildcard man/*.8)

# The installed GlusterFS, whose version is that of its API without the API's own number: 7.10.3.
GLUSTER_VERSION = $(shell pkg-config --modversion glusterfs-api | sed 's/^[0-9]*\.//')
GLUSTER_TRANSPORTDIR ?= $(shell pkg-config --variable=libdir glusterfs-api)/glusterfs/$(GLUSTER_VERSION)/rpc-transport
GLUSTER_INCLUDES = -isystem $(GLUSTER_INCLUDEDIR) -isystem $(GLUSTER_INCLUDEDIR)/rpc $(shell pkg-config --cflags glusterfs-api libtirpc)
GLUSTER_INCLUDEDIR = $(shell pkg-config --variable=includedir glusterfs-api)/glusterfs
# Where the system's linker does not look by itself, the transport says where the library is.
GLUSTER_RPATH = $(if $(filter /usr/lib%,$(LIBDIR)),,-Wl,-rpath,$(LIBDIR))

# Of `make bench`: --short, for a look.
BENCH_FLAGS ?= --write

.PHONY: all bench bench-own deb demo gluster install-gluster uninstall-gluster check check-quick check-kernel install uninstall header clean setup setup-bench setup-check setup-kernel FORCE

all: build/$(SHARED) build/$(SONAME) build/$(NAME).so build/$(NAME).a build/rcg build/rcg.bash

# Without cargo (sudo make install) what was built before is taken. +: cargo shares make's jobs. $(1): which part.
define cargo_build
	+@if command -v $(CARGO) >/dev/null 2>&1; then \
		$(CARGO) build --release --locked $(1); \
	elif [ ! -f $@ ]; then \
		echo "no $(CARGO) in PATH and nothing built yet" >&2; exit 1; \
	fi
endef

$(ARCHIVE): FORCE
	$(call cargo_build,--lib)

# The administrator's command.
$(CARGO_TARGET_DIR)/release/rcg: FORCE | $(ARCHIVE)
	$(call cargo_build,-p rcg)

build/rcg: $(CARGO_TARGET_DIR)/release/rcg | build
	cp -f $< $@

build/rcg.bash: build/rcg
	build/rcg completion bash > $@

build:
	mkdir -p $@

# rustc would hand the linker a version script of its own, so the shared library is linked here.
build/$(SHARED): $(ARCHIVE) $(MAP) Makefile pkgconfig/rdmacm-gluster.pc.in | build
	$(CC) -shared -o $@ $(LDFLAGS) \
		-Wl,-soname,$(SONAME) -Wl,--version-script=$(MAP) -Wl,--gc-sections \
		-Wl,-z,defs -Wl,-z,relro -Wl,-z,now \
		-Wl,--whole-archive $(ARCHIVE) -Wl,--no-whole-archive -Wl,--as-needed $(NATIVE_LIBS)

build/$(SONAME): build/$(SHARED)
	ln -sf $(SHARED) $@

build/$(NAME).so: build/$(SONAME)
	ln -sf $(SONAME) $@

build/$(NAME).a: $(ARCHIVE) | build
	cp -f $< $@

install: all
	$(INSTALL) -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(MANDIR)/man3 $(DESTDIR)$(MANDIR)/man7
	$(INSTALL) -m 755 build/$(SHARED) $(DESTDIR)$(LIBDIR)/$(SHARED)
	ln -sf $(SHARED) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/$(NAME).so
	$(INSTALL) -m 644 build/$(NAME).a $(DESTDIR)$(LIBDIR)/$(NAME).a
	$(INSTALL) -m 644 include/rdmacm_gluster.h $(DESTDIR)$(INCLUDEDIR)/rdmacm_gluster.h
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
		-e 's|@VERSION@|$(VERSION)|' pkgconfig/rdmacm-gluster.pc.in \
		> $(DESTDIR)$(LIBDIR)/pkgconfig/rdmacm-gluster.pc
	chmod 644 $(DESTDIR)$(LIBDIR)/pkgconfig/rdmacm-gluster.pc
	$(if $(MAN3),$(INSTALL) -m 644 $(MAN3) $(DESTDIR)$(MANDIR)/man3)
	$(if $(MAN7),$(INSTALL) -m 644 $(MAN7) $(DESTDIR)$(MANDIR)/man7)
	$(INSTALL) -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man8 $(DESTDIR)$(UNITDIR) $(DESTDIR)$(TMPFILESDIR) $(DESTDIR)$(COMPLETIONSDIR)
	$(INSTALL) -m 755 build/rcg $(DESTDIR)$(BINDIR)/rcg
	$(INSTALL) -m 644 $(MAN8) $(DESTDIR)$(MANDIR)/man8
	sed -e 's|@BINDIR@|$(BINDIR)|' tools/rcg-rpc-proxy@.service > $(DESTDIR)$(UNITDIR)/rcg-rpc-proxy@.service
	chmod 644 $(DESTDIR)$(UNITDIR)/rcg-rpc-proxy@.service
	$(INSTALL) -m 644 tools/rcg.tmpfiles.conf $(DESTDIR)$(TMPFILESDIR)/rcg.conf
	$(INSTALL) -m 644 build/rcg.bash $(DESTDIR)$(COMPLETIONSDIR)/rcg

# One release of GlusterFS loads it. It stays loaded: its threads do.
build/rdma.so: $(wildcard gluster/*.c gluster/*.h) gluster/rdma.map build/$(NAME).so Makefile FORCE
	$(CC) -shared -fPIC -O2 -g -Wall -Wextra -Werror -o $@ $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) \
		-DRDMA_GLUSTERFS=$(firstword $(subst ., ,$(GLUSTER_VERSION))) -Iinclude $(GLUSTER_INCLUDES) \
		$(wildcard gluster/*.c) -Wl,--version-script=gluster/rdma.map \
		-Wl,-z,defs -Wl,-z,relro -Wl,-z,now -Wl,-z,nodelete $(GLUSTER_RPATH) -Lbuild -lrdmacm-gluster -lgfrpc -lglusterfs

gluster: build/rdma.so

install-gluster: gluster
	$(INSTALL) -d $(DESTDIR)$(GLUSTER_TRANSPORTDIR) $(DESTDIR)$(UNITDIR)/glusterd.service.d
	$(INSTALL) -m 755 build/rdma.so $(DESTDIR)$(GLUSTER_TRANSPORTDIR)/rdma.so
	$(INSTALL) -m 644 gluster/memlock.conf $(DESTDIR)$(UNITDIR)/glusterd.service.d/rdma.conf

uninstall-gluster:
	rm -f $(DESTDIR)$(GLUSTER_TRANSPORTDIR)/rdma.so $(DESTDIR)$(UNITDIR)/glusterd.service.d/rdma.conf
	-rmdir $(DESTDIR)$(UNITDIR)/glusterd.service.d

uninstall:
	rm -f $(DESTDIR)$(BINDIR)/rcg $(DESTDIR)$(UNITDIR)/rcg-rpc-proxy@.service $(DESTDIR)$(TMPFILESDIR)/rcg.conf $(DESTDIR)$(COMPLETIONSDIR)/rcg
	rm -f $(addprefix $(DESTDIR)$(MANDIR)/man8/,$(notdir $(MAN8)))
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,$(SHARED) $(SONAME) $(NAME).so $(NAME).a pkgconfig/rdmacm-gluster.pc)
	rm -f $(DESTDIR)$(INCLUDEDIR)/rdmacm_gluster.h
	$(if $(MAN3),rm -f $(addprefix $(DESTDIR)$(MANDIR)/man3/,$(notdir $(MAN3))))
	$(if $(MAN7),rm -f $(addprefix $(DESTDIR)$(MANDIR)/man7/,$(notdir $(MAN7))))

# Brings include/rdmacm_gluster.h up to date with src/capi.
header:
	UPDATE_HEADER=1 $(CARGO) test --locked --test header

# Debian packages, in build/deb.
deb: all
	@scripts/deb.sh lint

setup:
	@scripts/setup.sh

demo: setup
	@scripts/demo.sh

setup-check:
	@scripts/setup.sh check

setup-bench:
	@scripts/setup.sh bench

# The virtual machine's parts: Debian's kernel, siw, virtme-ng.
setup-kernel: setup
	@testbed/setup.sh

check: setup-check setup-kernel
	@scripts/check.sh full

# Of the checks, those that want a kernel with RDMA.
check-kernel: setup-kernel
	@scripts/check.sh kernel

check-quick:
	@scripts/check.sh quick

# The peers side by side with the library: quarter of an hour, of a machine with nothing else to do, for doc/performance.md.
BENCH_OWN := build/bench/tcp build/bench/ours build/bench/idle
$(BENCH_OWN) build/bench/fabric: build/bench/%: benches/%.c $(wildcard benches/*.h) build/$(NAME).so
	mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -Wall -Wextra -Werror -Iinclude -o $@ $< -Lbuild -Wl,--as-needed -lrdmacm-gluster \
		-Wl,-rpath,$(CURDIR)/build -pthread $(if $(findstring fabric,$@),-lfabric)

bench: setup-bench $(if $(findstring --short,$(BENCH_FLAGS)),,setup-kernel) $(BENCH_OWN) build/bench/fabric
	@benches/run.py $(BENCH_FLAGS) build/bench
	@$(if $(findstring --short,$(BENCH_FLAGS)),:,benches/bed.py $(BENCH_FLAGS) build/bench)

bench-own: $(BENCH_OWN)
	@benches/run.py --short --own build/bench

clean:
	rm -rf build
	$(CARGO) clean
