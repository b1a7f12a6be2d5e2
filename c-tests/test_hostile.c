/* A peer that breaks every rule, written with plain sockets and literal octets: valid MPA/DDP/RDMAP streams one octet
 * at a time, cut off at every length, and with every single bit flipped; wrong messages and the Terminate that each
 * must bring; the same towards our initiator. All the while a healthy connection on the same channel has to go on,
 * and memory outside the exposed window must not change. */
#include "helpers.h"

enum { AREA = 64 * 1024, WINDOW_AT = 16 * 1024, WINDOW = 256, AREA_SEED = 5, END_MS = 4000 };
enum { MSG_MAX = 4096 };

static unsigned char area[AREA];
static rcg_mr *area_mr;
static struct address to;

/* ---- the peer's own encoder ---------------------------------------------------------------------------------------- */

struct bytes {
    unsigned char b[16384];
    size_t n;
};

static void put(struct bytes *s, const void *p, size_t n)
{
    ASSERT(s->n + n <= sizeof s->b);
    if (n) memcpy(s->b + s->n, p, n);
    s->n += n;
}

static void put_be(struct bytes *s, uint64_t value, int octets)
{
    while (octets--) {
        unsigned char c = (unsigned char)(value >> (8 * octets));
        put(s, &c, 1);
    }
}

