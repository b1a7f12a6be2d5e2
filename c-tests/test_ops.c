/* All operations, over loopback unless told otherwise (see helpers.h): IPv4 and IPv6, CRC on and off, MPA revision 1 and 2, the three ways to get events,
 * receives of the library's and of the caller's, from one octet to messages of 128 MiB, about 1 GiB in total. */
#include "helpers.h"

#define REGION (4u << 20)
#define HALF (REGION / 2)
#define MANAGED_SIZE 65536u
#define MANAGED_COUNT 32u

struct end {
    struct side side;
    unsigned char *mem; /* REGION octets: the lower half is what we send from, the upper what is received into */
    rcg_mr *mr;
    uint32_t key; /* for the peer */
    bool managed;
};

static uint64_t moved; /* octets of payload in all */
static uint64_t seed;  /* a new pattern for each message */

static void end_open(struct end *e, enum style style)
{
    side_open(&e->side, style);
    e->mem = calloc(1, REGION);
    ASSERT(e->mem != NULL);
    ASSERT_OK(rcg_mr_register(e->side.engine, e->mem, REGION, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &e->mr));
}

static void end_close(struct end *e)
{
    ASSERT_OK(rcg_mr_deregister(e->mr));
    side_close(&e->side);
    free(e->mem);
}

static rcg_sge sge_of(struct end *e, size_t offset, size_t length)
{
    return (rcg_sge){ .addr = e->mem + offset, .length = length, .mr = e->mr };
}

/* Waits for the completion of an operation and checks all that it says. */
static void expect_done(struct end *e, uint32_t op, void *user)
{
    rcg_event ev = take(&e->side.in, RCG_EVENT_COMPLETION, e->side.conn, WAIT_MS);
    if (ev.status != 0) FAIL("%s completed with %d (%s)", rcg_op_name(ev.op), ev.status, strerror(-ev.status));
    ASSERT_EQ(ev.op, op);
    ASSERT(ev.user == user);
}

static void post(struct end *e, const rcg_op *ops, size_t n)
{
    ASSERT_OK(rcg_post(e->side.conn, ops, n));
}

static void post_one(struct end *e, rcg_op op)
{
    post(e, &op, 1);
}

/* Has a receive ready for `length` octets: two pieces, 32 octets apart, in the upper half. */
static void ready_to_receive(struct end *e, size_t length)
{
    size_t first = length / 3;
    rcg_sge sge[2] = { sge_of(e, HALF, first), sge_of(e, HALF + first + 32, length - first) };
    rcg_recv recv = { .sge = sge, .nsge = 2, .user = &e->mem };
    if (e->managed) return;
    memset(e->mem + HALF, 0x5a, length + 64);
    ASSERT_OK(rcg_post_recv(e->side.conn, &recv, 1));
}

