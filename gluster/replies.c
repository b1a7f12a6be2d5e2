/* Calls of the peer's, and our replies.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

/* A call while the peer is throttled. */
struct held {
    struct list_head list;
    rpc_transport_pollin_t *message;
};

/* A reply whose payload's memory is in use. */
struct answer {
    struct rdma_memory payload;
    struct iobref *iobref;
};

/* ---- calls ---- */

/* GlusterFS takes one payload, at the end. The library has read it, and it has to be in memory of GlusterFS's. */
static int take_payload(struct rdma_link *link, const rcg_event *ev, struct iobref *iobref, struct iovec *payload)
{
    const rcg_rpc_piece *piece = ev->rpc->pieces;
    struct iobuf *iobuf;

    if (ev->rpc->npieces != 1 || piece->at != ev->length)
        return -EBADMSG;
    iobuf = iobuf_get2(link->trans->ctx->iobuf_pool, piece->length);
    if (!iobuf)
        return -ENOMEM;
    memcpy(iobuf_ptr(iobuf), piece->addr, piece->length);
    *payload = (struct iovec){ iobuf_ptr(iobuf), piece->length };
    iobref_add(iobref, iobuf);
    iobuf_unref(iobuf);
    return 0;
}

/* Callbacks of a server get no reply of GlusterFS's, but the transport counts on one. */
static void answer_callback(const rcg_event *ev)
{
    uint32_t words[] = { htonl(ev->rpc->xid), htonl(1), 0, 0, 0, 0 };
    struct iovec head = { words, sizeof words };
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT, .head = &head, .nhead = 1 };

    rcg_rpc_reply(ev->conn, ev->rpc->call, &response);
}

static rpc_transport_pollin_t *call_message(struct rdma_link *link, const rcg_event *ev)
{
    struct iobref *iobref = iobref_new();
    struct iovec payload = { NULL, 0 };
    rpc_transport_pollin_t *message = NULL;

    if (!iobref)
        return NULL;
    /* The call's own name comes back with the reply. */
    if (ev->rpc->npieces == 0 || take_payload(link, ev, iobref, &payload) == 0)
        message = message_new(link->trans, ev->data, ev->length, iobref, payload, (void *)(uintptr_t)ev->rpc->call);
    iobref_unref(iobref);
    return message;
}

/* Keeps it, if the peer is throttled, or while others wait. */
static bool hold(struct rdma_link *link, rpc_transport_pollin_t *message)
{
    struct rdma_private *priv = link->trans->private;
    struct held *held = NULL;

    pthread_mutex_lock(&priv->lock);
    if (priv->throttled || !list_empty(&link->held)) {
        held = GF_MALLOC(sizeof *held, gf_common_mt_char);
        if (held) {
            held->message = message;
            list_add_tail(&held->list, &link->held);
        }
    }
    pthread_mutex_unlock(&priv->lock);
    return held != NULL;
}

void replies_call(struct rdma_link *link, const rcg_event *ev)
{
    rpc_transport_pollin_t *message = call_message(link, ev);

    if (!message) {
        rdma_log(link->trans, WARNING, 0, RDMA_MSG_BAD_CALL, "call %#x of %s refused: no memory, or not of GlusterFS's form",
                 ev->rpc->xid, link->trans->peerinfo.identifier);
        rcg_rpc_refuse(ev->conn, ev->rpc->call);
    } else if (!link->door) {
        message_tell(link->trans, message);
        answer_callback(ev);
    } else if (!hold(link, message))
        message_tell(link->trans, message);
}

void replies_end(struct rdma_link *link)
{
    struct rdma_private *priv = link->trans->private;
    struct held *held, *next;

    pthread_mutex_lock(&priv->lock);
    list_for_each_entry_safe(held, next, &link->held, list)
    {
        list_del(&held->list);
        held->message->private = NULL;
        rpc_transport_pollin_destroy(held->message);
        GF_FREE(held);
    }
    pthread_mutex_unlock(&priv->lock);
}

/* ---- throttling ---- */

static struct held *next_held(struct rdma_private *priv)
{
    struct held *held = NULL;

    pthread_mutex_lock(&priv->lock);
    if (priv->link && !priv->throttled && !list_empty(&priv->link->held)) {
        held = list_first_entry(&priv->link->held, struct held, list);
        list_del(&held->list);
    }
    pthread_mutex_unlock(&priv->lock);
    return held;
}

