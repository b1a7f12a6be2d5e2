/* The side that stands on librdmacm and libibverbs, and on nothing of this project. */
#include "peer.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>

#include <rdma/rdma_cma.h>

const char *const side_name = "cm_peer";
const bool side_is_library = false;

enum { KEPT = 16, KEYS = 8, RESOLVE_MS = 5000 };

struct queue { /* a completion queue and what wakes it */
    struct ibv_comp_channel *channel;
    struct ibv_cq *cq;
};

struct request {
    struct rdma_cm_id *id;
    struct heard heard;
    unsigned ird, ord;
};

static struct rdma_event_channel *events;
static struct rdma_cm_id *listener;
static struct request requests[KEPT];
static unsigned request_head, request_tail;
static struct rdma_cm_id *abandoned[KEPT];
static unsigned abandoned_count;

/* The connection. */
static struct rdma_cm_id *id; /* NULL = none */
static struct ibv_pd *pd;
static struct queue send_queue, receive_queue;
static struct ibv_mr *region, *keys[KEYS];
static unsigned key_count;
static struct ibv_mw *fleeting; /* NULL = none */
static struct rdma_conn_param param; /* what we say to connect or accept */
static unsigned char private_data[PRIVATE];
static unsigned outcome_ms;
static struct heard answer;
static bool resolved, settled, ended;
static enum outcome outcome;

/* For calls of libibverbs and librdmacm that say -1 or NULL, and why in errno. */
#define CHECK(ok, call)                                                                                                \
    do {                                                                                                               \
        if (!(ok)) die("%s: %s", call, strerror(errno));                                                               \
    } while (0)

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void hear_private(struct heard *heard, const struct rdma_conn_param *from)
{
    heard->length = from->private_data_len;
    if (heard->length) memcpy(heard->data, from->private_data, heard->length);
}

static void settle(enum outcome how, const struct rdma_cm_event *ev)
{
    settled = true;
    outcome = how;
    hear_private(&answer, &ev->param.conn);
    if (how != ESTABLISHED) note("%s, status %d", rdma_event_str(ev->event), ev->status);
}

static void handle(const struct rdma_cm_event *ev)
{
    if (ev->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
        struct request *request = &requests[request_tail++ % KEPT];
        *request = (struct request){ .id = ev->id, .ird = ev->param.conn.responder_resources,
                                     .ord = ev->param.conn.initiator_depth };
        hear_private(&request->heard, &ev->param.conn);
        return;
    }
    if (id == NULL || ev->id != id) return;
    switch (ev->event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
    case RDMA_CM_EVENT_ROUTE_RESOLVED: resolved = true; break;
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR: die("%s, status %d", rdma_event_str(ev->event), ev->status);
    case RDMA_CM_EVENT_ESTABLISHED: settle(ESTABLISHED, ev); break;
    case RDMA_CM_EVENT_REJECTED: settle(REJECTED, ev); break;
    case RDMA_CM_EVENT_CONNECT_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE: settle(FAILED, ev); break;
    case RDMA_CM_EVENT_DISCONNECTED:
        ended = true;
        rdma_disconnect(id); /* flushes what is outstanding; it may be too late for that */
        break;
    default: break;
    }
}

/* The kernel tells errors of the queue pair here, like a Terminate. */
static void tell_async_event(void)
{
    struct ibv_async_event ev;
    if (ibv_get_async_event(id->verbs, &ev) != 0) return;
    if (ev.event_type != IBV_EVENT_COMM_EST && ev.event_type != IBV_EVENT_QP_LAST_WQE_REACHED)
        note("async event: %s", ibv_event_type_str(ev.event_type));
    ibv_ack_async_event(&ev);
}

static uint64_t in(unsigned ms)
{
    return now_ms() + ms;
}

