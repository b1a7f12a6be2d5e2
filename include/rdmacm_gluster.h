/*
 * rdmacm_gluster.h - RDMA for C storage servers, on RDMA devices or plain TCP
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later
 *
 * Generated from src/capi by cbindgen; `make header` brings it up to date.
 * Overview: librdmacm-gluster(7). One manual page per function in section 3.
 */

#ifndef RDMACM_GLUSTER_H
#define RDMACM_GLUSTER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

/* The version this header belongs to; rcg_version() tells the library's. */
#define RCG_VERSION_MAJOR 0
#define RCG_VERSION_MINOR 1
#define RCG_VERSION_PATCH 0

/**
 * Value of `spin_us`: sleep at once, never spin.
 */
#define RCG_SPIN_NEVER 4294967295

/**
 * Reject reason: none given.
 */
#define RCG_REJECT_UNSPECIFIED 0

/**
 * Reject reason: the peer speaks of something that is no more.
 */
#define RCG_REJECT_STALE 1

/**
 * Reject reason: no room for one more.
 */
#define RCG_REJECT_FULL 2

/**
 * Reject reason: the versions do not fit.
 */
#define RCG_REJECT_VERSION 3

/**
 * Reject reason: not permitted.
 */
#define RCG_REJECT_AUTH 4

/**
 * Reject reason: the private data say more.
 */
#define RCG_REJECT_APP 5

/**
 * State: on the way to the peer.
 */
#define RCG_STATE_CONNECTING 1

/**
 * State: the peer's request waits for rcg_accept() or rcg_reject().
 */
#define RCG_STATE_REQUESTED 2

/**
 * State: accepted, not yet established.
 */
#define RCG_STATE_ACCEPTING 3

/**
 * State: operations run.
 */
#define RCG_STATE_ESTABLISHED 4

/**
 * State: it is ending.
 */
#define RCG_STATE_DISCONNECTING 5

/**
 * State: it has ended.
 */
#define RCG_STATE_CLOSED 6

/**
 * Capability: RCG_SEND_IMM and RCG_WRITE_IMM. Not over iWARP devices; with provider iwarp to peers of this library.
 */
#define RCG_CAP_IMMEDIATE 1

/**
 * Capability: RCG_SEND_INV. Not over soft iWARP devices of the kernel.
 */
#define RCG_CAP_INVALIDATE 2

/**
 * CRC of iWARP frames: not needed on loopback, wanted elsewhere; the peer's wish is followed.
 */
#define RCG_CRC_AUTO 0

/**
 * CRC of iWARP frames: always.
 */
#define RCG_CRC_ON 1

/**
 * CRC of iWARP frames: only if the peer insists.
 */
#define RCG_CRC_OFF 2

/**
 * Connection flag: a message for which no receive is posted ends the connection with a Terminate; without the flag it
 * waits, and so does the peer.
 */
#define RCG_CONN_STRICT_RECV 1

/**
 * Connection flag: private data goes out exactly as given; without the flag the library adds a tag by which it
 * recognises itself, and which no application sees.
 */
#define RCG_CONN_RAW_PRIVATE_DATA 2

/**
 * Provider: whichever can reach the peer.
 */
#define RCG_PROVIDER_AUTO 0

/**
 * Provider: rdma_cm and verbs on an RDMA device.
 */
#define RCG_PROVIDER_VERBS 1

/**
 * Provider: iWARP in user space over TCP; needs no device.
 */
#define RCG_PROVIDER_IWARP 2

/**
 * Log level: something failed that the caller may not see otherwise.
 */
#define RCG_LOG_ERROR 1

/**
 * Log level: something that the administrator should know.
 */
#define RCG_LOG_WARN 2

/**
 * Log level: connections come and go.
 */
#define RCG_LOG_INFO 3

/**
 * Log level: everything.
 */
#define RCG_LOG_DEBUG 4

/**
 * Engine flag: a statistics socket, from which the administrator's command `rcg dump` reads. In the directory that
 * RCG_STATS_DIR in the environment names, which asks for it without the flag, too; else in /run/rcg or, where not root
 * runs the program, in $XDG_RUNTIME_DIR/rcg. Where it can't be made there is none, and no error: the log tells why, by
 * RCG_LOG_INFO where the directory is missing, else by RCG_LOG_WARN.
 */
#define RCG_ENGINE_STATS_SOCKET 1

/**
 * Stage: not about a connection.
 */
#define RCG_STAGE_NONE 0

/**
 * Stage: names and addresses.
 */
#define RCG_STAGE_ADDRESS 1

/**
 * Stage: the path to the peer.
 */
#define RCG_STAGE_ROUTE 2

/**
 * Stage: the device, or the socket that stands for it.
 */
#define RCG_STAGE_DEVICE 3

/**
 * Stage: the queue pair is made.
 */
#define RCG_STAGE_QUEUE_PAIR 4

/**
 * Stage: the connection managers talk (rdma_connect(3), or the MPA request and reply).
 */
#define RCG_STAGE_HANDSHAKE 5

/**
 * Stage: ready to receive.
 */
#define RCG_STAGE_READY 6

/**
 * Stage: an established connection.
 */
#define RCG_STAGE_CONNECTED 7

/**
 * Number of stages.
 */
#define RCG_STAGE_COUNT 8

/**
 * Reason: no failure.
 */
#define RCG_REASON_NONE 0

/**
 * Reason: a name or address could not be resolved.
 */
#define RCG_REASON_RESOLVE 1

/**
 * Reason: nothing listens there.
 */
#define RCG_REASON_REFUSED 2

/**
 * Reason: no path to the peer.
 */
#define RCG_REASON_UNREACHABLE 3

/**
 * Reason: a deadline passed.
 */
#define RCG_REASON_TIMEOUT 4

/**
 * Reason: the peer's application said no; `provider_code` is its `RCG_REJECT_*`.
 */
#define RCG_REASON_REJECTED 5

/**
 * Reason: the peer broke the protocol.
 */
#define RCG_REASON_PROTOCOL 6

/**
 * Reason: descriptors, memory or another limit of this machine.
 */
#define RCG_REASON_RESOURCES 7

/**
 * Reason: not permitted on this machine.
 */
#define RCG_REASON_PERMISSION 8

/**
 * Reason: the peer closed the connection.
 */
#define RCG_REASON_PEER_CLOSED 9

/**
 * Reason: the peer, or something between, reset the connection.
 */
#define RCG_REASON_PEER_RESET 10

/**
 * Reason: the peer did not answer within the keepalive time.
 */
#define RCG_REASON_PEER_DEAD 11

/**
 * Reason: the peer sent a Terminate; `provider_code` is its control word.
 */
#define RCG_REASON_TERMINATED 12

/**
 * Reason: the peer touched memory that it may not.
 */
#define RCG_REASON_REMOTE_ACCESS 13

/**
 * Reason: the device went away.
 */
#define RCG_REASON_DEVICE_GONE 14

/**
 * Reason: closed by the caller.
 */
#define RCG_REASON_CANCELLED 15

/**
 * Reason: no provider can serve this.
 */
#define RCG_REASON_NO_PROVIDER 16

/**
 * Reason: a bad argument.
 */
#define RCG_REASON_INVALID 17

/**
 * Reason: not in this state.
 */
#define RCG_REASON_STATE 18

/**
 * Reason: a bug of the library's.
 */
#define RCG_REASON_INTERNAL 19

/**
 * Event: a peer asks for a connection. `conn` is new; answer by rcg_accept() or rcg_reject(). `listener`,
 * `private_data` and `peer` are set.
 */
#define RCG_EVENT_CONNECT_REQUEST 1

/**
 * Event: both sides can post. `private_data` is what the peer's accept carried.
 */
#define RCG_EVENT_ESTABLISHED 2

/**
 * Event: the connection did not come about. `status` and `error` say why, `private_data` is what a reject carried.
 */
#define RCG_EVENT_CONNECT_FAILED 3

/**
 * Event: an established connection ended. `status` and `error` say why: -ECANCELED this side asked for it, -ESHUTDOWN
 * the peer did, others are failures.
 */
#define RCG_EVENT_DISCONNECTED 4

/**
 * Event: the last of a connection or, where `conn` is NULL, of a listener: when the callback returns, or at the next
 * rcg_channel_next(), the handle is gone.
 */
#define RCG_EVENT_CLOSED 5

/**
 * Event: an operation is finished. `op`, `user`, `status` and `length` are set. Operations without RCG_SIGNALED have
 * one only when they fail.
 */
#define RCG_EVENT_COMPLETION 6

/**
 * Event: a message has arrived, or a receive was flushed. `data`, `length`, `user` and the flags are set.
 */
#define RCG_EVENT_RECV 7

/**
 * Event: the peer of a connection for RPC calls. `data` is the RPC message less what was taken out of it, which `rpc` tells.
 * To be answered by rcg_rpc_reply() or rcg_rpc_refuse(). `data`, `rpc` and what that points to are lent until the call is
 * answered or, if it never is, until RCG_EVENT_CLOSED.
 */
#define RCG_EVENT_RPC_CALL 8

/**
 * Event: a call is over: `user`, `status`, and with status 0 `data`, the reply, and `rpc`, how much of each result was
 * placed. `data` is the event's or, where it came in the reply chunk, the call's own memory.
 */
#define RCG_EVENT_RPC_REPLY 9

/**
 * Event: a reply is out, `user` says which. Its payloads' memory is the caller's again. `status` is not 0 where the
 * connection ended first.
 */
