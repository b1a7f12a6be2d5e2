/* Wrong use of RPC-over-RDMA is answered with an error, and nothing is left of it. */
#include "rpc.h"

#include <stddef.h>

static void test_attributes(void)
{
    rcg_rpc_attr bad[] = {
        { RCG_RPC_ATTR_INIT, .flags = 64 },
        { RCG_RPC_ATTR_INIT, .flags = 1u << 31 },
        { RCG_RPC_ATTR_INIT, .credits = 1025 },
        { RCG_RPC_ATTR_INIT, .credits = UINT32_MAX },
        { RCG_RPC_ATTR_INIT, .backchannel = 1025 },
        { RCG_RPC_ATTR_INIT, .inline_send = 1023 },
        { RCG_RPC_ATTR_INIT, .inline_send = 65537 },
        { RCG_RPC_ATTR_INIT, .inline_recv = 1023 },
        { RCG_RPC_ATTR_INIT, .inline_recv = 65537 },
        { RCG_RPC_ATTR_INIT, .max_payload = (1u << 30) + 1 },
        { .size = 0 },
        { .size = 4 },
    };
    struct {
        rcg_rpc_attr attr;
        uint64_t more;
    } newer = { .attr = { .size = sizeof newer }, .more = 1 };
    rcg_rpc_attr good = { RCG_RPC_ATTR_INIT };
    rcg_addr addr = rcg_addr_of(&to);
    struct address any = address_of(host4(), 0);
    rcg_channel *cch = client.side.in.ch, *sch = server.side.in.ch;
    rcg_conn *conn = NULL;
    rcg_listener *l = NULL;
    size_t few, many;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .provider = test_provider(), .rpc = &bad[i] };
        rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .provider = test_provider(), .rpc = &bad[i] };
        STEP("bad RPC attributes");
        ASSERT_RC(rcg_connect(cch, &addr, 1, &connect, &conn), -EINVAL);
        ASSERT_RC(rcg_conn_memory(client.side.engine, &connect, &few), -EINVAL);
        ASSERT_RC(rcg_listen(sch, (struct sockaddr *)&any.ss, (uint32_t)any.len, &listen, &l), -EINVAL);
    }
    STEP("attributes of connect and listen that don't go with RPC");
    rcg_connect_attr connects[] = {
        { RCG_CONNECT_ATTR_INIT, .rpc = &good, .private_data = "x", .private_data_len = 1 },
        { RCG_CONNECT_ATTR_INIT, .rpc = &good, .recv_size = 4096, .recv_count = 16 },
        { RCG_CONNECT_ATTR_INIT, .rpc = &good, .recv_size = 4096 },
        { RCG_CONNECT_ATTR_INIT, .rpc = &good, .recv_count = 16 },
        { RCG_CONNECT_ATTR_INIT, .rpc = &good, .recv_depth = 16 },
        { RCG_CONNECT_ATTR_INIT, .rpc = &good, .send_depth = 16 },
    };
    for (size_t i = 0; i < sizeof connects / sizeof *connects; i++)
        ASSERT_RC(rcg_connect(cch, &addr, 1, &connects[i], &conn), -EINVAL);
    rcg_listen_attr listens[] = {
        { RCG_LISTEN_ATTR_INIT, .rpc = &good, .recv_size = 4096, .recv_count = 16 },
        { RCG_LISTEN_ATTR_INIT, .rpc = &good, .recv_depth = 16 },
        { RCG_LISTEN_ATTR_INIT, .rpc = &good, .send_depth = 16 },
    };
    for (size_t i = 0; i < sizeof listens / sizeof *listens; i++)
        ASSERT_RC(rcg_listen(sch, (struct sockaddr *)&any.ss, (uint32_t)any.len, &listens[i], &l), -EINVAL);

    STEP("RPC attributes of a newer library");
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .rpc = &newer.attr };
    ASSERT_RC(rcg_connect(cch, &addr, 1, &connect, &conn), -E2BIG);
    newer.more = 0;
    ASSERT_OK(rcg_conn_memory(client.side.engine, &connect, &few));
    ASSERT(conn == NULL && l == NULL);

    STEP("memory of an RPC connection");
    connect.rpc = &(rcg_rpc_attr){ RCG_RPC_ATTR_INIT, .credits = 1, .backchannel = 1, .inline_recv = 1024 };
    ASSERT_OK(rcg_conn_memory(client.side.engine, &connect, &few));
    connect.rpc = &(rcg_rpc_attr){ RCG_RPC_ATTR_INIT, .credits = 1024, .backchannel = 1024, .inline_recv = 65536 };
    ASSERT_OK(rcg_conn_memory(client.side.engine, &connect, &many));
    ASSERT(few >= 2 * 1024 && many >= 2048u * 65536 && few < many);
}

