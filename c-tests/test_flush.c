/* Every operation and receive comes back exactly once, before CLOSED, however a connection ends; and then nothing of it
 * holds on to the caller's memory: regions can be deregistered. */
#include "helpers.h"

enum { RECVS = 5, SENDS = 7, SIZE = 4096 };

enum way { REFUSED, CLOSE_CONNECTING, REJECTED, CLOSE_REQUESTED, DISCONNECT, CLOSE, PEER_CLOSE, CHANNEL_DESTROY, DESTROY_CONNECTING, WAYS };
static const char *const way_names[WAYS] = {
    "refused", "closed while connecting", "rejected", "closed while requested", "disconnected", "closed",
    "closed by the peer", "on a channel that is destroyed", "connecting on a channel that is destroyed",
};

static unsigned char mem[2][SIZE];

/* Each posted receive with a user of its own. */
static void post_recvs(struct side *s, rcg_mr *mr, char *users, unsigned char *to)
{
    for (int i = 0; i < RECVS; i++) {
        rcg_sge sge = { to, SIZE, mr };
        ASSERT_OK(rcg_post_recv(s->conn, &(rcg_recv){ .sge = &sge, .nsge = 1, .user = &users[i] }, 1));
    }
}

/* Counts what came back for these users; CLOSED has to be the last. */
static void expect_back(struct side *s, char *users, int n, uint32_t type)
{
    int seen[RECVS + SENDS] = { 0 };
    rcg_event ev;
    bool closed = false;
    uint64_t start = now_us();
    while (!closed) {
        while (!closed && inbox_poll(&s->in, 0, s->conn, &ev)) {
            closed = ev.type == RCG_EVENT_CLOSED;
            if (ev.type != type || (char *)ev.user < users || (char *)ev.user >= users + n) continue;
            seen[(char *)ev.user - users]++;
            if (ev.status != 0 && ev.status != -ECANCELED && ev.status != -ECONNRESET) FAIL("status %d", ev.status);
        }
        if (ms_since(start) > WAIT_MS * slow()) FAIL("no CLOSED");
        if (!closed) pump(50);
    }
    for (int i = 0; i < n; i++)
        if (seen[i] != 1) FAIL("%s %d came back %d times", type == RCG_EVENT_RECV ? "receive" : "operation", i, seen[i]);
}

static void test_way(enum way way, enum style style)
{
    static char c_users[RECVS], s_users[RECVS];
    struct side c, s;
    struct address to, nobody = refused_address(host4());
    rcg_mr *c_mr, *s_mr;
    static char step[80];
    snprintf(step, sizeof step, "receives of a connection that is %s (%s)", way_names[way], style_names[style]);
    STEP(step);
    side_open(&c, style);
    side_open(&s, style);
    ASSERT_OK(rcg_mr_register(c.engine, mem[0], SIZE, RCG_LOCAL, &c_mr));
    ASSERT_OK(rcg_mr_register(s.engine, mem[1], SIZE, RCG_LOCAL, &s_mr));
    rcg_listener *lst = listen_on(&s.in, host4(), NULL, &to);
    c.conn = start_connect(&c.in, way == REFUSED ? &nobody : &to, NULL);
    int rc = rcg_post_recv(c.conn, &(rcg_recv){ .user = NULL }, 1); /* to see whether it can already */
    if (way == REFUSED && (rc == -ENOTCONN || rc == -EBADF)) goto over; /* it had failed before we came */
    ASSERT_RC(rc, 0);
    if (way == REFUSED) { /* it may fail at any moment: what is taken has to come back */
        static char marks[64];
        rcg_sge sge = { mem[0], SIZE, c_mr };
        int taken = 0;
        while (taken < RECVS &&
               rcg_post_recv(c.conn, &(rcg_recv){ .sge = &sge, .nsge = 1, .user = &marks[taken] }, 1) == 0)
            taken++;
        expect_back(&c, marks, taken, RCG_EVENT_RECV);
        goto over;
    }
    post_recvs(&c, c_mr, c_users, mem[0]);
    if (way == CLOSE_CONNECTING) ASSERT_OK(rcg_conn_close(c.conn));
    if (way == DESTROY_CONNECTING) goto over;
    if (way != REFUSED && way != CLOSE_CONNECTING) {
        s.conn = take(&s.in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS).conn;
        post_recvs(&s, s_mr, s_users, mem[1]);
        if (way == REJECTED) {
            ASSERT_OK(rcg_reject(s.conn, 0, NULL, 0));
        } else if (way == CLOSE_REQUESTED) {
            ASSERT_OK(rcg_conn_close(s.conn));
        } else {
            ASSERT_OK(rcg_accept(s.conn, NULL));
            take(&c.in, RCG_EVENT_ESTABLISHED, c.conn, WAIT_MS);
            take(&s.in, RCG_EVENT_ESTABLISHED, s.conn, WAIT_MS);
        }
        if (way == DISCONNECT) ASSERT_OK(rcg_conn_disconnect(c.conn));
        if (way == CLOSE) ASSERT_OK(rcg_conn_close(c.conn));
        if (way == PEER_CLOSE) ASSERT_OK(rcg_conn_close(s.conn));
        if (way != CHANNEL_DESTROY) expect_back(&s, s_users, RECVS, RCG_EVENT_RECV);
    }
    if (way != CHANNEL_DESTROY) expect_back(&c, c_users, RECVS, RCG_EVENT_RECV);
over:
    if (way < CHANNEL_DESTROY) unlisten(&s.in, lst);
    inbox_close(&c.in);
    inbox_close(&s.in);
    ASSERT_OK(rcg_mr_deregister(c_mr));
    ASSERT_OK(rcg_mr_deregister(s_mr));
    ASSERT_OK(rcg_engine_destroy(c.engine));
    ASSERT_OK(rcg_engine_destroy(s.engine));
}