/* Waits for anything to happen until `deadline`, and handles events; false = it has passed. */
static bool pump(uint64_t deadline, const struct queue *queue)
{
    struct pollfd fds[3] = { { .fd = events->fd, .events = POLLIN },
                             { .fd = id && id->verbs ? id->verbs->async_fd : -1, .events = POLLIN },
                             { .fd = queue ? queue->channel->fd : -1, .events = POLLIN } };
    struct rdma_cm_event *ev;
    uint64_t now = now_ms();
    if (poll(fds, 3, now < deadline ? (int)(deadline - now) : 0) == 0) return false;
    if (fds[1].revents) tell_async_event();
    if (fds[0].revents && rdma_get_cm_event(events, &ev) == 0) {
        handle(ev);
        rdma_ack_cm_event(ev);
    }
    return true;
}

/* ---- the connection ---------------------------------------------------------------------------------------------- */

static void make_nonblocking(int fd)
{
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "fcntl");
}

void side_start(void)
{
    events = rdma_create_event_channel();
    CHECK(events, "rdma_create_event_channel");
    make_nonblocking(events->fd);
}

void side_stop(void)
{
    while (abandoned_count) rdma_destroy_id(abandoned[--abandoned_count]);
    if (listener) rdma_destroy_id(listener);
    rdma_destroy_event_channel(events);
}

uint16_t side_listen(void)
{
    CHECK(rdma_create_id(events, &listener, NULL, RDMA_PS_TCP) == 0, "rdma_create_id");
    CHECK(rdma_bind_addr(listener, (struct sockaddr *)&opt.address) == 0, "rdma_bind_addr");
    CHECK(rdma_listen(listener, 64) == 0, "rdma_listen");
    return ntohs(rdma_get_src_port(listener));
}

static void make_queue(struct queue *queue)
{
    queue->channel = ibv_create_comp_channel(id->verbs);
    CHECK(queue->channel, "ibv_create_comp_channel");
    make_nonblocking(queue->channel->fd);
    queue->cq = ibv_create_cq(id->verbs, 2 * DEPTH, NULL, queue->channel, 0);
    CHECK(queue->cq, "ibv_create_cq");
}

/* Makes the queue pair, and registers the area. */
static void equip(void)
{
    struct ibv_qp_init_attr attr = { .qp_type = IBV_QPT_RC,
                                     .cap = { .max_send_wr = DEPTH, .max_recv_wr = 2 * SLOTS,
                                              .max_send_sge = PIECES, .max_recv_sge = 2 } };
    pd = ibv_alloc_pd(id->verbs);
    CHECK(pd, "ibv_alloc_pd");
    make_queue(&send_queue);
    make_queue(&receive_queue);
    attr.send_cq = send_queue.cq;
    attr.recv_cq = receive_queue.cq;
    /* No queue pair can be made for a client that has gone; then side_accept() fails. */
    CHECK(rdma_create_qp(id, pd, &attr) == 0 || opt.listen, "rdma_create_qp");
    region = ibv_reg_mr(pd, area, area_length, IBV_ACCESS_LOCAL_WRITE);
    CHECK(region, "ibv_reg_mr");
    make_nonblocking(id->verbs->async_fd);
}

static void adopt(struct rdma_cm_id *new)
{
    id = new;
    pd = NULL;
    key_count = 0;
    settled = ended = false;
    outcome = EXPIRED;
    param = (struct rdma_conn_param){ .responder_resources = (uint8_t)opt.ird, .initiator_depth = (uint8_t)opt.ord,
                                      .retry_count = 7, .rnr_retry_count = 7 };
}

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

void side_await_request(struct heard *heard)
{
    uint64_t deadline = in(opt.timeout_ms);
    while (request_head == request_tail)
        if (!pump(deadline, NULL)) die("no client comes");
    struct request *request = &requests[request_head++ % KEPT];
    adopt(request->id);
    /* Revision 1 of MPA does not carry them, and both are 0: then ours are in force. */
    if (!side_is_iwarp() || request->ird || request->ord) {
        param.responder_resources = (uint8_t)least(opt.ird, request->ird);
        param.initiator_depth = (uint8_t)least(opt.ord, request->ord);
    }
    equip();
    *heard = request->heard;
}