/* A connection without RPC, and what is none. */
static void test_not_rpc(void)
{
    struct side a, b;
    struct address at;
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT };
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT };
    rcg_rpc_info info = { RCG_RPC_INFO_INIT };

    STEP("not an RPC connection");
    side_open(&a, STYLE_QUEUE);
    side_open(&b, STYLE_QUEUE);
    rcg_listener *l = listen_on(&b.in, host4(), NULL, &at);
    link_up(&a, &b, &at, NULL, NULL);
    ASSERT_RC(rcg_rpc_call(a.conn, &request), -EINVAL);
    ASSERT_RC(rcg_rpc_reply(b.conn, 1, &response), -EINVAL);
    ASSERT_RC(rcg_rpc_refuse(b.conn, 1), -EINVAL);
    ASSERT_RC(rcg_rpc_query(a.conn, &info), -EINVAL);

    STEP("not a connection");
    ASSERT_RC(rcg_rpc_call(NULL, &request), -EINVAL);
    ASSERT_RC(rcg_rpc_reply(NULL, 1, &response), -EINVAL);
    ASSERT_RC(rcg_rpc_refuse(NULL, 1), -EINVAL);
    ASSERT_RC(rcg_rpc_query(NULL, &info), -EINVAL);
    void *const garbage[] = { (void *)8, a.engine, a.in.ch, l, &info };
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        ASSERT_RC(rcg_rpc_call(garbage[i], &request), -EBADF);
        ASSERT_RC(rcg_rpc_reply(garbage[i], 1, &response), -EBADF);
        ASSERT_RC(rcg_rpc_refuse(garbage[i], 1), -EBADF);
        ASSERT_RC(rcg_rpc_query(garbage[i], &info), -EBADF);
    }
    link_down(&a, &b);
    unlisten(&b.in, l);
    side_close(&a);
    side_close(&b);
}

static void refused_call(const char *what, rcg_rpc_request request, int expected)
{
    rcg_rpc_info before = figures(&client), after;
    STEP(what);
    ASSERT_RC(rcg_rpc_call(client.side.conn, &request), expected);
    after = figures(&client);
    ASSERT(memcmp(&before, &after, sizeof before) == 0);
}

