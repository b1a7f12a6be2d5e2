/* The library, provider iwarp. Besides the cases of bench.h: rpc, microseconds of a NULL call over RPC-over-RDMA. */
#include "rcg.h"

enum { RECVS = 1024, BATCHES = 16, SMALL = 64, CALL = 40, REPLY = 24 };

static unsigned char *memory;
static struct hello peer;
static uint64_t n, posted, completed; /* round trips or connects; operations: read and written on the channel's thread */
static uint64_t closed;
static bool ending, over;

/* How many receives there are, and how long: Sends of the stream land in the area, all else is short. */
static bool receives_are_long(void)
{
    return is_case("send");
}

static void open_side(rcg_events_fn on_events, bool manual)
{
    memory = memory_of(area() + RECVS * SMALL);
    open_channel(on_events, opt.sleep ? RCG_SPIN_NEVER : SPIN_US, manual);
    MUST_OK(rcg_mr_register(engine, memory, area() + RECVS * SMALL, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &mr));
}

/* Receives of these slots, as one batch. */
static void post_receives(rcg_conn *conn, const uint64_t *slots, size_t count)
{
    rcg_sge sges[RECVS];
    rcg_recv recvs[RECVS];
    for (size_t i = 0; i < count; i++) {
        bool is_long = receives_are_long();
        unsigned char *at = is_long ? memory + slot(slots[i]) : memory + area() + slots[i] % RECVS * SMALL;
        sges[i] = (rcg_sge){ at, is_long ? opt.size : SMALL, mr };
        recvs[i] = (rcg_recv){ .sge = &sges[i], .nsge = 1, .user = (void *)(uintptr_t)slots[i] };
    }
    if (count) MUST_OK(rcg_post_recv(conn, recvs, count));
}

/* Where nobody sends there are none, nor where the library has them. */
static bool has_receives(void)
{
    return !is_case("rpc") && !is_case("connect");
}

static void post_all_receives(rcg_conn *conn)
{
    uint64_t slots[RECVS];
    size_t count = receives_are_long() ? 2 * WINDOW : RECVS;
    for (size_t i = 0; i < count; i++) slots[i] = i;
    post_receives(conn, slots, count);
}

/* Not inlined: what posting costs is counted in here. */
__attribute__((noinline)) static void post(rcg_conn *conn, const rcg_op *ops, size_t count)
{
    MUST_OK(rcg_post(conn, ops, count));
}

static void send_short(rcg_conn *conn, size_t octets)
{
    rcg_op op = RCG_OP_SEND_COPY(memory, (uint32_t)octets, NULL);
    post(conn, &op, 1);
}

/* ---- RPC ------------------------------------------------------------------------------------------------------------ */

static void call_null(rcg_conn *conn)
{
    uint32_t words[CALL / 4] = { htonl((uint32_t)n + 1), 0, htonl(2), htonl(100003), htonl(3), 0, 0, 0, 0, 0 };
    struct iovec head = { words, sizeof words };
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &head, .nhead = 1, .reply_max = REPLY };
    MUST_OK(rcg_rpc_call(conn, &request));
}

static void reply_null(const rcg_event *ev)
{
    uint32_t words[REPLY / 4] = { htonl(ev->rpc->xid), htonl(1), 0, 0, 0, 0 };
    struct iovec head = { words, sizeof words };
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT, .head = &head, .nhead = 1 };
    MUST_OK(rcg_rpc_reply(ev->conn, ev->rpc->call, &response));
}

/* ---- server --------------------------------------------------------------------------------------------------------- */

/* Round trips and the word that ends a stream (length 1) go back at once. */
static void on_server(rcg_channel *ch, const rcg_event *ev, size_t count, void *arg)
{
    uint64_t slots[RECVS];
    size_t free = 0;
    rcg_conn *conn = NULL;
    (void)ch, (void)arg;
    for (; count--; ev++) switch (ev->type) {
    case RCG_EVENT_CONNECT_REQUEST:
        if (has_receives()) post_all_receives(ev->conn);
        MUST_OK(rcg_accept(ev->conn, NULL));
        break;
    case RCG_EVENT_RECV:
        if (ev->status != 0) break;
        conn = ev->conn;
        if (is_case("lat") || ev->length == 1) send_short(conn, ev->length);
        slots[free++] = (uint64_t)(uintptr_t)ev->user + (receives_are_long() ? 2 * WINDOW : 0);
        break;
    case RCG_EVENT_RPC_CALL: reply_null(ev); break;
    default: break;
    }
    if (free) post_receives(conn, slots, free);
}

static rcg_rpc_attr rpc = { RCG_RPC_ATTR_INIT };

static void serve(int control)
{
    rcg_listen_attr attr = { RCG_LISTEN_ATTR_INIT, .provider = RCG_PROVIDER_IWARP,
                             .rpc = is_case("rpc") ? &rpc : NULL };
    uint32_t key;
    uint16_t port;
    uint32_t rights = is_case("read") ? RCG_REMOTE_READ : RCG_REMOTE_WRITE;
    if (has_receives()) attr.recv_depth = RECVS;
    open_side(on_server, false);
    port = listen_at(&attr);
    MUST_OK(rcg_mr_key_range(mr, NULL, 0, area(), rights, &key));
    tell(control, &(struct hello){ port, (uintptr_t)memory, key });
}