/* Gives lent buffers back at once. */
static bool release_all(struct inbox *b, const rcg_event *ev)
{
    (void)b;
    if (ev->type != RCG_EVENT_RECV) return true;
    if (ev->status == 0) rcg_recv_release(ev->conn, ev);
    return false;
}

/* Sends and Reads that are under way when the connection is closed, from this thread while the channel works. */
static void test_under_way(unsigned round, bool stalled)
{
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = 1 << 20, .recv_count = 4 };
    static char users[SENDS];
    static unsigned char big[2][1 << 20];
    struct side c, s;
    struct address to;
    rcg_mr *c_mr, *s_mr;
    uint32_t key;
    rcg_op ops[SENDS];
    rcg_sge sge;
    STEP(stalled ? "operations that a peer without receives has stalled" : "operations under way");
    side_open(&c, STYLE_QUEUE);
    side_open(&s, STYLE_QUEUE);
    s.in.hook = release_all;
    ASSERT_OK(rcg_mr_register(c.engine, big[0], sizeof big[0], RCG_LOCAL, &c_mr));
    ASSERT_OK(rcg_mr_register(s.engine, big[1], sizeof big[1], RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &s_mr));
    rcg_listener *lst = listen_on(&s.in, host4(), stalled ? NULL : &listen, &to);
    link_up(&c, &s, &to, NULL, NULL);
    ASSERT_OK(rcg_mr_key(s_mr, s.conn, &key));
    sge = (rcg_sge){ big[0], sizeof big[0], c_mr };
    for (int i = 0; i < SENDS; i++) {
        if (i % 3 == 0) ops[i] = (rcg_op)RCG_OP_SEND(&sge, 1, &users[i]); /* where stalled, there is no receive for it */
        else if (i % 3 == 1) ops[i] = (rcg_op)RCG_OP_READ(&sge, 1, addr_of(big[1]), key, &users[i]);
        else ops[i] = (rcg_op)RCG_OP_WRITE(&sge, 1, addr_of(big[1]), key, &users[i]);
    }
    if (round % 2) { /* reads first: they are answered */
        rcg_op op = ops[0];
        ops[0] = ops[1], ops[1] = op;
    }
    ASSERT_OK(rcg_post(c.conn, ops, SENDS));
    if (round % 3) pump((int)round % 3);
    ASSERT_OK(rcg_conn_close(round % 4 < 2 ? c.conn : s.conn));
    expect_back(&c, users, SENDS, RCG_EVENT_COMPLETION);
    await_end(&s);
    ASSERT_OK(rcg_mr_deregister(c_mr));
    ASSERT_OK(rcg_mr_deregister(s_mr));
    unlisten(&s.in, lst);
    side_close(&c);
    side_close(&s);
}

struct poster {
    rcg_conn *conn;
    rcg_mr *mr;
    uint32_t key; /* of mem[1] */
    unsigned posted;
};

static void *post_until_closed(void *arg)
{
    struct poster *p = arg;
    rcg_sge sge = { mem[0], SIZE, p->mr };
    rcg_recv recv = { .sge = &sge, .nsge = 1, .user = p };
    rcg_op op = RCG_OP_SEND(&sge, 1, p);
    if (!can(CAN_WAIT)) op = (rcg_op)RCG_OP_WRITE(&sge, 1, addr_of(mem[1]), p->key, p); /* needs no receive */
    for (;;) {
        int rc = rcg_post_recv(p->conn, &recv, 1), rc2 = rcg_post(p->conn, &op, 1);
        p->posted += (rc == 0) + (rc2 == 0);
        if (rc == -EBADF || rc == -ENOTCONN) return NULL;
        if (rc != 0) ASSERT_RC(rc, -EAGAIN);
    }
}

