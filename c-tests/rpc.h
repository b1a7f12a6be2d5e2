/* What the tests of RPC-over-RDMA share, on top of helpers.h: two ends, messages, a small call. */
#ifndef RCG_TEST_RPC_H
#define RCG_TEST_RPC_H

#include "helpers.h"

#define REGION (2u << 20)
#define ROOM 8192u /* for a reply that is looked into */

/* Zones of an end's memory. */
enum { SOURCE = 0, RESULT = REGION / 4, REPLY = REGION / 2 };

struct end {
    struct side side;
    unsigned char *mem; /* REGION octets */
    rcg_mr *mr;         /* all of it, with all rights */
    rcg_event lent[4];  /* calls that have not been answered when the connection ends */
    unsigned nlent;
};

/* A call of ours: `user` of its events. */
struct call {
    unsigned over; /* how often it has been told that it is */
    int status;
    uint32_t xid, credits;
    const void *data;
    size_t length, npieces;
    rcg_rpc_piece piece[2];
    unsigned char text[ROOM];
};

static struct end client, server;
static rcg_listener *lst;
static struct address to;
static uint64_t seed __attribute__((unused));
static uint32_t last_xid __attribute__((unused)) = 0x1000;

/* No private data: messages of 1024 octets at most. */
static const rcg_rpc_attr silent __attribute__((unused)) = { RCG_RPC_ATTR_INIT, .flags = RCG_RPC_NO_PRIVATE_DATA };

/* ---- messages ------------------------------------------------------------------------------------------------ */

static inline void put_word(unsigned char *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, 4);
}

static inline uint32_t get_word(const void *message, size_t at)
{
    uint32_t value;
    memcpy(&value, (const unsigned char *)message + at, 4);
    return ntohl(value);
}

static inline size_t padded(size_t octets)
{
    return (octets + 3) & ~(size_t)3;
}

/* So many octets that begin like a call (0) or a reply (1). */
static inline struct iovec head_of(unsigned char *into, uint32_t xid, uint32_t kind, size_t octets)
{
    pattern_fill(into, octets, xid * 2 + kind);
    put_word(into, xid);
    put_word(into + 4, kind);
    put_word(into + 8, kind ? 0 : 2);
    return (struct iovec){ into, octets };
}

static inline rcg_sge sge_of(const struct end *e, size_t offset, size_t length)
{
    return (rcg_sge){ .addr = e->mem + offset, .length = length, .mr = e->mr };
}

/* Memory as one piece, or as three that lie side by side, where it is long enough for that. */
static inline rcg_rpc_memory memory_of(const struct end *e, rcg_sge sge[3], size_t offset, size_t length, unsigned pieces)
{
    size_t third = length / 3;
    if (length == 0) return (rcg_rpc_memory){ 0 };
    if (pieces == 1 || third == 0) {
        sge[0] = sge_of(e, offset, length);
        return (rcg_rpc_memory){ .sge = sge, .nsge = 1 };
    }
    sge[0] = sge_of(e, offset, third);
    sge[1] = sge_of(e, offset + third, third);
    sge[2] = sge_of(e, offset + 2 * third, length - 2 * third);
    return (rcg_rpc_memory){ .sge = sge, .nsge = 3 };
}

/* A call of `octets` with nothing apart. */
static inline int small_call(struct end *from, uint32_t xid, size_t octets, struct call *call)
{
    unsigned char text[8192];
    struct iovec head = head_of(text, xid, 0, octets);
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 64, .user = call };
    return rcg_rpc_call(from->side.conn, &request);
}

static inline int small_reply(struct end *from, uint64_t to_call, uint32_t xid, size_t octets, void *user)
{
    unsigned char text[8192];
    struct iovec head = head_of(text, xid, 1, octets);
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT, .head = &head, .nhead = 1, .user = user };
    return rcg_rpc_reply(from->side.conn, to_call, &response);
}

/* ---- ends ---------------------------------------------------------------------------------------------------- */

/* Calls stay as they are while their connection ends, but can't be answered any more. */
static inline void check_lent(struct end *e)
{
    for (unsigned i = 0; i < e->nlent; i++) {
        const rcg_event *ev = &e->lent[i];
        ASSERT_EQ(get_word(ev->data, 0), ev->rpc->xid);
        ASSERT_RC(small_reply(e, ev->rpc->call, ev->rpc->xid, 24, NULL), -ENOTCONN);
        ASSERT_RC(rcg_rpc_refuse(ev->conn, ev->rpc->call), -ENOTCONN);
    }
}

/* What an RPC_REPLY points to is gone with the next batch. */
static inline bool look_at(struct inbox *b, const rcg_event *ev)
{
    struct call *call = ev->user;
    if (ev->type == RCG_EVENT_DISCONNECTED) check_lent(b->hook_arg);
    if (ev->type != RCG_EVENT_RPC_CALL && ev->type != RCG_EVENT_RPC_REPLY) ASSERT(ev->rpc == NULL);
    if (ev->type == RCG_EVENT_RPC_CALL) {
        ASSERT(ev->status == 0 && ev->rpc->size >= sizeof *ev->rpc && ev->rpc->call != 0);
        ASSERT_EQ(ev->flags, 0);
    }
    if (ev->type != RCG_EVENT_RPC_REPLY) return true;
    call->over++;
    call->status = ev->status;
    if (ev->status != 0) {
        ASSERT(ev->rpc == NULL && ev->data == NULL && ev->length == 0);
        return true;
    }
    ASSERT(ev->rpc->size >= sizeof *ev->rpc && ev->rpc->call == 0 && ev->rpc->nrooms == 0);
    ASSERT(ev->length <= ROOM && ev->rpc->npieces <= 2);
    call->xid = ev->rpc->xid, call->credits = ev->rpc->credits;
    call->data = ev->data, call->length = ev->length, call->npieces = ev->rpc->npieces;
    if (call->npieces) memcpy(call->piece, ev->rpc->pieces, call->npieces * sizeof *call->piece);
    memcpy(call->text, ev->data, ev->length);
    return true;
}