static uint32_t crc32c(const unsigned char *p, size_t n)
{
    uint32_t crc = 0xffffffffu;
    while (n--) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void put_fpdu(struct bytes *s, const struct bytes *ulpdu, bool crc)
{
    size_t start = s->n;
    uint32_t sum;
    put_be(s, ulpdu->n, 2);
    put(s, ulpdu->b, ulpdu->n);
    while ((s->n - start) % 4) put_be(s, 0, 1);
    sum = crc ? crc32c(s->b + start, s->n - start) : 0;
    for (int i = 0; i < 4; i++) put_be(s, sum >> (8 * i) & 0xff, 1);
}

/* Control octets are written as they are on the wire: C1 40 = the last segment of a Write, and so on. */
static void put_tagged(struct bytes *s, bool crc, unsigned control, uint32_t stag, uint64_t offset, const void *p, size_t n)
{
    static struct bytes u;
    u.n = 0;
    put_be(&u, control, 2);
    put_be(&u, stag, 4);
    put_be(&u, offset, 8);
    put(&u, p, n);
    put_fpdu(s, &u, crc);
}

static void put_untagged(struct bytes *s, bool crc, unsigned control, uint32_t stag, uint32_t qn, uint32_t msn,
                         uint32_t mo, const void *p, size_t n)
{
    static struct bytes u;
    u.n = 0;
    put_be(&u, control, 2);
    put_be(&u, stag, 4);
    put_be(&u, qn, 4);
    put_be(&u, msn, 4);
    put_be(&u, mo, 4);
    put(&u, p, n);
    put_fpdu(s, &u, crc);
}

static void put_send(struct bytes *s, bool crc, uint32_t msn, const void *p, size_t n)
{
    put_untagged(s, crc, 0x4143, 0, 0, msn, 0, p, n);
}

static void put_read(struct bytes *s, bool crc, uint32_t msn, uint32_t size, uint32_t stag, uint64_t offset)
{
    struct bytes r = { .n = 0 };
    put_be(&r, 0x1234, 4); /* our sink: key, offset */
    put_be(&r, 0x5678, 8);
    put_be(&r, size, 4);
    put_be(&r, stag, 4);
    put_be(&r, offset, 8);
    put_untagged(s, crc, 0x4141, 0, 1, msn, 0, r.b, r.n);
}

static void put_request(struct bytes *s, bool crc, const void *pd, size_t n)
{
    put(s, "MPA ID Req Frame", 16);
    put_be(s, crc ? 0x50 : 0x10, 1);
    put_be(s, 2, 1);
    put_be(s, 4 + n, 2);
    put_be(s, 0x00080008, 4); /* IRD 8, ORD 8, no peer-to-peer */
    put(s, pd, n);
}

/* ---- the server under attack ----------------------------------------------------------------------------------------- */

static struct {
    pthread_mutex_t lock;
    rcg_conn *healthy;
    struct offer offer;                 /* that of the newest hostile connection */
    unsigned requests, closed, messages;
    unsigned char message[MSG_MAX];     /* the newest */
    size_t length;
    uint32_t invalidated;
} server = { .lock = PTHREAD_MUTEX_INITIALIZER };

static struct side ours;
static struct side friend;
static atomic_uint beats;

static void server_request(const rcg_event *ev)
{
    rcg_accept_attr attr = { RCG_ACCEPT_ATTR_INIT };
    if (ev->private_data_len == 7 && memcmp(ev->private_data, "healthy", 7) == 0) {
        server.healthy = ev->conn;
        ASSERT_OK(rcg_accept(ev->conn, &attr));
        return;
    }
    server.requests++;
    server.offer = (struct offer){ .addr = addr_of(area + WINDOW_AT), .length = WINDOW };
    ASSERT_OK(rcg_mr_key_range(area_mr, ev->conn, WINDOW_AT, WINDOW, RCG_REMOTE_READ | RCG_REMOTE_WRITE, &server.offer.key));
    attr.private_data = &server.offer, attr.private_data_len = sizeof server.offer;
    rcg_accept(ev->conn, &attr); /* fails where the peer has gone already */
}

static bool server_hook(struct inbox *b, const rcg_event *ev)
{
    bool keep = false;
    (void)b;
    pthread_mutex_lock(&server.lock);
    switch (ev->type) {
    case RCG_EVENT_CONNECT_REQUEST: server_request(ev); break;
    case RCG_EVENT_RECV:
        if (ev->status != 0) break;
        if (ev->conn == server.healthy) {
            rcg_op echo = RCG_OP_SEND_COPY(ev->data, (uint32_t)ev->length, NULL);
            ASSERT_OK(rcg_post(ev->conn, &echo, 1));
        } else {
            server.messages++;
            server.length = ev->length;
            ASSERT(ev->length <= MSG_MAX);
            memcpy(server.message, ev->data, ev->length);
            server.invalidated = ev->flags & RCG_EVENT_INVALIDATED ? ev->invalidated_key : 0;
        }
        ASSERT_OK(rcg_recv_release(ev->conn, ev));
        break;
    case RCG_EVENT_DISCONNECTED:
    case RCG_EVENT_CONNECT_FAILED:
        if (ev->conn == server.healthy) FAIL("the healthy connection has ended: %s", ev->error ? ev->error->text : "");
        break;
    case RCG_EVENT_CLOSED:
        if (ev->conn) server.closed += ev->conn != server.healthy;
        keep = ev->conn == NULL;
        break;
    default: break;
    }
    pthread_mutex_unlock(&server.lock);
    return keep;
}

/* The friend's side: sends the next message when the last has come back. */
static bool friend_hook(struct inbox *b, const rcg_event *ev)
{
    (void)b;
    if (ev->type == RCG_EVENT_ESTABLISHED || (ev->type == RCG_EVENT_RECV && ev->status == 0)) {
        uint64_t beat = atomic_fetch_add(&beats, 1);
        rcg_op op = RCG_OP_SEND_COPY(&beat, sizeof beat, NULL);
        if (ev->type == RCG_EVENT_RECV) {
            uint64_t echoed;
            ASSERT_EQ(ev->length, sizeof beat);
            memcpy(&echoed, ev->data, sizeof echoed);
            ASSERT_EQ(echoed + 1, beat);
            ASSERT_OK(rcg_recv_release(ev->conn, ev));
        }
        int rc = rcg_post(ev->conn, &op, 1);
        ASSERT(rc == 0 || rc == -ENOTCONN);
        return ev->type == RCG_EVENT_ESTABLISHED;
    }
    return ev->type != RCG_EVENT_RECV;
}

/* The healthy connection is alive: it goes on from where it is now. */
static void assert_healthy(void)
{
    unsigned before = atomic_load(&beats);
    uint64_t start = now_us();
    while (atomic_load(&beats) < before + 2) {
        if (ms_since(start) > 2000 * slow()) FAIL("the healthy connection stands still at beat %u", before);
        pause_ms(1);
    }
}

static void assert_memory(void)
{
    ASSERT_PATTERN(area, WINDOW_AT, AREA_SEED);
    ASSERT_PATTERN_AT(area + WINDOW_AT + WINDOW, AREA - WINDOW_AT - WINDOW, AREA_SEED, WINDOW_AT + WINDOW);
}

/* Every connection that was announced has been closed. */
static void await_all_closed(void)
{
    uint64_t start = now_us();
    for (;;) {
        pthread_mutex_lock(&server.lock);
        unsigned open = server.requests - server.closed;
        pthread_mutex_unlock(&server.lock);
        if (open == 0) break;
        if (ms_since(start) > END_MS * slow()) FAIL("%u connections have not ended", open);
        pause_ms(2);
    }
    assert_memory();
    assert_healthy();
}

/* ---- one hostile connection ------------------------------------------------------------------------------------------- */

static void send_all(int fd, const void *p, size_t n)
{
    const unsigned char *q = p;
    while (n) {
        ssize_t sent = send(fd, q, n, MSG_NOSIGNAL);
        if (sent <= 0) return; /* it has been closed: that is what some of this is for */
        q += sent, n -= (size_t)sent;
    }
}

/* Reads until the other end closes or resets; returns the number of octets kept. */
static size_t read_to_end(int fd, unsigned char *out, size_t room)
{
    size_t n = 0;
    unsigned char drop[4096];
    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        if (poll(&p, 1, END_MS * slow()) <= 0) FAIL("the connection does not end");
        ssize_t got = n < room ? recv(fd, out + n, room - n, 0) : recv(fd, drop, sizeof drop, 0);
        if (got <= 0) return n;
        if (n < room) n += (size_t)got;
    }
}