/* A thread that goes on posting while the connection ends: what was taken comes back, the rest was refused. */
static void test_race(unsigned round)
{
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = SIZE, .recv_count = 16 };
    struct side c, s;
    struct address to;
    rcg_mr *mr, *s_mr;
    rcg_event ev;
    pthread_t thread;
    struct poster p = { 0 };
    unsigned back = 0;
    STEP("posting while it ends");
    side_open(&c, STYLE_QUEUE);
    side_open(&s, STYLE_QUEUE);
    s.in.hook = release_all;
    ASSERT_OK(rcg_mr_register(c.engine, mem[0], SIZE, RCG_LOCAL, &mr));
    rcg_listener *lst = listen_on(&s.in, host4(), &listen, &to);
    link_up(&c, &s, &to, NULL, NULL);
    ASSERT_OK(rcg_mr_register(s.engine, mem[1], SIZE, RCG_LOCAL | RCG_REMOTE_WRITE, &s_mr));
    ASSERT_OK(rcg_mr_key(s_mr, s.conn, &p.key));
    p.conn = c.conn, p.mr = mr;
    ASSERT(pthread_create(&thread, NULL, post_until_closed, &p) == 0);
    if (round % 2) pump(1);
    ASSERT_OK(round % 4 < 2 ? rcg_conn_close(c.conn) : rcg_conn_close(s.conn));
    uint64_t start = now_us();
    for (bool closed = false; !closed;) {
        while (!closed && inbox_poll(&c.in, 0, c.conn, &ev)) {
            closed = ev.type == RCG_EVENT_CLOSED;
            back += ev.user == &p;
        }
        if (ms_since(start) > WAIT_MS * slow()) FAIL("no CLOSED");
        if (!closed) pump(20);
    }
    pump(0);
    pthread_join(thread, NULL);
    if (back != p.posted) FAIL("%u were posted, %u came back before CLOSED", p.posted, back);
    await_end(&s);
    unlisten(&s.in, lst);
    ASSERT_OK(rcg_mr_deregister(mr));
    ASSERT_OK(rcg_mr_deregister(s_mr));
    side_close(&c);
    side_close(&s);
}

struct connector {
    rcg_channel *ch;
    rcg_mr *mr;
    struct address to;
    unsigned made;
};

static void *connect_until_destroyed(void *arg)
{
    struct connector *k = arg;
    rcg_addr addr = rcg_addr_of(&k->to);
    rcg_sge sge = { mem[0], SIZE, k->mr };
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .provider = test_provider() };
    while (k->made < 400) {
        rcg_conn *conn;
        int rc = rcg_connect(k->ch, &addr, 1, &attr, &conn);
        if (rc == -EBADF) return NULL;
        ASSERT_RC(rc, 0);
        k->made++;
        rcg_post_recv(conn, &(rcg_recv){ .sge = &sge, .nsge = 1, .user = k }, 1);
        if (k->made % 2) rcg_conn_close(conn);
    }
    return NULL;
}

/* A thread that goes on connecting while the channel is destroyed: nothing of it is left behind. */
static void test_destroy_race(enum style style)
{
    struct side c;
    struct connector k = { .to = refused_address(host4()) };
    pthread_t thread;
    STEP("connecting while the channel is destroyed");
    side_open(&c, style);
    ASSERT_OK(rcg_mr_register(c.engine, mem[0], SIZE, RCG_LOCAL, &k.mr));
    k.ch = c.in.ch;
    ASSERT(pthread_create(&thread, NULL, connect_until_destroyed, &k) == 0);
    poll(NULL, 0, (int)(now_us() % 3));
    uint64_t start = now_us();
    ASSERT_OK(rcg_channel_destroy(c.in.ch));
    if (ms_since(start) > 1000 * slow()) FAIL("destroying the channel took %d ms", ms_since(start));
    pthread_join(thread, NULL);
    inbox_drop(&c.in);
    int rc = rcg_mr_deregister(k.mr);
    if (rc != 0) FAIL("after %u connects: deregister gave %d", k.made, rc);
    ASSERT_OK(rcg_engine_destroy(c.engine));
}

int main(void)
{
    watchdog(20);
    for (int style = 0; style < STYLES; style++)
        for (int way = 0; way < WAYS; way++) test_way((enum way)way, (enum style)style);
    unsigned less = light() ? 3 : 1;
    for (unsigned round = 0; round < 40 / less; round++) test_race(round);
    for (unsigned round = 0; round < 60 / less; round++) test_destroy_race((enum style)(round % STYLES));
    for (unsigned round = 0; round < 24 / less; round++) test_under_way(round, false);
    for (unsigned round = 0; round < 8 && can(CAN_WAIT); round++) test_under_way(round, true);
    return T_PASS;
}
