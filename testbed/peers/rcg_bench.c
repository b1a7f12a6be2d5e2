/* Latency and bandwidth between two processes, measured as perftest measures them: half the median round trip of Sends, one
 * at a time, each with its completion awaited; the mean bandwidth of Writes and of Reads, posted one by one to a queue of a
 * given depth, with a completion for each, or each hundredth if they are short. Both sides poll.
 *
 *   rcg_bench server [--provider auto|verbs|iwarp] [--port P] [--bind ADDR] [--timeout SECONDS]
 *   rcg_bench client [--provider ...] [--port P] [--timeout SECONDS] [--lat-size N] [--lat-iters N] [--bw-size N]
 *                    [--bw-iters N] [--depth N] [--cq-mod N] [--only send_lat|write_bw|read_bw] SERVER
 *
 * The client prints lines of name, value, unit. The server serves one client and ends.
 */
#include "perf_common.h"

enum { RECVS = 64, RECV_SIZE = 65536, WAIT_MS = 100, MAX_ROOM = 1 << 26, MAX_COUNT = 100000000 };
enum what { NOTHING, SEND_LAT, WRITE_BW, READ_BW, GOODBYE };

/* What both tell each other before a measurement: the client what comes, the server where its memory is. */
struct word {
    uint32_t what, key;
    uint64_t size, count, room, addr; /* room: of the largest size to come */
};

static bool client;
static uint32_t provider;
static uint64_t lat_size = 64, lat_iters = 1000, bw_size = 65536, bw_iters = 1000, depth = 128, cq_mod;
static const char *only = "";

static rcg_conn *conn;
static bool up, over, leaving;
static uint64_t received, done, heard; /* messages, operations with those before them */
static uint8_t *inbox, *memory;        /* RECVS buffers, in the order of messages; what is moved */
static rcg_mr *inbox_mr, *memory_mr;
static size_t memory_size;

static void post_recv(uint64_t i)
{
    rcg_sge sge = { inbox + i % RECVS * RECV_SIZE, RECV_SIZE, inbox_mr };
    rcg_recv recv = { .sge = &sge, .nsge = 1 };
    must(rcg_post_recv(conn, &recv, 1), "rcg_post_recv");
}

static void post_recvs(void)
{
    for (uint64_t i = 0; i < RECVS; i++) post_recv(i);
}

static bool is_goodbye(const rcg_event *ev)
{
    struct word word;
    if (ev->length != sizeof word) return false;
    memcpy(&word, ev->data, sizeof word);
    return word.what == GOODBYE;
}

static void on_event(const rcg_event *ev)
{
    rcg_accept_attr attr = { RCG_ACCEPT_ATTR_INIT };
    if (ev->conn == NULL) return;
    switch (ev->type) {
    case RCG_EVENT_CONNECT_REQUEST:
        if (conn || over) die("a second client");
        conn = ev->conn;
        post_recvs();
        must(rcg_accept(conn, &attr), "rcg_accept");
        break;
    case RCG_EVENT_ESTABLISHED: up = true; break;
    case RCG_EVENT_CONNECT_FAILED: die("%s\n%s", ev->error->text, ev->error->remedy);
    case RCG_EVENT_DISCONNECTED:
        up = false;
        if (!leaving) die("%s", ev->error->text);
        break;
    case RCG_EVENT_CLOSED: conn = NULL, over = true; break;
    case RCG_EVENT_COMPLETION:
        if (ev->status && !leaving) die("%s: %s", rcg_op_name(ev->op), strerror(-ev->status));
        done += (uintptr_t)ev->user; /* how many it stands for */
        break;
    case RCG_EVENT_RECV:
        if (ev->status) break;
        received++;
        if (is_goodbye(ev)) leaving = true; /* before its end, which may be in the same batch */
        break;
    default: break;
    }
}

/* ---- words -------------------------------------------------------------------------------------------------------- */

/* The next message; its receive is posted anew. */
static const void *hear(void)
{
    const void *message = inbox + heard % RECVS * RECV_SIZE;
    AWAIT(received > heard, 0);
    return message;
}

static void heard_it(void)
{
    if (!leaving) post_recv(heard);
    heard++;
}

static struct word hear_word(void)
{
    struct word word;
    memcpy(&word, hear(), sizeof word);
    heard_it();
    return word;
}

