/* Calls of ours, and their replies.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

#include <protocol-common.h>

/* GlusterFS's program of file operations, in all its versions. */
#define FOPS 1298437

/* Octets that replies may have, by procedure. */
#define SHORT_REPLY 0 /* what comes with a message is enough */
#define REPLY (256u << 10)
#define LONG_REPLY (1u << 20)

/* Octets that a header may have: what GlusterFS 3.4 to 7 allows, and more than ours take. */
#define HEADER 228

struct call {
    struct list_head list;
    uint32_t xid;
    bool callback;
    struct iobref *iobref, *rsp_iobref;
    struct iovec rsp; /* where what is read goes */
    bool rsp_held;    /* `result` is that memory itself */
    struct rdma_memory payload, result, reply;
    int nhead, npayload;
    struct iovec vector[]; /* the head, then the payload */
};

static uint32_t word(const struct iovec *head, size_t at)
{
    uint32_t value = 0;

    if (head->iov_len >= at + sizeof value)
        memcpy(&value, (char *)head->iov_base + at, sizeof value);
    return ntohl(value);
}

/* Octets of the longest reply, less what is read. */
static size_t reply_room(const struct iovec *head)
{
    if (word(head, 12) != FOPS)
        return LONG_REPLY;
    switch (word(head, 20)) {
    case GFS3_OP_READ:
    case GFS3_OP_WRITE:
    case GFS3_OP_FLUSH:
    case GFS3_OP_FSYNC:
    case GFS3_OP_RELEASE:
    case GFS3_OP_RELEASEDIR:
    case GFS3_OP_INODELK:
    case GFS3_OP_FINODELK:
    case GFS3_OP_ENTRYLK:
    case GFS3_OP_FENTRYLK:
    case GFS3_OP_XATTROP:
    case GFS3_OP_FXATTROP: return SHORT_REPLY;
    case GFS3_OP_GETXATTR:
    case GFS3_OP_FGETXATTR:
    case GFS3_OP_READDIR:
    case GFS3_OP_READDIRP: return LONG_REPLY;
    default: return REPLY;
    }
}

static void call_free(struct call *call)
{
    rdma_memory_put(&call->payload);
    rdma_memory_put(&call->result);
    rdma_memory_put(&call->reply);
    if (call->iobref)
        iobref_unref(call->iobref);
    if (call->rsp_iobref)
        iobref_unref(call->rsp_iobref);
    GF_FREE(call);
}

static struct call *call_new(const rpc_transport_req_t *req, bool callback)
{
    const rpc_transport_msg_t *msg = &req->msg;
    int nhead = msg->rpchdrcount + msg->proghdrcount, npayload = msg->progpayloadcount;
    struct call *call = GF_CALLOC(1, sizeof *call + (size_t)(nhead + npayload) * sizeof *call->vector, gf_common_mt_char);

    if (!call)
        return NULL;
    INIT_LIST_HEAD(&call->list);
    memcpy(call->vector, msg->rpchdr, (size_t)msg->rpchdrcount * sizeof *call->vector);
    memcpy(call->vector + msg->rpchdrcount, msg->proghdr, (size_t)msg->proghdrcount * sizeof *call->vector);
    memcpy(call->vector + nhead, msg->progpayload, (size_t)npayload * sizeof *call->vector);
    call->nhead = nhead;
    call->npayload = npayload;
    call->xid = word(call->vector, 0);
    call->callback = callback;
    if (msg->iobref)
        call->iobref = iobref_ref(msg->iobref);
    if (req->rsp.rsp_payload_count > 0 && req->rsp.rsp_payload->iov_len > 0 && req->rsp.rsp_iobref) {
        call->rsp = *req->rsp.rsp_payload;
        call->rsp_iobref = iobref_ref(req->rsp.rsp_iobref);
    }
    return call;
}

/* ---- sending ---- */

static int prepare_payload(struct rdma_link *link, struct call *call, rcg_rpc_request *request)
{
    size_t head = iov_length(call->vector, call->nhead);
    size_t payload = iov_length(call->vector + call->nhead, call->npayload);
    bool held;
    int rc;

    request->head = call->vector;
    request->nhead = (size_t)call->nhead;
    if (payload == 0)
        return 0;
    if (HEADER + head + payload <= link->inline_send) {
        request->nhead += (size_t)call->npayload;
        return 0;
    }
    rc = rdma_memory_of(&call->payload, &link->pool, call->vector + call->nhead, call->npayload, link->provider, &held);
    request->payload = (rcg_rpc_memory){ .sge = &call->payload.sge, .nsge = 1, .at = (uint32_t)head };
    return rc;
}