static void say(const void *data, size_t length)
{
    memcpy(private_data, data, length);
    param.private_data = private_data;
    param.private_data_len = (uint8_t)length;
}

static enum outcome await_outcome(unsigned wait_ms)
{
    uint64_t deadline = in(wait_ms);
    while (!settled)
        if (!pump(deadline, NULL)) return EXPIRED;
    return outcome;
}

enum outcome side_accept(const void *data, size_t length)
{
    say(data, length);
    if (id->qp == NULL || rdma_accept(id, &param) != 0) {
        note("the client has gone: %s", strerror(errno));
        return FAILED;
    }
    return await_outcome(opt.timeout_ms);
}

void side_reject(const void *data, size_t length)
{
    CHECK(rdma_reject(id, length ? data : NULL, (uint8_t)length) == 0, "rdma_reject");
}

static void unequip(void);

void side_abandon(void)
{
    unequip();
    abandoned[abandoned_count++] = id;
    id = NULL;
}

static void await_resolution(void)
{
    uint64_t deadline = in(opt.timeout_ms);
    while (!resolved)
        if (!pump(deadline, NULL)) die("no address or route");
    resolved = false;
}

void side_begin(const void *data, size_t length, unsigned wait_ms)
{
    struct rdma_cm_id *new;
    CHECK(rdma_create_id(events, &new, NULL, RDMA_PS_TCP) == 0, "rdma_create_id");
    adopt(new);
    CHECK(rdma_resolve_addr(id, NULL, (struct sockaddr *)&opt.address, RESOLVE_MS) == 0, "rdma_resolve_addr");
    await_resolution();
    CHECK(rdma_resolve_route(id, RESOLVE_MS) == 0, "rdma_resolve_route");
    await_resolution();
    equip();
    say(data, length);
    outcome_ms = wait_ms;
}

enum outcome side_connect(struct heard *heard)
{
    CHECK(rdma_connect(id, &param) == 0, "rdma_connect");
    enum outcome how = outcome_ms ? await_outcome(outcome_ms) : EXPIRED;
    *heard = answer;
    return how;
}

void side_disconnect(void)
{
    rdma_disconnect(id); /* fails if the peer was first */
}

bool side_await_end(void)
{
    uint64_t deadline = in(opt.timeout_ms);
    while (!ended)
        if (!pump(deadline, NULL)) return false;
    return true;
}

static void unmake_queue(struct queue *queue)
{
    struct ibv_cq *cq;
    void *context;
    unsigned unacknowledged = 0;
    while (ibv_get_cq_event(queue->channel, &cq, &context) == 0) unacknowledged++;
    ibv_ack_cq_events(queue->cq, unacknowledged);
    CHECK(ibv_destroy_cq(queue->cq) == 0, "ibv_destroy_cq");
    CHECK(ibv_destroy_comp_channel(queue->channel) == 0, "ibv_destroy_comp_channel");
}

static void unequip(void)
{
    if (id->qp) rdma_destroy_qp(id);
    if (fleeting) CHECK(ibv_dealloc_mw(fleeting) == 0, "ibv_dealloc_mw");
    fleeting = NULL;
    CHECK(ibv_dereg_mr(region) == 0, "ibv_dereg_mr");
    while (key_count) CHECK(ibv_dereg_mr(keys[--key_count]) == 0, "ibv_dereg_mr");
    unmake_queue(&send_queue);
    unmake_queue(&receive_queue);
    CHECK(ibv_dealloc_pd(pd) == 0, "ibv_dealloc_pd");
}

void side_destroy(void)
{
    unequip();
    CHECK(rdma_destroy_id(id) == 0, "rdma_destroy_id");
    id = NULL;
}

