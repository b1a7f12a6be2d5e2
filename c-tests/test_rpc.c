/* RPC-over-RDMA, over loopback unless told otherwise (see helpers.h): calls and replies of all sizes and forms, credits, the
 * backchannel, and what the end of a connection leaves. */
#include "rpc.h"

#include <stddef.h>

/* ---- calls and replies ------------------------------------------------------------------------------------------ */

/* How a call goes and what it gets. The last word of both heads stands behind the payload. */
struct shape {
    size_t head, payload, result, reply;
    bool direct;     /* the result has room of its own, else it comes with the reply */
    unsigned pieces; /* of memory: 1 or 3 */
};

/* What the responder has got: the message with the payload in it. */
static void check_call(const rcg_event *ev, const struct shape *s, uint32_t xid, uint64_t of_payload)
{
    static unsigned char head[ROOM];
    const unsigned char *data = ev->data, *payload = data + s->head - 4, *last = payload;
    head_of(head, xid, 0, s->head);
    ASSERT_EQ(ev->rpc->xid, xid);
    ASSERT(memcmp(data, head, s->head - 4) == 0);
    if (ev->rpc->npieces) {
        ASSERT(ev->rpc->npieces == 1 && s->payload > 0);
        ASSERT_EQ(ev->rpc->pieces[0].at, s->head - 4);
        ASSERT(ev->rpc->pieces[0].length == s->payload || ev->rpc->pieces[0].length == padded(s->payload));
        payload = ev->rpc->pieces[0].addr;
        ASSERT_EQ(ev->length, s->head);
    } else {
        last += padded(s->payload);
        assert_all_are(payload + s->payload, padded(s->payload) - s->payload, 0, "a pad");
        ASSERT_EQ(ev->length, s->head + padded(s->payload));
    }
    ASSERT_PATTERN(payload, s->payload, of_payload);
    ASSERT(memcmp(last, head + s->head - 4, 4) == 0);
}

/* What the requester has got. */
static void check_reply(const struct call *call, const struct shape *s, uint32_t xid, uint64_t of_result)
{
    static unsigned char head[ROOM];
    const unsigned char *last = call->text + s->reply - 4;
    head_of(head, xid, 1, s->reply);
    ASSERT_EQ(call->xid, xid);
    ASSERT(memcmp(call->text, head, s->reply - 4) == 0);
    if (s->direct) {
        ASSERT_EQ(call->npieces, 1);
        ASSERT(s->result == 0 || call->piece[0].addr == client.mem + RESULT);
        ASSERT_EQ(call->piece[0].length, s->result);
        ASSERT_PATTERN(client.mem + RESULT, s->result, of_result);
        assert_all_are(client.mem + RESULT + s->result, 64, 0xee, "behind a result");
        ASSERT_EQ(call->length, s->reply);
    } else {
        ASSERT_EQ(call->npieces, 0);
        ASSERT_PATTERN(last, s->result, of_result);
        last += s->result;
        assert_all_are(last, padded(s->result) - s->result, 0, "a pad");
        last += padded(s->result) - s->result;
        ASSERT_EQ(call->length, s->reply + padded(s->result));
    }
    ASSERT(memcmp(last, head + s->reply - 4, 4) == 0);
}