static int prepare_reply(struct rdma_link *link, struct call *call, rcg_rpc_request *request, rcg_rpc_memory *result)
{
    size_t room = reply_room(call->vector);
    int rc;

    request->reply_max = link->inline_recv - HEADER;
    if (call->rsp.iov_len > 0) {
        call->rsp_held = rdma_memory_registers(link->provider, call->rsp.iov_len);
        rc = call->rsp_held
                 ? rdma_memory_wrap(&call->result, call->rsp.iov_base, call->rsp.iov_len, RCG_LOCAL | RCG_REMOTE_WRITE)
                 : rdma_memory_get(&call->result, &link->pool, call->rsp.iov_len);
        *result = (rcg_rpc_memory){ .sge = &call->result.sge, .nsge = 1 };
        request->results = result;
        request->nresults = 1;
        return rc;
    }
    if (room == SHORT_REPLY)
        return 0;
    /* Those of other programs are a few of each link, for which no buffer is kept. */
    rc = rdma_memory_get(&call->reply, word(call->vector, 12) == FOPS ? &link->pool : NULL, room);
    request->reply_max = room;
    request->reply = (rcg_rpc_memory){ .sge = &call->reply.sge, .nsge = 1 };
    return rc;
}

/* With the lock held. 0: the call is the library's, or over, as nobody answers callbacks. */
static int send_locked(struct rdma_link *link, struct call *call)
{
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .user = call };
    rcg_rpc_memory result;
    int rc;

    if (call->callback) {
        request.head = call->vector;
        request.nhead = (size_t)call->nhead;
        request.reply_max = 64;
        request.user = NULL;
        rc = 0;
    } else {
        rc = prepare_payload(link, call, &request);
        if (rc == 0)
            rc = prepare_reply(link, call, &request, &result);
    }
    if (rc == 0)
        rc = rcg_rpc_call(link->conn, &request);
    if (rc) {
        rdma_memory_put(&call->payload);
        rdma_memory_put(&call->result);
        rdma_memory_put(&call->reply);
    } else {
        link->trans->total_bytes_write += iov_length(call->vector, call->nhead + call->npayload);
        if (call->callback)
            call_free(call);
        else
            link->calls++;
    }
    return rc;
}

/* With the lock held. There will be room, or memory, which a process may lock only so much of, when a call that is on its way
 * has ended. */
static bool can_wait(const struct rdma_link *link, int rc)
{
    return rc == -EAGAIN || ((rc == -ENOMEM || rc == -ENOBUFS) && link->calls > 0);
}

int32_t rdma_submit_request(rpc_transport_t *this, rpc_transport_req_t *req)
{
    struct rdma_private *priv = this->private;
    struct rdma_link *link;
    struct call *call;
    int rc = -ENOTCONN;

    pthread_mutex_lock(&priv->lock);
    link = priv->link;
    call = link && link->up ? call_new(req, link->door != NULL) : NULL;
    if (call) {
        rc = list_empty(&link->waiting) ? send_locked(link, call) : -EAGAIN;
        if (can_wait(link, rc)) {
            list_add_tail(&call->list, &link->waiting);
            rc = 0;
        }
    }
    pthread_mutex_unlock(&priv->lock);
    if (rc == 0)
        return 0;
    gf_msg(this->name, rc == -ENOTCONN ? GF_LOG_DEBUG : GF_LOG_WARNING, -rc, RDMA_MSG_CALL_FAILED, "no call to %s: %s",
           this->peerinfo.identifier, rc == -ENOTCONN ? "not connected" : rdma_why());
    if (call)
        call_free(call);
    return -1;
}

/* ---- telling ---- */

rpc_transport_pollin_t *message_new(rpc_transport_t *this, const void *data, size_t length, struct iobref *iobref,
                                    struct iovec payload, void *cookie)
{
    struct iobuf *head = iobuf_get2(this->ctx->iobuf_pool, length);
    struct iovec vector[2];
    rpc_transport_pollin_t *message;