/* Reads exactly `n` octets; false when the connection ends before. */
static bool read_exactly(int fd, unsigned char *out, size_t n)
{
    while (n) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        if (poll(&p, 1, END_MS * slow()) <= 0) FAIL("neither an answer nor an end");
        ssize_t got = recv(fd, out, n, 0);
        if (got <= 0) return false;
        out += got, n -= (size_t)got;
    }
    return true;
}

/* Reads an MPA reply; returns its length with private data, or 0 where the connection ends instead. */
static size_t read_reply(int fd, unsigned char *reply)
{
    if (!read_exactly(fd, reply, 20)) return 0;
    ASSERT(memcmp(reply, "MPA ID Rep Frame", 16) == 0);
    size_t n = (size_t)reply[18] << 8 | reply[19];
    ASSERT(n <= 512);
    return read_exactly(fd, reply + 20, n) ? 20 + n : 0;
}

/* Connects properly. Returns the socket; `offer` is what the server offers. */
static int hostile_connect(bool crc, struct offer *offer)
{
    unsigned char reply[600];
    struct bytes s = { .n = 0 };
    int fd = plain_connect(&to);
    put_request(&s, crc, "hostile", 7);
    send_all(fd, s.b, s.n);
    size_t n = read_reply(fd, reply);
    ASSERT_EQ(n, 20 + 4 + sizeof *offer);
    ASSERT_EQ(reply[16], crc ? 0x50 : 0x10);
    ASSERT_EQ(reply[17], 2);
    memcpy(offer, reply + 24, sizeof *offer);
    return fd;
}

/* A valid stream that uses everything, for this offer. 32 octets are read back. */
static void put_stream(struct bytes *s, bool crc, const struct offer *offer, bool terminate)
{
    put_tagged(s, crc, 0xc140, offer->key, offer->addr, "0123456789abcdef", 16);
    put_send(s, crc, 1, "a message", 9);
    put_read(s, crc, 1, 32, offer->key, offer->addr);
    put_tagged(s, crc, 0x8140, offer->key, offer->addr + 100, "two seg", 7);
    put_tagged(s, crc, 0xc140, offer->key, offer->addr + 107, "ments", 5);
    put_untagged(s, crc, 0x0145, 0, 0, 2, 0, "first half, ", 12);
    put_untagged(s, crc, 0x4145, 0, 0, 2, 12, "second half", 11);
    if (terminate) put_untagged(s, crc, 0x4147, 0, 2, 1, 0, "\x11\x00\x00\x00", 4);
}

/* ---- valid, but slowly -------------------------------------------------------------------------------------------------- */

static void test_one_octet_at_a_time(bool crc)
{
    struct bytes s = { .n = 0 };
    struct offer offer;
    unsigned char in[600];
    unsigned char *window = area + WINDOW_AT;

    STEP("one octet at a time");
    memset(window, 0, WINDOW);
    int fd = plain_connect(&to);
    put_request(&s, crc, "slow", 4);
    for (size_t i = 0; i < s.n; i++) send_all(fd, s.b + i, 1);
    ASSERT_EQ(read_reply(fd, in), 24 + sizeof offer);
    memcpy(&offer, in + 24, sizeof offer);
    s.n = 0;
    put_stream(&s, crc, &offer, false);
    pthread_mutex_lock(&server.lock);
    unsigned messages = server.messages;
    pthread_mutex_unlock(&server.lock);
    for (size_t i = 0; i < s.n; i++) {
        send_all(fd, s.b + i, 1);
        if (i % 16 == 0) pause_ms(1); /* so that they do arrive in many pieces */
    }

    /* the Read Response: 2 + 14 + 32 + 0 + 4 octets, one segment */
    ASSERT(read_exactly(fd, in, 52));
    ASSERT(memcmp(in, "\x00\x2e\xc1\x42\x00\x00\x12\x34\x00\x00\x00\x00\x00\x00\x56\x78" "0123456789abcdef", 32) == 0);
    assert_all_are(in + 32, 16, 0, "what was read");
    uint32_t sum = crc ? crc32c(in, 48) : 0;
    for (int i = 0; i < 4; i++) ASSERT_EQ(in[48 + i], sum >> (8 * i) & 0xff);

    uint64_t start = now_us();
    for (;;) {
        pthread_mutex_lock(&server.lock);
        unsigned now = server.messages;
        pthread_mutex_unlock(&server.lock);
        if (now == messages + 2) break;
        if (ms_since(start) > END_MS * slow()) FAIL("%u of 2 messages", now - messages);
        pause_ms(1);
    }
    ASSERT_EQ(server.length, 23);
    ASSERT(memcmp(server.message, "first half, second half", 23) == 0);
    ASSERT(memcmp(window, "0123456789abcdef", 16) == 0 && memcmp(window + 100, "two segments", 12) == 0);
    assert_all_are(window + 16, 84, 0, "between the writes");
    assert_all_are(window + 112, WINDOW - 112, 0, "behind the writes");
    shutdown(fd, SHUT_WR);
    ASSERT_EQ(read_to_end(fd, in, sizeof in), 0);
    close(fd);
    await_all_closed();
}