/* ---- client --------------------------------------------------------------------------------------------------------- */

static uint32_t opcode;

/* One operation each, or BATCH short ones that end with one completion. */
static void post_stream(rcg_conn *conn)
{
    rcg_op ops[BATCH];
    rcg_sge sges[BATCH];
    bool batch = is_case("rate");
    size_t room = batch ? (size_t)BATCH : WINDOW - (posted - completed), count = 0;
    for (; count < room && (batch || more(posted)); count++, posted++) {
        size_t at = slot(posted);
        sges[count] = (rcg_sge){ memory + at, opt.size, mr };
        ops[count] = (rcg_op){ .opcode = opcode, .sge = &sges[count], .nsge = 1 };
        if (opcode != RCG_SEND) ops[count].remote_addr = peer.addr + at, ops[count].remote_key = (uint32_t)peer.key;
        if (!batch || count + 1 == BATCH) ops[count].flags = RCG_SIGNALED, ops[count].user = &posted;
    }
    if (count) post(conn, ops, count);
}

static void stream_on(rcg_conn *conn, size_t completions)
{
    bool batch = is_case("rate");
    completed += completions * (batch ? (size_t)BATCH : 1);
    if (!batch) post_stream(conn);
    else
        while (posted - completed < BATCHES * BATCH && more(posted)) post_stream(conn);
    if (completed < posted || ending) return;
    ending = true;
    send_short(conn, 1); /* comes back when all has come */
}

/* The server goes now: what that brings is not looked at. */
static void finish(uint64_t count)
{
    over = true;
    report(count);
    sem_post(&done);
}

static rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .provider = RCG_PROVIDER_IWARP };
static double connecting; /* since when */

static void start_connect(void)
{
    struct sockaddr_in to = loopback(peer.port);
    rcg_addr addr = { .addr = (struct sockaddr *)&to, .length = sizeof to };
    rcg_conn *conn;
    connecting = now_s();
    MUST_OK(rcg_connect(channel, &addr, 1, &attr, &conn));
}

static void go(rcg_conn *conn)
{
    begin();
    if (is_case("rpc")) call_null(conn);
    else if (is_case("lat")) send_short(conn, opt.size);
    else stream_on(conn, 0);
}

static void on_client(rcg_channel *ch, const rcg_event *ev, size_t count, void *arg)
{
    size_t completions = 0;
    rcg_conn *conn = NULL;
    (void)ch, (void)arg;
    for (; count-- && !over; ev++) switch (ev->type) {
    case RCG_EVENT_ESTABLISHED:
        if (is_case("connect")) {
            note(n++, connecting);
            MUST_OK(rcg_conn_disconnect(ev->conn));
            break;
        }
        if (has_receives()) post_all_receives(ev->conn);
        go(ev->conn);
        break;
    case RCG_EVENT_CONNECT_FAILED: die("%s", ev->error->text);
    case RCG_EVENT_DISCONNECTED:
        if (!is_case("connect")) die("%s", ev->error->text);
        break;
    case RCG_EVENT_CLOSED: /* the server has closed as well */ closed++; break;
    case RCG_EVENT_COMPLETION:
        if (ev->status != 0) die("%s: status %d", rcg_op_name(ev->op), ev->status);
        if (ev->user == &posted) completions++, conn = ev->conn;
        break;
    case RCG_EVENT_RPC_REPLY:
        if (ev->status != 0) die("call: status %d", ev->status);
        if (more(++n)) call_null(ev->conn);
        else finish(n);
        break;
    case RCG_EVENT_RECV:
        if (is_case("lat") && more(++n)) {
            send_short(ev->conn, opt.size);
            post_receives(ev->conn, &(uint64_t){ (uint64_t)(uintptr_t)ev->user }, 1);
        } else {
            finish(is_case("lat") ? n : posted);
        }
        break;
    default: break;
    }
    if (completions) stream_on(conn, completions);
}

/* All on this thread. What a connection leaves behind is cleared away before the next one. */
static void connect_often(void)
{
    begin();
    do {
        while (rcg_channel_run(channel, 0) > 0) {}
        start_connect();
        for (uint64_t before = closed; closed == before;) MUST(rcg_channel_run(channel, -1) >= 0);
    } while (more(n));
    report(n);
}

static void ask(const struct hello *hello)
{
    attr.crc = opt.crc ? RCG_CRC_ON : RCG_CRC_OFF;
    if (is_case("rpc")) attr.rpc = &rpc;
    if (has_receives()) attr.send_depth = 2 * BATCHES * BATCH, attr.recv_depth = RECVS;
    peer = *hello;
    opcode = is_case("write") || opt.write ? RCG_WRITE : is_case("read") ? RCG_READ : RCG_SEND;
    open_side(on_client, is_case("connect"));
    if (is_case("connect")) return connect_often();
    start_connect();
    await();
}

int main(int argc, char **argv)
{
    static const char *const cases[] = { "lat", "connect", "rpc", "rate", "send", "write", "read", NULL };
    return both_sides(argc, argv, cases, serve, ask);
}
