/* Peers of RPC-over-RDMA that speak nonsense, octet by octet: the other end is a connection without RPC, which says what it
 * likes. */
#include "rpc_raw.h"

#include <stddef.h>

/* Waits until an end has counted so many messages that made no sense. */
static void await_bad(const struct end *e, uint64_t bad)
{
    uint64_t start = now_us();
    while (figures(e).bad != bad) {
        if (ms_since(start) > WAIT_MS * slow()) FAIL("bad is %llu", (unsigned long long)figures(e).bad);
        pump(10);
    }
}

static void test_sizes_of_messages(void)
{
    struct call call = { 0 };
    unsigned char text[4096];
    rcg_rpc_info info;
    STEP("what the peer says of its messages");
    open_with_raw_server(&(rcg_rpc_attr){ RCG_RPC_ATTR_INIT }, true);
    info = figures(&client);
    ASSERT(info.inline_send == 2048 && info.inline_recv == 4096);
    ASSERT_OK(small_call(&client, 0x51, 2048 - 28, &call)); /* just in one message */
    head_of(text, 0x51, 0, 2048 - 28);
    EXPECT_WORDS(&server, 2048, 0x51, 1, 64, 0, 0, 0, 0, 0x51, 0, 2, get_word(text, 12));
    SEND_WORDS(&server, 0x51, 1, 7, 0, 0, 0, 0, 0x51, 1, 0, 0, 0, 0);
    expect_over(&client, &call, 0);
    ASSERT(call.credits == 7 && figures(&client).credits == 7 && call.length == 24);
    call.over = 0;
    ASSERT_OK(small_call(&client, 0x52, 2048 - 24, &call)); /* one word too long */
    EXPECT_WORDS(&server, 52, 0x52, 1, 64, 1, 1, 0);
    close_pair();
    ASSERT(call.over == 1 && call.status == -ECANCELED);
}

/* Replies that make no sense, and those to nobody. */
static void test_wrong_peer_replies(void)
{
    struct call call = { 0 }, waiting = { 0 };
    unsigned char text[64];
    uint32_t xid = 0x61;
    uint64_t bad = 0;
    STEP("a peer whose replies make no sense");
    open_with_raw_server(&silent, false);
    ASSERT(figures(&client).inline_send == 1024 && figures(&client).inline_recv == 1024);

    SEND_WORDS(&server, 0x99, 1, 1, 0, 0, 0, 0, 0x99, 1, 0, 0, 0, 0); /* to nobody */
    SEND_WORDS(&server, 0x99, 1, 1, 4, 2);
    SEND_WORDS(&server, 0x99);
    SEND_WORDS(&server, 0x99, 1, 1, 0, 7, 7, 7);
    await_bad(&client, bad += 4);

    rcg_sge sge = sge_of(&client, RESULT, 100);
    rcg_rpc_memory room = { .sge = &sge, .nsge = 1 };
    struct iovec head;
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 64, .user = &call,
                                .results = &room, .nresults = 1 };
    static const struct {
        uint32_t words[24];
        size_t n;
        int status;
    } replies[] = { /* X stands for the identifier */
#define X 0xffffffffu
        { { X, 1, 1, 4, 2 }, 5, -EREMOTEIO },                                       /* ERR_CHUNK */
        { { X, 1, 1, 4, 77 }, 5, -EREMOTEIO },                                      /* an error that there is not */
        { { X, 1, 1, 4, 1, 2, 2 }, 7, -EPROTONOSUPPORT },                           /* ERR_VERS */
        { { X, 1, 1, 0, 0, 0, 0, 1, 1, 0 }, 10, -EBADMSG },                         /* another identifier within */
        { { X, 1, 1, 0, 0, 0, 0, X, 2, 0 }, 10, -EBADMSG },                         /* neither call nor reply */
        { { X, 1, 1, 0, 0, 0, 0 }, 7, -EBADMSG },                                   /* no message */
        { { X, 1, 1, 0, 1, 0, 5, 100, 0, 0, 0, 0, 0, X, 1, 0 }, 16, -EBADMSG },     /* a read list */
        { { X, 1, 1, 0, 0, 1, 1, 5, 101, 0, 0, 0, 0, X, 1, 0 }, 16, -EBADMSG },     /* more than there is room for */
        { { X, 1, 1, 0, 0, 1, 2, 5, 9, 0, 0, 5, 9, 0, 0, 0, 0, X, 1, 0 }, 20, -EBADMSG }, /* two segments of one */
        { { X, 1, 1, 0, 0, 1, 0, 1, 0, 0, 0, X, 1, 0 }, 14, -EBADMSG },             /* two results of one */
        { { X, 1, 1, 1, 0, 0, 1, 1, 5, 24, 0, 0 }, 12, -EBADMSG },                  /* a reply chunk that was not offered */
        { { X, 1, 1, 1, 0, 0, 0 }, 7, -EBADMSG },                                   /* neither message nor chunk */
        { { X, 2, 1, 0, 0, 0, 0, X, 1, 0 }, 10, -EBADMSG },                         /* another version */
        { { X, 1, 1, 9, 0, 0, 0, X, 1, 0 }, 10, -EBADMSG },                         /* an unknown procedure */
        { { X, 1, 1, 0, 0, 0, 0, X, 1, 0 }, 10, 0 },
        { { X, 1, 0, 0, 0, 1, 1, 0xdead, 100, 1, 2, 0, 0, X, 1, 0 }, 16, 0 }, /* only its length counts; no credits are one */
    };
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++, xid++) {
        uint32_t words[24];
        call.over = 0;
        head = head_of(text, xid, 0, 40);
        ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
        EXPECT_WORDS(&server, 92, xid, 1, 64, 0, 0, 1, 1);
        for (size_t k = 0; k < 24; k++) words[k] = replies[i].words[k] == X ? xid : replies[i].words[k];
        send_words(&server, words, replies[i].n);
        expect_over(&client, &call, replies[i].status);
        if (replies[i].status == -EBADMSG) bad++;
        ASSERT_EQ(figures(&client).bad, bad);
        ASSERT_EQ(figures(&client).credits, 1);
    }
    ASSERT(call.npieces == 1 && call.piece[0].length == 100 && call.piece[0].addr == client.mem + RESULT);