#define RCG_EVENT_RPC_ANSWERED 10

/**
 * Event flag: `imm` is set.
 */
#define RCG_EVENT_WITH_IMM 1

/**
 * Event flag: the peer has invalidated `invalidated_key`.
 */
#define RCG_EVENT_INVALIDATED 2

/**
 * Event flag: the sender asked for attention.
 */
#define RCG_EVENT_SOLICITED 4

/**
 * Event flag: `data` is a buffer of the library's, to be given back by rcg_recv_release().
 */
#define RCG_EVENT_LENT 8

/**
 * Access: operations of this side.
 */
#define RCG_LOCAL 1

/**
 * Access: a peer that has a key may read.
 */
#define RCG_REMOTE_READ 2

/**
 * Access: a peer that has a key may write.
 */
#define RCG_REMOTE_WRITE 4

/**
 * Operation: Send.
 */
#define RCG_SEND 1

/**
 * Operation: Send with four octets of immediate data.
 */
#define RCG_SEND_IMM 2

/**
 * Operation: Send that invalidates a key of the peer's.
 */
#define RCG_SEND_INV 3

/**
 * Operation: RDMA Write.
 */
#define RCG_WRITE 4

/**
 * Operation: RDMA Write, then four octets of immediate data that use up a receive of the peer's.
 */
#define RCG_WRITE_IMM 5

/**
 * Operation: RDMA Read.
 */
#define RCG_READ 6

/**
 * Operation: a receive; only in events.
 */
#define RCG_RECV 7

/**
 * Operation flag: a completion is wanted; without it only a failure has one.
 */
#define RCG_SIGNALED 1

/**
 * Operation flag: begins only when all earlier RDMA Reads of the connection are finished.
 */
#define RCG_FENCE 2

/**
 * Operation flag: the payload, at most `max_inline` octets, is copied before rcg_post() returns; `mr` may be NULL.
 */
#define RCG_INLINE 4

/**
 * Operation flag: asks for the receiver's attention.
 */
#define RCG_SOLICITED 8

/**
 * RPC flag: no private data, neither sent nor looked at: messages of 1024 octets in both directions, as before RFC 8797.
 */
#define RCG_RPC_NO_PRIVATE_DATA 1

/**
 * RPC flag: the peer speaks GlusterFS's dialect, versions 3.4 to 7. A peer that calls is recognised by its calls.
 */
#define RCG_RPC_GLUSTERFS 2

/**
 * RPC flag: payloads are octets, not XDR: no pad follows them, and messages may end anywhere, as in GlusterFS's programs.
 */
#define RCG_RPC_NO_PADS 4

/**
 * RPC flag: a peer that says nothing in private data speaks GlusterFS's dialect.
 */
#define RCG_RPC_GLUSTERFS_IF_SILENT 8

/**
 * RPC flag: a key that a call gives to memory of an arena is one to all that was allocated with it, and lives as long as the
 * connection: on devices a registration less for each call. The peer can reach that memory until then.
 */
#define RCG_RPC_STANDING_KEYS 16

/**
 * RPC flag: RCG_EVENT_RPC_ANSWERED comes with the connection's next event, whenever that is, so that no thread is woken for
 * it. For servers that want their memory back, but not at once.
 */
#define RCG_RPC_ANSWERED_LATER 32

/**
 * A pool of buffers that come registered. Pointers to it are handles, never to be dereferenced.
 */
typedef struct rcg_arena rcg_arena;

/**
 * One event channel: one thread, unless it is manual, and the connections that it serves. Pointers to it are handles,
 * never to be dereferenced.
 */
typedef struct rcg_channel rcg_channel;

/**
 * A connection. Pointers to it are handles, never to be dereferenced; they are valid until RCG_EVENT_CLOSED.
 */
typedef struct rcg_conn rcg_conn;

/**
 * The library, opened once or more by a program: one protection domain, its memory and its channels. Pointers to it
 * are handles, never to be dereferenced.
 */
typedef struct rcg_engine rcg_engine;

/**
 * A listener. Pointers to it are handles, never to be dereferenced.
 */
typedef struct rcg_listener rcg_listener;

/**
 * A registered region of the caller's memory. Pointers to it are handles, never to be dereferenced.
 */
typedef struct rcg_mr rcg_mr;

/**
 * Everything known about a failure, in the layout of `rcg_error`.
 */
typedef struct rcg_error {
    /**
     * `sizeof(rcg_error)` of whoever made it.
     */
    size_t size;
    /**
     * Negative errno.
     */
    int32_t code;
    /**
     * `RCG_STAGE_*`: how far it had come.
     */
    uint32_t stage;
    /**
     * `RCG_REASON_*`: why, as a stable number.
     */
    uint32_t reason;
    /**
     * `RCG_PROVIDER_*`: the provider that was used.
     */
    uint32_t provider;
    /**
     * Reject reason, Terminate control word or rdma_cm status; 0 = none.
     */
    int32_t provider_code;
    /**
     * Milliseconds since the beginning.
     */
    uint32_t elapsed_ms;
    /**
     * Our address, as text; empty = unknown.
     */
    char local[64];
    /**
     * The peer's address, as text; empty = unknown.
     */
    char peer[64];
    /**
     * The device, as text; empty = none.
     */
    char device[32];
    /**
     * The whole message, for people.
     */
    char text[512];
    /**
     * What to do about it; empty = nothing known.
     */
    char remedy[256];
} rcg_error;

/**
 * A part of a message that has been taken out of it.
 */
typedef struct rcg_rpc_piece {
    /**
     * First octet, or NULL: of a result it is the caller's memory.
     */
    void *addr;
    /**
     * Octets; may or may not include XDR's pad.
     */
    size_t length;
    /**
     * Where in `data` it belongs; 0 for results.
     */
    size_t at;
} rcg_rpc_piece;

/**
 * What an event about an RPC message says besides.
 */
typedef struct rcg_rpc_msg {
    /**
     * `sizeof(rcg_rpc_msg)` of whoever made it.
     */
    size_t size;
    /**
     * Names the call to rcg_rpc_reply() and rcg_rpc_refuse(); 0 = none.
     */
    uint64_t call;
    /**
     * The message's identifier.
     */
    uint32_t xid;
    /**
     * Calls that may be outstanding: of a call those that its sender asks for, of a reply those that are granted.
     */
    uint32_t credits;
    /**
     * Of a call the arguments that were taken out of `data`; of a reply how much of each result was placed.
     */
    const struct rcg_rpc_piece *pieces;
    /**
     * Number of `pieces`.
     */
    size_t npieces;
    /**
     * Of a call: octets that each result may have, in their order, to be placed directly.
     */
    const uint64_t *rooms;
    /**
     * Number of `rooms`.
     */
    size_t nrooms;
    /**
     * Of a call: octets that the reply may have without such results.
     */
    uint64_t reply_max;
} rcg_rpc_msg;

/**
 * One event. What it points to is the library's: valid during the callback, or until the next rcg_channel_next() of
 * the channel; a lent buffer until rcg_recv_release().
 */
typedef struct rcg_event {
    /**
     * `RCG_EVENT_*`.
     */
    uint32_t type;
    /**
     * The operation, RCG_SEND to RCG_RECV, of a completion.
     */
    uint32_t op;
    /**
     * 0 or a negative errno. Of operations: -ECANCELED flushed, -EACCES the peer refused key, rights or bounds,
     * -EMSGSIZE longer than the receive, -EREMOTEIO another error of the peer's, -ECONNRESET the connection broke.
     */
    int32_t status;
    /**
     * `RCG_EVENT_WITH_IMM` and so on.
     */
    uint32_t flags;
    /**
     * The connection, or NULL.
     */
    struct rcg_conn *conn;
    /**
     * The listener, or NULL.
     */
    struct rcg_listener *listener;
    /**
     * `context` of the connection or listener.
     */
    void *context;
    /**
     * `user` of the operation or receive.
     */
    void *user;
    /**
     * First octet received, or NULL.
     */
    void *data;
    /**
     * Octets received or moved.
     */
    size_t length;
    /**
     * Names the lent buffer to rcg_recv_release().
     */
    uint64_t buffer;
    /**
     * Immediate data, in host order.
     */
    uint32_t imm;
    /**
     * The key that the peer invalidated.
     */
    uint32_t invalidated_key;
    /**
     * What the peer's application sent with its connect, accept or reject, exactly; NULL = nothing.
     */
    const void *private_data;
    /**
     * Octets of `private_data`.
     */
    size_t private_data_len;
    /**
     * The peer's address, or NULL.
     */
    const struct sockaddr *peer;
    /**
     * Why it failed or ended, or NULL.
     */
    const struct rcg_error *error;
    /**
     * Of RCG_EVENT_RPC_CALL and RCG_EVENT_RPC_REPLY: what is to be said of the message besides; else NULL.
     */
    const struct rcg_rpc_msg *rpc;
    /**
     * 0.
     */
    uint64_t reserved;
} rcg_event;

/**
 * Takes a batch of `n` events, one or more, of `channel`; `arg` is what the channel's attributes said. Called on the
 * channel's thread, or within rcg_channel_run(), never twice at a time for one channel. May call all functions but
 * rcg_channel_destroy() and rcg_channel_run() of that channel; should not block.
 */
typedef void (*rcg_events_fn)(struct rcg_channel *channel, const struct rcg_event *events, size_t n, void *arg);

/**
 * Attributes of a channel. Start from RCG_CHANNEL_ATTR_INIT.
 */