/* ---- cut and flipped --------------------------------------------------------------------------------------------------- */

/* Ends a hostile connection by FIN or RST, and sees that ours ends. */
static void finish(int fd, bool reset)
{
    unsigned char in[64];
    if (reset) {
        struct linger now = { .l_onoff = 1, .l_linger = 0 };
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    } else {
        shutdown(fd, SHUT_WR);
        read_to_end(fd, in, sizeof in);
    }
    close(fd);
}

static unsigned attacks;

static void count_attack(void)
{
    if (++attacks % 256 == 0) assert_memory(), assert_healthy();
}

static void test_truncations(bool crc)
{
    struct bytes s = { .n = 0 };
    struct offer offer = { 0 };
    put_stream(&s, crc, &offer, true);
    size_t whole = s.n;
    STEP("truncated streams");
    for (size_t n = 0; n <= whole; n++) {
        int fd = hostile_connect(crc, &offer);
        s.n = 0;
        put_stream(&s, crc, &offer, true);
        send_all(fd, s.b, n);
        finish(fd, n % 3 == 2);
        count_attack();
    }
    STEP("truncated requests");
    s.n = 0;
    put_request(&s, crc, "some private data", 17);
    for (size_t n = 0; n < s.n; n++) {
        int fd = plain_connect(&to);
        send_all(fd, s.b, n);
        finish(fd, n % 3 == 2);
        count_attack();
    }
    STEP("the ends of the truncated");
    await_all_closed();
}

static void test_flips(bool crc, bool terminate)
{
    struct bytes s = { .n = 0 };
    struct offer offer = { 0 };
    put_stream(&s, crc, &offer, terminate);
    size_t bits = 8 * s.n, from = 0;
    if (terminate) { /* the rest was flipped before */
        s.n = 0;
        put_stream(&s, crc, &offer, false);
        from = 8 * s.n;
    }
    STEP("flipped streams");
    for (size_t bit = from; bit < bits; bit++) {
        int fd = hostile_connect(crc, &offer);
        s.n = 0;
        put_stream(&s, crc, &offer, terminate);
        s.b[bit / 8] ^= (unsigned char)(0x80 >> bit % 8);
        send_all(fd, s.b, s.n);
        finish(fd, false);
        count_attack();
    }
    STEP("the ends of the flipped");
    await_all_closed();
}

static void test_flipped_requests(bool crc)
{
    struct bytes s = { .n = 0 }, f = { .n = 0 };
    unsigned char reply[600];
    put_request(&s, crc, "pd", 2);
    STEP("flipped requests");
    for (size_t bit = 0; bit < 8 * s.n; bit++) {
        struct bytes flipped = s;
        struct offer offer;
        flipped.b[bit / 8] ^= (unsigned char)(0x80 >> bit % 8);
        int fd = plain_connect(&to);
        send_all(fd, flipped.b, flipped.n);
        size_t announced = (size_t)flipped.b[18] << 8 | flipped.b[19];
        if (announced > 6) shutdown(fd, SHUT_WR); /* it waits for more: there is none */
        size_t n = read_reply(fd, reply);
        if (n >= 20 + sizeof offer && !(reply[16] & 0x20)) {
            /* the request was a valid one all the same: go on as if nothing were wrong */
            memcpy(&offer, reply + n - sizeof offer, sizeof offer);
            f.n = 0;
            put_stream(&f, crc, &offer, false);
            send_all(fd, f.b, f.n);
        }
        finish(fd, false);
        count_attack();
    }
    STEP("the ends of the flipped requests");
    await_all_closed();
}

/* ---- each wrong message and its Terminate ------------------------------------------------------------------------------- */

/* Sends what is wrong and looks for a Terminate with these first two octets of its control word. */
static void expect_terminate(const char *what, int fd, bool crc, const struct bytes *s, unsigned first, unsigned code)
{
    unsigned char in[8192];
    size_t n, at = 0;
    STEP(what);
    send_all(fd, s->b, s->n);
    n = read_to_end(fd, in, sizeof in);
    close(fd);
    while (at + 6 <= n) {
        size_t len = (size_t)in[at] << 8 | in[at + 1], padded = (2 + len + 3) & ~(size_t)3;
        const unsigned char *u = in + at + 2;
        ASSERT(at + padded + 4 <= n);
        if (crc) {
            uint32_t sum = crc32c(in + at, padded);
            for (int i = 0; i < 4; i++) ASSERT_EQ(in[at + padded + (size_t)i], sum >> (8 * i) & 0xff);
        }
        if (u[0] == 0x41 && u[1] == 0x47) {
            ASSERT(len >= 22);
            ASSERT(memcmp(u + 6, "\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x00", 12) == 0); /* QN 2, MSN 1, MO 0 */
            if (u[18] != first || u[19] != code)
                FAIL("Terminate %02x %02x, expected %02x %02x", u[18], u[19], first, code);
            ASSERT_EQ(u[20] & 0x1f, 0);
            ASSERT_EQ(u[21], 0);
            ASSERT_EQ(at + padded + 4, n); /* it is the last */
            assert_memory();
            return;
        }
        at += padded + 4;
    }
    FAIL("no Terminate among %zu octets; expected %02x %02x", n, first, code);
}

