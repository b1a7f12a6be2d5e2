/* The side that stands on librdmacm-gluster. */
#include "peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>

#include <rdmacm_gluster.h>

const char *const side_name = "rcg_peer";
const bool side_is_library = true;

enum { KEPT = 64 }; /* completions and requests that wait to be asked for */

struct fifo {
    struct done items[KEPT];
    unsigned head, tail;
};

struct request {
    rcg_conn *conn;
    struct heard heard;
};

static rcg_engine *engine;
static rcg_channel *channel;
static rcg_listener *listener;
static rcg_mr *region;
static uint32_t provider, crc;

static rcg_conn *conn; /* the connection; NULL = none */
static bool is_iwarp;
static bool settled, ended, closed, dying;
static enum outcome outcome;
static struct heard answer;
static unsigned outcome_ms; /* bound on the outcome; 0 = it is not awaited */
static struct fifo sent, received;
static struct request requests[KEPT];
static unsigned request_head, request_tail;

static void check(int rc, const char *call)
{
    rcg_error why = { RCG_ERROR_INIT };
    if (rc >= 0) return;
    if (rcg_last_error(&why) != 0) why.text[0] = '\0';
    die("%s: %s: %s", call, strerror(-rc), why.text);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void hear_private(struct heard *heard, const rcg_event *ev)
{
    heard->length = ev->private_data_len;
    if (heard->length > PRIVATE) die("%zu octets of private data", heard->length);
    if (heard->length) memcpy(heard->data, ev->private_data, heard->length);
}

static enum result result_of(int status)
{
    switch (status) {
    case 0: return DONE;
    case -ECANCELED: return FLUSHED;
    case -EACCES: return NO_ACCESS;
    case -EMSGSIZE: return TOO_LONG;
    default: return BROKEN;
    }
}

static void keep(struct fifo *fifo, const rcg_event *ev)
{
    static const enum verb verbs[] = { [RCG_SEND] = SEND,   [RCG_SEND_IMM] = SEND_IMM,   [RCG_SEND_INV] = SEND_INV,
                                       [RCG_WRITE] = WRITE, [RCG_WRITE_IMM] = WRITE_IMM, [RCG_READ] = READ,
                                       [RCG_RECV] = RECV };
    struct done *done = &fifo->items[fifo->tail++ % KEPT];
    if (fifo->tail - fifo->head > KEPT) die("completions that nobody asked for");
    *done = (struct done){
        .verb = verbs[ev->type == RCG_EVENT_RECV ? RCG_RECV : ev->op],
        .result = result_of(ev->status),
        .data = ev->data,
        .length = ev->length,
        .has_immediate = ev->flags & RCG_EVENT_WITH_IMM,
        .immediate = ev->imm,
        .has_invalidated = ev->flags & RCG_EVENT_INVALIDATED,
        .invalidated = ev->invalidated_key,
        .slot = opt.lent ? 0 : (unsigned)(uintptr_t)ev->user - 1,
        .lent = ev->buffer,
    };
}

static void settle(enum outcome how, const rcg_event *ev)
{
    settled = true;
    outcome = how;
    hear_private(&answer, ev);
}

static enum outcome failure(const rcg_error *error)
{
    if (error->reason == RCG_REASON_REJECTED) return REJECTED;
    return error->reason == RCG_REASON_TIMEOUT ? EXPIRED : FAILED;
}

static void handle(const rcg_event *ev)
{
    if (ev->type == RCG_EVENT_CONNECT_REQUEST) {
        struct request *request = &requests[request_tail++ % KEPT];
        request->conn = ev->conn;
        hear_private(&request->heard, ev);
        return;
    }
    for (unsigned i = request_head; i != request_tail; i++) /* gone before it was looked at */
        if (ev->type == RCG_EVENT_CLOSED && ev->conn && requests[i % KEPT].conn == ev->conn)
            requests[i % KEPT].conn = NULL;
    if (ev->conn == NULL || ev->conn != conn) return;
    switch (ev->type) {
    case RCG_EVENT_ESTABLISHED: settle(ESTABLISHED, ev); break;
    case RCG_EVENT_CONNECT_FAILED:
        if (outcome_ms) note("%s", ev->error->text);
        settle(failure(ev->error), ev);
        break;
    case RCG_EVENT_COMPLETION: keep(&sent, ev); break;
    case RCG_EVENT_RECV: keep(&received, ev); break;
    case RCG_EVENT_DISCONNECTED:
        ended = true;
        if (dying || (ev->status != -ECANCELED && ev->status != -ESHUTDOWN)) note("ended: %s", ev->error->text);
        break;
    case RCG_EVENT_CLOSED:
        closed = true;
        if (!settled) settle(FAILED, ev);
        break;
    default: break;
    }
}

/* Handles one event, or waits for one until `deadline`; false = it has passed. */
static bool pump(uint64_t deadline)
{
    struct pollfd fd = { .fd = rcg_channel_fd(channel), .events = POLLIN };
    rcg_event ev;
    for (;;) {
        int n = rcg_channel_next(channel, &ev, 1);
        uint64_t now = now_ms();
        check(n, "rcg_channel_next");
        if (n > 0) return handle(&ev), true;
        if (now >= deadline) return false;
        poll(&fd, 1, (int)(deadline - now));
    }
}

static uint64_t in(unsigned ms)
{
    return now_ms() + ms;
}

/* ---- the connection ---------------------------------------------------------------------------------------------- */

static uint32_t choice(const char *text, const char *const names[3], const char *option)
{
    for (uint32_t i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) return i;
    die("--%s %s: not one of %s, %s, %s", option, text, names[0], names[1], names[2]);
}

void side_start(void)
{
    provider = choice(opt.provider, (const char *const[]){ "auto", "verbs", "iwarp" }, "provider");
    crc = choice(opt.crc, (const char *const[]){ "auto", "on", "off" }, "crc");
    check(rcg_engine_create(NULL, &engine), "rcg_engine_create");
    check(rcg_channel_create(engine, NULL, &channel), "rcg_channel_create");
    check(rcg_mr_register(engine, area, area_length, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &region),
          "rcg_mr_register");
}

void side_stop(void)
{
    check(rcg_channel_destroy(channel), "rcg_channel_destroy");
    check(rcg_mr_deregister(region), "rcg_mr_deregister");
    check(rcg_engine_destroy(engine), "rcg_engine_destroy");
}

static uint32_t conn_flags(void)
{
    return opt.tagged ? 0 : RCG_CONN_RAW_PRIVATE_DATA;
}

uint16_t side_listen(void)
{
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    rcg_listen_attr attr = { RCG_LISTEN_ATTR_INIT, .provider = provider, .crc = crc, .flags = conn_flags(),
                             .ird = opt.ird, .ord = opt.ord, .max_fpdu = opt.max_fpdu, .send_depth = DEPTH };
    if (opt.lent) attr.recv_size = SLOT, attr.recv_count = SLOTS;
    check(rcg_listen(channel, (struct sockaddr *)&opt.address, opt.address_length, &attr, &listener), "rcg_listen");
    check(rcg_listener_query(listener, &info), "rcg_listener_query");
    return ntohs(((struct sockaddr_in *)&info.local)->sin_port); /* at the same place in a sockaddr_in6 */
}

static void adopt(rcg_conn *new)
{
    conn = new;
    settled = ended = closed = false;
    outcome = FAILED;
    memset(&sent, 0, sizeof sent);
    memset(&received, 0, sizeof received);
}

void side_await_request(struct heard *heard)
{
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    uint64_t deadline = in(opt.timeout_ms);
    for (;;) {
        while (request_head == request_tail)
            if (!pump(deadline)) die("no client comes");
        struct request *request = &requests[request_head++ % KEPT];
        if (request->conn == NULL || rcg_conn_query(request->conn, &info) != 0) continue;
        adopt(request->conn);
        is_iwarp = info.provider == RCG_PROVIDER_IWARP || strncmp(info.device, "siw", 3) == 0;
        *heard = request->heard;
        return;
    }
}

static enum outcome await_outcome(void)
{
    uint64_t deadline = in(outcome_ms + 5000); /* the library has the bound */
    while (!settled)
        if (!pump(deadline)) die("no outcome of the connect within %u ms", outcome_ms);
    return outcome;
}

enum outcome side_accept(const void *data, size_t length)
{
    rcg_accept_attr attr = { RCG_ACCEPT_ATTR_INIT, .private_data = data, .private_data_len = (uint32_t)length };
    int rc = rcg_accept(conn, &attr);
    if (rc == -ENOTCONN || rc == -EBADF) return FAILED;
    check(rc, "rcg_accept");
    outcome_ms = opt.timeout_ms;
    return await_outcome();
}

void side_reject(const void *data, size_t length)
{
    check(rcg_reject(conn, RCG_REJECT_APP, length ? data : NULL, (uint32_t)length), "rcg_reject");
}

void side_abandon(void)
{
    conn = NULL;
}

void side_begin(const void *data, size_t length, unsigned wait_ms)
{
    rcg_addr to = { .addr = (struct sockaddr *)&opt.address, .length = opt.address_length };
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .private_data = data, .private_data_len = (uint32_t)length,
                              .provider = provider, .timeout_ms = wait_ms, .flags = conn_flags(), .send_depth = DEPTH,
                              .ird = opt.ird, .ord = opt.ord, .crc = crc, .mpa_revision = opt.mpa,
                              .max_fpdu = opt.max_fpdu };
    rcg_conn *new;
    if (opt.lent) attr.recv_size = SLOT, attr.recv_count = SLOTS;
    outcome_ms = wait_ms;
    check(rcg_connect(channel, &to, 1, &attr, &new), "rcg_connect");
    adopt(new);
}

