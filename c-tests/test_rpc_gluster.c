/* GlusterFS 3.4 to 7 as it was seen on the wire: messages that its own transport has sent, replayed to us in both roles, and
 * ours compared with them. Keys and offsets are those of here, xids, lengths and places those of there. */
#include "rpc_raw.h"

#define ANY 0xa5a5a5a5u /* a key, an offset: not looked at */

static const rcg_rpc_attr gluster = { RCG_RPC_ATTR_INIT, .credits = 0x80, .inline_send = 8192, .inline_recv = 8192,
                                      .flags = RCG_RPC_NO_PADS | RCG_RPC_GLUSTERFS_IF_SILENT };

enum { HEADER = 80 }; /* octets of a call's own header, with GlusterFS's credentials */

/* A call of so many octets, with that header. */
static struct iovec gluster_call(unsigned char *into, uint32_t xid, size_t octets)
{
    struct iovec head = head_of(into, xid, 0, octets);
    put_word(into + 12, 0x13d005), put_word(into + 16, 0x190), put_word(into + 20, 0x28);
    put_word(into + 24, 0x5d4b3), put_word(into + 28, 40); /* credentials */
    put_word(into + 72, 0), put_word(into + 76, 0);        /* verifier */
    return head;
}

/* Takes a message of exactly these octets: a header, and `rest` behind it. What was ANY is put into `found`. */
static void expect_message(struct end *e, const uint32_t *header, size_t n, const void *rest, size_t length, uint32_t *found)
{
    rcg_event ev = take(&e->side.in, RCG_EVENT_RECV, e->side.conn, WAIT_MS);
    ASSERT_EQ(ev.length, 4 * n + length);
    for (size_t i = 0; i < n; i++) {
        uint32_t word = get_word(ev.data, 4 * i);
        if (header[i] == ANY) *found++ = word;
        else if (word != header[i]) FAIL("word %zu is %#x, expected %#x", i, word, header[i]);
    }
    ASSERT(memcmp((unsigned char *)ev.data + 4 * n, rest, length) == 0);
    ASSERT_OK(rcg_recv_release(e->side.conn, &ev));
}
#define EXPECT(e, rest, length, found, ...)                                                                            \
    expect_message((e), (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4, (rest),      \
                   (length), (found))

static void send_message(struct end *e, const uint32_t *header, size_t n, const void *rest, size_t length)
{
    unsigned char *text = e->mem + REPLY + REGION / 4;
    for (size_t i = 0; i < n; i++) put_word(text + 4 * i, header[i]);
    memcpy(text + 4 * n, rest, length);
    rcg_sge sge = { text, 4 * n + length, e->mr };
    ASSERT_OK(rcg_post(e->side.conn, &(rcg_op)RCG_OP_SEND(&sge, 1, e), 1));
    rcg_event ev = take(&e->side.in, RCG_EVENT_COMPLETION, e->side.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);
}
#define SEND(e, rest, length, ...)                                                                                     \
    send_message((e), (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4, (rest), (length))

static uint64_t long_of(const uint32_t found[2])
{
    return (uint64_t)found[0] << 32 | found[1];
}

/* What the peer reads, or writes, with a key that it was told. */
static void remote(struct end *e, uint32_t opcode, size_t offset, size_t length, uint32_t key, uint64_t at)
{
    rcg_sge sge = sge_of(e, offset, length);
    rcg_op op = { .opcode = opcode, .flags = RCG_SIGNALED, .sge = &sge, .nsge = 1, .remote_addr = at, .remote_key = key,
                  .user = e };
    ASSERT_OK(rcg_post(e->side.conn, &op, 1));
    rcg_event ev = take(&e->side.in, RCG_EVENT_COMPLETION, e->side.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);
}

/* ---- we call ---- */

static void test_calls(void)
{
    static struct call call;
    unsigned char text[4096], reply[1024];
    uint32_t found[16];
    rcg_sge sge, place;
    struct iovec head;
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .user = &call };

    STEP("calls to GlusterFS");
    open_with_raw_server(&gluster, false);
    ASSERT(figures(&client).flags == RCG_RPC_GLUSTERFS && figures(&client).inline_send == 2048);

    /* readdirp: 128 KiB for the reply, which uses 0x340 of it; key and offset of what comes back mean nothing. */
    head = gluster_call(text, 0x3a, HEADER + 60);
    place = sge_of(&client, REPLY, 0x20000);
    request.reply = (rcg_rpc_memory){ .sge = &place, .nsge = 1 }, request.reply_max = 0x20000;
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    EXPECT(&server, text, head.iov_len, found, 0x3a, 1, 0x80, 0, 0, 0, 1, 1, ANY, 0x20000, ANY, ANY, 0);
    struct iovec answer = head_of(server.mem + SOURCE, 0x3a, 1, 0x340);
    remote(&server, RCG_WRITE, SOURCE, answer.iov_len, found[0], long_of(found + 1));
    SEND(&server, NULL, 0, 0x3a, 1, 0x80, 1, 0, 0, 1, 1, 1, 0x340, ANY, ANY, 0);
    expect_over(&client, &call, 0);
    ASSERT(call.data == client.mem + REPLY && call.length == 0x340);
    ASSERT(memcmp(call.text, answer.iov_base, 0x340) == 0);
    ASSERT_EQ(figures(&client).credits, 0x80);

    /* writev of 8 KiB: the payload is said to be behind the call's own header, though the arguments are before it. */
    memset(&call, 0, offsetof(struct call, text));
    head = gluster_call(text, 0x1b, 132);
    pattern_fill(client.mem + SOURCE, 0x2000, ++seed);
    sge = sge_of(&client, SOURCE, 0x2000);
    request = (rcg_rpc_request){ RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 1000, .user = &call,
                                 .payload = { .sge = &sge, .nsge = 1, .at = 132 } };
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    EXPECT(&server, text, 132, found, 0x1b, 1, 0x80, 0, 1, 0x50, ANY, 0x2000, ANY, ANY, 0, 0, 0);
    remote(&server, RCG_READ, RESULT, 0x2000, found[0], long_of(found + 1));
    ASSERT_PATTERN(server.mem + RESULT, 0x2000, seed);
    head_of(reply, 0x1b, 1, 200);
    SEND(&server, reply, 200, 0x1b, 1, 0x80, 0, 0, 0, 0);
    expect_over(&client, &call, 0);
    ASSERT(call.length == 200 && memcmp(call.text, reply, 200) == 0);

    /* setxattr of 2600 octets: all of it in two segments, one behind the other. */
    memset(&call, 0, offsetof(struct call, text));
    head = gluster_call(text, 0x41, 0x50 + 0xa6c);
    request.payload = (rcg_rpc_memory){ 0 };
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    EXPECT(&server, NULL, 0, found, 0x41, 1, 0x80, 1, 1, 0, ANY, 0x50, ANY, ANY, 1, 0x50, ANY, 0xa6c, ANY, ANY, 0, 0, 0);
    remote(&server, RCG_READ, RESULT, 0x50, found[0], long_of(found + 1));
    remote(&server, RCG_READ, RESULT + 0x50, 0xa6c, found[3], long_of(found + 4));
    ASSERT(memcmp(server.mem + RESULT, text, 0x50 + 0xa6c) == 0);
    head_of(reply, 0x41, 1, 40);
    SEND(&server, reply, 40, 0x41, 1, 0x80, 0, 0, 0, 0);
    expect_over(&client, &call, 0);

    /* readv of 4 KiB, which finds 6 octets. */
    memset(&call, 0, offsetof(struct call, text));
    head = gluster_call(text, 0x13, 132);
    place = sge_of(&client, RESULT, 0x1000);
    rcg_rpc_memory room = { .sge = &place, .nsge = 1 };
    request.results = &room, request.nresults = 1;
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    EXPECT(&server, text, 132, found, 0x13, 1, 0x80, 0, 0, 1, 1, ANY, 0x1000, ANY, ANY, 0, 0);
    memcpy(server.mem + SOURCE, "sixsix", 6);
    remote(&server, RCG_WRITE, SOURCE, 6, found[0], long_of(found + 1));
    head_of(reply, 0x13, 1, 100);
    SEND(&server, reply, 100, 0x13, 1, 0x80, 0, 0, 1, 1, 0x12, 6, ANY, ANY, 0, 0);
    expect_over(&client, &call, 0);
    ASSERT(call.npieces == 1 && call.piece[0].length == 6 && memcmp(client.mem + RESULT, "sixsix", 6) == 0);

    /* An error, with what was in its sender's memory behind it. */
    memset(&call, 0, offsetof(struct call, text));
    head = gluster_call(text, 0x43, 132);
    request.results = NULL, request.nresults = 0;
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    EXPECT(&server, text, 132, found, 0x43, 1, 0x80, 0, 0, 0, 0);
    SEND(&server, NULL, 0, 0x43, 1, 0x80, 4, 2, 0, 0, 0x42, 1);
    expect_over(&client, &call, -EREMOTEIO);

    /* A callback: to be answered as any call, of which the peer hears nothing. */
    gluster_call(text, 7, 132);
    SEND(&server, text, 132, 7, 1, 0x80, 0, 0, 0, 0);
    rcg_event ev = take_call(&client);
    ASSERT(ev.length == 132 && memcmp(ev.data, text, 132) == 0);
    ASSERT_OK(small_reply(&client, ev.rpc->call, 7, 24, &call));
    expect_answered(&client, &call);
    memset(&call, 0, offsetof(struct call, text));
    head = gluster_call(text, 0x44, 132);
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    EXPECT(&server, text, 132, found, 0x44, 1, 0x80, 0, 0, 0, 0);
    close_pair();
}

/* ---- we are called ---- */

static void answer(const rcg_event *ev, size_t octets, const rcg_rpc_memory *payload)
{
    unsigned char text[4096];
    struct iovec head = head_of(text, ev->rpc->xid, 1, octets);
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT, .head = &head, .nhead = 1, .payloads = payload,
                                  .npayloads = payload != NULL, .user = &server };
    ASSERT_OK(rcg_rpc_reply(server.side.conn, ev->rpc->call, &response));
    expect_answered(&server, &server);
}