bool side_is_iwarp(void)
{
    return id->verbs->device->transport_type == IBV_TRANSPORT_IWARP;
}

void side_limits(uint32_t *ird, uint32_t *ord)
{
    struct ibv_qp_init_attr init;
    struct ibv_qp_attr attr;
    int rc = ibv_query_qp(id->qp, &attr, IBV_QP_MAX_QP_RD_ATOMIC | IBV_QP_MAX_DEST_RD_ATOMIC, &init);
    if (rc != 0) die("ibv_query_qp: %s", strerror(rc));
    bool swapped = strncmp(id->verbs->device->name, "siw", 3) == 0; /* as of Linux 6.1 */
    *ird = swapped ? attr.max_rd_atomic : attr.max_dest_rd_atomic;
    *ord = swapped ? attr.max_dest_rd_atomic : attr.max_rd_atomic;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static struct ibv_mr *reg_mr(struct piece piece, int access)
{
    struct ibv_mr *mr = ibv_reg_mr(pd, area + piece.offset, piece.length, access);
    CHECK(mr, "ibv_reg_mr");
    if (key_count == KEYS) die("too many keys");
    return keys[key_count++] = mr;
}

uint32_t side_key(struct piece piece, unsigned rights)
{
    int access = (rights & MAY_READ ? IBV_ACCESS_REMOTE_READ : 0) |
                 (rights & MAY_WRITE ? IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_LOCAL_WRITE : 0);
    return reg_mr(piece, access)->rkey;
}

/* By a memory window: rxe can't invalidate an ordinary region. siw can, and has no windows. */
uint32_t side_fleeting_key(struct piece piece)
{
    int access = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
    struct ibv_send_wr wr = { .opcode = IBV_WR_BIND_MW, .send_flags = IBV_SEND_SIGNALED }, *bad;
    fleeting = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
    if (fleeting == NULL) return side_key(piece, MAY_READ | MAY_WRITE);
    wr.bind_mw.mw = fleeting;
    wr.bind_mw.rkey = ibv_inc_rkey(fleeting->rkey);
    struct ibv_mr *under = reg_mr(piece, access | IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
    wr.bind_mw.bind_info = (struct ibv_mw_bind_info){ .mr = under, .addr = (uintptr_t)area + piece.offset,
                                                      .length = piece.length, .mw_access_flags = (unsigned)access };
    int rc = ibv_post_send(id->qp, &wr, &bad);
    if (rc != 0) die("a window can't be bound: %s", strerror(rc > 0 ? rc : -rc));
    struct done done = side_next_sent();
    if (done.result != DONE) die("binding a window: %s", result_name(done.result));
    return wr.bind_mw.rkey;
}

static struct ibv_sge sge_of(struct piece piece)
{
    return (struct ibv_sge){ (uintptr_t)area + piece.offset, (uint32_t)piece.length, region->lkey };
}

/* Without empty elements: one before others makes the kernel's siw (Linux 6.1) follow a null pointer. */
static int gather(struct ibv_sge *sges, const struct work *work)
{
    int n = 0;
    for (unsigned i = 0; i < work->pieces; i++)
        if (work->piece[i].length) sges[n++] = sge_of(work->piece[i]);
    return n;
}

int side_post(const struct work *work)
{
    static const enum ibv_wr_opcode opcodes[] = { IBV_WR_SEND,       IBV_WR_SEND_WITH_IMM,       IBV_WR_SEND_WITH_INV,
                                                  IBV_WR_RDMA_WRITE, IBV_WR_RDMA_WRITE_WITH_IMM, IBV_WR_RDMA_READ };
    struct ibv_sge sges[PIECES];
    struct ibv_send_wr wr = { .wr_id = work->verb, .sg_list = sges, .opcode = opcodes[work->verb] }, *bad;
    wr.num_sge = gather(sges, work);
    /* rdma-core's siw library takes it, but puts 0 where the key should be. */
    if (work->verb == SEND_INV && side_is_iwarp()) return -EOPNOTSUPP;
    wr.send_flags = work->quiet ? 0 : IBV_SEND_SIGNALED;
    if (work->verb == SEND_IMM || work->verb == WRITE_IMM) wr.imm_data = htonl(work->immediate);
    if (work->verb == SEND_INV) wr.invalidate_rkey = work->key;
    if (work->verb >= WRITE) wr.wr.rdma.remote_addr = work->remote, wr.wr.rdma.rkey = work->key;
    int rc = ibv_post_send(id->qp, &wr, &bad);
    return rc > 0 ? -rc : rc;
}

/* In two pieces that lie side by side. */
void side_post_receive(unsigned slot, size_t length)
{
    size_t at = slot * (size_t)SLOT, first = length / 4;
    struct ibv_sge sges[2] = { sge_of((struct piece){ at, first }),
                               sge_of((struct piece){ at + first, length - first }) };
    struct ibv_recv_wr wr = { .wr_id = slot, .sg_list = sges, .num_sge = 2 }, *bad;
    if (id->qp == NULL) return;
    int rc = ibv_post_recv(id->qp, &wr, &bad);
    if (rc != 0) die("ibv_post_recv: %s", strerror(rc > 0 ? rc : -rc));
}

void side_receive_again(const struct done *done, size_t length)
{
    side_post_receive(done->slot, length);
}

static enum result result_of(enum ibv_wc_status status)
{
    switch (status) {
    case IBV_WC_SUCCESS: return DONE;
    case IBV_WC_WR_FLUSH_ERR: return FLUSHED;
    case IBV_WC_REM_ACCESS_ERR: return NO_ACCESS;
    case IBV_WC_LOC_LEN_ERR: return TOO_LONG;
    default: note("completion: %s", ibv_wc_status_str(status)); return BROKEN;
    }
}

static bool take_completion(struct queue *queue, struct ibv_wc *wc)
{
    int n = ibv_poll_cq(queue->cq, 1, wc);
    if (n < 0) die("ibv_poll_cq failed");
    return n > 0;
}

static struct ibv_wc await_completion(struct queue *queue, const char *what)
{
    uint64_t deadline = in(opt.timeout_ms);
    struct ibv_wc wc;
    struct ibv_cq *cq;
    void *context;
    while (!take_completion(queue, &wc)) {
        if (ibv_req_notify_cq(queue->cq, 0) != 0) die("ibv_req_notify_cq failed");
        if (take_completion(queue, &wc)) break;
        if (!pump(deadline, queue)) die("%s has no completion (%s)", what, ended ? "it has ended" : "it has not ended");
        while (ibv_get_cq_event(queue->channel, &cq, &context) == 0) ibv_ack_cq_events(cq, 1);
    }
    return wc;
}

struct done side_next_sent(void)
{
    struct ibv_wc wc = await_completion(&send_queue, "an operation");
    return (struct done){ .verb = (enum verb)wc.wr_id, .result = result_of(wc.status) };
}

struct done side_next_received(void)
{
    struct ibv_wc wc = await_completion(&receive_queue, "a receive");
    struct done done = { .verb = RECV, .result = result_of(wc.status), .slot = (unsigned)wc.wr_id };
    if (done.result != DONE) return done;
    done.data = area + done.slot * (size_t)SLOT;
    done.length = wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM ? 0 : wc.byte_len;
    done.has_immediate = wc.wc_flags & IBV_WC_WITH_IMM;
    done.immediate = done.has_immediate ? ntohl(wc.imm_data) : 0;
    done.has_invalidated = wc.wc_flags & IBV_WC_WITH_INV;
    done.invalidated = done.has_invalidated ? wc.invalidated_rkey : 0;
    return done;
}

void side_last_word(void) {} /* librdmacm has none */