static void exchange(const struct shape *s)
{
    static struct call call;
    static unsigned char text[ROOM];
    uint32_t xid = ++last_xid;
    uint64_t of_payload = ++seed, of_result = ++seed;
    size_t direct = s->direct ? s->result : 0, longest = s->reply + padded(s->result - direct);
    rcg_sge sge[3], room[3], place[3];
    struct iovec head = head_of(text, xid, 0, s->head), vectors[3];
    rcg_rpc_memory result = memory_of(&client, room, RESULT, s->result + 8, s->pieces);
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = vectors, .nhead = 3, .reply_max = longest, .user = &call };

    STEP("call");
    memset(&call, 0, offsetof(struct call, text));
    pattern_fill(client.mem + SOURCE, s->payload, of_payload);
    memset(client.mem + RESULT, 0xee, s->result + 64);
    memset(client.mem + REPLY, 0xdd, longest + 64);
    vectors[0] = (struct iovec){ text, 10 };
    vectors[1] = (struct iovec){ NULL, 0 };
    vectors[2] = (struct iovec){ text + 10, s->head - 10 };
    request.payload = memory_of(&client, sge, SOURCE, s->payload, s->pieces);
    request.payload.at = (uint32_t)s->head - 4;
    if (s->direct) request.results = &result, request.nresults = 1;
    request.reply = memory_of(&client, place, REPLY, longest, 1);
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    memset(text, 0, s->head); /* it was copied */

    rcg_event ev = take_call(&server);
    check_call(&ev, s, xid, of_payload);
    ASSERT_EQ(ev.rpc->nrooms, s->direct);
    if (s->direct) ASSERT_EQ(ev.rpc->rooms[0], s->result + 8);
    ASSERT(ev.rpc->reply_max >= longest);

    STEP("reply");
    pattern_fill(server.mem + SOURCE, s->result, of_result);
    head = head_of(text, xid, 1, s->reply);
    rcg_rpc_memory payload = memory_of(&server, sge, SOURCE, s->result, s->pieces);
    payload.at = (uint32_t)s->reply - 4;
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT, .head = &head, .nhead = 1, .payloads = &payload, .npayloads = 1,
                                  .user = &text };
    ASSERT_OK(rcg_rpc_reply(server.side.conn, ev.rpc->call, &response));
    memset(text, 0, s->reply);
    expect_over(&client, &call, 0);
    check_reply(&call, s, xid, of_result);
    if (longest > 4096) ASSERT(call.data == client.mem + REPLY);
    assert_all_are(client.mem + REPLY + (longest > 3900 ? longest : 0), 64, 0xdd, "behind a reply");
    expect_answered(&server, &text);
}

/* Payloads and results of 0 to 5000 octets, with pads of 0 to 3, in all forms. */
static void test_sizes(enum style style)
{
    size_t step = light() ? 307 : slow() > 1 ? 61 : style == STYLE_QUEUE ? 1 : 7;
    uint64_t calls = 0, direct = 0;
    open_pair(style, NULL, NULL);
    for (size_t size = 0; size <= 5000; size += step, calls++) {
        unsigned form = (unsigned)(size / step) % 4;
        struct shape s = { .head = 48, .payload = size, .result = size, .reply = 32, .direct = form > 1,
                           .pieces = form % 2 ? 3 : 1 };
        exchange(&s);
        direct += s.direct;
    }
    rcg_rpc_info made = figures(&client), taken = figures(&server);
    ASSERT(made.calls == calls && taken.asked == calls && made.asked == 0 && taken.calls == 0);
    ASSERT(made.read_chunks > 0 && made.read_chunks < calls && made.read_chunks == taken.read_chunks);
    ASSERT(made.reply_chunks > 0 && made.reply_chunks < calls && made.reply_chunks == taken.reply_chunks);
    ASSERT(made.write_chunks == direct && taken.write_chunks == direct);
    ASSERT(made.bad == 0 && taken.bad == 0 && made.errors == 0 && taken.errors == 0);

    /* Nothing but the head is long, in one direction or both; and large payloads. */
    exchange(&(struct shape){ .head = 6000, .payload = 1, .result = 1, .reply = 32, .direct = true, .pieces = 1 });
    exchange(&(struct shape){ .head = 48, .payload = 1, .result = 1, .reply = 6000, .direct = true, .pieces = 1 });
    exchange(&(struct shape){ .head = 6000, .payload = 6001, .result = 1999, .reply = 6000, .pieces = 3 });
    exchange(&(struct shape){ .head = 48, .payload = 400001, .result = 399999, .reply = 32, .direct = true, .pieces = 3 });
    close_pair();
}