static void test_wrong_calls(void)
{
    unsigned char text[8192];
    struct iovec head = head_of(text, 0x777, 0, 48), vectors[3];
    rcg_rpc_request good = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 64, .user = text }, r;
    rcg_sge sge = sge_of(&client, SOURCE, 10000), sge2 = sge_of(&client, RESULT, 10000);
    rcg_rpc_memory memory = { .sge = &sge, .nsge = 1, .at = 44 }, memories[17];
    static rcg_sge many[513];
    struct {
        rcg_rpc_request request;
        uint64_t more;
    } newer = { .request = good, .more = 1 };
    rcg_mr *plain;

    STEP("NULL request");
    ASSERT_RC(rcg_rpc_call(client.side.conn, NULL), -EINVAL);
    r = good, r.size = 0;
    refused_call("a request without size", r, -EINVAL);
    newer.request.size = sizeof newer;
    STEP("a request of a newer library");
    ASSERT_RC(rcg_rpc_call(client.side.conn, &newer.request), -E2BIG);

    r = good, r.nhead = 0;
    refused_call("no head", r, -EINVAL);
    r = good, r.head = NULL;
    refused_call("head NULL", r, -EINVAL);
    r = good, head.iov_base = NULL;
    refused_call("a vector of NULL", r, -EINVAL);
    head = head_of(text, 0x777, 1, 48);
    refused_call("a reply as call", good, -EINVAL);
    head = head_of(text, 0x777, 2, 48);
    refused_call("neither call nor reply", good, -EINVAL);
    head = head_of(text, 0x777, 0, 48);
    head.iov_len = 47;
    refused_call("a head not in words", good, -EINVAL);
    head.iov_len = 4;
    refused_call("a head of one word", good, -EINVAL);
    head.iov_len = 0;
    refused_call("an empty head", good, -EINVAL);
    vectors[0] = vectors[1] = vectors[2] = (struct iovec){ text, SIZE_MAX / 2 };
    r = good, r.head = vectors, r.nhead = 3;
    refused_call("a head longer than memory", r, -EMSGSIZE);
    head.iov_len = (16u << 20) + 4;
    refused_call("a head over the limit", good, -EMSGSIZE);
    head.iov_len = 48;

    static const uint32_t wrong[] = { 0, 4, 42, 43, 45, 52, 1u << 31, UINT32_MAX - 3 };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        r = good, r.payload = memory, r.payload.at = wrong[i];
        refused_call("a payload where there can be none", r, -EINVAL);
        sge.length = 16; /* it would go with the message */
        refused_call("a small payload where there can be none", r, -EINVAL);
        sge.length = 10000;
    }
    r = good, r.payload = memory, sge.length = 0;
    refused_call("an empty piece of payload", r, -EINVAL);
    r = good, r.results = &memory, r.nresults = 1;
    refused_call("an empty piece of a result", r, -EINVAL);
    r = good, r.reply = memory;
    refused_call("an empty piece of reply", r, -EINVAL);
    sge.length = 10000;
    r = good, r.payload = memory, r.payload.sge = NULL;
    refused_call("payload NULL", r, -EINVAL);
    r = good, r.nresults = 1;
    refused_call("results NULL", r, -EINVAL);
    for (size_t i = 0; i < 513; i++) many[i] = sge_of(&client, i, 1);
    r = good, r.payload = (rcg_rpc_memory){ .sge = many, .nsge = 513, .at = 44 };
    refused_call("too many pieces of payload", r, -EINVAL);
    for (size_t i = 0; i < 17; i++) memories[i] = (rcg_rpc_memory){ .sge = &sge2, .nsge = 1 };
    r = good, r.results = memories, r.nresults = 17;
    refused_call("too many results", r, -EINVAL);
    r.nresults = SIZE_MAX;
    refused_call("SIZE_MAX results", r, -EINVAL);
    memories[0].nsge = UINT32_MAX;
    r.nresults = 1;
    refused_call("UINT32_MAX pieces of a result", r, -EINVAL);

    r = good, r.reply_max = 10000;
    refused_call("a long reply without memory", r, -EINVAL);
    sge2.length = 9999;
    r.reply = (rcg_rpc_memory){ .sge = &sge2, .nsge = 1 };
    refused_call("a long reply with too little memory", r, -EINVAL);
    sge2.length = 10000;

    STEP("regions");
    ASSERT_OK(rcg_mr_register(client.side.engine, client.mem, REGION, RCG_LOCAL, &plain));
    sge.mr = sge2.mr = plain;
    r = good, r.payload = memory;
    refused_call("a payload that the peer may not read", r, -EACCES);
    r = good, r.results = &(rcg_rpc_memory){ .sge = &sge2, .nsge = 1 }, r.nresults = 1;
    refused_call("a result that the peer may not write", r, -EACCES);
    r = good, r.reply_max = 10000, r.reply = (rcg_rpc_memory){ .sge = &sge2, .nsge = 1 };
    refused_call("a reply that the peer may not write", r, -EACCES);
    ASSERT_OK(rcg_mr_deregister(plain)); /* nothing of them is left behind */
    refused_call("a region that is no more", r, -EBADF);
    sge.mr = NULL;
    r = good, r.payload = memory;
    refused_call("a payload without region", r, -EINVAL);
    sge = sge_of(&server, SOURCE, 10000);
    refused_call("another engine's region", r, -EINVAL);
    sge.length = 16;
    refused_call("another engine's region, though it would be copied", r, -EINVAL);
    sge = sge_of(&client, REGION - 8, 16);
    refused_call("beyond the region", r, -EINVAL);

    sge = sge_of(&client, REPLY, 10000);
    r = good, r.results = &(rcg_rpc_memory){ .sge = many, .nsge = 512 }, r.nresults = 1;
    r.reply = (rcg_rpc_memory){ .sge = &sge, .nsge = 1 };
    refused_call("more pieces than a message can name", r, -EINVAL);

    STEP("what is the library's here");
    ASSERT_RC(rcg_post(client.side.conn, &(rcg_op)RCG_OP_SEND_COPY("x", 1, text), 1), -EINVAL);
    ASSERT_RC(rcg_post_recv(client.side.conn, &(rcg_recv){ 0 }, 1), -EINVAL);
    ASSERT_RC(rcg_recv_release(client.side.conn, &(rcg_event){ .flags = RCG_EVENT_LENT, .buffer = 1 }), -EINVAL);
    ASSERT_NONE(&server.side.in, RCG_EVENT_RPC_CALL, NULL);
    small_exchange(&client, &server);
}