static void test_terminates(bool crc)
{
    struct offer o;
    struct bytes s;
    unsigned char big[MSG_MAX + 64] = { 0 };
    int fd;
#define WRONG(what, first, code, make)                                                                                 \
    do {                                                                                                               \
        STEP(what);                                                                                                    \
        s.n = 0;                                                                                                       \
        fd = hostile_connect(crc, &o);                                                                                 \
        make;                                                                                                          \
        expect_terminate(what, fd, crc, &s, (first), (code));                                                          \
    } while (0)

    /* DDP: tagged buffers */
    WRONG("Write, bad STag", 0x11, 0x00, put_tagged(&s, crc, 0xc140, o.key ^ 0x100, o.addr, "bad", 3));
    WRONG("Write, before the window", 0x11, 0x01, put_tagged(&s, crc, 0xc140, o.key, o.addr - 1, "bad", 3));
    WRONG("Write, behind the window", 0x11, 0x01, put_tagged(&s, crc, 0xc140, o.key, o.addr + WINDOW, "bad", 3));
    WRONG("Write, across the end", 0x11, 0x01, put_tagged(&s, crc, 0xc140, o.key, o.addr + WINDOW - 2, "bad", 3));
    WRONG("Write, offset 0", 0x11, 0x01, put_tagged(&s, crc, 0xc140, o.key, 0, "bad", 3));
    WRONG("Write, offset wraps", 0x11, 0x03, put_tagged(&s, crc, 0xc140, o.key, UINT64_MAX - 1, "bad", 3));
    WRONG("tagged, DDP version 0", 0x11, 0x04, put_tagged(&s, crc, 0xc040, o.key, o.addr, "bad", 3));
    WRONG("tagged, DDP version 2", 0x11, 0x04, put_tagged(&s, crc, 0xc240, o.key, o.addr, "bad", 3));
    WRONG("Write after a good one", 0x11, 0x01,
          (put_tagged(&s, crc, 0xc140, o.key, o.addr, "good", 4), put_tagged(&s, crc, 0xc140, o.key, o.addr + WINDOW, "b", 1)));
    WRONG("Read Response that nobody asked for", 0x11, 0x00, put_tagged(&s, crc, 0xc142, o.key, o.addr, "bad", 3));
    /* DDP: untagged buffers */
    WRONG("Send, queue 3", 0x12, 0x01, put_untagged(&s, crc, 0x4143, 0, 3, 1, 0, "bad", 3));
    WRONG("Send, queue 1", 0x12, 0x01, put_untagged(&s, crc, 0x4143, 0, 1, 1, 0, "bad", 3));
    WRONG("Send, MSN 0", 0x12, 0x03, put_send(&s, crc, 0, "bad", 3));
    WRONG("Send, MSN 2", 0x12, 0x03, put_send(&s, crc, 2, "bad", 3));
    WRONG("Send, MSN twice", 0x12, 0x03, (put_send(&s, crc, 1, "good", 4), put_send(&s, crc, 1, "bad", 3)));
    WRONG("Send, MO 4", 0x12, 0x04, put_untagged(&s, crc, 0x4143, 0, 0, 1, 4, "bad", 3));
    WRONG("Send, gap", 0x12, 0x04, (put_untagged(&s, crc, 0x0143, 0, 0, 1, 0, "half", 4),
                                    put_untagged(&s, crc, 0x4143, 0, 0, 1, 5, "half", 4)));
    WRONG("Send, too long", 0x12, 0x05, put_send(&s, crc, 1, big, MSG_MAX + 1));
    WRONG("Send, too long in two segments", 0x12, 0x05, (put_untagged(&s, crc, 0x0143, 0, 0, 1, 0, big, MSG_MAX),
                                                         put_untagged(&s, crc, 0x4143, 0, 0, 1, MSG_MAX, "x", 1)));
    WRONG("untagged, DDP version 0", 0x12, 0x06, put_untagged(&s, crc, 0x4043, 0, 0, 1, 0, "bad", 3));
    /* RDMAP */
    WRONG("Read, bad STag", 0x01, 0x00, put_read(&s, crc, 1, 16, o.key ^ 1, o.addr));
    WRONG("Read, before the window", 0x01, 0x01, put_read(&s, crc, 1, 16, o.key, o.addr - 1));
    WRONG("Read, across the end", 0x01, 0x01, put_read(&s, crc, 1, 16, o.key, o.addr + WINDOW - 15));
    WRONG("Read of 4 GiB", 0x01, 0x01, put_read(&s, crc, 1, UINT32_MAX, o.key, o.addr));
    WRONG("Read, offset wraps", 0x01, 0x04, put_read(&s, crc, 1, 16, o.key, UINT64_MAX - 1));
    WRONG("Read, MSN 2", 0x12, 0x03, put_read(&s, crc, 2, 16, o.key, o.addr));
    WRONG("RDMAP version 0", 0x02, 0x05, put_untagged(&s, crc, 0x4103, 0, 0, 1, 0, "bad", 3));
    WRONG("RDMAP version 2", 0x02, 0x05, put_untagged(&s, crc, 0x4183, 0, 0, 1, 0, "bad", 3));
    WRONG("opcode 15", 0x02, 0x06, put_untagged(&s, crc, 0x414f, 0, 0, 1, 0, "bad", 3));
    WRONG("opcode 8, immediate data from a stranger", 0x02, 0x06, put_untagged(&s, crc, 0x4148, 0, 0, 1, 0, "12345678", 8));
    WRONG("a tagged Send", 0x02, 0x06, put_tagged(&s, crc, 0xc143, o.key, o.addr, "bad", 3));
    WRONG("an untagged Write", 0x02, 0x06, put_untagged(&s, crc, 0x4140, 0, 0, 1, 0, "bad", 3));
    WRONG("invalidation of a key that is none", 0x01, 0x00, put_untagged(&s, crc, 0x4144, o.key ^ 8, 0, 1, 0, "bad", 3));
    /* MPA */
    WRONG("a ULPDU of 4 octets", 0x20, 0x03, put_fpdu(&s, &(struct bytes){ .b = { 0x41, 0x43, 0, 0 }, .n = 4 }, crc));
    if (crc) WRONG("wrong CRC", 0x20, 0x02, (put_send(&s, crc, 1, "good", 4), s.b[s.n - 1] ^= 1));
    if (crc) WRONG("no CRC", 0x20, 0x02, put_send(&s, false, 1, "good", 4));
#undef WRONG
    await_all_closed();

    /* what is right, though unusual, brings none */
    STEP("unusual, but right");
    fd = hostile_connect(crc, &o);
    s.n = 0;
    put_tagged(&s, crc, 0xc140, 1, 0, NULL, 0);        /* a Write of nothing: its STag is not looked at */
    put_read(&s, crc, 1, 0, 0, 0);                     /* a Read of nothing */
    put_untagged(&s, crc, 0x4144, 0, 0, 1, 0, "x", 1); /* invalidation of STag 0, as siw's library sends it */
    put_untagged(&s, crc, 0x4146, o.key, 0, 2, 0, NULL, 0); /* a true one */
    put_untagged(&s, crc, 0x0143, 0, 0, 3, 0, NULL, 0); /* an empty first segment */
    put_untagged(&s, crc, 0x4143, 0, 0, 3, 0, "end", 3);
    send_all(fd, s.b, s.n);
    shutdown(fd, SHUT_WR);
    unsigned char in[256];
    size_t n = read_to_end(fd, in, sizeof in);
    ASSERT_EQ(n, 20); /* the empty Read Response */
    ASSERT(memcmp(in, "\x00\x0e\xc1\x42\x00\x00\x12\x34\x00\x00\x00\x00\x00\x00\x56\x78", 16) == 0);
    close(fd);
    await_all_closed();
    ASSERT_EQ(server.length, 3);
    ASSERT(memcmp(server.message, "end", 3) == 0);
}