typedef struct rcg_channel_attr {
    /**
     * `sizeof(rcg_channel_attr)`.
     */
    size_t size;
    /**
     * Called with the channel's events; NULL = they are fetched by rcg_channel_next().
     */
    rcg_events_fn on_events;
    /**
     * Passed to `on_events`.
     */
    void *arg;
    /**
     * 1 = the channel has no thread, the caller calls rcg_channel_run(); 0 = it has one.
     */
    uint32_t manual;
    /**
     * Microseconds that the channel spins before it sleeps; 0 = 50; at most 10000; RCG_SPIN_NEVER.
     */
    uint32_t spin_us;
    /**
     * Most events in one call of `on_events`; 0 = 64; at most 4096.
     */
    uint32_t max_batch;
    /**
     * Must be 0.
     */
    uint32_t flags;
} rcg_channel_attr;

/**
 * Attributes of an accept. Start from RCG_ACCEPT_ATTR_INIT.
 */
typedef struct rcg_accept_attr {
    /**
     * `sizeof(rcg_accept_attr)`.
     */
    size_t size;
    /**
     * The caller's, in all events of the connection from now on; NULL = the listener's.
     */
    void *context;
    /**
     * For the peer's application, which gets it with RCG_EVENT_ESTABLISHED.
     */
    const void *private_data;
    /**
     * Octets of `private_data`.
     */
    uint32_t private_data_len;
    /**
     * RDMA Reads that the peer may have outstanding; 0 = the listener's.
     */
    uint32_t ird;
    /**
     * RDMA Reads that we may have outstanding; 0 = the listener's.
     */
    uint32_t ord;
    /**
     * RCG_CONN_STRICT_RECV, RCG_CONN_RAW_PRIVATE_DATA: added to those of the listener.
     */
    uint32_t flags;
} rcg_accept_attr;

/**
 * What a connection is and has done. Start from RCG_CONN_INFO_INIT.
 */
typedef struct rcg_conn_info {
    /**
     * `sizeof(rcg_conn_info)`.
     */
    size_t size;
    /**
     * `RCG_STATE_*`.
     */
    uint32_t state;
    /**
     * `RCG_PROVIDER_*`.
     */
    uint32_t provider;
    /**
     * Our address; family AF_UNSPEC = not known yet.
     */
    struct sockaddr_storage local;
    /**
     * The peer's address; family AF_UNSPEC = not known yet.
     */
    struct sockaddr_storage peer;
    /**
     * The device, as text.
     */
    char device[32];
    /**
     * Microseconds that each stage (`RCG_STAGE_*`) took.
     */
    uint32_t stage_us[8];
    /**
     * RDMA Reads that the peer may have outstanding; 0 before it is agreed.
     */
    uint32_t ird;
    /**
     * RDMA Reads that we may have outstanding; 0 before it is agreed.
     */
    uint32_t ord;
    /**
     * 1 = iWARP frames carry a CRC.
     */
    uint32_t crc;
    /**
     * Revision of MPA in force; 0 = none.
     */
    uint32_t mpa_revision;
    /**
     * Octets of the longest iWARP frame that we send; 0 = none.
     */
    uint32_t max_fpdu;
    /**
     * 1 = the peer is this library.
     */
    uint32_t own_peer;
    /**
     * Octets of private data that fit.
     */
    uint32_t max_private_data;
    /**
     * Octets of an operation with RCG_INLINE.
     */
    uint32_t max_inline;
    /**
     * Operations that can be outstanding.
     */
    uint32_t send_depth;
    /**
     * Receives that can be posted.
     */
    uint32_t recv_depth;
    /**
     * Scatter/gather elements in one operation.
     */
    uint32_t max_sge;
    /**
     * RCG_CAP_IMMEDIATE, RCG_CAP_INVALIDATE: what only some connections can do; 0 before it is established.
     */
    uint32_t capabilities;
    /**
     * Octets sent, headers included.
     */
    uint64_t bytes_sent;
    /**
     * Octets received, headers included.
     */
    uint64_t bytes_received;
    /**
     * Operations posted.
     */
    uint64_t operations;
    /**
     * Times that a message waited for a receive.
     */
    uint64_t recv_stalls;
    /**
     * Times that the network took less than was offered.
     */
    uint64_t send_stalls;
} rcg_conn_info;

/**
 * A socket address and its length.
 */
typedef struct rcg_addr {
    /**
     * A sockaddr_in or sockaddr_in6.
     */
    const struct sockaddr *addr;
    /**
     * Its length in octets.
     */
    uint32_t length;
    /**
     * Must be 0.
     */
    uint32_t reserved;
} rcg_addr;

/**
 * Attributes of connections for RPC-over-RDMA (RFC 8166). Start from RCG_RPC_ATTR_INIT.
 */
typedef struct rcg_rpc_attr {
    /**
     * `sizeof(rcg_rpc_attr)`.
     */
    size_t size;
    /**
     * Calls outstanding at a time: for who connects those that it wants to make, for who listens those that each
     * connection may have; 1 to 1024, 0 = 64.
     */
    uint32_t credits;
    /**
     * The same for calls in the other direction (RFC 8167); 1 to 1024, 0 = 16.
     */
    uint32_t backchannel;
    /**
     * Octets of the longest message to send, 1024 to 65536; 0 = 4096. The peer's word (RFC 8797) may make it less.
     */
    uint32_t inline_send;
    /**
     * Octets of each receive, likewise.
     */
    uint32_t inline_recv;
    /**
     * Octets that a peer's call may have in chunks, to 1 GiB; 0 = 1 MiB. Of all its calls together as many are read at a time, or
     * 16 MiB where that is more; the others wait until some have been answered.
     */
    uint32_t max_payload;
    /**
     * RCG_RPC_NO_PRIVATE_DATA, RCG_RPC_GLUSTERFS, RCG_RPC_NO_PADS, RCG_RPC_GLUSTERFS_IF_SILENT, RCG_RPC_STANDING_KEYS,
     * RCG_RPC_ANSWERED_LATER.
     */
    uint32_t flags;
} rcg_rpc_attr;

/**
 * Attributes of a connect. Start from RCG_CONNECT_ATTR_INIT. Limits: see rcg_engine_limits().
 */
typedef struct rcg_connect_attr {
    /**
     * `sizeof(rcg_connect_attr)`.
     */
    size_t size;
    /**
     * The caller's, in all events of the connection.
     */
    void *context;
    /**
     * For the peer's application, which gets it with RCG_EVENT_CONNECT_REQUEST.
     */
    const void *private_data;
    /**
     * Octets of `private_data`.
     */
    uint32_t private_data_len;
    /**
     * `RCG_PROVIDER_*`; 0 = RCG_PROVIDER_AUTO.
     */
    uint32_t provider;
    /**
     * Bound on the whole connect, in milliseconds; 0 = 10000.
     */
    uint32_t timeout_ms;
    /**
     * RCG_CONN_STRICT_RECV, RCG_CONN_RAW_PRIVATE_DATA.
     */
    uint32_t flags;
    /**
     * Operations that can be outstanding; 0 = default.
     */
    uint32_t send_depth;
    /**
     * Receives that can be posted; 0 = default.
     */
    uint32_t recv_depth;
    /**
     * Octets of each receive buffer of the library's; 0 = the caller posts receives.
     */
    uint32_t recv_size;
    /**
     * Number of receive buffers of the library's; 0 = the caller posts receives.
     */
    uint32_t recv_count;
    /**
     * RDMA Reads that the peer may have outstanding; 0 = default.
     */
    uint32_t ird;
    /**
     * RDMA Reads that we may have outstanding; 0 = default.
     */
    uint32_t ord;
    /**
     * `RCG_CRC_*`; 0 = RCG_CRC_AUTO.
     */
    uint32_t crc;
    /**
     * Revision of MPA: 1 (RFC 5044) or 2 (RFC 6581); 0 = 2.
     */
    uint32_t mpa_revision;
    /**
     * A dead peer is noticed within 1.25 times this, in milliseconds; 0 = 20000. While nothing is on its way to the peer
     * the kernel's keepalive notices, which counts whole seconds, two of them at least.
     */
    uint32_t keepalive_ms;
    /**
     * Bound on rcg_conn_disconnect(), in milliseconds; 0 = 2000.
     */
    uint32_t linger_ms;
    /**
     * Octets of the longest iWARP frame to send, 128 to 65536; 0 = what suits the peer.
     */
    uint32_t max_fpdu;
    /**
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * TCP congestion control, like "bbr"; NULL = the system's.
     */
    const char *congestion;
    /**
     * Local address to connect from; its `addr` NULL = the system's choice.
     */
    struct rcg_addr local;
    /**
     * A connection for RPC-over-RDMA, whose private data and queues are the library's; NULL = not one.
     */
    const struct rcg_rpc_attr *rpc;
} rcg_connect_attr;

/**
 * Takes a message of the library's: `level` is one of `RCG_LOG_*`, `message` is valid for the call, and `arg` is
 * what the attributes said. May be called on any thread, several at once; must not call the library.
 */
typedef void (*rcg_log_fn)(void *arg, uint32_t level, const char *message);

/**
 * Attributes of an engine. Start from RCG_ENGINE_ATTR_INIT.
 */