static void test_wrong_replies(void)
{
    enum { PIECES = 60 }; /* more than go in one batch */
    struct call call = { 0 };
    unsigned char text[8192];
    uint32_t xid = ++last_xid;
    struct iovec head;
    rcg_sge sge[PIECES], room[PIECES];
    rcg_rpc_memory payloads[17], result = { .sge = room, .nsge = PIECES };
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 64, .user = &call,
                                .results = &result, .nresults = 1 };
    rcg_rpc_response good = { RCG_RPC_RESPONSE_INIT, .head = &head, .nhead = 1, .payloads = payloads, .npayloads = 1,
                              .user = text }, r;
    rcg_conn *conn = server.side.conn;

    STEP("replies to no call");
    ASSERT_RC(small_reply(&server, 0, xid, 24, NULL), -ENOENT);
    ASSERT_RC(small_reply(&server, 12345, xid, 24, NULL), -ENOENT);
    ASSERT_RC(small_reply(&client, 1, xid, 24, NULL), -ENOENT);
    ASSERT_RC(rcg_rpc_refuse(conn, 12345), -ENOENT);
    ASSERT_RC(rcg_rpc_refuse(client.side.conn, 1), -ENOENT);

    STEP("wrong replies");
    rcg_rpc_info before = figures(&server), after;
    for (size_t i = 0; i < PIECES; i++) {
        sge[i] = sge_of(&server, i * 100, 100);
        room[i] = sge_of(&client, RESULT + i * 100, 100);
    }
    for (size_t i = 0; i < 17; i++) payloads[i] = (rcg_rpc_memory){ .sge = sge, .nsge = PIECES, .at = 28 };
    head = head_of(text, xid, 0, 48);
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    rcg_event ev = take_call(&server);
    uint64_t id = ev.rpc->call;
    ASSERT(ev.rpc->nrooms == 1 && ev.rpc->rooms[0] == PIECES * 100);
    ASSERT_RC(rcg_rpc_reply(conn, id, NULL), -EINVAL);
    ASSERT_RC(rcg_rpc_reply(conn, id, &good), -EINVAL); /* the head is a call's */
    head = head_of(text, xid + 1, 1, 32);
    ASSERT_RC(rcg_rpc_reply(conn, id, &good), -EINVAL); /* another call's */
    head = head_of(text, xid, 1, 32);
    r = good, r.size = 0;
    ASSERT_RC(rcg_rpc_reply(conn, id, &r), -EINVAL);
    r = good, r.nhead = 0;
    ASSERT_RC(rcg_rpc_reply(conn, id, &r), -EINVAL);
    r = good, r.head = NULL;
    ASSERT_RC(rcg_rpc_reply(conn, id, &r), -EINVAL);
    head.iov_len = 31;
    ASSERT_RC(rcg_rpc_reply(conn, id, &good), -EINVAL);
    head.iov_len = 32;
    static const uint32_t wrong[] = { 0, 4, 27, 30, 36, UINT32_MAX };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        payloads[0].at = wrong[i];
        ASSERT_RC(rcg_rpc_reply(conn, id, &good), -EINVAL);
    }
    payloads[0].at = 28, payloads[1].at = 24; /* not in order */
    r = good, r.npayloads = 2;
    ASSERT_RC(rcg_rpc_reply(conn, id, &r), -EINVAL);
    payloads[1].at = 28;
    r = good, r.npayloads = 17;
    ASSERT_RC(rcg_rpc_reply(conn, id, &r), -EINVAL);
    r = good, r.payloads = NULL;
    ASSERT_RC(rcg_rpc_reply(conn, id, &r), -EINVAL);
    sge[0].length = 0;
    ASSERT_RC(rcg_rpc_reply(conn, id, &good), -EINVAL);
    sge[0].length = 101;
    ASSERT_RC(rcg_rpc_reply(conn, id, &good), -EMSGSIZE); /* there is no room for one octet more */
    sge[0] = sge_of(&server, REGION - 8, 16);
    ASSERT_RC(rcg_rpc_reply(conn, id, &good), -EINVAL);
    sge[0] = sge_of(&server, SOURCE, 100);
    sge[PIECES - 1] = sge_of(&client, SOURCE, 100);
    ASSERT_RC(rcg_rpc_reply(conn, id, &good), -EINVAL); /* another engine's region */
    sge[PIECES - 1] = sge_of(&server, (PIECES - 1) * 100, 100);
    head = head_of(text, xid, 1, sizeof text);
    ASSERT_RC(rcg_rpc_reply(conn, id, &good), -EMSGSIZE);
    after = figures(&server);
    before.asked++;
    ASSERT(memcmp(&before, &after, sizeof before) == 0);

    STEP("the right one");
    head = head_of(text, xid, 1, 32);
    pattern_fill(server.mem, PIECES * 100, ++seed);
    memset(client.mem + RESULT, 0, PIECES * 100);
    ASSERT_OK(rcg_rpc_reply(conn, id, &good));
    ASSERT_RC(rcg_rpc_reply(conn, id, &good), -ENOENT);
    ASSERT_RC(rcg_rpc_refuse(conn, id), -ENOENT);
    expect_over(&client, &call, 0);
    expect_answered(&server, text);
    ASSERT_PATTERN(client.mem + RESULT, PIECES * 100, seed);
    ASSERT_EQ(figures(&server).write_chunks, before.write_chunks + 1);
}