/* ---- requests that are refused -------------------------------------------------------------------------------------------- */

static void test_wrong_requests(void)
{
    struct bytes s = { .n = 0 };
    unsigned char in[600];
    int fd;

    STEP("markers");
    put_request(&s, false, "pd", 2);
    s.b[16] |= 0x80;
    fd = plain_connect(&to);
    send_all(fd, s.b, s.n);
    ASSERT(read_reply(fd, in) >= 20);
    ASSERT_EQ(in[16] & 0xa0, 0x20); /* rejected, and we ask for none ourselves */
    ASSERT_EQ(in[17], 2);
    finish(fd, false);

    STEP("a later revision");
    s.n = 0;
    put_request(&s, false, "pd", 2);
    s.b[17] = 3;
    fd = plain_connect(&to);
    send_all(fd, s.b, s.n);
    ASSERT_EQ(read_to_end(fd, in, sizeof in), 0);
    close(fd);

    STEP("a web browser");
    fd = plain_connect(&to);
    send_all(fd, "GET / HTTP/1.1\r\n\r\n", 18);
    ASSERT_EQ(read_to_end(fd, in, sizeof in), 0);
    close(fd);

    STEP("an FPDU behind the request");
    s.n = 0;
    put_request(&s, false, "pd", 2);
    put_send(&s, false, 1, "early", 5);
    fd = plain_connect(&to);
    send_all(fd, s.b, s.n);
    finish(fd, false);

    STEP("noise");
    for (unsigned i = 0; i < 200; i++) {
        unsigned char noise[512];
        for (size_t j = 0; j < sizeof noise; j++) noise[j] = (unsigned char)mix64(i * 1000 + j);
        if (i % 2) {
            struct offer o;
            fd = hostile_connect(i % 4 == 1, &o);
        } else {
            fd = plain_connect(&to);
        }
        send_all(fd, noise, sizeof noise);
        finish(fd, false);
        count_attack();
    }
    await_all_closed();
}