static void test_answers(void)
{
    static struct call call;
    unsigned char text[4096], reply[4096];
    uint32_t key;
    rcg_event ev;

    STEP("calls of GlusterFS");
    open_with_raw_client(&gluster);
    ASSERT_EQ(figures(&server).flags, RCG_RPC_GLUSTERFS);
    ASSERT_OK(rcg_mr_key(client.mr, client.side.conn, &key));
    uint64_t at = addr_of(client.mem);
    uint32_t high = (uint32_t)(at >> 32), low = (uint32_t)at;

    /* A callback before the first call waits for it: the client would take it for nonsense. */
    ASSERT_OK(small_call(&server, 0x99, 100, &call));
    ASSERT_NONE(&client.side.in, RCG_EVENT_RECV, NULL);

    /* writev of 8 KiB. */
    pattern_fill(client.mem, 0x2000, ++seed);
    gluster_call(text, 0x1b, 132);
    SEND(&client, text, 132, 0x1b, 1, 0x80, 0, 1, 0x50, key, 0x2000, high, low, 0, 0, 0);
    head_of(reply, 0x99, 0, 100);
    EXPECT(&client, reply, 100, NULL, 0x99, 1, 16, 0, 0, 0, 0);
    expect_over(&server, &call, 0); /* nobody will answer it */
    ev = take_call(&server);
    ASSERT(ev.length == 132 && memcmp(ev.data, text, 132) == 0);
    ASSERT(ev.rpc->npieces == 1 && ev.rpc->pieces[0].at == 132 && ev.rpc->pieces[0].length == 0x2000);
    ASSERT_PATTERN(ev.rpc->pieces[0].addr, 0x2000, seed);
    answer(&ev, 200, NULL);
    head_of(reply, 0x1b, 1, 200);
    EXPECT(&client, reply, 200, NULL, 0x1b, 1, 0x80, 0, 0, 0, 0);

    /* setxattr of 2600 octets, and a writev whose arguments are too long, with its payload behind them. */
    for (int payload = 0; payload < 2; payload++) {
        gluster_call(client.mem, 0x41, 0x50 + 0xa6c + 100);
        if (payload)
            SEND(&client, NULL, 0, 0x41, 1, 0x80, 1, 1, 0, key, 0x50, high, low, 1, 0x50, key, 0xa6c, high, low + 0x50, 1,
                 0x50 + 0xa6c, key, 99, high, low + 0x50 + 0xa6c, 0, 0, 0);
        else
            SEND(&client, NULL, 0, 0x41, 1, 0x80, 1, 1, 0, key, 0x50, high, low, 1, 0x50, key, 0xa6c, high, low + 0x50, 0, 0,
                 0);
        ev = take_call(&server);
        ASSERT(ev.rpc->npieces == 0 && ev.length == 0x50 + 0xa6c + (payload ? 99u : 0u));
        ASSERT(memcmp(ev.data, client.mem, ev.length) == 0);
        answer(&ev, 40, NULL);
        head_of(reply, 0x41, 1, 40);
        EXPECT(&client, reply, 40, NULL, 0x41, 1, 0x80, 0, 0, 0, 0);
    }

    /* readv of 4 KiB in two segments, of which 6 octets use one; of none the reply says nothing. */
    memcpy(server.mem, "sixsix", 6);
    rcg_sge sge = sge_of(&server, 0, 6);
    rcg_rpc_memory six = { .sge = &sge, .nsge = 1, .at = 100 };
    gluster_call(text, 0x13, 132);
    SEND(&client, text, 132, 0x13, 1, 0x80, 0, 0, 1, 2, key, 8, high, low, key, 0xff8, high, low + 8, 0, 0);
    ev = take_call(&server);
    ASSERT(ev.rpc->nrooms == 1 && ev.rpc->rooms[0] == 0x1000);
    answer(&ev, 100, &six);
    head_of(reply, 0x13, 1, 100);
    EXPECT(&client, reply, 100, NULL, 0x13, 1, 0x80, 0, 0, 1, 1, key, 6, high, low, 0, 0);
    ASSERT(memcmp(client.mem, "sixsix", 6) == 0);
    SEND(&client, text, 132, 0x13, 1, 0x80, 0, 0, 1, 1, key, 0x1000, high, low, 0, 0);
    ev = take_call(&server);
    answer(&ev, 100, NULL);
    EXPECT(&client, reply, 100, NULL, 0x13, 1, 0x80, 0, 0, 0, 0);

    /* readdirp: what it offers is used, also for a short reply; the word more is there, and back. */
    gluster_call(text, 0x3a, HEADER + 60);
    for (int octets = 40; octets <= 0x340; octets += 0x340 - 40) {
        SEND(&client, text, HEADER + 60, 0x3a, 1, 0x80, 0, 0, 0, 1, 1, key, 0x20000, high, low, 0);
        ev = take_call(&server);
        ASSERT(ev.length == HEADER + 60 && memcmp(ev.data, text, ev.length) == 0 && ev.rpc->reply_max == 0x20000);
        answer(&ev, (size_t)octets, NULL);
        EXPECT(&client, NULL, 0, NULL, 0x3a, 1, 0x80, 1, 0, 0, 1, 1, key, (uint32_t)octets, high, low, 0);
        head_of(reply, 0x3a, 1, (size_t)octets);
        ASSERT(memcmp(client.mem, reply, (size_t)octets) == 0);
    }

    /* getxattr with a reply that there is no room for. */
    gluster_call(text, 0x43, 132);
    SEND(&client, text, 132, 0x43, 1, 0x80, 0, 0, 0, 0);
    ev = take_call(&server);
    ASSERT_EQ(ev.rpc->reply_max, 2048 - 28);
    ASSERT_RC(small_reply(&server, ev.rpc->call, 0x43, 2600, NULL), -EMSGSIZE);
    ASSERT_OK(rcg_rpc_refuse(server.side.conn, ev.rpc->call));
    EXPECT(&client, NULL, 0, NULL, 0x43, 1, 0x80, 4, 2, 0, 0, 0, 0);
    close_pair();
}

int main(void)
{
    watchdog(30);
    test_calls();
    test_answers();
    return T_PASS;
}