static void say(const struct word *word)
{
    uint64_t before = done;
    rcg_op op = RCG_OP_SEND_COPY(word, sizeof *word, (void *)1);
    must(rcg_post(conn, &op, 1), "rcg_post");
    AWAIT(done > before, 0);
}

/* ---- measurements ------------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void send_one(size_t size)
{
    uint64_t before = done;
    rcg_sge sge = { memory, size, memory_mr };
    rcg_op op = RCG_OP_SEND(&sge, 1, (void *)1);
    must(rcg_post(conn, &op, 1), "rcg_post");
    AWAIT(done > before, 0);
}

/* As perftest does: the processor's counter, where reading the clock may be a system call. */
static uint64_t ticks(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_ia32_rdtsc();
#else
    return now_ns();
#endif
}

/* perftest: the client sends first, time is taken before each Send, half the median of the differences. */
static double ping_pong(uint64_t count, size_t size)
{
    uint64_t *at = calloc(count + 1, sizeof *at), took = now_ns(), first = ticks(), all;
    double median;
    if (at == NULL) die("no memory");
    at[0] = first;
    for (uint64_t i = 1; i <= count; i++) {
        if (client) send_one(size);
        hear();
        heard_it();
        at[i] = ticks();
        if (!client) send_one(size);
    }
    all = ticks() - first, took = now_ns() - took;
    for (uint64_t i = 0; i < count; i++) at[i] = at[i + 1] - at[i];
    qsort(at, count, sizeof *at, ascending);
    median = (double)at[count / 2] * (double)took / (double)all / 2000;
    free(at);
    return median;
}

static double stream(enum what what, const struct word *there)
{
    uint64_t posted = 0, before = done, start = now_ns();
    for (unsigned steps = 1; done - before < bw_iters; steps++) {
        while (posted < bw_iters && posted - (done - before) < depth) {
            uintptr_t stands_for = (posted + 1) % cq_mod == 0 ? cq_mod : posted + 1 == bw_iters ? bw_iters % cq_mod : 0;
            rcg_sge sge = { memory, bw_size, memory_mr };
            rcg_op write = RCG_OP_WRITE(&sge, 1, there->addr, there->key, (void *)stands_for);
            rcg_op read = RCG_OP_READ(&sge, 1, there->addr, there->key, (void *)stands_for);
            must(rcg_post(conn, what == READ_BW ? &read : &write, 1), "rcg_post");
            posted++;
        }
        step(0);
        if (steps % 1024 == 0 && now_ns() / 1000 > deadline_us) die("gave up after %" PRIu64 " operations", done - before);
    }
    return (double)bw_iters * (double)bw_size / 1048576 / ((double)(now_ns() - start) / 1e9);
}

/* ---- the two sides ------------------------------------------------------------------------------------------------ */

static void prepare(size_t size)
{
    memory_size = size;
    memory = shared_memory(size, &memory_mr);
    memset(memory, client ? 0x5A : 0xA5, size);
}

static void serve(void)
{
    for (;;) {
        struct word word = hear_word(), mine = { 0 };
        if (word.what == GOODBYE) return;
        if (!word.size || word.size > word.room || word.room > MAX_ROOM || word.count > MAX_COUNT) die("a strange request");
        if (memory == NULL) prepare(word.room);
        if (word.room != memory_size) die("a change of mind");
        mine.what = word.what;
        mine.addr = (uint64_t)(uintptr_t)memory;
        must(rcg_mr_key(memory_mr, conn, &mine.key), "rcg_mr_key");
        say(&mine);
        if (word.what == SEND_LAT) ping_pong(word.count, word.size);
    }
}

static void measure(enum what what, const char *name, uint64_t size, uint64_t count)
{
    struct word mine = { .what = what, .size = size, .count = count, .room = memory_size }, there;
    double value;
    if (*only && strcmp(only, name)) return;
    say(&mine);
    there = hear_word();
    value = what == SEND_LAT ? ping_pong(count, size) : stream(what, &there);
    if (what == READ_BW && (!memory[0] || !memory[size - 1])) die("read_bw: nothing was read");
    printf("%s %.3f %s\n", name, value, what == SEND_LAT ? "us" : "MiB/s");
}