/* What exactly is counted, and where a reply lies. */
static void test_figures(void)
{
    rcg_rpc_info c, s;
    STEP("figures");
    open_pair(STYLE_QUEUE, NULL, NULL);
    c = figures(&client);
    ASSERT(c.inline_send == 4096 && c.inline_recv == 4096 && c.credits == 1 && c.flags == 0 && c.calls == 0);
    struct shape small = { .head = 48, .payload = 100, .result = 100, .reply = 32, .pieces = 1 };
    exchange(&small);
    c = figures(&client), s = figures(&server);
    ASSERT(c.calls == 1 && s.asked == 1 && c.credits == 64);
    ASSERT(c.read_chunks + c.write_chunks + c.reply_chunks + s.read_chunks + s.write_chunks + s.reply_chunks == 0);
    exchange(&(struct shape){ .head = 48, .payload = 5000, .result = 100, .reply = 32, .pieces = 1 });
    c = figures(&client), s = figures(&server);
    ASSERT(c.read_chunks == 1 && s.read_chunks == 1 && c.write_chunks == 0 && c.reply_chunks == 0);
    exchange(&(struct shape){ .head = 48, .payload = 100, .result = 100, .reply = 32, .direct = true, .pieces = 1 });
    c = figures(&client), s = figures(&server);
    ASSERT(c.write_chunks == 1 && s.write_chunks == 1 && c.read_chunks == 1 && c.reply_chunks == 0);
    exchange(&(struct shape){ .head = 48, .payload = 100, .result = 5000, .reply = 32, .pieces = 1 });
    c = figures(&client), s = figures(&server);
    ASSERT(c.reply_chunks == 1 && s.reply_chunks == 1 && c.read_chunks == 1 && c.write_chunks == 1);
    ASSERT(c.calls == 4 && s.asked == 4 && c.bad + s.bad + c.errors + s.errors == 0);
    close_pair();
}

/* Two results, the first of which has no octets; one that there is no room for goes with the message. */
static void test_results(void)
{
    struct call call = { 0 };
    unsigned char text[256], *got = call.text;
    uint32_t xid = ++last_xid;
    struct iovec head = head_of(text, xid, 0, 48);
    rcg_sge room[2] = { sge_of(&client, RESULT, 3000), sge_of(&client, RESULT + 4096, 3000) }, sge[3];
    rcg_rpc_memory results[2] = { { .sge = &room[0], .nsge = 1 }, { .sge = &room[1], .nsge = 1 } }, payloads[3];
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .results = results, .nresults = 2,
                                .reply_max = 64, .user = &call };

    STEP("three results, two of them apart");
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    rcg_event ev = take_call(&server);
    ASSERT(ev.rpc->nrooms == 2 && ev.rpc->rooms[0] == 3000 && ev.rpc->rooms[1] == 3000);
    pattern_fill(server.mem, 4096, ++seed);
    head = head_of(text, xid, 1, 36);
    sge[1] = sge_of(&server, 0, 2999);
    sge[2] = sge_of(&server, 0, 7);
    payloads[0] = (rcg_rpc_memory){ .at = 28 };
    payloads[1] = (rcg_rpc_memory){ .sge = &sge[1], .nsge = 1, .at = 32 };
    payloads[2] = (rcg_rpc_memory){ .sge = &sge[2], .nsge = 1, .at = 36 };
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT, .head = &head, .nhead = 1, .payloads = payloads, .npayloads = 3,
                                  .user = text };
    ASSERT_OK(rcg_rpc_reply(server.side.conn, ev.rpc->call, &response));
    expect_over(&client, &call, 0);
    expect_answered(&server, text);
    ASSERT(call.npieces == 2 && call.piece[0].length == 0 && call.piece[1].length == 2999);
    ASSERT(call.piece[0].addr == room[0].addr && call.piece[1].addr == room[1].addr);
    ASSERT_PATTERN(room[1].addr, 2999, seed);
    ASSERT(call.length == 44 && memcmp(got, text, 36) == 0 && got[43] == 0);
    ASSERT_PATTERN(got + 36, 7, seed);
}

/* ---- credits ---------------------------------------------------------------------------------------------------- */