/* ---- a hostile server, and our initiator ----------------------------------------------------------------------------------- */

static struct side initiator;
static int lfd;
static struct address fake;

static void put_reply(struct bytes *s, bool early)
{
    put(s, "MPA ID Rep Frame", 16);
    put_be(s, 0x10, 1);
    put_be(s, 2, 1);
    put_be(s, 10, 2);
    put_be(s, 0x00080008, 4);
    put(s, "server", 6);
    if (early) put_send(s, false, 1, "early!", 6);
}

/* Starts a connect and reads our request. */
static int take_request(rcg_conn **conn)
{
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .crc = RCG_CRC_OFF, .timeout_ms = 3000, .recv_size = 256,
                              .recv_count = 4, .private_data = "us", .private_data_len = 2,
                              .flags = RCG_CONN_RAW_PRIVATE_DATA };
    unsigned char request[600];
    int one = 1;
    *conn = start_connect(&initiator.in, &fake, &attr);
    struct pollfd p = { .fd = lfd, .events = POLLIN };
    ASSERT_EQ(poll(&p, 1, END_MS), 1);
    int fd = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
    ASSERT(fd >= 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    ASSERT(read_exactly(fd, request, 20));
    ASSERT(memcmp(request, "MPA ID Req Frame\x10\x02\x00\x06", 20) == 0); /* no markers, no CRC, revision 2, S */
    ASSERT(read_exactly(fd, request + 20, 6));
    ASSERT(memcmp(request + 24, "us", 2) == 0);
    return fd;
}

