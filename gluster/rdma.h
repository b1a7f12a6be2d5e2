/* The transport "rdma" of GlusterFS on top of librdmacm-gluster's RPC-over-RDMA.
 *
 * A transport has at most one link, that is a connection of the library's with what belongs to it. The library's channels
 * call `link_events` on their threads, and all that GlusterFS hears of it hears it from there: nothing is told from within an
 * operation, as those are called with locks held that whoever is told wants. `rdma_private.lock` is never held while somebody
 * is told.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#ifndef RDMA_H
#define RDMA_H

#include "compat.h"
#include "messages.h"

#include <rdmacm_gluster.h>

#define RDMA_PORT 24008
#define RDMA_MAX_CHANNELS 16
/* Addresses of one peer. */
#define RDMA_MAX_ADDRESSES 16
/* Octets that a call may have in chunks. */
#define RDMA_MAX_PAYLOAD (64u << 20)

/* ---- options.c ---- */

struct rdma_options {
    uint32_t provider;
    uint32_t credits;
    uint32_t inline_size;
    uint32_t channels;
    uint32_t keepalive_ms;
    uint32_t timeout_ms;
    uint32_t backlog;
};

/* Where the peer is: addresses that take the place of the name. */
struct rdma_addresses {
    size_t count;
    struct sockaddr_storage address[RDMA_MAX_ADDRESSES];
};

void rdma_options_read(rpc_transport_t *this, struct rdma_options *out);
/* 0, or -EINVAL and told why. None where the option is not there. */
int rdma_option_addresses(rpc_transport_t *this, struct rdma_addresses *out);
/* The port under `key`, or `standard`. */
int rdma_option_port(rpc_transport_t *this, const char *key, int standard);
const char *rdma_option_text(rpc_transport_t *this, const char *key);

/* ---- engine.c ---- */

/* The engine of the process, made when it is first needed and never ended. 0 or a negative errno. */
int rdma_engine(rcg_engine **engine);
/* One of the first `channels` channels, in turn. */
int rdma_channel(uint32_t channels, rcg_channel **channel);
/* All of them. */
int rdma_channels(uint32_t channels, rcg_channel **list);
/* Why the last call of this thread to the library failed. */
const char *rdma_why(void);

/* ---- memory.c ---- */

#define RDMA_SIZES 4

/* Buffers by size. Those that a peer can reach are the link's own, as it can do so for as long as the link lives. */
struct rdma_pool {
    rcg_arena *arena[RDMA_SIZES];
};

extern struct rdma_pool rdma_shared_pool;
/* All its buffers have been put back. */
void rdma_pool_end(struct rdma_pool *pool);

/* Registered memory: a buffer of ours, or a caller's that is registered for the time being. */
struct rdma_memory {
    rcg_sge sge;
    rcg_arena *arena;
    void *heap;
};

/* At least `length` octets, of the pool, or of the heap where there is none. */
int rdma_memory_get(struct rdma_memory *memory, struct rdma_pool *pool, size_t length);
/* Memory of the caller's, with RCG_* rights. */
int rdma_memory_wrap(struct rdma_memory *memory, void *base, size_t length, uint32_t access);
/* Ours or the caller's as is best on a provider, filled from `vector`: *held says whether it is the caller's. */
int rdma_memory_of(struct rdma_memory *memory, struct rdma_pool *pool, const struct iovec *vector, int count,
                   uint32_t provider, bool *held);
void rdma_memory_put(struct rdma_memory *memory);
bool rdma_memory_registers(uint32_t provider, size_t length);

/* ---- link.c ---- */

/* What the library's events name: `is_door` is the first member of both. */
struct rdma_door;

struct rdma_link {
    bool is_door;
    rpc_transport_t *trans; /* one reference */
    rcg_conn *conn;
    struct rdma_door *door; /* through which the peer came; NULL: we have connected, that is, we call */
    bool up;           /* between CONNECT or ACCEPT and DISCONNECT */
    uint32_t provider; /* that is in use */
    uint32_t inline_send, inline_recv;
    struct rdma_pool pool;
    uint32_t calls;           /* of ours that the library has, callbacks aside */
    struct list_head all;     /* links of the process */
    struct list_head waiting; /* calls of ours that the library has no room for */
    struct list_head held;    /* calls of the peer's while it is throttled */
};

struct rdma_private {
    pthread_mutex_t lock;
    struct rdma_options options;
    struct rdma_link *link;
    struct rdma_door *door;
    bool throttled;
    int untold; /* DISCONNECTs that are still to be told, or being told */
    int32_t failure; /* of the last connect, so that each is logged once */
};

/* A thread that tells what an operation can't. False: there is none. */
bool rdma_later(rpc_transport_t *this, void *(*task)(void *));

void link_events(rcg_channel *channel, const rcg_event *events, size_t n, void *arg);
int32_t rdma_connect(rpc_transport_t *this, int port);
int32_t rdma_disconnect(rpc_transport_t *this, gf_boolean_t wait);
/* Attributes of RPC for both sides. */
rcg_rpc_attr rdma_rpc_attr(const struct rdma_options *options);
struct rdma_link *link_new(rpc_transport_t *trans, struct rdma_door *door);
void link_free(struct rdma_link *link);

/* ---- listen.c ---- */

int32_t rdma_listen(rpc_transport_t *this);
/* Stops listening. Whether it did listen. */
bool door_close(struct rdma_private *priv);
/* A peer asks for a connection; it is established. */
void door_request(const rcg_event *ev);
int door_opened(struct rdma_link *link);

/* ---- calls.c, replies.c ---- */

int32_t rdma_submit_request(rpc_transport_t *this, rpc_transport_req_t *req);
int32_t rdma_submit_reply(rpc_transport_t *this, rpc_transport_reply_t *reply);
int32_t rdma_throttle(rpc_transport_t *this, gf_boolean_t onoff);
/* Events of a link. */
void calls_reply(struct rdma_link *link, const rcg_event *ev);
void calls_end(struct rdma_link *link);
void replies_call(struct rdma_link *link, const rcg_event *ev);
void replies_answered(const rcg_event *ev);
void replies_end(struct rdma_link *link);

/* A message for GlusterFS: `length` octets of `data`, copied, and behind them `payload`, if it is not empty. NULL: no memory. */
rpc_transport_pollin_t *message_new(rpc_transport_t *this, const void *data, size_t length, struct iobref *iobref,
                                    struct iovec payload, void *cookie);
/* Tells it, and ends it. */
void message_tell(rpc_transport_t *this, rpc_transport_pollin_t *message);

/* ---- dump.c ---- */

/* A link has come or is going. */
void dump_link(struct rdma_link *link, bool alive);
/* Has a translator's statedump tell of its links. */
void dump_attach(xlator_t *xl);

/* ---- names.c ---- */

/* Addresses and identifiers of both ends. */
void names_of_conn(rpc_transport_t *this, rcg_conn *conn);
void names_of_listener(rpc_transport_t *this, const struct sockaddr_storage *local);
int32_t rdma_peername(rpc_transport_t *this, char *name, int length);
int32_t rdma_peeraddr(rpc_transport_t *this, char *name, int length, struct sockaddr_storage *sa, socklen_t size);
int32_t rdma_myname(rpc_transport_t *this, char *name, int length);
int32_t rdma_myaddr(rpc_transport_t *this, char *name, int length, struct sockaddr_storage *sa, socklen_t size);

#endif