static void test_credits(void)
{
    enum { CALLS = 8, GRANTED = 4 };
    struct call calls[CALLS] = { { 0 } }, more = { 0 };
    rcg_rpc_attr few = { RCG_RPC_ATTR_INIT, .credits = CALLS }, fewer = { RCG_RPC_ATTR_INIT, .credits = GRANTED };
    rcg_event ev, asked[GRANTED];
    uint32_t first = last_xid + 1;

    STEP("more calls than credits");
    open_pair(STYLE_QUEUE, &few, &fewer);
    for (int i = 0; i < CALLS; i++) ASSERT_OK(small_call(&client, ++last_xid, 40, &calls[i]));
    ASSERT_RC(small_call(&client, first, 40, &more), -EEXIST);    /* it is with the server */
    ASSERT_RC(small_call(&client, last_xid, 40, &more), -EEXIST); /* it waits here */
    ASSERT_RC(small_call(&client, last_xid + 1, 40, &more), -EAGAIN);
    ASSERT_EQ(figures(&client).calls, CALLS);

    STEP("one until the first grant");
    ev = take_call(&server);
    ASSERT(ev.rpc->xid == first && ev.rpc->credits == CALLS);
    ASSERT(!inbox_try(&server.side.in, RCG_EVENT_RPC_CALL, NULL, 50, &asked[0]));
    ASSERT_OK(small_reply(&server, ev.rpc->call, first, 24, NULL));
    expect_over(&client, &calls[0], 0);
    ASSERT_EQ(calls[0].credits, GRANTED);
    ASSERT_EQ(figures(&client).credits, GRANTED);

    STEP("as many as granted");
    for (int i = 0; i < GRANTED; i++) asked[i] = take_call(&server);
    ASSERT(!inbox_try(&server.side.in, RCG_EVENT_RPC_CALL, NULL, 50, &ev));
    ASSERT_OK(small_call(&client, first, 40, &more)); /* the identifier and a place are free again */
    for (int i = GRANTED - 1; i >= 0; i--) {          /* in any order */
        ASSERT_EQ(asked[i].rpc->xid, first + 1 + (uint32_t)i);
        ASSERT_EQ(get_word(asked[i].data, 0), asked[i].rpc->xid); /* lent all this time */
        ASSERT_OK(small_reply(&server, asked[i].rpc->call, asked[i].rpc->xid, 24, NULL));
        expect_over(&client, &calls[1 + i], 0);
    }
    for (int i = 1 + GRANTED; i <= CALLS; i++) {
        ev = take_call(&server);
        ASSERT_OK(small_reply(&server, ev.rpc->call, ev.rpc->xid, 24, NULL));
        expect_over(&client, i < CALLS ? &calls[i] : &more, 0);
    }
    for (int i = 0; i <= CALLS; i++) expect_answered(&server, NULL);
    close_pair();
}

/* As many calls on their way as there can be, in both directions at once, answered as they come. */
static void test_load(enum style style)
{
    enum { WAYS = 2, CALLS = 1000, DEEP = 32 };
    static struct call calls[WAYS][DEEP];
    unsigned rounds = light() || slow() > 1 ? 100 : CALLS, made[WAYS] = { 0 }, over[WAYS] = { 0 }, done = 0;
    rcg_rpc_attr deep = { RCG_RPC_ATTR_INIT, .credits = DEEP, .backchannel = DEEP };
    struct end *ends[WAYS] = { &client, &server };
    uint64_t start = now_us();

    open_pair(style, &deep, &deep);
    STEP("calls in both directions");
    while (over[0] < rounds || over[1] < rounds || done < 2 * rounds) {
        for (int way = 0; way < WAYS; way++) {
            struct end *e = ends[way];
            rcg_event ev;
            while (made[way] < rounds && made[way] < over[way] + DEEP) {
                struct call *call = &calls[way][made[way] % DEEP]; /* replies come in order, as they are given so */
                call->over = 0;
                ASSERT_OK(small_call(e, ++last_xid, 40 + 4 * (made[way] % 200), call));
                made[way]++;
            }
            while (inbox_poll(&e->side.in, RCG_EVENT_RPC_CALL, e->side.conn, &ev))
                ASSERT_OK(small_reply(e, ev.rpc->call, ev.rpc->xid, 24 + ev.rpc->xid % 8 * 4, NULL));
            while (inbox_poll(&e->side.in, RCG_EVENT_RPC_REPLY, e->side.conn, &ev)) {
                struct call *call = &calls[way][over[way] % DEEP];
                ASSERT(ev.user == call && call->over == 1 && call->status == 0);
                ASSERT_EQ(call->length, 24 + call->xid % 8 * 4);
                over[way]++;
            }
            while (inbox_poll(&e->side.in, RCG_EVENT_RPC_ANSWERED, e->side.conn, &ev)) {
                ASSERT_EQ(ev.status, 0);
                done++;
            }
        }
        if (ms_since(start) > 4 * WAIT_MS * slow()) FAIL("only %u and %u of %u calls are over", over[0], over[1], rounds);
        pump(made[0] == rounds && made[1] == rounds ? 50 : 1);
    }
    for (int way = 0; way < WAYS; way++) {
        rcg_rpc_info info = figures(ends[way]);
        ASSERT(info.calls == rounds && info.asked == rounds && info.credits == DEEP && info.bad == 0 && info.errors == 0);
    }
    close_pair();
}