typedef struct rcg_engine_attr {
    /**
     * `sizeof(rcg_engine_attr)`.
     */
    size_t size;
    /**
     * Where messages go; NULL = nowhere, the library prints nothing.
     */
    rcg_log_fn log;
    /**
     * Passed to `log`.
     */
    void *log_arg;
    /**
     * The least grave messages wanted, `RCG_LOG_*`; 0 = RCG_LOG_WARN.
     */
    uint32_t log_level;
    /**
     * RCG_ENGINE_STATS_SOCKET, or 0.
     */
    uint32_t flags;
} rcg_engine_attr;

/**
 * What can be asked of a provider. Start from RCG_LIMITS_INIT.
 */
typedef struct rcg_limits {
    /**
     * `sizeof(rcg_limits)`.
     */
    size_t size;
    /**
     * Octets of private data in a connect or an accept.
     */
    uint32_t max_private_data;
    /**
     * Octets of private data in a reject.
     */
    uint32_t max_reject_data;
    /**
     * Scatter/gather elements in one operation.
     */
    uint32_t max_sge;
    /**
     * Octets of an operation with RCG_INLINE.
     */
    uint32_t max_inline;
    /**
     * Operations in a send queue.
     */
    uint32_t max_send_depth;
    /**
     * Receives in a receive queue.
     */
    uint32_t max_recv_depth;
    /**
     * RDMA Reads a peer may have outstanding.
     */
    uint32_t max_ird;
    /**
     * RDMA Reads we may have outstanding.
     */
    uint32_t max_ord;
    /**
     * What `send_depth` 0 means.
     */
    uint32_t default_send_depth;
    /**
     * What `recv_depth` 0 means.
     */
    uint32_t default_recv_depth;
    /**
     * What `ird` 0 means.
     */
    uint32_t default_ird;
    /**
     * What `ord` 0 means.
     */
    uint32_t default_ord;
    /**
     * Octets of one message.
     */
    uint64_t max_message;
    /**
     * Octets of one region.
     */
    uint64_t max_region;
    /**
     * Addresses of one peer.
     */
    uint32_t max_addresses;
    /**
     * 0.
     */
    uint32_t reserved;
} rcg_limits;

/**
 * Attributes of a listener and of the connections that come in. Start from RCG_LISTEN_ATTR_INIT. Limits: see
 * rcg_engine_limits().
 */
typedef struct rcg_listen_attr {
    /**
     * `sizeof(rcg_listen_attr)`.
     */
    size_t size;
    /**
     * The caller's, in all events of the listener and, until rcg_accept() gives another, of its connections.
     */
    void *context;
    /**
     * Connections that the kernel queues; 0 = 128; the system has a bound of its own.
     */
    uint32_t backlog;
    /**
     * Connections whose request is awaited at a time, more are closed; 0 = 1024.
     */
    uint32_t max_pending;
    /**
     * Bound on a peer's request and on the handshake, in milliseconds; 0 = 5000.
     */
    uint32_t handshake_timeout_ms;
    /**
     * `RCG_PROVIDER_*`; 0 = RCG_PROVIDER_AUTO.
     */
    uint32_t provider;
    /**
     * RCG_CONN_STRICT_RECV, RCG_CONN_RAW_PRIVATE_DATA.
     */
    uint32_t flags;
    /**
     * Operations that can be outstanding; 0 = default.
     */
    uint32_t send_depth;
    /**
     * Receives that can be posted; 0 = default.
     */
    uint32_t recv_depth;
    /**
     * Octets of each receive buffer of the library's; 0 = the caller posts receives.
     */
    uint32_t recv_size;
    /**
     * Number of receive buffers of the library's, per connection; 0 = the caller posts receives.
     */
    uint32_t recv_count;
    /**
     * RDMA Reads that the peer may have outstanding; 0 = default.
     */
    uint32_t ird;
    /**
     * RDMA Reads that we may have outstanding; 0 = default.
     */
    uint32_t ord;
    /**
     * `RCG_CRC_*`; 0 = RCG_CRC_AUTO.
     */
    uint32_t crc;
    /**
     * A dead peer is noticed within 1.25 times this, in milliseconds; 0 = 20000. While nothing is on its way to the peer
     * the kernel's keepalive notices, which counts whole seconds, two of them at least.
     */
    uint32_t keepalive_ms;
    /**
     * Bound on rcg_conn_disconnect(), in milliseconds; 0 = 2000.
     */
    uint32_t linger_ms;
    /**
     * Octets of the longest iWARP frame to send, 128 to 65536; 0 = what suits the peer.
     */
    uint32_t max_fpdu;
    /**
     * 1 = an IPv6 address takes no IPv4 connections; 0 = `::` takes both.
     */
    uint32_t v6only;
    /**
     * TCP congestion control, like "bbr"; NULL = the system's.
     */
    const char *congestion;
    /**
     * Channels over which connections are spread in turn; read during the call only.
     */
    struct rcg_channel *const *channels;
    /**
     * Number of `channels`; 0 = the listener's own.
     */
    size_t nchannels;
    /**
     * Connections for RPC-over-RDMA, whose private data and queues are the library's; NULL = not such ones.
     */
    const struct rcg_rpc_attr *rpc;
} rcg_listen_attr;

/**
 * What a listener has done. Start from RCG_LISTENER_INFO_INIT.
 */
typedef struct rcg_listener_info {
    /**
     * `sizeof(rcg_listener_info)`.
     */
    size_t size;
    /**
     * The address, with the port in force.
     */
    struct sockaddr_storage local;
    /**
     * The backlog in force.
     */
    uint32_t backlog;
    /**
     * Connections whose request is awaited now.
     */
    uint32_t pending;
    /**
     * Connections taken from TCP.
     */
    uint64_t accepted;
    /**
     * Of these, closed at once because `max_pending` were awaited.
     */
    uint64_t refused_pending;
    /**
     * Of these, ended before a valid request had come.
     */
    uint64_t failed_handshakes;
    /**
     * Failures of accept(2), as when descriptors run out.
     */
    uint64_t accept_errors;
} rcg_listener_info;

/**
 * Attributes of an arena. Start from RCG_ARENA_ATTR_INIT.
 */
typedef struct rcg_arena_attr {
    /**
     * `sizeof(rcg_arena_attr)`.
     */
    size_t size;
    /**
     * Octets in each buffer; must be set.
     */
    size_t buffer_size;
    /**
     * Buffers allocated and registered at a time; 0 = 16.
     */
    size_t count;
    /**
     * Most buffers at all; 0 = 1024.
     */
    size_t max_count;
    /**
     * Rights of the buffers, RCG_LOCAL and so on; 0 = RCG_LOCAL.
     */
    uint32_t access;
    /**
     * Must be 0.
     */
    uint32_t flags;
} rcg_arena_attr;

/**
 * A buffer lent by an arena.
 */
typedef struct rcg_buffer {
    /**
     * Its first octet.
     */
    void *addr;
    /**
     * Its length in octets.
     */
    size_t length;
    /**
     * The region that it lies in, together with others; the arena's, so never to be deregistered.
     */
    struct rcg_mr *mr;
} rcg_buffer;

/**
 * A scatter/gather element: a piece of a region.
 */
typedef struct rcg_sge {
    /**
     * Its first octet.
     */
    void *addr;
    /**
     * Its length in octets.
     */
    size_t length;
    /**
     * The region that it lies in.
     */
    struct rcg_mr *mr;
} rcg_sge;

/**
 * An operation. Made by RCG_OP_SEND() and its kin, or by hand; what is not used is zero.
 */
typedef struct rcg_op {
    /**
     * RCG_SEND to RCG_READ.
     */
    uint32_t opcode;
    /**
     * RCG_SIGNALED, RCG_FENCE, RCG_INLINE, RCG_SOLICITED.
     */
    uint32_t flags;
    /**
     * What to send or, for RCG_READ, where the octets go.
     */
    const struct rcg_sge *sge;
    /**
     * Number of `sge`; at most `max_sge`.
     */
    uint32_t nsge;
    /**
     * Immediate data, in host order.
     */
    uint32_t imm;
    /**
     * Address in the peer's memory.
     */
    uint64_t remote_addr;
    /**
     * The peer's key to it.
     */
    uint32_t remote_key;
    /**
     * RCG_SEND_INV: the peer's key that ends.
     */
    uint32_t invalidate_key;
    /**
     * The caller's, in the completion.
     */
    void *user;
    /**
     * With RCG_INLINE and no `sge`: the payload.
     */
    const void *copy;
    /**
     * Octets of `copy`.
     */
    uint32_t copy_len;
    /**
     * Must be 0.
     */
    uint32_t reserved;
} rcg_op;

/**
 * A receive.
 */
typedef struct rcg_recv {
    /**
     * Where the message goes.
     */
    const struct rcg_sge *sge;
    /**
     * Number of `sge`; at most `max_sge`.
     */
    uint32_t nsge;
    /**
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * The caller's, in the event.
     */
    void *user;
} rcg_recv;

/**
 * Registered memory, in pieces, that counts as one.
 */
typedef struct rcg_rpc_memory {
    /**
     * Its pieces; none of them empty.
     */
    const struct rcg_sge *sge;
    /**
     * Number of `sge`, to 512; 0 = none.
     */
    uint32_t nsge;
    /**
     * Of a payload: where in the head it belongs, behind the word that counts its octets: a multiple of 4. Else 0.
     */
    uint32_t at;
} rcg_rpc_memory;

/**
 * A call. Start from RCG_RPC_REQUEST_INIT. What may leave the message is for the upper layer's binding to say (for NFS
 * RFC 8267); the library never guesses.
 */