static void ask(void)
{
    struct word bye = { .what = GOODBYE };
    prepare(lat_size > bw_size ? lat_size : bw_size);
    measure(SEND_LAT, "send_lat", lat_size, lat_iters);
    measure(WRITE_BW, "write_bw", bw_size, bw_iters);
    memset(memory, 0, memory_size);
    measure(READ_BW, "read_bw", bw_size, bw_iters);
    leaving = true;
    say(&bye);
}

static void link_up(const struct sockaddr_in *address, rcg_listener **listener)
{
    rcg_limits limits = { RCG_LIMITS_INIT };
    rcg_addr to = { .addr = (const struct sockaddr *)address, .length = sizeof *address };
    must(rcg_engine_limits(engine, provider, &limits), "rcg_engine_limits");
    if (client) {
        rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .provider = provider, .send_depth = (uint32_t)depth,
                                  .recv_depth = RECVS, .ird = limits.max_ird, .ord = limits.max_ord };
        must(rcg_connect(channel, &to, 1, &attr, &conn), "rcg_connect");
        post_recvs();
    } else {
        rcg_listen_attr attr = { RCG_LISTEN_ATTR_INIT, .provider = provider, .send_depth = (uint32_t)depth,
                                 .recv_depth = RECVS, .ird = limits.max_ird, .ord = limits.max_ord };
        must(rcg_listen(channel, to.addr, to.length, &attr, listener), "rcg_listen");
        printf("listening\n");
        fflush(stdout);
    }
    AWAIT(up, WAIT_MS);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "provider", 1, NULL, 'P' }, { "port", 1, NULL, 'p' },     { "bind", 1, NULL, 'b' },
        { "timeout", 1, NULL, 't' },  { "lat-size", 1, NULL, 's' }, { "lat-iters", 1, NULL, 'n' },
        { "bw-size", 1, NULL, 'S' },  { "bw-iters", 1, NULL, 'N' }, { "depth", 1, NULL, 'd' },
        { "cq-mod", 1, NULL, 'c' },   { "only", 1, NULL, 'o' },     { NULL, 0, NULL, 0 },
    };
    const char *host = "0.0.0.0";
    uint16_t port = 18516;
    unsigned seconds = 120;
    rcg_listener *listener = NULL;
    struct sockaddr_in address;
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (c) {
        case 'P': provider = provider_of(optarg); break;
        case 'p': port = (uint16_t)number(optarg, 65535); break;
        case 'b': host = optarg; break;
        case 't': seconds = (unsigned)number(optarg, 3600); break;
        case 's': lat_size = number(optarg, RECV_SIZE); break;
        case 'n': lat_iters = number(optarg, MAX_COUNT); break;
        case 'S': bw_size = number(optarg, MAX_ROOM); break;
        case 'N': bw_iters = number(optarg, MAX_COUNT); break;
        case 'd': depth = number(optarg, 4096); break;
        case 'c': cq_mod = number(optarg, 4096); break;
        case 'o': only = optarg; break;
        default: return 2;
        }
    if (argc - optind < 1 || argc - optind > 2) die("see the head of the source for the usage");
    client = strcmp(argv[optind], "client") == 0;
    if ((client ? 2 : 1) != argc - optind || (!client && strcmp(argv[optind], "server"))) die("client SERVER, or server");
    if (!lat_size || !lat_iters || !bw_size || !bw_iters || !depth) die("nothing is 0");
    if (!cq_mod) cq_mod = bw_size > 8192 ? 1 : 100; /* as perftest has it */
    if (cq_mod > depth) cq_mod = depth;
    address = address_of(client ? argv[optind + 1] : host, port);

    open_library(seconds);
    inbox = shared_memory((size_t)RECVS * RECV_SIZE, &inbox_mr);
    link_up(&address, &listener);
    must(rcg_conn_query(conn, &info), "rcg_conn_query");
    if (client) printf("provider %s, device %s\n", provider_name(info.provider), info.device);
    if (client) ask();
    else serve();
    if (client) must(rcg_conn_disconnect(conn), "rcg_conn_disconnect");
    AWAIT(over, WAIT_MS);
    if (listener) must(rcg_listener_close(listener), "rcg_listener_close");
    close_library();
    must(rcg_mr_deregister(inbox_mr), "rcg_mr_deregister");
    if (memory) must(rcg_mr_deregister(memory_mr), "rcg_mr_deregister");
    must(rcg_engine_destroy(engine), "rcg_engine_destroy");
    return 0;
}