#undef X

    STEP("answers to a call that has not been sent yet");
    call.over = 0;
    ASSERT_OK(small_call(&client, ++xid, 40, &call)); /* uses the only credit */
    EXPECT_WORDS(&server, 68, xid);
    ASSERT_OK(small_call(&client, xid + 1, 40, &waiting));
    SEND_WORDS(&server, xid + 1, 1, 1, 0, 0, 0, 0, xid + 1, 1, 0, 0, 0, 0);
    SEND_WORDS(&server, xid + 1, 1, 1, 4, 2);
    SEND_WORDS(&server, xid + 1, 1, 1, 0, 0, 0, 0, xid + 1, 3, 0);
    await_bad(&client, bad += 3);
    SEND_WORDS(&server, xid, 1, 1, 0, 0, 0, 0, xid, 1, 0, 0, 0, 0);
    expect_over(&client, &call, 0);
    EXPECT_WORDS(&server, 68, xid + 1);
    ASSERT_EQ(waiting.over, 0);
    SEND_WORDS(&server, xid + 1, 1, 1, 0, 0, 0, 0, xid + 1, 1, 0, 0, 0, 0);
    expect_over(&client, &waiting, 0);
    close_pair();
}

/* Calls that make no sense: some are answered, none is told. */
static void test_wrong_peer_calls(void)
{
    rcg_rpc_info info;
    uint32_t key;
    rcg_event ev;
    STEP("a peer whose calls make no sense");
    open_with_raw_client(&silent);
    SEND_WORDS(&client, 0x71);                                              /* silence */
    SEND_WORDS(&client, 0x71, 1, 1, 3);                                     /* RDMA_DONE: silence */
    SEND_WORDS(&client, 0x71, 1, 1, 0, 0, 0, 0);                            /* no message: silence */
    SEND_WORDS(&client, 0x71, 1, 1, 0, 0, 0, 0, 0x71, 1, 0, 0, 0, 0);       /* a reply to nobody: silence */
    SEND_WORDS(&client, 0x71, 1, 1, 4, 2);                                  /* an error to nobody: silence */
    SEND_WORDS(&client, 0x72, 2, 1, 0, 0, 0, 0, 0x72, 0, 2);
    EXPECT_WORDS(&client, 28, 0x72, 2, 64, 4, 1, 1, 1);
    SEND_WORDS(&client, 0x73, 1, 1, 0, 2, 0, 0, 0x73, 0, 2);                /* neither an entry nor none */
    EXPECT_WORDS(&client, 20, 0x73, 1, 64, 4, 2);
    SEND_WORDS(&client, 0x74, 1, 1, 9, 0, 0, 0, 0x74, 0, 2);                /* an unknown procedure */
    EXPECT_WORDS(&client, 20, 0x74, 1, 64, 4, 2);
    SEND_WORDS(&client, 0x75, 1, 1, 0, 0, 1, 1000000, 0, 0, 0x75, 0, 2);    /* more segments than octets */
    EXPECT_WORDS(&client, 20, 0x75, 1, 64, 4, 2);
    SEND_WORDS(&client, 0x76, 1, 1, 0, 1, 0, 5, 8, 0, 0, 0, 0, 0, 0x76, 0, 2); /* a message both here and there */
    EXPECT_WORDS(&client, 20, 0x76, 1, 64, 4, 2);
    SEND_WORDS(&client, 0x77, 1, 1, 1, 0, 0, 0);                            /* and neither */
    EXPECT_WORDS(&client, 20, 0x77, 1, 64, 4, 2);
    SEND_WORDS(&client, 0x78, 1, 1, 0, 1, 12, 5, 0xffffffff, 0, 0, 0, 0, 0, 0x78, 0, 2); /* 4 GiB */
    EXPECT_WORDS(&client, 20, 0x78, 1, 64, 4, 2);
    ASSERT_NONE(&server.side.in, RCG_EVENT_RPC_CALL, NULL);

    STEP("chunks that do not fit the message");
    ASSERT_OK(rcg_mr_key(client.mr, client.side.conn, &key));
    uint64_t at = addr_of(client.mem);
    uint32_t high = (uint32_t)(at >> 32), low = (uint32_t)at;
    put_word(client.mem, 0x79), put_word(client.mem + 4, 1), put_word(client.mem + 8, 0);
    SEND_WORDS(&client, 0x79, 1, 1, 0, 1, 16, key, 8, high, low, 0, 0, 0, 0x79, 0, 2); /* behind its end */
    EXPECT_WORDS(&client, 20, 0x79, 1, 64, 4, 2);
    SEND_WORDS(&client, 0x79, 1, 1, 1, 1, 0, key, 12, high, low, 0, 0, 0); /* a long call that is a reply */
    EXPECT_WORDS(&client, 20, 0x79, 1, 64, 4, 2);
    SEND_WORDS(&client, 0x79, 1, 1, 1, 1, 0, key, 0, high, low, 0, 0, 0); /* of no octets */
    EXPECT_WORDS(&client, 20, 0x79, 1, 64, 4, 2);
    ASSERT_NONE(&server.side.in, RCG_EVENT_RPC_CALL, NULL);
    info = figures(&server);
    ASSERT(info.errors == 10 && info.bad >= 12 && info.calls == 0);

    STEP("a call in two chunks, of which one is the message");
    put_word(client.mem + 4, 0), put_word(client.mem + 8, 2), put_word(client.mem + 12, 5);
    memcpy(client.mem + 100, "piece", 5);
    SEND_WORDS(&client, 0x79, 1, 3, 1, 1, 0, key, 8, high, low, 1, 0, key, 8, high, low + 8, 1, 16, key, 5, high, low + 100,
               0, 0, 0);
    ev = take_call(&server);
    ASSERT(ev.length == 16 && memcmp(ev.data, client.mem, 16) == 0 && ev.rpc->xid == 0x79 && ev.rpc->credits == 3);
    ASSERT(ev.rpc->npieces == 1 && ev.rpc->pieces[0].at == 16 && ev.rpc->pieces[0].length == 5);
    ASSERT(memcmp(ev.rpc->pieces[0].addr, "piece", 5) == 0);
    ASSERT_EQ(ev.rpc->reply_max, 1024 - 28);
    ASSERT_OK(small_reply(&server, ev.rpc->call, 0x79, 24, NULL));
    EXPECT_WORDS(&client, 52, 0x79, 1, 64, 0, 0, 0, 0, 0x79, 1, 0);
    expect_answered(&server, NULL);

    STEP("a key that is none");
    ASSERT_OK(rcg_mr_key_revoke(client.mr, key));
    SEND_WORDS(&client, 0x7a, 1, 1, 1, 1, 0, key, 16, high, low, 0, 0, 0);
    take(&server.side.in, RCG_EVENT_DISCONNECTED, server.side.conn, WAIT_MS);
    await_end(&client.side);
    ASSERT_NONE(&server.side.in, RCG_EVENT_RPC_CALL, NULL);
    await_end(&server.side);
    close_listener_and_ends();

    STEP("a peer that calls beyond its credits");
    open_with_raw_client(&(rcg_rpc_attr){ RCG_RPC_ATTR_INIT, .credits = 2, .flags = RCG_RPC_NO_PRIVATE_DATA });
    for (uint32_t i = 0; i < 3; i++) SEND_WORDS(&client, i, 1, 1, 0, 0, 0, 0, i, 0, 2);
    take(&server.side.in, RCG_EVENT_DISCONNECTED, server.side.conn, WAIT_MS);
    await_end(&client.side);
    await_end(&server.side);
    close_listener_and_ends();
}