static void test_query(void)
{
    rcg_rpc_info info = { RCG_RPC_INFO_INIT };
    STEP("query");
    ASSERT_RC(rcg_rpc_query(client.side.conn, NULL), -EINVAL);
    info.size = 4;
    ASSERT_RC(rcg_rpc_query(client.side.conn, &info), -EINVAL);
    memset(&info, 0x5a, sizeof info);
    info.size = offsetof(rcg_rpc_info, credits); /* an older program's */
    ASSERT_OK(rcg_rpc_query(client.side.conn, &info));
    ASSERT_EQ(info.size, offsetof(rcg_rpc_info, credits));
    ASSERT(info.inline_send == 4096 && info.inline_recv == 4096);
    assert_all_are(&info.credits, sizeof info - offsetof(rcg_rpc_info, credits), 0x5a, "beyond an older rcg_rpc_info");
}

static void test_states(void)
{
    rcg_rpc_attr rpc = { RCG_RPC_ATTR_INIT };
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .rpc = &rpc };
    struct call call = { 0 };
    rcg_event ev;

    STEP("calls before there is a connection");
    struct side *c = &client.side, *s = &server.side;
    c->conn = start_connect(&c->in, &to, &connect);
    ASSERT_RC(small_call(&client, 1, 40, &call), -ENOTCONN);
    ev = take(&s->in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS);
    s->conn = ev.conn;
    ASSERT_EQ(figures(&client).calls, 0);
    ASSERT_RC(small_call(&client, 1, 40, &call), -ENOTCONN);
    ASSERT_RC(small_call(&server, 1, 40, &call), -ENOTCONN);
    ASSERT_RC(small_reply(&server, 1, 1, 24, NULL), -ENOTCONN);
    ASSERT_RC(rcg_rpc_refuse(s->conn, 1), -ENOTCONN);
    ASSERT_RC(rcg_accept(s->conn, &(rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT, .private_data = "x", .private_data_len = 1 }),
              -EINVAL);
    ASSERT_OK(rcg_accept(s->conn, NULL));
    take(&c->in, RCG_EVENT_ESTABLISHED, c->conn, WAIT_MS);
    take(&s->in, RCG_EVENT_ESTABLISHED, s->conn, WAIT_MS);
    small_exchange(&client, &server);

    STEP("calls when it has ended");
    ASSERT_OK(rcg_conn_close(c->conn));
    take(&c->in, RCG_EVENT_DISCONNECTED, c->conn, WAIT_MS);
    rcg_conn *old = c->conn;
    take(&s->in, RCG_EVENT_DISCONNECTED, s->conn, WAIT_MS);
    ASSERT_ONE_OF(small_call(&client, 1, 40, &call), -ENOTCONN, -EBADF);
    ASSERT_ONE_OF(small_call(&server, 1, 40, &call), -ENOTCONN, -EBADF);
    await_end(c);
    await_end(s);
    pump(0);
    c->conn = old;
    ASSERT_RC(small_call(&client, 1, 40, &call), -EBADF);
    ASSERT_RC(rcg_rpc_refuse(old, 1), -EBADF);
    ASSERT_EQ(call.over, 0);

    STEP("a reject");
    c->conn = start_connect(&c->in, &to, &connect);
    ev = take(&s->in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS);
    ASSERT_OK(rcg_reject(ev.conn, RCG_REJECT_AUTH, NULL, 0));
    take(&s->in, RCG_EVENT_CLOSED, ev.conn, WAIT_MS);
    ev = take(&c->in, RCG_EVENT_CONNECT_FAILED, c->conn, WAIT_MS);
    ASSERT_ONE_OF(small_call(&client, 1, 40, &call), -ENOTCONN, -EBADF);
    await_end(c);
}

int main(void)
{
    watchdog(30);
    open_pair(STYLE_QUEUE, NULL, NULL);
    test_attributes();
    test_not_rpc();
    test_query();
    test_wrong_calls();
    test_wrong_replies();
    link_down(&client.side, &server.side);
    test_states();
    close_listener_and_ends();
    return T_PASS;
}