enum outcome side_connect(struct heard *heard)
{
    static const struct scenario *told;
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    if (outcome_ms == 0) return EXPIRED;
    await_outcome();
    if (rcg_conn_query(conn, &info) == 0)
        is_iwarp = info.provider == RCG_PROVIDER_IWARP || strncmp(info.device, "siw", 3) == 0;
    if (outcome == ESTABLISHED && told != scenario)
        note("established: %s %s crc %u mpa %u fpdu %u", info.provider == RCG_PROVIDER_IWARP ? "iwarp" : "verbs",
             info.device, info.crc, info.mpa_revision, info.max_fpdu), told = scenario;
    *heard = answer;
    return outcome;
}

void side_disconnect(void)
{
    check(rcg_conn_disconnect(conn), "rcg_conn_disconnect");
}

bool side_await_end(void)
{
    uint64_t deadline = in(opt.timeout_ms);
    while (!ended && !closed)
        if (!pump(deadline)) return false;
    return ended;
}

void side_destroy(void)
{
    uint64_t deadline = in(opt.timeout_ms);
    if (!closed) check(rcg_conn_close(conn), "rcg_conn_close");
    while (!closed)
        if (!pump(deadline)) die("a connection that was closed has no last event");
    conn = NULL;
}

bool side_is_iwarp(void)
{
    return is_iwarp;
}

