/* A receiver without receives: the sender stalls and nothing is lost; with RCG_CONN_STRICT_RECV the stream ends. */
#include "helpers.h"

enum { SIZE = 8192, MESSAGES = 3000, FEW_MESSAGES = 400 };

static unsigned char out[SIZE * 64], in[SIZE * 16];

static unsigned messages(void)
{
    return light() ? FEW_MESSAGES : MESSAGES;
}

/* Posts messages `first`.. while the send queue takes them; returns the number of the next. */
static unsigned post_messages(struct side *s, rcg_mr *mr, unsigned first)
{
    for (; first < messages(); first++) {
        unsigned char *slot = out + (first % 64) * SIZE;
        rcg_sge sge = { slot, SIZE, mr };
        rcg_op op = RCG_OP_SEND(&sge, 1, slot);
        rcg_event ev;
        if (first >= 64 && !inbox_poll(&s->in, RCG_EVENT_COMPLETION, s->conn, &ev)) {
            pump(0);
            if (!inbox_poll(&s->in, RCG_EVENT_COMPLETION, s->conn, &ev)) break; /* its slot is still in use */
        }
        if (first >= 64) ASSERT(ev.status == 0 && ev.user == slot);
        pattern_fill(slot, SIZE, first);
        int rc = rcg_post(s->conn, &op, 1);
        ASSERT_RC(rc, 0);
    }
    return first;
}

static rcg_conn_info query(struct side *s)
{
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    ASSERT_OK(rcg_conn_query(s->conn, &info));
    return info;
}

/* Waits until the receiver has stalled and the sender can post no more. */
static unsigned post_until_stalled(struct side *sender, struct side *receiver, rcg_mr *mr)
{
    uint64_t start = now_us(), quiet = start;
    unsigned posted = 0;
    /* a device repeats a message that met no receive, and its receiver's side hears nothing of it */
    while ((can(CAN_MPA) && query(receiver).recv_stalls == 0) || ms_since(quiet) < 200) {
        unsigned now = post_messages(sender, mr, posted);
        if (now != posted) quiet = now_us();
        posted = now;
        ASSERT(posted < messages()); /* so much does not fit between the two */
        if (ms_since(start) > WAIT_MS * slow()) FAIL("no stall: %u messages posted", posted);
        pump(10);
    }
    return posted;
}