typedef struct rcg_rpc_request {
    /**
     * `sizeof(rcg_rpc_request)`.
     */
    size_t size;
    /**
     * The RPC message less the payload, in pieces: the xid, 0 for a call, and so on. Copied.
     */
    const struct iovec *head;
    /**
     * Number of `head`.
     */
    size_t nhead;
    /**
     * What the peer may read directly, if anything; the pad is not part of it. Its region has RCG_REMOTE_READ.
     */
    struct rcg_rpc_memory payload;
    /**
     * Where the peer may write results directly, one for each that may be; each as long as the result at most. Their
     * regions have RCG_REMOTE_WRITE.
     */
    const struct rcg_rpc_memory *results;
    /**
     * Number of `results`, to 16.
     */
    size_t nresults;
    /**
     * Octets of the longest reply without such results.
     */
    size_t reply_max;
    /**
     * Where a reply goes that may be longer than a receive, `reply_max` octets; its region has RCG_REMOTE_WRITE.
     */
    struct rcg_rpc_memory reply;
    /**
     * The caller's, in RCG_EVENT_RPC_REPLY.
     */
    void *user;
} rcg_rpc_request;

/**
 * A reply. Start from RCG_RPC_RESPONSE_INIT.
 */
typedef struct rcg_rpc_response {
    /**
     * `sizeof(rcg_rpc_response)`.
     */
    size_t size;
    /**
     * The RPC message less the payloads, in pieces: the call's xid, 1 for a reply, and so on. Copied.
     */
    const struct iovec *head;
    /**
     * Number of `head`.
     */
    size_t nhead;
    /**
     * Results that may be placed directly, in the order of the call's `rooms`; where there is none for one it goes with
     * the message. Their memory is the library's until RCG_EVENT_RPC_ANSWERED.
     */
    const struct rcg_rpc_memory *payloads;
    /**
     * Number of `payloads`, to 16.
     */
    size_t npayloads;
    /**
     * The caller's, in RCG_EVENT_RPC_ANSWERED.
     */
    void *user;
} rcg_rpc_response;

/**
 * What an RPC connection has agreed on and done. Start from RCG_RPC_INFO_INIT.
 */
typedef struct rcg_rpc_info {
    /**
     * `sizeof(rcg_rpc_info)`.
     */
    size_t size;
    /**
     * Octets of the longest message to the peer.
     */
    uint32_t inline_send;
    /**
     * Octets of the longest message from it.
     */
    uint32_t inline_recv;
    /**
     * Calls that the peer grants now.
     */
    uint32_t credits;
    /**
     * RCG_RPC_GLUSTERFS: the peer speaks that dialect.
     */
    uint32_t flags;
    /**
     * Calls made.
     */
    uint64_t calls;
    /**
     * Calls taken.
     */
    uint64_t asked;
    /**
     * Read chunks offered, or read.
     */
    uint64_t read_chunks;
    /**
     * Write chunks offered, or written.
     */
    uint64_t write_chunks;
    /**
     * Reply chunks offered, or written.
     */
    uint64_t reply_chunks;
    /**
     * Messages that made no sense, and replies that nobody waits for.
     */
    uint64_t bad;
    /**
     * Errors of the transport's that were sent.
     */
    uint64_t errors;
} rcg_rpc_info;

/**
 * Counters of an engine, a channel or a connection, all since its beginning. Start from RCG_STATS_INIT.
 *
 * Those of a channel are the sums of its connections', ended ones included, and those of an engine the sums of its
 * channels'. The loop's counters are a channel's, those of memory an engine's; elsewhere they are 0.
 */
typedef struct rcg_stats {
    /**
     * `sizeof(rcg_stats)`.
     */
    size_t size;
    /**
     * Connects begun here.
     */
    uint64_t connects;
    /**
     * Requests of peers that were announced.
     */
    uint64_t requests;
    /**
     * Connects and requests that led to a connection.
     */
    uint64_t established;
    /**
     * Requests that were rejected here.
     */
    uint64_t rejected;
    /**
     * Connections and attempts that are not closed yet; a level, not a count.
     */
    uint64_t open;
    /**
     * Failed connects and accepts by `RCG_STAGE_*`.
     */
    uint64_t failed_at[8];
    /**
     * The same by `RCG_REASON_*`.
     */
    uint64_t failed_for[24];
    /**
     * Established connections that ended, by `RCG_REASON_*`; 0 = both sides had left.
     */
    uint64_t ended_for[24];
    /**
     * Operations posted, by `RCG_SEND` and so on; of RCG_RECV messages received.
     */
    uint64_t ops[8];
    /**
     * Octets of their payload.
     */
    uint64_t op_bytes[8];
    /**
     * Completions that told of a failure.
     */
    uint64_t op_errors;
    /**
     * Completions that told of the connection's end.
     */
    uint64_t op_flushed;
    /**
     * Octets sent, headers included.
     */
    uint64_t bytes_sent;
    /**
     * Octets received, headers included.
     */
    uint64_t bytes_received;
    /**
     * Times that the network took less than was offered.
     */
    uint64_t send_stalls;
    /**
     * Times that a message waited for a receive.
     */
    uint64_t recv_stalls;
    /**
     * Posts that were refused because a queue was full.
     */
    uint64_t queue_full;
    /**
     * System calls that send, or doorbells of a device.
     */
    uint64_t send_calls;
    /**
     * System calls that receive.
     */
    uint64_t recv_calls;
    /**
     * Times the loop asked the kernel for events.
     */
    uint64_t loop_polls;
    /**
     * Times the loop went to sleep.
     */
    uint64_t loop_sleeps;
    /**
     * Times somebody was woken: the loop, or whoever waits for the channel's descriptor.
     */
    uint64_t wakeups;
    /**
     * Events delivered.
     */
    uint64_t events;
    /**
     * Regions registered, the library's own included.
     */
    uint64_t registrations;
    /**
     * Registrations with devices.
     */
    uint64_t device_registrations;
    /**
     * Octets registered now; a level, not a count.
     */
    uint64_t registered_bytes;
} rcg_stats;

/**
 * Takes text: `len` octets at `text`, valid for the call, and `arg`, which the caller has given. Must not call the
 * library.
 */
typedef void (*rcg_dump_fn)(void *arg, const char *text, size_t len);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Makes a channel: by default one with a thread whose events wait until they are fetched; with `on_events`, one that
 * calls back; with `manual`, one that works only while the caller lets it.
 *
 * `attr`: NULL = defaults; read during the call only, but `arg` must live as long as the channel.
 * `channel`: set on success to a handle that the caller ends by rcg_channel_destroy().
 * Thread rule: any thread.
 * Returns 0; -EINVAL, -E2BIG: bad attributes; -EBADF: not a live engine; -EMFILE, -ENFILE, -EAGAIN: no descriptor or
 * no thread is left. Since 0.1.0.
 */
int rcg_channel_create(struct rcg_engine *engine,
                       const struct rcg_channel_attr *attr,
                       struct rcg_channel **channel);

/**
 * Closes all connections and listeners of the channel and ends it. With `on_events` their last events are delivered
 * before this returns; otherwise those not fetched are lost, and what earlier ones point to is gone.
 *
 * Waits for the channel's thread, and so for a callback in progress.
 * Thread rule: any thread but the channel's own.
 * Returns 0; -EDEADLK: called from the channel's own callback; -EBUSY: another thread is in rcg_channel_run();
 * -EINVAL: NULL; -EBADF: not a live channel. Since 0.1.0.
 */
int rcg_channel_destroy(struct rcg_channel *channel);

/**
 * A descriptor for poll(2) and epoll(7): readable while rcg_channel_next() has events or rcg_channel_run() has
 * something to do. It belongs to the channel: never read, write or close it.
 *
 * Thread rule: any thread.
 * Returns the descriptor, 0 or more; -EINVAL: NULL, or a channel whose thread calls back; -EBADF: not a live channel.
 * Since 0.1.0.
 */
int rcg_channel_fd(struct rcg_channel *channel);

/**
 * Fetches events of a channel without `on_events`, without waiting. What they point to is valid until the next call
 * for this channel; a handle whose RCG_EVENT_CLOSED was fetched is gone from then on.
 *
 * `events`: room for `max`; so many of them are written as the result says.
 * Thread rule: any thread, one at a time.
 * Returns the number of events, 0 = none wait; -EINVAL: NULL, or a channel with a callback; -EBUSY: another thread is
 * fetching; -EBADF: not a live channel. Since 0.1.0.
 */
int rcg_channel_next(struct rcg_channel *channel,
                     struct rcg_event *events,
                     size_t max);

/**
 * Lets a manual channel work: until something has happened, but at most for `timeout_ms` milliseconds; 0 = what can
 * be done at once, -1 = no limit. Callbacks are called inside, on this thread.
 *
 * Thread rule: any thread, one at a time; not from the channel's own callback.
 * Returns, with `on_events`, how many events were delivered; without, more than 0 when rcg_channel_next() has some;
 * -EINVAL: NULL, not a manual channel, or a time below -1; -EBUSY: it is being run already; -EBADF: not a live
 * channel. Since 0.1.0.
 */
int rcg_channel_run(struct rcg_channel *channel,
                    int timeout_ms);