/* Takes a message of `length` octets of pattern `s` and gives its buffer back. */
static rcg_event receive(struct end *e, size_t length, uint64_t s)
{
    rcg_event ev = take(&e->side.in, RCG_EVENT_RECV, e->side.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    ASSERT_EQ(ev.length, length);
    if (e->managed) {
        ASSERT(ev.flags & RCG_EVENT_LENT);
        ASSERT_PATTERN(ev.data, length, s);
        ASSERT_OK(rcg_recv_release(e->side.conn, &ev));
    } else {
        size_t first = length / 3;
        ASSERT(!(ev.flags & RCG_EVENT_LENT));
        ASSERT(ev.user == &e->mem);
        ASSERT(ev.data == e->mem + HALF);
        ASSERT_PATTERN(e->mem + HALF, first, s);
        assert_all_are(e->mem + HALF + first, 32, 0x5a, "between the pieces of a receive");
        ASSERT_PATTERN_AT(e->mem + HALF + first + 32, length - first, s, first);
        assert_all_are(e->mem + HALF + length + 32, 32, 0x5a, "behind a receive");
    }
    moved += length;
    return ev;
}

/* A small message, so that the other side knows: what was posted before has been placed. */
static void tell(struct end *from, struct end *to)
{
    unsigned char note[16];
    pattern_fill(note, sizeof note, ++seed);
    ready_to_receive(to, sizeof note);
    post_one(from, (rcg_op)RCG_OP_SEND_COPY(note, sizeof note, NULL));
    receive(to, sizeof note, seed);
}

static void test_sends(struct end *a, struct end *b, size_t length)
{
    rcg_sge whole, parts[3];
    rcg_event ev;
    uint32_t imm = (uint32_t)mix64(length);

    STEP("send");
    pattern_fill(a->mem, length, ++seed);
    whole = sge_of(a, 0, length);
    ready_to_receive(b, length);
    post_one(a, (rcg_op)RCG_OP_SEND(&whole, 1, a));
    ev = receive(b, length, seed);
    ASSERT_EQ(ev.flags & (RCG_EVENT_WITH_IMM | RCG_EVENT_INVALIDATED | RCG_EVENT_SOLICITED), 0);
    expect_done(a, RCG_SEND, a);

    STEP("send with immediate, three pieces");
    pattern_fill(a->mem, length, ++seed);
    parts[0] = sge_of(a, 0, length / 2);
    parts[1] = sge_of(a, length / 2, length / 4);
    parts[2] = sge_of(a, length / 2 + length / 4, length - length / 2 - length / 4);
    ready_to_receive(b, length);
    rcg_op op = RCG_OP_SEND_IMM(parts, 3, imm, &imm);
    if (!can(CAN_IMM)) {
        ASSERT_RC(rcg_post(a->side.conn, &op, 1), -EOPNOTSUPP);
        op.opcode = RCG_SEND;
    }
    post_one(a, op);
    ev = receive(b, length, seed);
    if (can(CAN_IMM)) ASSERT_EQ(ev.imm, imm);
    ASSERT_EQ(!!(ev.flags & RCG_EVENT_WITH_IMM), can(CAN_IMM));
    expect_done(a, op.opcode, &imm);

    STEP("solicited send");
    pattern_fill(a->mem, length, ++seed);
    ready_to_receive(b, length);
    op = (rcg_op)RCG_OP_SEND(&whole, 1, b);
    op.flags |= RCG_SOLICITED;
    post_one(a, op);
    ev = receive(b, length, seed);
    ASSERT_EQ(!!(ev.flags & RCG_EVENT_SOLICITED), can(CAN_SOLICIT));
    expect_done(a, RCG_SEND, b);

    STEP("send with invalidate");
    uint32_t doomed;
    ASSERT_OK(rcg_mr_key(b->mr, b->side.conn, &doomed));
    if (!can(CAN_INVALIDATE)) {
        op = (rcg_op)RCG_OP_SEND_INV(&whole, 1, doomed, a);
        if (can(CAN_REFUSE_INVALIDATE)) ASSERT_RC(rcg_post(a->side.conn, &op, 1), -EOPNOTSUPP);
        ASSERT_OK(rcg_mr_key_revoke(b->mr, doomed));
        ASSERT_RC(rcg_mr_key_revoke(b->mr, doomed), -ENOENT);
        return;
    }
    pattern_fill(a->mem, length, ++seed);
    ready_to_receive(b, length);
    post_one(a, (rcg_op)RCG_OP_SEND_INV(&whole, 1, doomed, a));
    ev = receive(b, length, seed);
    ASSERT(ev.flags & RCG_EVENT_INVALIDATED);
    ASSERT_EQ(ev.invalidated_key, doomed);
    ASSERT_RC(rcg_mr_key_revoke(b->mr, doomed), -ENOENT); /* it is dead already */
    expect_done(a, RCG_SEND_INV, a);
}

static void test_write_read(struct end *a, struct end *b, size_t length)
{
    size_t at = HALF + 4096 + length % 7; /* not aligned either */
    rcg_sge parts[2] = { sge_of(a, 0, length / 2), sge_of(a, length / 2, length - length / 2) };

    STEP("write");
    memset(b->mem + at - 16, 0xc3, length + 32);
    pattern_fill(a->mem, length, ++seed);
    uint64_t written = seed;
    post_one(a, (rcg_op)RCG_OP_WRITE(parts, 2, addr_of(b->mem + at), b->key, a));
    expect_done(a, RCG_WRITE, a);
    unsigned char note[8];
    pattern_fill(note, sizeof note, ++seed);
    if (b->managed) {
        post_one(a, (rcg_op)RCG_OP_SEND_COPY(note, sizeof note, NULL));
        receive(b, sizeof note, seed);
    } else { /* the receive must not lie where the Write goes */
        rcg_sge sge = sge_of(b, REGION - 64, 64);
        rcg_recv recv = { .sge = &sge, .nsge = 1, .user = b };
        ASSERT_OK(rcg_post_recv(b->side.conn, &recv, 1));
        post_one(a, (rcg_op)RCG_OP_SEND_COPY(note, sizeof note, NULL));
        rcg_event ev = take(&b->side.in, RCG_EVENT_RECV, b->side.conn, WAIT_MS);
        ASSERT(ev.length == sizeof note && ev.user == b && memcmp(ev.data, note, sizeof note) == 0);
    }
    ASSERT_PATTERN(b->mem + at, length, written);
    assert_all_are(b->mem + at - 16, 16, 0xc3, "before a write");
    assert_all_are(b->mem + at + length, 16, 0xc3, "behind a write");

    STEP("read into three pieces");
    size_t into = HALF + 64, first = length / 4, second = length / 2;
    memset(a->mem + HALF, 0x77, length + 256);
    rcg_sge scatter[3] = { sge_of(a, into, first), sge_of(a, into + first + 8, second),
                           sge_of(a, into + first + second + 16, length - first - second) };
    post_one(a, (rcg_op)RCG_OP_READ(scatter, 3, addr_of(b->mem + at), b->key, b));
    expect_done(a, RCG_READ, b);
    ASSERT_PATTERN(scatter[0].addr, scatter[0].length, written);
    ASSERT_PATTERN_AT(scatter[1].addr, scatter[1].length, written, first);
    ASSERT_PATTERN_AT(scatter[2].addr, scatter[2].length, written, first + second);
    assert_all_are(a->mem + HALF, 64, 0x77, "before a read");
    assert_all_are(a->mem + into + first, 8, 0x77, "between the pieces of a read");
    assert_all_are(a->mem + into + first + 8 + second, 8, 0x77, "between the pieces of a read");
    assert_all_are(a->mem + into + length + 16, 64, 0x77, "behind a read");
    moved += 2 * length;
}

static void test_write_imm(struct end *a, struct end *b, size_t length)
{
    rcg_sge sge = sge_of(a, 0, length);
    uint32_t imm = 0x80000001u ^ (uint32_t)length;
    rcg_op op = RCG_OP_WRITE_IMM(&sge, 1, addr_of(b->mem + HALF), b->key, imm, a);
    STEP("write with immediate");
    pattern_fill(a->mem, length, ++seed);
    if (!can(CAN_IMM)) {
        ASSERT_RC(rcg_post(a->side.conn, &op, 1), -EOPNOTSUPP);
        return;
    }
    if (!b->managed) {
        rcg_recv recv = { .user = b }; /* takes no octets */
        ASSERT_OK(rcg_post_recv(b->side.conn, &recv, 1));
    }
    post_one(a, op);
    rcg_event ev = take(&b->side.in, RCG_EVENT_RECV, b->side.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    ASSERT(ev.flags & RCG_EVENT_WITH_IMM);
    ASSERT_EQ(ev.imm, imm);
    ASSERT_PATTERN(b->mem + HALF, length, seed);
    if (b->managed) ASSERT_OK(rcg_recv_release(b->side.conn, &ev));
    expect_done(a, RCG_WRITE_IMM, a);
    moved += length;
}

/* What a fenced operation sends is what the Read before it has brought. */
static void test_fence(struct end *a, struct end *b)
{
    size_t length = 30000;
    rcg_sge read = sge_of(a, 0, length), out = sge_of(a, 0, length);
    rcg_op ops[3] = {
        RCG_OP_READ(&read, 1, addr_of(b->mem), b->key, NULL),
        RCG_OP_WRITE(&out, 1, addr_of(b->mem + length), b->key, NULL),
        RCG_OP_SEND(&out, 1, a),
    };
    STEP("fence");
    ops[1].flags |= RCG_FENCE;
    ops[2].flags |= RCG_FENCE;
    memset(a->mem, 0, length);
    memset(b->mem + length, 0, length);
    pattern_fill(b->mem, length, ++seed);
    ready_to_receive(b, length);
    post(a, ops, 3);
    receive(b, length, seed);
    ASSERT_PATTERN(b->mem + length, length, seed);
    expect_done(a, RCG_SEND, a);
    moved += 2 * length;
}

/* One batch of everything; only its last operation speaks. */
static void test_batch(struct end *a, struct end *b)
{
    enum { COUNT = 24, SIZE = 1000 };
    rcg_sge sge[COUNT];
    rcg_op ops[COUNT + 1];
    unsigned char last[32];
    STEP("batch");
    memset(b->mem, 0, COUNT * SIZE);
    for (size_t i = 0; i < COUNT; i++) {
        pattern_fill(a->mem + i * SIZE, SIZE, seed + 1 + i);
        sge[i] = sge_of(a, i * SIZE, SIZE);
        ops[i] = (rcg_op)RCG_OP_WRITE(&sge[i], 1, addr_of(b->mem + i * SIZE), b->key, NULL);
    }
    uint64_t first = seed + 1;
    seed += COUNT + 1;
    pattern_fill(last, sizeof last, seed);
    ops[COUNT] = (rcg_op)RCG_OP_SEND_COPY(last, sizeof last, a);
    ready_to_receive(b, sizeof last);
    post(a, ops, COUNT + 1);
    memset(last, 0, sizeof last); /* it was copied */
    receive(b, sizeof last, seed);
    for (size_t i = 0; i < COUNT; i++) ASSERT_PATTERN(b->mem + i * SIZE, SIZE, first + i);
    expect_done(a, RCG_SEND, a);
    ASSERT_NONE(&a->side.in, RCG_EVENT_COMPLETION, NULL);
    moved += COUNT * SIZE;
}

/* More unsignalled messages than the send queue holds, each in its place; none of them speaks. Where messages don't wait
 * for receives the sender goes by what it sees of the receiver. */
static void test_unsignalled(struct end *a, struct end *b)
{
    enum { COUNT = 200 };
    unsigned received = 0, sent = 0;
    uint64_t start = now_us();
    STEP("unsignalled sends");
    for (unsigned i = 0; i < 20 && !b->managed; i++) ready_to_receive(b, 24); /* all to the same place */
    while (received < COUNT) {
        unsigned char text[24];
        rcg_event ev;
        if (sent < COUNT && (can(CAN_WAIT) || sent < received + 20)) {
            pattern_fill(text, sizeof text, 1000000u + sent);
            rcg_op op = RCG_OP_SEND_COPY(text, sizeof text, NULL);
            int rc = rcg_post(a->side.conn, &op, 1);
            if (rc == 0) sent++;
            else ASSERT_RC(rc, -EAGAIN);
        }
        pump(sent < COUNT ? 0 : 50);
        while (inbox_poll(&b->side.in, RCG_EVENT_RECV, b->side.conn, &ev)) {
            ASSERT_EQ(ev.status, 0);
            ASSERT_EQ(ev.length, 24);
            if (b->managed) {
                ASSERT_PATTERN(ev.data, 24, 1000000u + received);
                ASSERT_OK(rcg_recv_release(b->side.conn, &ev));
            } else if (received + 20 < COUNT) {
                ready_to_receive(b, 24);
            }
            received++;
        }
        if (ms_since(start) > WAIT_MS * slow()) FAIL("only %u of %u messages came (%u sent)", received, COUNT, sent);
    }
    ASSERT_NONE(&a->side.in, RCG_EVENT_COMPLETION, NULL);
    ASSERT_NONE(&b->side.in, RCG_EVENT_RECV, NULL);
}

/* All that one end can do to the other. */
static void test_from(struct end *a, struct end *b, bool thorough)
{
    static const size_t sizes[] = { 1, 2, 3, 5, 64, 1023, 1424, 4096, 16383, 65024, 65536, 65537, 300001, 1u << 20 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t length = sizes[i];
        if (!thorough && i % 3 != 0) continue;
        if (!b->managed || length <= MANAGED_SIZE) test_sends(a, b, length);
        test_write_read(a, b, length);
        test_write_imm(a, b, length);
    }
    test_fence(a, b);
    test_batch(a, b);
    test_unsignalled(a, b);
    STEP("nothing of no octets");
    bool early = !can(CAN_WAIT); /* for the receive */
    if (!b->managed && early) ASSERT_OK(rcg_post_recv(b->side.conn, &(rcg_recv){ .user = b }, 1));
    post_one(a, (rcg_op)RCG_OP_SEND(NULL, 0, NULL));
    if (!b->managed && !early) ASSERT_OK(rcg_post_recv(b->side.conn, &(rcg_recv){ .user = b }, 1));
    rcg_event ev = take(&b->side.in, RCG_EVENT_RECV, b->side.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    ASSERT_EQ(ev.length, 0);
    if (b->managed) ASSERT_OK(rcg_recv_release(b->side.conn, &ev));
    tell(a, b);
}

struct variant {
    const char *host;
    uint32_t crc, mpa;
    enum style style;
    bool managed;
};

static void connect_ends(struct end *c, struct end *s, const struct variant *v, rcg_listener **lst)
{
    struct address bound;
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .crc = v->crc };
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .crc = v->crc, .mpa_revision = v->mpa };
    rcg_conn_info info = { RCG_CONN_INFO_INIT };

    c->managed = s->managed = v->managed;
    if (v->managed) {
        listen.recv_size = connect.recv_size = MANAGED_SIZE;
        listen.recv_count = connect.recv_count = MANAGED_COUNT;
    }
    STEP("connect");
    *lst = listen_on(&s->side.in, v->host, &listen, &bound);
    link_up(&c->side, &s->side, &bound, &connect, NULL);
    ASSERT_OK(rcg_mr_key(c->mr, c->side.conn, &c->key));
    ASSERT_OK(rcg_mr_key(s->mr, s->side.conn, &s->key));

    for (int i = 0; i < 2; i++) {
        ASSERT_OK(rcg_conn_query((i ? s : c)->side.conn, &info));
        ASSERT_EQ(info.state, RCG_STATE_ESTABLISHED);
        ASSERT_EQ(info.mpa_revision, can(CAN_MPA) ? v->mpa : 0);
        ASSERT_EQ(info.own_peer, 1);
        ASSERT_EQ(info.provider, provider_here());
        if (where() != ON_TCP) {
            ASSERT(strncmp(info.device, getenv("RCG_TEST_DEVICE"), 3) == 0);
            ASSERT(info.ird >= 16 && info.ord >= 16); /* siw may grant more than was asked for */
        }
        ASSERT_EQ(!!info.crc, v->crc == RCG_CRC_ON); /* AUTO offers none on loopback */
        ASSERT(info.local.ss_family == bound.ss.ss_family && info.peer.ss_family == bound.ss.ss_family);
        ASSERT(port_of(i ? &info.local : &info.peer) == port_of(&bound.ss));
    }
}

static void run_variant(const struct variant *v, bool thorough, unsigned number)
{
    struct end c, s;
    rcg_listener *lst;
    end_open(&c, v->style);
    end_open(&s, v->style);
    connect_ends(&c, &s, v, &lst);
    if (number % 2) { /* the responder's application speaks first */
        test_from(&s, &c, thorough);
        test_from(&c, &s, false);
    } else {
        test_from(&c, &s, thorough);
        test_from(&s, &c, false);
    }
    STEP("disconnect");
    link_down(number % 3 ? &c.side : &s.side, number % 3 ? &s.side : &c.side);
    unlisten(&s.side.in, lst);
    end_close(&c);
    end_close(&s);
}

/* A key that was invalidated is dead: using it ends the connection, and moves nothing. */
static void test_invalidated_key_is_dead(bool by_read)
{
    struct variant v = { host4(), RCG_CRC_AUTO, 2, STYLE_QUEUE, true };
    struct end c, s;
    rcg_listener *lst;
    rcg_event ev;
    STEP("an invalidated key");
    end_open(&c, v.style);
    end_open(&s, v.style);
    connect_ends(&c, &s, &v, &lst);
    pattern_fill(s.mem, 4096, ++seed);
    post_one(&c, (rcg_op)RCG_OP_SEND_INV(NULL, 0, s.key, &c));
    ev = take(&s.side.in, RCG_EVENT_RECV, s.side.conn, WAIT_MS);
    ASSERT(ev.flags & RCG_EVENT_INVALIDATED);
    ASSERT_EQ(ev.invalidated_key, s.key);
    expect_done(&c, RCG_SEND_INV, &c);

    memset(c.mem, 0x11, 4096);
    rcg_sge sge = sge_of(&c, 0, 4096);
    if (by_read) {
        post_one(&c, (rcg_op)RCG_OP_READ(&sge, 1, addr_of(s.mem), s.key, &s));
        ev = take(&c.side.in, RCG_EVENT_COMPLETION, c.side.conn, WAIT_MS);
        ASSERT_EQ(ev.op, RCG_READ);
        ASSERT_EQ(ev.status, -EACCES);
        assert_all_are(c.mem, 4096, 0x11, "the target of a read without a valid key");
    } else {
        post_one(&c, (rcg_op)RCG_OP_WRITE(&sge, 1, addr_of(s.mem), s.key, NULL));
    }
    ev = take(&c.side.in, RCG_EVENT_DISCONNECTED, c.side.conn, WAIT_MS);
    ASSERT(ev.error != NULL);
    ev = take(&s.side.in, RCG_EVENT_DISCONNECTED, s.side.conn, WAIT_MS);
    ASSERT(ev.error != NULL && ev.error->reason == RCG_REASON_REMOTE_ACCESS);
    await_end(&c.side);
    await_end(&s.side);
    ASSERT_PATTERN(s.mem, 4096, seed);
    unlisten(&s.side.in, lst);
    end_close(&c);
    end_close(&s);
}

/* Messages of 128 MiB, in one operation each. */
static void test_big(uint32_t crc, enum style style)
{
    size_t size = light() ? 6u << 20 : 128u << 20;
    struct variant v = { host4(), crc, 2, style, false };
    struct end c, s;
    rcg_listener *lst;
    unsigned char *from = malloc(size), *to = malloc(size);
    rcg_mr *from_mr, *to_mr;
    uint32_t key;
    rcg_event ev;

    ASSERT(from != NULL && to != NULL);
    end_open(&c, v.style);
    end_open(&s, v.style);
    connect_ends(&c, &s, &v, &lst);
    ASSERT_OK(rcg_mr_register(c.side.engine, from, size, RCG_LOCAL, &from_mr));
    ASSERT_OK(rcg_mr_register(s.side.engine, to, size, RCG_LOCAL | RCG_REMOTE_WRITE | RCG_REMOTE_READ, &to_mr));
    ASSERT_OK(rcg_mr_key(to_mr, s.side.conn, &key));
    rcg_sge out = { from, size, from_mr }, in = { to, size, to_mr };

    STEP("big write");
    pattern_fill(from, size, ++seed);
    post_one(&c, (rcg_op)RCG_OP_WRITE(&out, 1, addr_of(to), key, &c));
    ASSERT_OK(rcg_post_recv(s.side.conn, &(rcg_recv){ .user = &s }, 1));
    post_one(&c, (rcg_op)RCG_OP_SEND(NULL, 0, NULL));
    take(&s.side.in, RCG_EVENT_RECV, s.side.conn, 4 * WAIT_MS);
    expect_done(&c, RCG_WRITE, &c);
    ASSERT_PATTERN(to, size, seed);

    STEP("big read");
    memset(from, 0, size);
    post_one(&c, (rcg_op)RCG_OP_READ(&out, 1, addr_of(to), key, &s));
    ev = take(&c.side.in, RCG_EVENT_COMPLETION, c.side.conn, 4 * WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    ASSERT_PATTERN(from, size, seed);

    STEP("big send");
    memset(to, 0, size);
    ASSERT_OK(rcg_post_recv(s.side.conn, &(rcg_recv){ .sge = &in, .nsge = 1, .user = &s }, 1));
    post_one(&c, (rcg_op)RCG_OP_SEND(&out, 1, &c));
    ev = take(&s.side.in, RCG_EVENT_RECV, s.side.conn, 4 * WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    ASSERT_EQ(ev.length, size);
    ASSERT_PATTERN(to, size, seed);
    expect_done(&c, RCG_SEND, &c);
    moved += 3 * (uint64_t)size;

    STEP("end of the big transfers");
    link_down(&c.side, &s.side);
    unlisten(&s.side.in, lst);
    ASSERT_OK(rcg_mr_deregister(from_mr));
    ASSERT_OK(rcg_mr_deregister(to_mr));
    end_close(&c);
    end_close(&s);
    free(from);
    free(to);
}

int main(void)
{
    unsigned number = 0;
    bool v6 = have_ipv6();
    watchdog(60);
    for (int family = 0; family < 2; family++) {
        if (family == 1 && !v6) {
            fprintf(stderr, "no IPv6 on loopback here\n");
            return T_SKIP;
        }
        for (uint32_t crc = RCG_CRC_AUTO; crc <= (can(CAN_MPA) ? RCG_CRC_OFF : RCG_CRC_AUTO); crc++)
            for (uint32_t mpa = can(CAN_MPA) ? 1 : 2; mpa <= 2; mpa++)
                for (int style = 0; style < STYLES; style++, number++) {
                    struct variant v = { family ? host6() : host4(), crc, mpa, (enum style)style, number % 2 == 0 };
                    /* with the other kind of receives where the family is the other one */
                    if (family) v.managed = !v.managed;
                    run_variant(&v, crc != RCG_CRC_AUTO || (!can(CAN_MPA) && style == STYLE_QUEUE), number);
                }
    }
    if (can(CAN_INVALIDATE)) {
        test_invalidated_key_is_dead(true);
        test_invalidated_key_is_dead(false);
    }
    test_big(RCG_CRC_OFF, STYLE_QUEUE);
    if (can(CAN_MPA)) test_big(RCG_CRC_ON, STYLE_MANUAL);
    printf("%u variants, %.1f MiB of payload, verified\n", number, (double)moved / 1048576);
    return T_PASS;
}