    if (!head)
        return NULL;
    memcpy(iobuf_ptr(head), data, length);
    vector[0] = (struct iovec){ iobuf_ptr(head), length };
    vector[1] = payload;
    message = rpc_transport_pollin_alloc(this, vector, payload.iov_len > 0 ? 2 : 1, head, iobref, cookie);
    iobuf_unref(head);
    return message;
}

void message_tell(rpc_transport_t *this, rpc_transport_pollin_t *message)
{
    this->total_bytes_read += iov_length(message->vector, message->count);
    rpc_transport_notify(this, RPC_TRANSPORT_MSG_RECEIVED, message);
    message->private = NULL; /* no memory */
    rpc_transport_pollin_destroy(message);
}

static void tell_reply(struct rdma_link *link, const void *data, size_t length, struct iobref *iobref, struct iovec read)
{
    rpc_transport_pollin_t *message = iobref ? message_new(link->trans, data, length, iobref, read, NULL) : NULL;

    if (iobref)
        iobref_unref(iobref);
    if (message) {
        message->is_reply = 1;
        message_tell(link->trans, message);
    } else
        rcg_conn_disconnect(link->conn);
}

/* As if the peer had denied it: nothing else tells GlusterFS that a call has failed. */
static void failed(struct rdma_link *link, const struct call *call)
{
    uint32_t words[] = { htonl(call->xid), htonl(1), htonl(1), htonl(0), htonl(2), htonl(2) };

    tell_reply(link, words, sizeof words, iobref_new(), (struct iovec){ NULL, 0 });
}

static void succeeded(struct rdma_link *link, struct call *call, const rcg_event *ev)
{
    size_t octets = ev->rpc->npieces > 0 && call->rsp.iov_len > 0 ? ev->rpc->pieces[0].length : 0;

    if (octets > 0 && !call->rsp_held)
        memcpy(call->rsp.iov_base, call->result.sge.addr, octets);
    tell_reply(link, ev->data, ev->length, call->rsp_iobref ? iobref_ref(call->rsp_iobref) : iobref_new(),
               (struct iovec){ call->rsp.iov_base, octets });
}

/* Sends what waits, when `over` more calls of ours are, and takes out what can't be sent. */
static void go_on(struct rdma_link *link, uint32_t over, struct list_head *hopeless)
{
    struct rdma_private *priv = link->trans->private;
    struct call *call, *next;
    int rc;

    pthread_mutex_lock(&priv->lock);
    link->calls -= over;
    list_for_each_entry_safe(call, next, &link->waiting, list)
    {
        list_del_init(&call->list);
        rc = link->up ? send_locked(link, call) : -EAGAIN;
        if (can_wait(link, rc)) {
            list_add(&call->list, &link->waiting);
            break;
        }
        if (rc)
            list_add_tail(&call->list, hopeless);
    }
    pthread_mutex_unlock(&priv->lock);
}

void calls_reply(struct rdma_link *link, const rcg_event *ev)
{
    struct call *call = ev->user, *next;
    struct list_head hopeless;

    INIT_LIST_HEAD(&hopeless);
    /* At once into the room in the library; then, with what this one held, what waits for memory. */
    go_on(link, 0, &hopeless);
    if (call && ev->status == 0)
        succeeded(link, call, ev);
    else if (call && ev->status != -ECANCELED) {
        rdma_log(link->trans, WARNING, -ev->status, RDMA_MSG_CALL_FAILED, "call %#x to %s failed", call->xid,
                 link->trans->peerinfo.identifier);
        failed(link, call);
    }
    if (call) {
        call_free(call);
        go_on(link, 1, &hopeless);
    }
    list_for_each_entry_safe(call, next, &hopeless, list)
    {
        rdma_log(link->trans, WARNING, 0, RDMA_MSG_CALL_FAILED, "call %#x to %s can't be made", call->xid,
                 link->trans->peerinfo.identifier);
        if (!call->callback)
            failed(link, call);
        call_free(call);
    }
}

/* GlusterFS ends its calls itself when it hears of a disconnect. */
void calls_end(struct rdma_link *link)
{
    struct call *call, *next;

    list_for_each_entry_safe(call, next, &link->waiting, list)
    {
        list_del(&call->list);
        call_free(call);
    }
}