/**
 * Accepts the connection of an RCG_EVENT_CONNECT_REQUEST. Exactly one of RCG_EVENT_ESTABLISHED and
 * RCG_EVENT_CONNECT_FAILED follows, and RCG_EVENT_CLOSED at the very end.
 *
 * `attr`: NULL = defaults; read during the call only.
 * Thread rule: any thread; also later than the event.
 * Returns 0; -EALREADY: it has been answered; -ENOTCONN: the request has gone, RCG_EVENT_CLOSED follows; -EMSGSIZE: too
 * much private data; -EINVAL, -E2BIG: bad attributes, NULL, or not a request; -EBADF: not a live connection.
 * Since 0.1.0.
 */
int rcg_accept(struct rcg_conn *conn,
               const struct rcg_accept_attr *attr);

/**
 * Rejects the connection of an RCG_EVENT_CONNECT_REQUEST. RCG_EVENT_CLOSED follows.
 *
 * `reason`: `RCG_REJECT_*`, at most 255; it reaches peers that are this library, the private data reach all.
 * `private_data`: `len` octets, read during the call only; NULL with 0.
 * Thread rule: any thread; also later than the event.
 * Returns 0; -EALREADY: it has been answered; -ENOTCONN: the request has gone, RCG_EVENT_CLOSED follows; -EMSGSIZE: too
 * much private data; -EINVAL: bad reason, NULL, or not a request; -EBADF: not a live connection. Since 0.1.0.
 */
int rcg_reject(struct rcg_conn *conn,
               uint32_t reason,
               const void *private_data,
               uint32_t len);

/**
 * Leaves gracefully: what is queued goes out first, within `linger_ms`. RCG_EVENT_DISCONNECTED follows if the
 * connection was established, and RCG_EVENT_CLOSED. Never blocks, and twice is no error.
 *
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EINVAL: NULL; -EBADF: not a live connection, as after its RCG_EVENT_CLOSED. Since 0.1.0.
 */
int rcg_conn_disconnect(struct rcg_conn *conn);

/**
 * Leaves at once, in any state: what is outstanding is flushed with -ECANCELED, and RCG_EVENT_CLOSED follows. Never
 * blocks, and twice is no error.
 *
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EINVAL: NULL; -EBADF: not a live connection, as after its RCG_EVENT_CLOSED. Since 0.1.0.
 */
int rcg_conn_close(struct rcg_conn *conn);

/**
 * What the connection is and has done.
 *
 * `out`: the caller's, its `size` set; written only on success.
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EINVAL: NULL, or no `size`; -EBADF: not a live connection. Since 0.1.0.
 */
int rcg_conn_query(struct rcg_conn *conn, struct rcg_conn_info *out);

/**
 * Connects to one peer that has `n` addresses: the best that answers is used. Returns at once; then comes exactly one
 * of RCG_EVENT_ESTABLISHED and RCG_EVENT_CONNECT_FAILED, and RCG_EVENT_CLOSED at the very end.
 *
 * `addrs`: read during the call only. `attr`: NULL = defaults; read during the call only.
 * `conn`: set on success to a handle that is valid until RCG_EVENT_CLOSED; an event may come before the call returns.
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EINVAL, -E2BIG: bad attributes, addresses or NULL; -EAFNOSUPPORT: neither IPv4 nor IPv6; -EMSGSIZE: too
 * much private data; -ENODEV, -ENOENT, -EACCES: the provider can't be used, as rcg_engine_provider() says; -EBADF: not a
 * live channel; -ENOMEM. Since 0.1.0.
 */
int rcg_connect(struct rcg_channel *channel,
                const struct rcg_addr *addrs,
                size_t n,
                const struct rcg_connect_attr *attr,
                struct rcg_conn **conn);

/**
 * Connects to a peer by name: all addresses that `host` has are tried. A name is looked up in the background, never on
 * the calling thread.
 *
 * `host`: a name or a numeric address. `service`: a port or a name of one. Both are read during the call only.
 * The rest is as for rcg_connect(). Since 0.1.0.
 */
int rcg_connect_host(struct rcg_channel *channel,
                     const char *host,
                     const char *service,
                     const struct rcg_connect_attr *attr,
                     struct rcg_conn **conn);

/**
 * Opens the library. No RDMA device is needed; why one can't be used tells rcg_engine_provider().
 *
 * `attr`: NULL = defaults; read during the call only, but `log_arg` must live as long as the engine.
 * `engine`: set on success to a handle that the caller ends by rcg_engine_destroy().
 * Thread rule: any thread.
 * Returns 0; -EINVAL, -E2BIG: bad attributes; -ENFILE: too many objects. Since 0.1.0.
 */
int rcg_engine_create(const struct rcg_engine_attr *attr, struct rcg_engine **engine);

/**
 * Closes the library. Its channels, regions and arenas must have been destroyed before.
 *
 * Thread rule: any thread but a channel's own, as that channel is still there.
 * Returns 0; -EBUSY: channels, regions or arenas are left; -EINVAL: NULL; -EBADF: not a live engine. Since 0.1.0.
 */
int rcg_engine_destroy(struct rcg_engine *engine);

/**
 * Asks for the limits of a provider (`RCG_PROVIDER_*`); RCG_PROVIDER_AUTO gives the least of those that are
 * available.
 *
 * `out`: the caller's, its `size` set; written only on success.
 * Thread rule: any thread.
 * Returns 0; -ENODEV, -ENOENT, -EACCES: the provider is not available; -EINVAL: no such provider, NULL or no `size`;
 * -EBADF: not a live engine. Since 0.1.0.
 */
int rcg_engine_limits(struct rcg_engine *engine,
                      uint32_t provider,
                      struct rcg_limits *out);

/**
 * Whether a provider (`RCG_PROVIDER_*`) can be used and, if it can't, why and what to do.
 *
 * `why`: NULL, or the caller's with its `size` set; written only when the provider is not available.
 * Thread rule: any thread.
 * Returns 0: available; -ENODEV: no device, or no driver for it; -ENOENT: a module of the kernel is missing; -EACCES: not
 * permitted; -EINVAL: no such provider, or no `size`; -EBADF: not a live engine. Since 0.1.0.
 */
int rcg_engine_provider(struct rcg_engine *engine,
                        uint32_t provider,
                        struct rcg_error *why);

/**
 * How much memory, in octets, the library can hold for one idle connection with these attributes; less until its queues
 * have all been used. For a listener's
 * connections give the members of the same names.
 *
 * `attr`: NULL = defaults. `octets`: set on success.
 * Thread rule: any thread.
 * Returns 0; -EINVAL, -E2BIG: bad attributes or NULL; -EBADF: not a live engine. Since 0.1.0.
 */
int rcg_conn_memory(struct rcg_engine *engine,
                    const struct rcg_connect_attr *attr,
                    size_t *octets);

/**
 * Details of the last call of this thread that returned a negative errno: code, reason, a sentence for people and,
 * where one is known, the remedy. A call that succeeds leaves them as they are.
 *
 * `out`: the caller's, its `size` set (RCG_ERROR_INIT); written only on success.
 * Thread rule: any thread; each has its own.
 * Returns 0; -ENOENT: no call of this thread has failed; -EINVAL: `out` is NULL or its `size` is not set.
 * Since 0.1.0.
 */
int rcg_last_error(struct rcg_error *out);

/**
 * Listens at an address; port 0 takes a free one, which rcg_listener_query() tells. Each peer that asks for a
 * connection makes one RCG_EVENT_CONNECT_REQUEST.
 *
 * `addr`: a sockaddr_in or sockaddr_in6 of `len` octets, read during the call only.
 * `attr`: NULL = defaults; read during the call only.
 * `listener`: set on success to a handle that is valid until RCG_EVENT_CLOSED, which follows rcg_listener_close().
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EADDRINUSE, -EADDRNOTAVAIL, -EACCES: as of bind(2); -EINVAL, -E2BIG: bad attributes, address or NULL;
 * -EAFNOSUPPORT: neither IPv4 nor IPv6; -ENODEV, -ENOENT, -EACCES: the provider can't be used, as rcg_engine_provider()
 * says, or has no device for the address; -ENOENT, -EPERM: no such `congestion`, or not for this user; -EMFILE, -ENFILE:
 * no descriptor is left; -EBADF: not a live channel. Since 0.1.0.
 */
int rcg_listen(struct rcg_channel *channel,
               const struct sockaddr *addr,
               uint32_t len,
               const struct rcg_listen_attr *attr,
               struct rcg_listener **listener);

/**
 * What the listener is and has done.
 *
 * `out`: the caller's, its `size` set; written only on success.
 * Thread rule: any thread.
 * Returns 0; -EINVAL: NULL, or no `size`; -EBADF: not a live listener. Since 0.1.0.
 */
int rcg_listener_query(struct rcg_listener *listener, struct rcg_listener_info *out);

/**
 * Stops listening; connections that have come in live on. Never blocks, and twice is no error. One RCG_EVENT_CLOSED
 * with `listener` follows.
 *
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EINVAL: NULL; -EBADF: not a live listener, as after its RCG_EVENT_CLOSED. Since 0.1.0.
 */
int rcg_listener_close(struct rcg_listener *listener);

/**
 * Registers memory of the caller's, so that operations can use it and, with RCG_REMOTE_READ or RCG_REMOTE_WRITE, keys
 * can be given to peers. The memory must stay mapped until rcg_mr_deregister() has succeeded. It is registered with the
 * RDMA devices that the engine uses already, and with others when they first need it.
 *
 * `length`: octets, not 0. `access`: one or more of RCG_LOCAL, RCG_REMOTE_READ, RCG_REMOTE_WRITE.
 * `mr`: set on success to a handle that the caller ends by rcg_mr_deregister().
 * Thread rule: any thread.
 * Returns 0; -EINVAL: NULL, no length, or bad rights; -EBADF: not a live engine; -ENOMEM: too much is locked; -ENFILE:
 * too many objects. Since 0.1.0.
 */