static void test_backchannel(void)
{
    struct call calls[17] = { { 0 } };
    unsigned char text[8192];
    struct iovec head = head_of(text, 0x888, 0, 48);
    rcg_sge sge = sge_of(&server, SOURCE, 10000), small = sge_of(&server, SOURCE, 301);
    rcg_rpc_memory memory = { .sge = &sge, .nsge = 1, .at = 44 };
    rcg_rpc_request good = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 64, .user = &calls[0] }, r;
    rcg_conn *conn = server.side.conn;
    rcg_event ev;

    STEP("backchannel");
    for (int i = 0; i < 3; i++) small_exchange(&server, &client);
    STEP("what the backchannel does not have");
    ASSERT_RC(small_call(&server, 0x888, 4096, &calls[0]), -EMSGSIZE);
    r = good, r.payload = memory;
    ASSERT_RC(rcg_rpc_call(conn, &r), -EMSGSIZE);
    r = good, r.results = &memory, r.nresults = 1;
    ASSERT_RC(rcg_rpc_call(conn, &r), -EINVAL);
    r = good, r.reply_max = 10000, r.reply = memory;
    ASSERT_RC(rcg_rpc_call(conn, &r), -EINVAL);

    STEP("a payload within a message of the backchannel");
    pattern_fill(server.mem, 301, ++seed);
    r = good, r.payload = (rcg_rpc_memory){ .sge = &small, .nsge = 1, .at = 44 };
    ASSERT_OK(rcg_rpc_call(conn, &r));
    ev = take_call(&client);
    ASSERT(ev.rpc->npieces == 0 && ev.rpc->nrooms == 0 && ev.rpc->credits == 16);
    check_call(&ev, &(struct shape){ .head = 48, .payload = 301 }, 0x888, seed);
    ASSERT_OK(rcg_rpc_refuse(client.side.conn, ev.rpc->call));
    expect_over(&server, &calls[0], -EREMOTEIO);
    ASSERT_EQ(figures(&client).errors, 1);

    STEP("as many calls as the backchannel has");
    for (uint32_t i = 0; i < 16; i++) ASSERT_OK(small_call(&server, 0x900 + i, 40, &calls[1 + i]));
    ASSERT_RC(small_call(&server, 0x999, 40, &calls[0]), -EAGAIN);
    small_exchange(&client, &server); /* which has nothing to do with that */
    for (uint32_t i = 0; i < 16; i++) {
        ev = take_call(&client);
        ASSERT_OK(small_reply(&client, ev.rpc->call, ev.rpc->xid, 24, NULL));
        expect_over(&server, &calls[1 + i], 0);
        expect_answered(&client, NULL);
    }
}