/* Keys that live as long as the connection: one for all calls, and only of arenas. */
static void test_standing_keys(void)
{
    rcg_rpc_attr rpc = { RCG_RPC_ATTR_INIT, .flags = RCG_RPC_STANDING_KEYS | RCG_RPC_NO_PRIVATE_DATA };
    rcg_arena_attr attr = { RCG_ARENA_ATTR_INIT, .buffer_size = 4096, .access = RCG_LOCAL | RCG_REMOTE_READ };
    static struct call call;
    unsigned char text[64];
    rcg_arena *arena;
    rcg_buffer buffers[2];
    uint32_t keys[4];

    STEP("standing keys");
    open_with_raw_server(&rpc, false);
    ASSERT_OK(rcg_arena_create(client.side.engine, &attr, &arena));
    for (int i = 0; i < 2; i++) ASSERT_OK(rcg_arena_get(arena, &buffers[i]));
    for (uint32_t i = 0; i < 4; i++) {
        rcg_sge sge = i < 3 ? (rcg_sge){ buffers[i % 2].addr, 4096, buffers[i % 2].mr } : sge_of(&client, SOURCE, 4096);
        struct iovec head = head_of(text, 0x31 + i, 0, 40);
        rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 64, .user = &call,
                                    .payload = { .sge = &sge, .nsge = 1, .at = 40 } };
        memset(&call, 0, offsetof(struct call, text));
        ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
        rcg_event ev = take(&server.side.in, RCG_EVENT_RECV, server.side.conn, WAIT_MS);
        keys[i] = get_word(ev.data, 24);
        ASSERT_EQ(get_word(ev.data, 28), 4096);
        ASSERT_OK(rcg_recv_release(server.side.conn, &ev));
        SEND_WORDS(&server, 0x31 + i, 1, 1, 0, 0, 0, 0, 0x31 + i, 1, 0, 0, 0, 0);
        expect_over(&client, &call, 0);
    }
    ASSERT(keys[0] == keys[1] && keys[1] == keys[2] && keys[3] != keys[0]);
    link_down(&client.side, &server.side);
    for (int i = 0; i < 2; i++) ASSERT_OK(rcg_arena_put(arena, buffers[i].addr));
    ASSERT_OK(rcg_arena_destroy(arena));
    close_listener_and_ends();
}

int main(void)
{
    watchdog(30);
    test_sizes_of_messages();
    test_wrong_peer_replies();
    test_wrong_peer_calls();
    test_standing_keys();
    return T_PASS;
}