int rcg_mr_register(struct rcg_engine *engine,
                    void *addr,
                    size_t length,
                    uint32_t access,
                    struct rcg_mr **mr);

/**
 * Ends a registration: revokes all keys and waits for a peer's access in progress. When it has succeeded nobody
 * touches the memory any more.
 *
 * Thread rule: any thread.
 * Returns 0; -EBUSY: posted operations or receives still use it, nothing is changed; -EINVAL: NULL; -EBADF: not a live
 * region. Since 0.1.0.
 */
int rcg_mr_deregister(struct rcg_mr *mr);

/**
 * A key by which a peer reaches the whole region, with all remote rights that the region has; each call makes a new
 * one. The peer addresses the region by the addresses it has here. A key lives until rcg_mr_key_revoke(), until the
 * region is deregistered, or until its connection ends.
 *
 * Memory that changes while a peer reads more than 4096 octets of it: the peer gets the old, the new or a mixture, but with
 * CRC (provider iwarp) its sum may be wrong, and then the connection ends. Where a peer has had a key to write to the region
 * since before the Read came that can't be: it costs a copy.
 *
 * `conn`: the connection whose peer may use the key. NULL = those of all connections of the engine with provider iwarp: a
 * device has keys of its own, so that with provider verbs a connection has to be named.
 * `key`: set on success.
 * Thread rule: any thread.
 * Returns 0; -EACCES: the region has no remote rights; -ENOTCONN: the connection has ended; -EAGAIN: on the side that
 * connects, with provider verbs, before RCG_EVENT_ESTABLISHED; -ENOMEM: too much is locked; -EINVAL: NULL; -EBADF: not a
 * live region or connection. Since 0.1.0.
 */
int rcg_mr_key(struct rcg_mr *mr,
               struct rcg_conn *conn,
               uint32_t *key);

/**
 * The same for a part of the region, and with the rights given.
 *
 * `offset`, `length`: octets from the beginning of the region. `access`: RCG_REMOTE_READ, RCG_REMOTE_WRITE or both.
 * `conn`, `key`: as for rcg_mr_key().
 * Thread rule: any thread.
 * Returns 0; -EACCES: the region does not have these rights; -ENOTCONN, -EAGAIN, -ENOMEM: as for rcg_mr_key();
 * -EINVAL: NULL, bad rights, or outside the region; -EBADF: not a live region or connection. Since 0.1.0.
 */
int rcg_mr_key_range(struct rcg_mr *mr,
                     struct rcg_conn *conn,
                     size_t offset,
                     size_t length,
                     uint32_t access,
                     uint32_t *key);

/**
 * Revokes a key of the region. When it has succeeded no peer can touch the memory by that key any more.
 *
 * Thread rule: any thread.
 * Returns 0; -ENOENT: the region has no such key; -EINVAL: NULL; -EBADF: not a live region. Since 0.1.0.
 */
int rcg_mr_key_revoke(struct rcg_mr *mr, uint32_t key);

/**
 * Makes an arena: a pool of buffers of one size that come registered, allocated when they are needed.
 *
 * `attr`: read during the call only; `buffer_size` must be set.
 * `arena`: set on success to a handle that the caller ends by rcg_arena_destroy().
 * Thread rule: any thread.
 * Returns 0; -EINVAL, -E2BIG: bad attributes; -EBADF: not a live engine; -ENFILE: too many objects. Since 0.1.0.
 */
int rcg_arena_create(struct rcg_engine *engine,
                     const struct rcg_arena_attr *attr,
                     struct rcg_arena **arena);

/**
 * Lends a buffer. It holds what its last user left in it.
 *
 * `buffer`: set on success; the caller gives it back by rcg_arena_put().
 * Thread rule: any thread.
 * Returns 0; -ENOBUFS: all `max_count` are lent; -ENOMEM: no memory; -EINVAL: NULL; -EBADF: not a live arena.
 * Since 0.1.0.
 */
int rcg_arena_get(struct rcg_arena *arena, struct rcg_buffer *buffer);

/**
 * Gives a buffer back. Operations on it must be finished, and keys to it revoked.
 *
 * `addr`: as rcg_arena_get() gave it.
 * Thread rule: any thread.
 * Returns 0; -EINVAL: NULL, or not a lent buffer of this arena; -EBADF: not a live arena. Since 0.1.0.
 */
int rcg_arena_put(struct rcg_arena *arena, void *addr);

/**
 * Ends an arena and frees its memory.
 *
 * Thread rule: any thread.
 * Returns 0; -EBUSY: buffers are lent or in use, nothing is changed; -EINVAL: NULL; -EBADF: not a live arena.
 * Since 0.1.0.
 */
int rcg_arena_destroy(struct rcg_arena *arena);

/**
 * Name of a stage (`RCG_STAGE_*`), like "route"; "unknown" for any other number. The string is static.
 *
 * Thread rule: any thread. Can't fail. Since 0.1.0.
 */
const char *rcg_stage_name(uint32_t stage);

/**
 * Name of an event's type (`RCG_EVENT_*`), like "ESTABLISHED"; "unknown" for any other number. The string is
 * static.
 *
 * Thread rule: any thread. Can't fail. Since 0.1.0.
 */
const char *rcg_event_name(uint32_t event_type);

/**
 * Name of an operation (`RCG_SEND` to `RCG_RECV`), like "WRITE_IMM"; "unknown" for any other number. The string is
 * static.
 *
 * Thread rule: any thread. Can't fail. Since 0.1.0.
 */
const char *rcg_op_name(uint32_t op);

/**
 * Name of a reason (`RCG_REASON_*`), like "peer dead"; "unknown" for any other number. The string is static.
 *
 * Thread rule: any thread. Can't fail. Since 0.1.0.
 */
const char *rcg_reason_name(uint32_t reason);

/**
 * Posts `n` operations, all or none, on the calling thread. They are done in order. Each with RCG_SIGNALED has one
 * RCG_EVENT_COMPLETION; one without has one only if it fails. Until it is finished its memory is not to be changed,
 * unless it was RCG_INLINE, and its region can't be deregistered. Operations without RCG_SIGNALED are known to be
 * finished when a later one's completion comes.
 *
 * `ops`, and the `sge` in them: read during the call only.
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EAGAIN: the queue has no room for `n`, wait for completions; -ENOTCONN: not established, or ended;
 * -EMSGSIZE: inline, or at all, too long; -EOPNOTSUPP: the peer or the provider can't do this; -EINVAL: NULL, unknown
 * operation or flag, more than the queue can ever hold, or memory outside its region; -EBADF: not a live connection or
 * region. rcg_last_error() says which operation it was, counted from 0. Since 0.1.0.
 */
int rcg_post(struct rcg_conn *conn,
             const struct rcg_op *ops,
             size_t n);

/**
 * Posts `n` receives, all or none; messages use them up in order, each with one RCG_EVENT_RECV. Allowed from
 * rcg_connect() or RCG_EVENT_CONNECT_REQUEST on; not for connections with receive buffers of the library's.
 *
 * `recvs`, and the `sge` in them: read during the call only.
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EAGAIN: the queue has no room for `n`; -ENOTCONN: ended; -EINVAL: NULL, more than the queue can ever hold,
 * memory outside its region, or receive buffers of the library's; -EBADF: not a live connection or region.
 * rcg_last_error() says which receive it was, counted from 0. Since 0.1.0.
 */
int rcg_post_recv(struct rcg_conn *conn,
                  const struct rcg_recv *recvs,
                  size_t n);

/**
 * Gives the lent buffer of an RCG_EVENT_RECV with RCG_EVENT_LENT back to the library, which receives into it again.
 * May be done later than the event, from a copy of it; `conn`, `flags` and `buffer` are looked at.
 *
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EINVAL: NULL, not a lent buffer of this connection, or given back already; -EBADF: not a live
 * connection: its buffers are gone with it. Since 0.1.0.
 */
int rcg_recv_release(struct rcg_conn *conn,
                     const struct rcg_event *event);

/**
 * Makes a call. Its RCG_EVENT_RPC_REPLY comes exactly once: with `status` 0 and the reply, -EREMOTEIO or -EPROTONOSUPPORT
 * the peer's transport refused it, -EBADMSG the reply made no sense, -ECANCELED the connection ended first. Until then
 * the memory of payload, results and reply is the library's. A call that there is no credit for waits here.
 *
 * The side that was connected to may call, too, without payload that leaves the message, results or a long reply.
 *
 * `request`, and what it points to but the regions' memory: read during the call only.
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EAGAIN: as many calls as `credits` says are outstanding; -EEXIST: one with this xid is; -ENOTCONN: not
 * established, or ended; -EMSGSIZE: over the inline threshold, where no chunks are allowed; -EACCES: a region lacks a
 * right; -ENOMEM; -EINVAL, -E2BIG: not an RPC call, no memory for a long reply, too many pieces, NULL, not a connection
 * for RPC; -EBADF: not a live connection or region. Since 0.1.0.
 */
int rcg_rpc_call(struct rcg_conn *conn,
                 const struct rcg_rpc_request *request);