/* Waits for the end of our connection. Another try of it (with revision 1) is hung up on. */
static void await_our_end(rcg_conn *conn)
{
    uint64_t start = now_us();
    rcg_event ev;
    while (!inbox_poll(&initiator.in, RCG_EVENT_CLOSED, conn, &ev)) {
        int again = accept4(lfd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (again >= 0) close(again);
        if (ms_since(start) > END_MS * slow()) FAIL("our side does not end");
        pump(2);
    }
    inbox_clear(&initiator.in);
}

static void answer(const struct bytes *s, size_t n)
{
    rcg_conn *conn;
    unsigned char in[256];
    int fd = take_request(&conn);
    send_all(fd, s->b, n);
    shutdown(fd, SHUT_WR);
    await_our_end(conn);
    read_to_end(fd, in, sizeof in);
    close(fd);
}

/* Kernel siw does not look at what has come before it listens. The first frame, a Write of no octets, comes again until
 * the peer has sent something. */
static void test_deaf_server(void)
{
    static const unsigned char first[20] = { 0, 14, 0xc1, 0x40, 0, 0, 0, 1 };
    struct bytes s = { .n = 0 };
    unsigned char frame[sizeof first];
    rcg_conn *conn;
    int fd = take_request(&conn);
    struct pollfd p = { .fd = fd, .events = POLLIN };
    STEP("a server that heard nothing");
    put_reply(&s, false);
    send_all(fd, s.b, s.n);
    take(&initiator.in, RCG_EVENT_ESTABLISHED, conn, WAIT_MS);
    for (int times = 0; times < 2; times++) {
        ASSERT_EQ(poll(&p, 1, WAIT_MS), 1);
        ASSERT(read_exactly(fd, frame, sizeof frame) && memcmp(frame, first, sizeof first) == 0);
    }
    STEP("a server that has heard it");
    s.n = 0;
    put_send(&s, false, 1, "here", 4);
    send_all(fd, s.b, s.n);
    rcg_event ev = take(&initiator.in, RCG_EVENT_RECV, conn, WAIT_MS);
    ASSERT(ev.status == 0 && ev.length == 4);
    ASSERT_OK(rcg_recv_release(conn, &ev));
    while (poll(&p, 1, 400) == 1) ASSERT(read_exactly(fd, frame, sizeof frame)); /* one may be on its way already */
    close(fd);
    await_our_end(conn);
}

static void test_hostile_server(void)
{
    struct bytes s = { .n = 0 };
    rcg_conn *conn;
    rcg_event ev;
    int fd;

    side_open(&initiator, STYLE_QUEUE);
    lfd = plain_listen("127.0.0.1", 16, &fake);
    fcntl(lfd, F_SETFL, O_NONBLOCK);
    put_reply(&s, true);

    for (int slowly = 0; slowly < 2; slowly++) {
        STEP("an FPDU right behind the reply");
        fd = take_request(&conn);
        if (slowly)
            for (size_t i = 0; i < s.n; i++) send_all(fd, s.b + i, 1), i % 8 ? 0 : pause_ms(1);
        else
            send_all(fd, s.b, s.n);
        ev = take(&initiator.in, RCG_EVENT_ESTABLISHED, conn, WAIT_MS);
        ASSERT(ev.private_data_len == 6 && memcmp(ev.private_data, "server", 6) == 0);
        ev = take(&initiator.in, RCG_EVENT_RECV, conn, WAIT_MS);
        ASSERT(ev.status == 0 && ev.length == 6 && memcmp(ev.data, "early!", 6) == 0);
        ASSERT_OK(rcg_recv_release(conn, &ev));
        close(fd);
        take(&initiator.in, RCG_EVENT_DISCONNECTED, conn, WAIT_MS);
        await_our_end(conn);
    }

    STEP("truncated replies");
    for (size_t n = 0; n <= s.n; n++) answer(&s, n);
    STEP("flipped replies");
    for (size_t bit = 0; bit < 8 * s.n; bit++) {
        struct bytes flipped = s;
        flipped.b[bit / 8] ^= (unsigned char)(0x80 >> bit % 8);
        answer(&flipped, flipped.n);
    }

    STEP("a reject with private data");
    s.n = 0;
    put_reply(&s, false);
    s.b[16] |= 0x20;
    fd = take_request(&conn);
    send_all(fd, s.b, s.n);
    ev = take(&initiator.in, RCG_EVENT_CONNECT_FAILED, conn, WAIT_MS);
    ASSERT_EQ(ev.error->reason, RCG_REASON_REJECTED);
    ASSERT(ev.private_data_len == 6 && memcmp(ev.private_data, "server", 6) == 0);
    close(fd);
    await_our_end(conn);

    STEP("a reply that asks for markers");
    s.n = 0;
    put_reply(&s, false);
    s.b[16] |= 0x80;
    fd = take_request(&conn);
    send_all(fd, s.b, s.n);
    ev = take(&initiator.in, RCG_EVENT_CONNECT_FAILED, conn, WAIT_MS);
    ASSERT_EQ(ev.error->reason, RCG_REASON_PROTOCOL);
    close(fd);
    await_our_end(conn);

    STEP("the peer's Terminate is reported");
    s.n = 0;
    put_reply(&s, false);
    put_untagged(&s, false, 0x4147, 0, 2, 1, 0, "\x12\x02\x00\x00", 4);
    fd = take_request(&conn);
    send_all(fd, s.b, s.n);
    ev = take(&initiator.in, RCG_EVENT_DISCONNECTED, conn, WAIT_MS);
    ASSERT_EQ(ev.error->reason, RCG_REASON_TERMINATED);
    ASSERT_EQ(ev.error->provider_code, 0x1202);
    close(fd);
    await_our_end(conn);

    test_deaf_server();
    close(lfd);
    side_close(&initiator);
}

/* ---- main ---------------------------------------------------------------------------------------------------------------- */

int main(void)
{
    rcg_channel_attr quiet = { RCG_CHANNEL_ATTR_INIT, .spin_us = RCG_SPIN_NEVER };
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = MSG_MAX, .recv_count = 4, .handshake_timeout_ms = 3000 };
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .recv_size = 64, .recv_count = 4, .private_data = "healthy",
                              .private_data_len = 7 };

    watchdog(60);
    signal(SIGPIPE, SIG_IGN);
    pattern_fill(area, AREA, AREA_SEED);
    ASSERT_OK(rcg_engine_create(NULL, &ours.engine));
    ASSERT_OK(rcg_engine_create(NULL, &friend.engine));
    ASSERT_OK(rcg_mr_register(ours.engine, area, AREA, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &area_mr));
    ours.in.hook = server_hook, friend.in.hook = friend_hook;
    inbox_open(&ours.in, ours.engine, STYLE_CALLBACK, &quiet);
    inbox_open(&friend.in, friend.engine, STYLE_CALLBACK, &quiet);
    rcg_listener *lst = listen_on(&ours.in, "127.0.0.1", &listen, &to);
    friend.conn = start_connect(&friend.in, &to, &attr);
    take(&friend.in, RCG_EVENT_ESTABLISHED, friend.conn, WAIT_MS);
    assert_healthy();

    for (int crc = 0; crc < 2; crc++) {
        test_one_octet_at_a_time(crc);
        test_terminates(crc);
        test_truncations(crc);
        test_flips(crc, false);
        test_flips(crc, true);
        test_flipped_requests(crc);
    }
    test_wrong_requests();
    test_hostile_server();
    assert_healthy();
    printf("%u attacks, %u requests announced; %u beats of the healthy connection\n", attacks, server.requests,
           atomic_load(&beats));

    STEP("end");
    pthread_mutex_lock(&server.lock);
    server.healthy = NULL; /* it may end now */
    pthread_mutex_unlock(&server.lock);
    ASSERT_OK(rcg_conn_disconnect(friend.conn));
    take(&friend.in, RCG_EVENT_CLOSED, friend.conn, WAIT_MS);
    unlisten(&ours.in, lst);
    inbox_close(&friend.in);
    inbox_close(&ours.in);
    ASSERT_OK(rcg_mr_deregister(area_mr));
    ASSERT_OK(rcg_engine_destroy(ours.engine));
    ASSERT_OK(rcg_engine_destroy(friend.engine));
    return T_PASS;
}