static void test_stall(bool managed)
{
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_depth = 16 };
    rcg_listen_attr other = { RCG_LISTEN_ATTR_INIT, .recv_size = 64, .recv_count = 4 };
    struct side client, server;
    rcg_conn *other_client, *other_server;
    struct address to, other_to;
    rcg_listener *lst, *other_lst;
    rcg_mr *out_mr, *in_mr;
    rcg_event ev, held[16];
    unsigned posted, received = 0;

    STEP(managed ? "stall with lent buffers" : "stall without receives");
    if (managed) listen = (rcg_listen_attr){ RCG_LISTEN_ATTR_INIT, .recv_size = SIZE, .recv_count = 16 };
    side_open(&client, STYLE_QUEUE);
    side_open(&server, STYLE_QUEUE);
    ASSERT_OK(rcg_mr_register(client.engine, out, sizeof out, RCG_LOCAL, &out_mr));
    ASSERT_OK(rcg_mr_register(server.engine, in, sizeof in, RCG_LOCAL, &in_mr));
    lst = listen_on(&server.in, host4(), &listen, &to);
    link_up(&client, &server, &to, NULL, NULL);
    other_lst = listen_on(&server.in, host4(), &other, &other_to);
    other_client = start_connect(&client.in, &other_to, NULL);
    other_server = take(&server.in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS).conn;
    ASSERT_OK(rcg_accept(other_server, &(rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT }));
    take(&client.in, RCG_EVENT_ESTABLISHED, other_client, WAIT_MS);
    take(&server.in, RCG_EVENT_ESTABLISHED, other_server, WAIT_MS);

    posted = post_until_stalled(&client, &server, out_mr);
    ASSERT(posted >= 64);
    if (managed) {
        for (unsigned i = 0; i < 16; i++) {
            held[i] = take(&server.in, RCG_EVENT_RECV, server.conn, WAIT_MS);
            ASSERT_PATTERN(held[i].data, SIZE, received);
            received++;
        }
    }
    ASSERT_NONE(&server.in, RCG_EVENT_RECV, server.conn);
    ASSERT_NONE(&client.in, RCG_EVENT_DISCONNECTED, NULL);

    STEP("another connection while one is stalled");
    for (int i = 0; i < 50; i++) {
        rcg_op op = RCG_OP_SEND_COPY("ping", 4, NULL);
        ASSERT_OK(rcg_post(other_client, &op, 1));
        ev = take(&server.in, RCG_EVENT_RECV, other_server, WAIT_MS);
        ASSERT_OK(rcg_recv_release(other_server, &ev));
    }

    STEP("resume");
    if (managed) {
        for (unsigned i = 0; i < 16; i++) ASSERT_OK(rcg_recv_release(server.conn, &held[i]));
    } else {
        for (size_t i = 0; i < 16; i++) {
            rcg_sge sge = { in + i * SIZE, SIZE, in_mr };
            ASSERT_OK(rcg_post_recv(server.conn, &(rcg_recv){ .sge = &sge, .nsge = 1, .user = in + i * SIZE }, 1));
        }
    }
    while (received < messages()) {
        posted = post_messages(&client, out_mr, posted);
        ev = take(&server.in, RCG_EVENT_RECV, server.conn, WAIT_MS);
        ASSERT_EQ(ev.status, 0);
        ASSERT_EQ(ev.length, SIZE);
        ASSERT_PATTERN(ev.data, SIZE, received);
        received++;
        if (managed) {
            ASSERT_OK(rcg_recv_release(server.conn, &ev));
        } else {
            rcg_sge sge = { ev.data, SIZE, in_mr };
            ASSERT_OK(rcg_post_recv(server.conn, &(rcg_recv){ .sge = &sge, .nsge = 1, .user = ev.user }, 1));
        }
    }
    printf("%s: all %u messages in order, %llu stalls\n", managed ? "managed" : "posted", received,
           (unsigned long long)query(&server).recv_stalls);

    STEP("end of the stall test");
    link_down(&client, &server);
    ASSERT_OK(rcg_conn_close(other_client));
    take(&client.in, RCG_EVENT_CLOSED, other_client, WAIT_MS);
    take(&server.in, RCG_EVENT_CLOSED, other_server, WAIT_MS);
    unlisten(&server.in, lst);
    unlisten(&server.in, other_lst);
    ASSERT_OK(rcg_mr_deregister(out_mr));
    ASSERT_OK(rcg_mr_deregister(in_mr));
    side_close(&client);
    side_close(&server);
}

/* Who asks for it gets iWARP's own way: a message without a receive ends the stream, by Terminate DDP/2/2. On a device it
 * is the sender's that fails, and says why; its peer sees the connection end. */
static void test_strict(bool by_accept)
{
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .flags = by_accept ? 0 : RCG_CONN_STRICT_RECV };
    rcg_accept_attr accept = { RCG_ACCEPT_ATTR_INIT, .flags = by_accept ? RCG_CONN_STRICT_RECV : 0 };
    struct side client, server;
    struct address to;
    rcg_listener *lst;
    rcg_event ev;
    rcg_op op = RCG_OP_SEND_COPY("nobody waits", 12, NULL);

    STEP("strict");
    side_open(&client, STYLE_QUEUE);
    side_open(&server, STYLE_QUEUE);
    lst = listen_on(&server.in, host4(), &listen, &to);
    link_up(&client, &server, &to, NULL, &accept);
    ASSERT_OK(rcg_post(client.conn, &op, 1));
    ev = take(&client.in, RCG_EVENT_DISCONNECTED, client.conn, WAIT_MS);
    ASSERT(ev.error != NULL);
    if (can(CAN_MPA)) {
        ASSERT_EQ(ev.error->reason, RCG_REASON_TERMINATED);
        ASSERT_EQ(ev.error->provider_code, 0x1202);
    } else {
        ASSERT_EQ(ev.error->code, -ENOBUFS);
        ASSERT(strstr(ev.error->text, "no receive") != NULL);
    }
    ev = take(&server.in, RCG_EVENT_DISCONNECTED, server.conn, WAIT_MS);
    ASSERT(ev.error != NULL);
    if (can(CAN_MPA)) ASSERT_EQ(ev.error->code, -ENOBUFS);
    await_end(&client);
    await_end(&server);
    unlisten(&server.in, lst);
    side_close(&client);
    side_close(&server);
}

int main(void)
{
    watchdog(30);
    test_stall(false);
    test_stall(true);
    test_strict(false);
    test_strict(true);
    return T_PASS;
}