void side_limits(uint32_t *ird, uint32_t *ord)
{
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    check(rcg_conn_query(conn, &info), "rcg_conn_query");
    *ird = info.ird;
    *ord = info.ord;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

uint32_t side_key(struct piece piece, unsigned rights)
{
    uint32_t key = 0, access = (rights & MAY_READ ? RCG_REMOTE_READ : 0) | (rights & MAY_WRITE ? RCG_REMOTE_WRITE : 0);
    int rc = rcg_mr_key_range(region, conn, piece.offset, piece.length, access, &key);
    if (rc != -ENOTCONN && rc != -EBADF) check(rc, "rcg_mr_key_range"); /* a peer may leave at any time */
    return key;
}

uint32_t side_fleeting_key(struct piece piece)
{
    return side_key(piece, MAY_READ | MAY_WRITE); /* all are */
}

static rcg_sge sge_of(struct piece piece)
{
    return (rcg_sge){ .addr = area + piece.offset, .length = piece.length, .mr = region };
}

int side_post(const struct work *work)
{
    static const uint32_t opcodes[] = { RCG_SEND, RCG_SEND_IMM, RCG_SEND_INV, RCG_WRITE, RCG_WRITE_IMM, RCG_READ };
    rcg_sge sges[PIECES];
    rcg_op op = { .opcode = opcodes[work->verb], .sge = sges, .nsge = work->pieces };
    for (unsigned i = 0; i < work->pieces; i++) sges[i] = sge_of(work->piece[i]);
    op.flags = work->quiet ? 0 : RCG_SIGNALED;
    if (work->verb == SEND_IMM || work->verb == WRITE_IMM) op.imm = work->immediate;
    if (work->verb == SEND_INV) op.invalidate_key = work->key;
    if (work->verb >= WRITE) op.remote_addr = work->remote, op.remote_key = work->key;
    return rcg_post(conn, &op, 1);
}

/* In two pieces that lie side by side. */
void side_post_receive(unsigned slot, size_t length)
{
    size_t at = slot * (size_t)SLOT, first = length / 4;
    rcg_sge sges[2] = { sge_of((struct piece){ at, first }), sge_of((struct piece){ at + first, length - first }) };
    rcg_recv recv = { .sge = sges, .nsge = 2, .user = (void *)(uintptr_t)(slot + 1) };
    if (opt.lent) return;
    int rc = rcg_post_recv(conn, &recv, 1);
    if (rc != -ENOTCONN && rc != -EBADF) check(rc, "rcg_post_recv");
}

void side_receive_again(const struct done *done, size_t length)
{
    rcg_event ev = { .conn = conn, .flags = RCG_EVENT_LENT, .buffer = done->lent };
    if (opt.lent) check(rcg_recv_release(conn, &ev), "rcg_recv_release");
    else side_post_receive(done->slot, length);
}

static struct done next(struct fifo *fifo, const char *what)
{
    uint64_t deadline = in(opt.timeout_ms);
    while (fifo->head == fifo->tail) {
        if (closed) die("the connection has ended, and %s has no event", what);
        if (!pump(deadline)) die("%s has no event", what);
    }
    return fifo->items[fifo->head++ % KEPT];
}

struct done side_next_sent(void)
{
    return next(&sent, "an operation");
}

struct done side_next_received(void)
{
    return next(&received, "a receive");
}

void side_last_word(void)
{
    uint64_t deadline = in(1000);
    if (dying || conn == NULL || ended) return;
    dying = true;
    while (!ended && pump(deadline)) continue;
}