static void test_refuse(void)
{
    struct call call = { 0 };
    unsigned char text[64];
    struct iovec head = head_of(text, ++last_xid, 0, 48);
    rcg_sge sge = sge_of(&client, SOURCE, REGION);
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 64, .user = &call,
                                .payload = { .sge = &sge, .nsge = 1, .at = 44 } };
    rcg_rpc_info before = figures(&server), after;
    rcg_event ev;

    STEP("refuse");
    ASSERT_OK(small_call(&client, ++last_xid, 40, &call));
    ev = take_call(&server);
    ASSERT_OK(rcg_rpc_refuse(server.side.conn, ev.rpc->call));
    ASSERT_RC(rcg_rpc_refuse(server.side.conn, 1), -ENOENT);
    expect_over(&client, &call, -EREMOTEIO);
    ASSERT_NONE(&server.side.in, RCG_EVENT_RPC_ANSWERED, NULL); /* that is for replies */

    STEP("more in chunks than the server takes");
    call.over = 0;
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    expect_over(&client, &call, -EREMOTEIO);
    ASSERT_NONE(&server.side.in, RCG_EVENT_RPC_CALL, NULL);
    after = figures(&server);
    ASSERT_EQ(after.errors, before.errors + 2);
    ASSERT_EQ(after.read_chunks, before.read_chunks);
    small_exchange(&client, &server);
}

/* ---- the end ------------------------------------------------------------------------------------------------------ */

/* Whose memory is whose while a call is on its way. */
static void test_regions_in_use(void)
{
    struct call call = { 0 };
    unsigned char *mem = calloc(1, 20000), text[64];
    uint32_t xid = ++last_xid;
    struct iovec head = head_of(text, xid, 0, 48);
    rcg_mr *mr, *source;
    ASSERT(mem != NULL);
    STEP("regions in use");
    ASSERT_OK(rcg_mr_register(client.side.engine, mem, 20000, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &mr));
    ASSERT_OK(rcg_mr_register(server.side.engine, server.mem, 10000, RCG_LOCAL, &source)); /* no remote right is needed */
    rcg_sge sge[2] = { { mem, 10000, mr }, { mem + 10000, 10000, mr } }, from = { server.mem, 10000, source };
    rcg_rpc_memory room = { .sge = &sge[1], .nsge = 1 }, result = { .sge = &from, .nsge = 1, .at = 28 };
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 64, .user = &call,
                                .payload = { .sge = &sge[0], .nsge = 1, .at = 44 }, .results = &room, .nresults = 1 };
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    rcg_event ev = take_call(&server);
    ASSERT_RC(rcg_mr_deregister(mr), -EBUSY);
    head = head_of(text, xid, 1, 32);
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT, .head = &head, .nhead = 1, .payloads = &result, .npayloads = 1 };
    ASSERT_OK(rcg_rpc_reply(server.side.conn, ev.rpc->call, &response));
    expect_answered(&server, NULL);
    ASSERT_OK(rcg_mr_deregister(source));
    expect_over(&client, &call, 0);
    ASSERT_OK(rcg_mr_deregister(mr));
    free(mem);
}