/* Tells what was held, in order; whoever throttles meanwhile stops it. */
static void *tell_held(void *arg)
{
    rpc_transport_t *this = arg;
    struct held *held;

    THIS = this->xl;
    while ((held = next_held(this->private))) {
        message_tell(this, held->message);
        GF_FREE(held);
    }
    rpc_transport_unref(this);
    return NULL;
}

int32_t rdma_throttle(rpc_transport_t *this, gf_boolean_t onoff)
{
    struct rdma_private *priv = this->private;
    rcg_conn *held = NULL;

    pthread_mutex_lock(&priv->lock);
    priv->throttled = onoff;
    if (!onoff && priv->link && !list_empty(&priv->link->held))
        held = priv->link->conn;
    pthread_mutex_unlock(&priv->lock);
    /* Called with a lock held that calls want. Without a thread they would stay, and all that come behind them. */
    if (held && !rdma_later(this, tell_held))
        rcg_conn_disconnect(held);
    return 0;
}

/* ---- replies ---- */

static void answer_free(struct answer *answer)
{
    rdma_memory_put(&answer->payload);
    if (answer->iobref)
        iobref_unref(answer->iobref);
    GF_FREE(answer);
}

void replies_answered(const rcg_event *ev)
{
    if (ev->user)
        answer_free(ev->user);
}

static int answer_new(const rpc_transport_msg_t *msg, uint32_t provider, struct answer **out)
{
    struct answer *answer = GF_CALLOC(1, sizeof *answer, gf_common_mt_char);
    bool held;
    int rc;

    if (!answer)
        return -ENOMEM;
    rc = rdma_memory_of(&answer->payload, &rdma_shared_pool, msg->progpayload, msg->progpayloadcount, provider, &held);
    if (rc) {
        GF_FREE(answer);
        return rc;
    }
    if (held)
        answer->iobref = iobref_ref(msg->iobref);
    *out = answer;
    return 0;
}

static int reply_to(rcg_conn *conn, uint32_t provider, uint64_t call, const rpc_transport_msg_t *msg)
{
    int nhead = msg->rpchdrcount + msg->proghdrcount;
    struct iovec head[nhead];
    struct answer *answer = NULL;
    rcg_rpc_memory payload;
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT, .head = head, .nhead = (size_t)nhead };
    int rc = 0;

    memcpy(head, msg->rpchdr, (size_t)msg->rpchdrcount * sizeof *head);
    memcpy(head + msg->rpchdrcount, msg->proghdr, (size_t)msg->proghdrcount * sizeof *head);
    if (msg->progpayloadcount > 0 && iov_length(msg->progpayload, msg->progpayloadcount) > 0) {
        rc = answer_new(msg, provider, &answer);
        if (rc)
            return rc;
        payload = (rcg_rpc_memory){ .sge = &answer->payload.sge, .nsge = 1, .at = (uint32_t)iov_length(head, nhead) };
        response.payloads = &payload;
        response.npayloads = 1;
        response.user = answer;
    }
    rc = rcg_rpc_reply(conn, call, &response);
    if (rc && answer)
        answer_free(answer);
    return rc;
}

int32_t rdma_submit_reply(rpc_transport_t *this, rpc_transport_reply_t *reply)
{
    struct rdma_private *priv = this->private;
    uint64_t call = (uintptr_t)reply->private;
    rcg_conn *conn = NULL;
    uint32_t provider = 0;
    int rc = -ENOTCONN;

    pthread_mutex_lock(&priv->lock);
    if (priv->link && priv->link->up) {
        conn = priv->link->conn;
        provider = priv->link->provider;
    }
    pthread_mutex_unlock(&priv->lock);
    if (conn)
        rc = reply_to(conn, provider, call, &reply->msg);
    if (rc == 0) {
        __atomic_fetch_add(&this->total_bytes_write, iov_length(reply->msg.proghdr, reply->msg.proghdrcount) +
                           iov_length(reply->msg.progpayload, reply->msg.progpayloadcount), __ATOMIC_RELAXED);
        return 0;
    }
    gf_msg(this->name, rc == -ENOTCONN ? GF_LOG_DEBUG : GF_LOG_WARNING, -rc, RDMA_MSG_REPLY_FAILED, "no reply to %s: %s",
           this->peerinfo.identifier, rc == -ENOTCONN ? "not connected" : rdma_why());
    /* A call without an answer would keep its credit. */
    if (conn && rc != -ENOTCONN && rcg_rpc_refuse(conn, call))
        rcg_conn_disconnect(conn);
    return -1;
}
