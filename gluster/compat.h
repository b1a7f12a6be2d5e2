/* What differs between releases of GlusterFS, and what its headers need that only its own config.h says.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#ifndef RDMA_COMPAT_H
#define RDMA_COMPAT_H

/* Without these its headers compile, but to other structs than those of the installed libraries. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#define GF_LINUX_HOST_OS 1
#define HAVE_ATOMIC_BUILTINS 1
#define HAVE_SYNC_BUILTINS 1
#define HAVE_STATIC_ASSERT 1
#define HAVE_STRNLEN 1
#define HAVE_LLISTXATTR 1
#define HAVE_ARGP 1
#define HAVE_STRUCT_STAT_ST_ATIM_TV_NSEC 1
#define SIZEOF_LONG 8

#include <glusterfs/xlator.h>

#include <glusterfs/byte-order.h>
#include <glusterfs/glfs-message-id.h>
#include <glusterfs/iobuf.h>
#include <glusterfs/options.h>
#include <glusterfs/statedump.h>

#include <rpc-transport.h>

/* A header of one release with the libraries of another is found here, not in a brick. RDMA_GLUSTERFS is the release that the
 * Makefile has found, 10 or 11. */
_Static_assert(sizeof(gf_atomic_t) == 8, "config.h of GlusterFS");
#if RDMA_GLUSTERFS == 10 && defined(__x86_64__)
_Static_assert(sizeof(struct rpc_transport) == 1272, "rpc-transport.h is that of GlusterFS 10");
_Static_assert(sizeof(struct rpc_transport_pollin) == 312, "rpc-transport.h is that of GlusterFS 10");
_Static_assert(sizeof(struct rpc_transport_req) == 88, "rpc-transport.h is that of GlusterFS 10");
_Static_assert(sizeof(struct rpc_transport_reply) == 56, "rpc-transport.h is that of GlusterFS 10");
_Static_assert(sizeof(struct iobuf) == 96, "iobuf.h is that of GlusterFS 10");
_Static_assert(sizeof(struct iobref) == 64, "iobuf.h is that of GlusterFS 10");
#elif RDMA_GLUSTERFS == 11 && defined(__x86_64__)
_Static_assert(sizeof(struct rpc_transport) == 1280, "rpc-transport.h is that of GlusterFS 11");
_Static_assert(sizeof(struct rpc_transport_pollin) == 304, "rpc-transport.h is that of GlusterFS 11");
_Static_assert(sizeof(struct rpc_transport_req) == 80, "rpc-transport.h is that of GlusterFS 11");
_Static_assert(sizeof(struct rpc_transport_reply) == 56, "rpc-transport.h is that of GlusterFS 11");
_Static_assert(sizeof(struct iobuf) == 88, "iobuf.h is that of GlusterFS 11");
_Static_assert(sizeof(struct iobref) == 64, "iobuf.h is that of GlusterFS 11");
#elif RDMA_GLUSTERFS != 10 && RDMA_GLUSTERFS != 11
#error "not tried with this release of GlusterFS: look at what its rpc-transport.h has changed"
#endif
_Static_assert(sizeof(struct rpc_transport_ops) == 10 * sizeof(void *), "rpc-transport.h has other operations");

#endif