/* What is outstanding when the connection ends is told of once, before DISCONNECTED. */
static void test_end(enum style style, bool by_client, bool gracefully)
{
    enum { CALLS = 12, GRANTED = 4 };
    static struct call calls[CALLS], back[3];
    rcg_rpc_attr few = { RCG_RPC_ATTR_INIT, .credits = GRANTED };
    rcg_event ev, asked[GRANTED], theirs;
    unsigned char text[64];
    rcg_mr *mr;
    int told[2] = { 0 }, answered = 0;

    memset(calls, 0, sizeof calls);
    memset(back, 0, sizeof back);
    open_pair(style, NULL, &few);
    small_exchange(&client, &server); /* brings the grant */
    STEP("calls that are outstanding");
    ASSERT_OK(rcg_mr_register(client.side.engine, client.mem, REGION, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &mr));
    for (int i = 0; i < CALLS; i++) {
        struct iovec head = head_of(text, ++last_xid, 0, 48);
        rcg_sge sge[2] = { { client.mem, 5000, mr }, { client.mem + RESULT, 5000, mr } };
        rcg_rpc_memory room = { .sge = &sge[1], .nsge = 1 };
        rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 64, .user = &calls[i],
                                    .payload = { .sge = &sge[0], .nsge = 1, .at = 44 }, .results = &room, .nresults = 1 };
        ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    }
    for (int i = 0; i < 3; i++) ASSERT_OK(small_call(&server, ++last_xid, 40, &back[i]));
    for (int i = 0; i < GRANTED; i++) asked[i] = take_call(&server);
    theirs = take_call(&client);
    for (int i = 1; i < GRANTED; i++) server.lent[server.nlent++] = asked[i];
    client.lent[client.nlent++] = theirs;
    /* One of them has just been answered: who is to say whether that was in time. */
    ASSERT_OK(small_reply(&server, asked[0].rpc->call, asked[0].rpc->xid, 24, text));

    STEP("the end of their connection");
    struct end *leaver = by_client ? &client : &server;
    ASSERT_OK(gracefully ? rcg_conn_disconnect(leaver->side.conn) : rcg_conn_close(leaver->side.conn));
    for (int i = 0; i < 2; i++) {
        struct end *e = i ? &server : &client;
        take(&e->side.in, RCG_EVENT_DISCONNECTED, e->side.conn, WAIT_MS);
        while (inbox_poll(&e->side.in, RCG_EVENT_RPC_REPLY, e->side.conn, &ev)) told[i]++;
        while (inbox_poll(&e->side.in, RCG_EVENT_RPC_ANSWERED, e->side.conn, &ev)) {
            ASSERT(e == &server && ev.user == text);
            answered++;
        }
    }
    ASSERT_EQ(told[0], CALLS);
    ASSERT_EQ(told[1], 3);
    ASSERT_EQ(answered, 1);
    for (int i = 0; i < CALLS; i++) {
        ASSERT_EQ(calls[i].over, 1);
        if (i > 0 || calls[i].status != 0) ASSERT_EQ(calls[i].status, -ECANCELED);
    }
    for (int i = 0; i < 3; i++) ASSERT(back[i].over == 1 && back[i].status == -ECANCELED);
    ASSERT_OK(rcg_mr_deregister(mr));
    for (int i = 0; i < 2; i++) {
        struct end *e = i ? &server : &client;
        take(&e->side.in, RCG_EVENT_CLOSED, e->side.conn, WAIT_MS);
        ASSERT(!inbox_poll(&e->side.in, RCG_EVENT_RPC_REPLY, e->side.conn, &ev));
        ASSERT(!inbox_poll(&e->side.in, RCG_EVENT_RPC_ANSWERED, e->side.conn, &ev));
    }
    close_listener_and_ends();
}

/* Payloads that are no XDR: nothing follows them, in whichever form they go. */
static void test_no_pads(void)
{
    rcg_rpc_attr raw = { RCG_RPC_ATTR_INIT, .flags = RCG_RPC_NO_PADS };
    static const size_t sizes[] = { 1, 2, 3, 4, 4001, 5001 };
    unsigned char text[ROOM], wanted[ROOM];
    open_pair(STYLE_QUEUE, &raw, &raw);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        static struct call call;
        uint32_t xid = ++last_xid;
        size_t size = sizes[i];
        /* One as a payload, the other as the end of a head. */
        struct iovec head = head_of(text, xid, 0, i % 2 ? 48 : 48 + size % 4);
        rcg_sge sge[3], place[3];
        rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 24 + size, .user = &call };

        STEP("no pads");
        memset(&call, 0, offsetof(struct call, text));
        pattern_fill(client.mem + SOURCE, size, ++seed);
        if (i % 2) request.payload = memory_of(&client, sge, SOURCE, size, 1), request.payload.at = 48;
        request.reply = memory_of(&client, place, REPLY, 24 + size, 1);
        ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
        rcg_event ev = take_call(&server);
        head_of(wanted, xid, 0, head.iov_len);
        ASSERT(memcmp(ev.data, wanted, head.iov_len) == 0);
        const unsigned char *payload = (unsigned char *)ev.data + 48;
        if (ev.rpc->npieces) {
            ASSERT(ev.rpc->pieces[0].at == 48 && ev.rpc->pieces[0].length == size && ev.length == 48);
            payload = ev.rpc->pieces[0].addr;
        } else
            ASSERT_EQ(ev.length, head.iov_len + (i % 2 ? size : 0));
        if (i % 2) ASSERT_PATTERN(payload, size, seed);

        pattern_fill(server.mem + SOURCE, size, ++seed);
        head = head_of(text, xid, 1, 24);
        rcg_rpc_memory back = memory_of(&server, sge, SOURCE, size, 1);
        back.at = 24;
        rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT, .head = &head, .nhead = 1, .payloads = &back, .npayloads = 1,
                                      .user = text };
        ASSERT_OK(rcg_rpc_reply(server.side.conn, ev.rpc->call, &response));
        expect_over(&client, &call, 0);
        expect_answered(&server, text);
        ASSERT_EQ(call.length, 24 + size);
        ASSERT_PATTERN(call.text + 24, size, seed);
    }
    close_pair();
}