/**
 * Answers a call. On success RCG_EVENT_RPC_ANSWERED comes exactly once, with which the payloads' memory is the caller's
 * again, and what the call's event has told as lent is gone. On failure the call is still to be answered.
 *
 * `call`: of rcg_rpc_msg. `response`, and what it points to but the regions' memory: read during the call only.
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EMSGSIZE: longer than what the call has room for; -ENOENT: no such call, or it has been answered; -ENOTCONN:
 * the connection has ended; -ENOMEM; -EINVAL, -E2BIG: not a reply to this call, too many pieces, NULL, not a connection
 * for RPC; -EBADF: not a live connection or region. Since 0.1.0.
 */
int rcg_rpc_reply(struct rcg_conn *conn,
                  uint64_t call,
                  const struct rcg_rpc_response *response);

/**
 * Answers a call with the transport's ERR_CHUNK: where the call has too little room for the reply.
 *
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -ENOENT: no such call, or it has been answered; -ENOTCONN: the connection has ended; -EINVAL: NULL, or not a
 * connection for RPC; -EBADF: not a live connection. Since 0.1.0.
 */
int rcg_rpc_refuse(struct rcg_conn *conn,
                   uint64_t call);

/**
 * What a connection for RPC has agreed on and done.
 *
 * `info`: filled on success, as far as its `size` says.
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EINVAL: NULL, no `size`, or not a connection for RPC; -EBADF: not a live connection. Since 0.1.0.
 */
int rcg_rpc_query(struct rcg_conn *conn,
                  struct rcg_rpc_info *info);

/**
 * What the engine has counted: the sums of all its channels, also of those that have ended, and of its memory.
 *
 * `out`: the caller's, its `size` set; written only on success.
 * Thread rule: any thread; also from callbacks. Takes a look at each connection there is.
 * Returns 0; -EINVAL: NULL, or no `size`; -EBADF: not a live engine. Since 0.1.0.
 */
int rcg_engine_stats(struct rcg_engine *engine,
                     struct rcg_stats *out);

/**
 * What the channel has counted: the sums of all its connections, also of those that have ended, and of its loop.
 *
 * `out`: the caller's, its `size` set; written only on success.
 * Thread rule: any thread; also from callbacks. Takes a look at each connection there is.
 * Returns 0; -EINVAL: NULL, or no `size`; -EBADF: not a live channel. Since 0.1.0.
 */
int rcg_channel_stats(struct rcg_channel *channel,
                      struct rcg_stats *out);

/**
 * What the connection has counted.
 *
 * `out`: the caller's, its `size` set; written only on success.
 * Thread rule: any thread; also from callbacks.
 * Returns 0; -EINVAL: NULL, or no `size`; -EBADF: not a live connection, as after its RCG_EVENT_CLOSED. Since 0.1.0.
 */
int rcg_conn_stats(struct rcg_conn *conn,
                   struct rcg_stats *out);

/**
 * Writes all that is known of an engine, as one JSON object, through a callback: counters, channels, listeners,
 * connections with their last error, and the engine's last failures. What `rcg dump` shows of a statistics socket.
 *
 * `write`: called once or more, on this thread, before this returns; `arg` is passed to it.
 * Thread rule: any thread; also from callbacks. Takes a look at each connection there is; allocates.
 * Returns 0; -EINVAL: NULL; -EBADF: not a live engine. Since 0.1.0.
 */
int rcg_engine_dump(struct rcg_engine *engine,
                    rcg_dump_fn write,
                    void *arg);

/**
 * The version of the library that runs, which may be newer than this header:
 * `(major << 16) | (minor << 8) | patch`.
 *
 * Thread rule: any thread. Can't fail. Since 0.1.0.
 */
uint32_t rcg_version(void);

/**
 * The same as text, like "0.1.0". The string is static.
 *
 * Thread rule: any thread. Can't fail. Since 0.1.0.
 */
const char *rcg_version_string(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

/* The version of this header as one number, to compare with rcg_version(). */
#define RCG_VERSION ((RCG_VERSION_MAJOR << 16) | (RCG_VERSION_MINOR << 8) | RCG_VERSION_PATCH)

/*
 * Initialisers of the structs that start with their size:
 *
 *     rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .timeout_ms = 5000 };
 *
 * C++ before C++20 has no designated members: there `{ RCG_CONNECT_ATTR_INIT }` sets the size, all else is 0.
 */
#if defined(__cplusplus) && __cplusplus < 202002L
#define RCG_INIT_SIZE_(type) sizeof(type)
#else
#define RCG_INIT_SIZE_(type) .size = sizeof(type)
#endif
#define RCG_ENGINE_ATTR_INIT RCG_INIT_SIZE_(rcg_engine_attr)
#define RCG_CHANNEL_ATTR_INIT RCG_INIT_SIZE_(rcg_channel_attr)
#define RCG_CONNECT_ATTR_INIT RCG_INIT_SIZE_(rcg_connect_attr)
#define RCG_LISTEN_ATTR_INIT RCG_INIT_SIZE_(rcg_listen_attr)
#define RCG_ACCEPT_ATTR_INIT RCG_INIT_SIZE_(rcg_accept_attr)
#define RCG_ARENA_ATTR_INIT RCG_INIT_SIZE_(rcg_arena_attr)
#define RCG_RPC_ATTR_INIT RCG_INIT_SIZE_(rcg_rpc_attr)
#define RCG_RPC_REQUEST_INIT RCG_INIT_SIZE_(rcg_rpc_request)
#define RCG_RPC_RESPONSE_INIT RCG_INIT_SIZE_(rcg_rpc_response)
#define RCG_RPC_INFO_INIT RCG_INIT_SIZE_(rcg_rpc_info)
#define RCG_LIMITS_INIT RCG_INIT_SIZE_(rcg_limits)
#define RCG_ERROR_INIT RCG_INIT_SIZE_(rcg_error)
#define RCG_CONN_INFO_INIT RCG_INIT_SIZE_(rcg_conn_info)
#define RCG_LISTENER_INFO_INIT RCG_INIT_SIZE_(rcg_listener_info)
#define RCG_STATS_INIT RCG_INIT_SIZE_(rcg_stats)

/*
 * Initialisers of an rcg_op, C and C++:
 *
 *     rcg_op ops[2] = { RCG_OP_WRITE(&sge, 1, addr, key, NULL), RCG_OP_SEND_COPY("done", 4, app) };
 *
 * The operation is signalled exactly when `user` is not NULL.
 */
#if defined(__cplusplus)
#define RCG_OP_INIT_(op_, flags_, sge_, n_, imm_, raddr_, rkey_, inv_, user_, copy_, len_)         \
    {                                                                                              \
        (op_), RCG_OP_FLAGS_(user_) | (flags_), (sge_), (uint32_t)(n_), (uint32_t)(imm_),          \
        (uint64_t)(raddr_), (uint32_t)(rkey_), (uint32_t)(inv_), (user_), (copy_),                 \
        (uint32_t)(len_), 0                                                                        \
    }
#else
#define RCG_OP_INIT_(op_, flags_, sge_, n_, imm_, raddr_, rkey_, inv_, user_, copy_, len_)         \
    {                                                                                              \
        .opcode = (op_), .flags = RCG_OP_FLAGS_(user_) | (flags_), .sge = (sge_), .nsge = (n_),    \
        .imm = (imm_), .remote_addr = (raddr_), .remote_key = (rkey_), .invalidate_key = (inv_),   \
        .user = (user_), .copy = (copy_), .copy_len = (len_), .reserved = 0                        \
    }
#endif
#define RCG_OP_FLAGS_(user_) ((uintptr_t)(user_) != 0 ? (uint32_t)RCG_SIGNALED : (uint32_t)0)

/* Send the octets of n SGEs. */
#define RCG_OP_SEND(sge, n, user) RCG_OP_INIT_(RCG_SEND, 0u, sge, n, 0, 0, 0, 0, user, NULL, 0)
/* The same with 32 bits of immediate data. */
#define RCG_OP_SEND_IMM(sge, n, imm, user)                                                         \
    RCG_OP_INIT_(RCG_SEND_IMM, 0u, sge, n, imm, 0, 0, 0, user, NULL, 0)
/* The same, and revoke a key of the peer's. */
#define RCG_OP_SEND_INV(sge, n, key, user)                                                         \
    RCG_OP_INIT_(RCG_SEND_INV, 0u, sge, n, 0, 0, 0, key, user, NULL, 0)
/* Send len octets that are copied before rcg_post() returns: no region is needed. */
#define RCG_OP_SEND_COPY(ptr, len, user)                                                           \
    RCG_OP_INIT_(RCG_SEND, (uint32_t)RCG_INLINE, NULL, 0, 0, 0, 0, 0, user, ptr, len)
/* RDMA Write to the peer's memory. */
#define RCG_OP_WRITE(sge, n, raddr, rkey, user)                                                    \
    RCG_OP_INIT_(RCG_WRITE, 0u, sge, n, 0, raddr, rkey, 0, user, NULL, 0)
/* RDMA Write, then 32 bits of immediate data, which take one of the peer's receives. */
#define RCG_OP_WRITE_IMM(sge, n, raddr, rkey, imm, user)                                           \
    RCG_OP_INIT_(RCG_WRITE_IMM, 0u, sge, n, imm, raddr, rkey, 0, user, NULL, 0)
/* RDMA Read from the peer's memory into the SGEs. */
#define RCG_OP_READ(sge, n, raddr, rkey, user)                                                     \
    RCG_OP_INIT_(RCG_READ, 0u, sge, n, 0, raddr, rkey, 0, user, NULL, 0)

#endif /* RDMACM_GLUSTER_H */