static inline void end_open(struct end *e, enum style style)
{
    side_open(&e->side, style);
    e->side.in.hook = look_at;
    e->side.in.hook_arg = e;
    e->nlent = 0;
    e->mem = calloc(1, REGION);
    ASSERT(e->mem != NULL);
    ASSERT_OK(rcg_mr_register(e->side.engine, e->mem, REGION, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &e->mr));
}

static inline void end_close(struct end *e)
{
    ASSERT_OK(rcg_mr_deregister(e->mr));
    side_close(&e->side);
    free(e->mem);
}

/* Both ends, connected; NULL = the defaults. */
static inline void open_pair(enum style style, const rcg_rpc_attr *connects, const rcg_rpc_attr *listens)
{
    rcg_rpc_attr defaults = { RCG_RPC_ATTR_INIT };
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .rpc = listens ? listens : &defaults };
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .rpc = connects ? connects : &defaults };
    end_open(&client, style);
    end_open(&server, style);
    lst = listen_on(&server.side.in, host4(), &listen, &to);
    link_up(&client.side, &server.side, &to, &connect, NULL);
}

static inline void close_listener_and_ends(void)
{
    unlisten(&server.side.in, lst);
    end_close(&client);
    end_close(&server);
}

static inline void close_pair(void)
{
    link_down(&client.side, &server.side);
    close_listener_and_ends();
}

static inline rcg_rpc_info figures(const struct end *e)
{
    rcg_rpc_info info = { RCG_RPC_INFO_INIT };
    ASSERT_OK(rcg_rpc_query(e->side.conn, &info));
    return info;
}

static inline rcg_event take_call(struct end *e)
{
    return take(&e->side.in, RCG_EVENT_RPC_CALL, e->side.conn, WAIT_MS);
}

static inline void expect_answered(struct end *e, const void *user)
{
    rcg_event ev = take(&e->side.in, RCG_EVENT_RPC_ANSWERED, e->side.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    ASSERT(ev.user == user);
}

static inline void expect_over(struct end *e, const struct call *call, int status)
{
    rcg_event ev = take(&e->side.in, RCG_EVENT_RPC_REPLY, e->side.conn, WAIT_MS);
    ASSERT(ev.user == call);
    ASSERT_EQ(call->over, 1);
    ASSERT_EQ(call->status, status);
}

/* A small call and its reply, to see that all is well. */
static inline void small_exchange(struct end *from, struct end *other)
{
    struct call call = { 0 };
    uint32_t xid = ++last_xid;
    unsigned char wanted[64];
    ASSERT_OK(small_call(from, xid, 40, &call));
    rcg_event ev = take_call(other);
    head_of(wanted, xid, 0, 40);
    ASSERT(ev.length == 40 && memcmp(ev.data, wanted, 40) == 0);
    ASSERT(ev.rpc->xid == xid && ev.rpc->npieces == 0 && ev.rpc->nrooms == 0 && ev.rpc->reply_max >= 64);
    ASSERT_OK(small_reply(other, ev.rpc->call, xid, 24, other));
    expect_over(from, &call, 0);
    head_of(wanted, xid, 1, 24);
    ASSERT(call.xid == xid && call.npieces == 0 && call.length == 24 && memcmp(call.text, wanted, 24) == 0);
    expect_answered(other, other);
}

/* ---- octet by octet, on a connection without RPC ----------------------------------------------------------------- */

static inline void send_words(struct end *e, const uint32_t *words, size_t n)
{
    unsigned char text[256];
    for (size_t i = 0; i < n; i++) put_word(text + 4 * i, words[i]);
    ASSERT_OK(rcg_post(e->side.conn, &(rcg_op)RCG_OP_SEND_COPY(text, (uint32_t)(4 * n), NULL), 1));
}
#define SEND_WORDS(e, ...)                                                                                             \
    send_words((e), (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4)

static inline void check_words(const void *message, const uint32_t *words, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (get_word(message, 4 * i) != words[i])
            FAIL("word %zu of a message is %#x, expected %#x", i, get_word(message, 4 * i), words[i]);
}

/* Takes a message, of which the first words are these. */
static inline void expect_words(struct end *e, const uint32_t *words, size_t n, size_t octets)
{
    rcg_event ev = take(&e->side.in, RCG_EVENT_RECV, e->side.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    ASSERT_EQ(ev.length, octets);
    check_words(ev.data, words, n);
    ASSERT_OK(rcg_recv_release(e->side.conn, &ev));
}
#define EXPECT_WORDS(e, octets, ...)                                                                                   \
    expect_words((e), (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4, (octets))

#endif