/* Room for a long reply does not make a short one long: it comes as any other. */
static void test_short_reply(void)
{
    struct call call = { 0 };
    unsigned char text[64];
    uint32_t xid = ++last_xid;
    struct iovec head = head_of(text, xid, 0, 48);
    rcg_sge place[3];
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = 8192, .user = &call,
                                .reply = memory_of(&client, place, REPLY, 8192, 1) };

    STEP("a short reply with room for a long one");
    uint64_t before = figures(&server).reply_chunks;
    memset(client.mem + REPLY, 0xdd, 8192);
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    rcg_event ev = take_call(&server);
    ASSERT_EQ(ev.rpc->reply_max, 8192);
    head = head_of(text, xid, 1, 24);
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT, .head = &head, .nhead = 1, .user = text };
    ASSERT_OK(rcg_rpc_reply(server.side.conn, ev.rpc->call, &response));
    expect_over(&client, &call, 0);
    expect_answered(&server, text);
    ASSERT(call.length == 24 && call.data != client.mem + REPLY);
    assert_all_are(client.mem + REPLY, 8192, 0xdd, "room that was not used");
    ASSERT_EQ(figures(&server).reply_chunks, before);
}

/* GlusterFS's dialect differs by a word behind a reply chunk, by which it is known. */
static void test_dialect(void)
{
    rcg_rpc_attr gluster = { RCG_RPC_ATTR_INIT, .flags = RCG_RPC_GLUSTERFS | RCG_RPC_NO_PRIVATE_DATA };
    STEP("GlusterFS's dialect");
    open_pair(STYLE_QUEUE, &gluster, &silent);
    ASSERT(figures(&client).flags == RCG_RPC_GLUSTERFS && figures(&server).flags == 0);
    ASSERT(figures(&client).inline_send == 2048 && figures(&server).inline_send == 1024);
    exchange(&(struct shape){ .head = 48, .payload = 500, .result = 5000, .reply = 32, .pieces = 1 });
    ASSERT_EQ(figures(&server).flags, RCG_RPC_GLUSTERFS);
    exchange(&(struct shape){ .head = 2000, .payload = 5, .result = 5000, .reply = 32, .pieces = 3 });
    exchange(&(struct shape){ .head = 48, .payload = 500, .result = 5000, .reply = 32, .direct = true, .pieces = 1 });
    small_exchange(&client, &server);
    close_pair();
}

int main(void)
{
    watchdog(60);
    open_pair(STYLE_QUEUE, NULL, NULL);
    test_results();
    test_refuse();
    test_backchannel();
    test_regions_in_use();
    test_short_reply();
    close_pair();

    test_no_pads();

    test_figures();
    test_credits();
    test_dialect();
    for (int style = 0; style < STYLES; style++) {
        test_sizes((enum style)style);
        test_load((enum style)style);
        for (int end = 0; end < 4; end++) test_end((enum style)style, end & 1, end & 2);
    }
    return T_PASS;
}
