/* The other side of perftest's `-R` programs: server or client of ib_send_bw, ib_write_bw, ib_read_bw, ib_send_lat and
 * ib_write_lat, for one queue pair, one size and a number of iterations, which both sides have to be given alike.
 *
 *   rcg_perf [--provider auto|verbs|iwarp] [--port P] [--bind ADDR] [-n ITERATIONS] [-s SIZE] [--timeout SECONDS]
 *            [--credits 0|1] send_bw|write_bw|read_bw|send_lat|write_lat [SERVER]
 *
 * What perftest 4.5-0.17 (it calls itself 6.06) says, as found in its source and tried against it. Two connections to one
 * port, neither with private data. The first is for control: the client sends a message, the server answers with one of
 * the same length, never more than one under way:
 *
 *   16 octets   version, "6.06" and zeros; below 5.70 is refused
 *    4 octets   size of the buffer that short messages walk through, 4096; the larger of the two counts; big endian
 *    4 octets   cache line, 64; the larger counts; big endian. Both move only the addresses of short messages
 *    2 octets   MTU as a digit, 1 = 256 to 5 = 4096, and a zero: the smaller counts, if at all
 *   56 octets   hello, and then the second connection is made: its listener comes only after the server's hello
 *   56 octets   hello: there it is; then 3 hellos (4 with send_* and write_lat), with the memory in them, the data, and
 *               except with write_lat
 *   56 octets   hello: write_bw and read_bw only, and after it 5 times
 *    8 octets   what the client measured: size, iterations, then doubles: peak, average (MiB/s), million messages per
 *               second; big endian, all of them
 *   56 octets   hello: the end
 *
 * A hello is, big endian at these places: 0 LID, 4 outstanding Reads, 8 QP number, 12 PSN, 16 key, 24 address,
 * 32 GID (16 octets), 48 SRQ number, 52 GID index. Of these only key and address matter here. They are those of the
 * memory that Writes and Reads go to, from its first octet on. With send_bw over iWARP, which can't say that no receive is
 * posted, they are those of four octets to which the receiver Writes how many messages it has had, in host order, with each
 * third of the receive queue, which is 512 or the iterations; the sender has fewer than the queue on their way. write_lat:
 * the server Writes first, both see a message by its last octet, which is its number modulo 256.
 */
#include "perf_common.h"

#include <endian.h>

enum { RX_DEPTH = 512, TX_DEPTH = 128, HELLO = 56, OURS = 0x5A, UNTOUCHED = 0xA5, RETRY_MS = 20, SLEEP_MS = 200 };
enum test { SEND_BW, WRITE_BW, READ_BW, SEND_LAT, WRITE_LAT, TESTS };
static const char *const test_names[TESTS] = { "send_bw", "write_bw", "read_bw", "send_lat", "write_lat" };

static enum test test;
static bool client, ending;
static uint32_t provider;
static int credits = -1; /* -1 = as the device has it */
static uint64_t iterations = 1000;
static size_t size = 65536, walk = 4096;
static struct sockaddr_in address;

struct link {
    const char *name;
    rcg_conn *conn;
    bool up, over;
    uint64_t done, received, credits, credits_done; /* operations, messages, credits */
};
static struct link control = { .name = "control" }, data = { .name = "data" };

/* Of the control connection: what came, what goes out; of the data connection: the counts. */
struct words {
    uint8_t in[64], out[64];
    uint32_t credit_in, credit_out; /* the peer's word on what it has had, and ours */
};
static struct words *words;
static uint8_t *memory; /* sent from, received to, written and read by the peer */
static rcg_mr *words_mr, *memory_mr;
static uint64_t peer_addr;
static uint32_t peer_key;
static char refusal[640];           /* why the last connect failed */
static char an_operation, a_credit; /* what completions are of */

/* Whether the data come to this side. */
static bool arrives(void)
{
    return client ? test == READ_BW : test == SEND_BW || test == WRITE_BW;
}

static bool sends(void)
{
    return test == SEND_BW || test == SEND_LAT;
}

/* Receives that are posted at a time, and so the messages that may be under way. */
static uint64_t window(void)
{
    return iterations < RX_DEPTH ? iterations : RX_DEPTH;
}

static void post_recv(struct link *link)
{
    rcg_sge sge = { words->in, sizeof words->in, words_mr };
    rcg_recv recv = { .sge = &sge, .nsge = 1 };
    if (link == &data) sge = (rcg_sge){ memory, size, memory_mr };
    must(rcg_post_recv(link->conn, &recv, 1), "rcg_post_recv");
}

static void post_recvs(struct link *link)
{
    uint64_t n = link == &control ? 1 : sends() ? window() : 0;
    while (n--) post_recv(link);
}

static void give_credit(void)
{
    rcg_sge sge = { &words->credit_out, sizeof words->credit_out, words_mr };
    rcg_op op = RCG_OP_WRITE(&sge, 1, peer_addr, peer_key, &a_credit);
    words->credit_out = (uint32_t)data.received;
    data.credits++;
    must(rcg_post(data.conn, &op, 1), "rcg_post of a credit");
}

static bool credit_due(uint64_t n)
{
    return n % window() % (window() / 3) == 0;
}

static void on_message(struct link *link, const rcg_event *ev)
{
    link->received++;
    if (link == &control) return; /* read, and posted anew, in hear() */
    if (ev->length != size) die("a message of %zu octets, not %zu", ev->length, size);
    if (link->received + window() <= iterations) post_recv(link);
    if (credits && test == SEND_BW && credit_due(link->received)) give_credit();
}

static void on_event(const rcg_event *ev)
{
    struct link *link = ev->context;
    if (ev->conn == NULL) return; /* the listener */
    switch (ev->type) {
    case RCG_EVENT_CONNECT_REQUEST: {
        rcg_accept_attr attr = { RCG_ACCEPT_ATTR_INIT };
        link = control.conn == NULL && !control.over ? &control : &data;
        if (link->conn || link->over) die("a third connection");
        attr.context = link;
        link->conn = ev->conn;
        post_recvs(link);
        must(rcg_accept(ev->conn, &attr), "rcg_accept");
        break;
    }
    case RCG_EVENT_ESTABLISHED: link->up = true; break;
    case RCG_EVENT_CONNECT_FAILED:
        snprintf(refusal, sizeof refusal, "%s: %s", link->name, ev->error->text);
        if (!client || (ev->error->reason != RCG_REASON_REFUSED && ev->error->reason != RCG_REASON_REJECTED))
            die("%s", refusal);
        break;
    case RCG_EVENT_DISCONNECTED:
        link->up = false;
        if (!ending && !(link == &data && test == WRITE_LAT)) die("%s: %s", link->name, ev->error->text);
        break;
    case RCG_EVENT_CLOSED: link->conn = NULL, link->over = true; break;
    case RCG_EVENT_COMPLETION:
        if (ev->status && !ending) die("%s: %s: %s", link->name, rcg_op_name(ev->op), strerror(-ev->status));
        if (ev->user == &a_credit) link->credits_done++;
        else link->done++;
        break;
    case RCG_EVENT_RECV:
        if (ev->status == 0) on_message(link, ev);
        break; /* receives that nothing came for are flushed at the end */
    default: break;
    }
}

/* ---- control ------------------------------------------------------------------------------------------------------ */

static void say(const void *what, size_t length)
{
    rcg_sge sge = { words->out, length, words_mr };
    rcg_op op = RCG_OP_SEND(&sge, 1, &an_operation);
    uint64_t before = control.done;
    memcpy(words->out, what, length);
    must(rcg_post(control.conn, &op, 1), "rcg_post");
    AWAIT(control.done > before, SLEEP_MS);
}

static void hear(void *what, size_t length)
{
    static uint64_t heard;
    AWAIT(control.received > heard, SLEEP_MS);
    heard++;
    memcpy(what, words->in, length);
    if (!ending) post_recv(&control);
}

static void exchange(const void *mine, void *theirs, size_t length)
{
    if (client) say(mine, length);
    hear(theirs, length);
    if (!client) say(mine, length);
}

static uint32_t exchange_number(uint32_t mine)
{
    uint32_t theirs, sent = htobe32(mine);
    exchange(&sent, &theirs, sizeof theirs);
    theirs = be32toh(theirs);
    return theirs > mine ? theirs : mine;
}

static void hello(void)
{
    uint8_t mine[HELLO] = { 0 }, theirs[HELLO];
    bool credit = test == SEND_BW;
    uint64_t addr = htobe64((uint64_t)(uintptr_t)(credit ? (void *)&words->credit_in : memory));
    uint32_t key = 0, reads = htobe32(16);
    if (data.up) must(rcg_mr_key(credit ? words_mr : memory_mr, data.conn, &key), "rcg_mr_key");
    key = htobe32(key);
    memcpy(mine + 4, &reads, 4);
    memcpy(mine + 16, &key, 4);
    memcpy(mine + 24, &addr, 8);
    exchange(mine, theirs, HELLO);
    memcpy(&peer_key, theirs + 16, 4);
    memcpy(&peer_addr, theirs + 24, 8);
    peer_key = be32toh(peer_key);
    peer_addr = be64toh(peer_addr);
}

static uint64_t report(uint64_t mine)
{
    uint64_t theirs, sent = htobe64(mine);
    exchange(&sent, &theirs, sizeof theirs);
    return be64toh(theirs);
}

static double report_double(double mine)
{
    uint64_t bits;
    memcpy(&bits, &mine, 8);
    bits = report(bits);
    memcpy(&mine, &bits, 8);
    return mine;
}

/* ---- connections -------------------------------------------------------------------------------------------------- */

/* The server may not listen yet, and nothing tells when it does. */
static void connect_link(struct link *link)
{
    rcg_addr to = { .addr = (struct sockaddr *)&address, .length = sizeof address };
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .context = link, .provider = provider, .send_depth = TX_DEPTH,
                              .recv_depth = RX_DEPTH };
    for (;;) {
        link->over = false;
        must(rcg_connect(channel, &to, 1, &attr, &link->conn), "rcg_connect");
        post_recvs(link);
        AWAIT(link->up || link->over, SLEEP_MS);
        if (link->up) return;
        if (now_ns() / 1000 > deadline_us) die("%s", refusal);
        step(RETRY_MS);
    }
}

static rcg_listener *listen_here(void)
{
    rcg_listen_attr attr = { RCG_LISTEN_ATTR_INIT, .provider = provider, .send_depth = TX_DEPTH, .recv_depth = RX_DEPTH };
    rcg_listener *listener;
    must(rcg_listen(channel, (struct sockaddr *)&address, sizeof address, &attr, &listener), "rcg_listen");
    printf("listening\n");
    fflush(stdout);
    return listener;
}

static void disconnect(struct link *link)
{
    if (link->conn) must(rcg_conn_disconnect(link->conn), "rcg_conn_disconnect");
    AWAIT(link->over, SLEEP_MS);
}

/* ---- data --------------------------------------------------------------------------------------------------------- */

static uint32_t word_in(void)
{
    return *(volatile uint32_t *)&words->credit_in;
}

/* Posts one operation; messages that are short walk through the memory as perftest's do. */
static void post(uint64_t i)
{
    size_t stride = (size + 63) / 64 * 64, at = test == WRITE_LAT || stride > walk / 2 ? 0 : i % (walk / stride) * stride;
    rcg_sge sge = { memory + at, size, memory_mr };
    rcg_op send = RCG_OP_SEND(&sge, 1, &an_operation);
    rcg_op write = RCG_OP_WRITE(&sge, 1, peer_addr + at, peer_key, &an_operation);
    rcg_op read = RCG_OP_READ(&sge, 1, peer_addr + at, peer_key, &an_operation);
    must(rcg_post(data.conn, sends() ? &send : test == READ_BW ? &read : &write, 1), "rcg_post");
}

static void stream(void)
{
    for (uint64_t posted = 0; data.done < iterations;) {
        while (posted < iterations && posted - data.done < TX_DEPTH &&
               (test != SEND_BW || !credits || (uint32_t)(posted + 1) - word_in() < window()))
            post(posted++);
        /* A credit comes without an event. */
        if (posted < iterations && posted == data.done) AWAIT((uint32_t)(posted + 1) - word_in() < window(), 0);
        else step(SLEEP_MS);
        if (now_ns() / 1000 > deadline_us) die("gave up after %" PRIu64 " operations", data.done);
    }
}

/* Both return when the first round was over: perftest takes its time before it begins. */
static uint64_t ping_pong_sends(void)
{
    uint64_t first = 0;
    for (uint64_t i = 0; i < iterations; i++) {
        if (!client) AWAIT(data.received > i, 0);
        post(i);
        AWAIT(data.done > i, 0);
        if (client) AWAIT(data.received > i, 0);
        if (i == 0) first = now_ns();
    }
    return first;
}

/* In and out lie one after the other: the peer writes to `memory`, we send from behind it. */
static uint64_t ping_pong_writes(void)
{
    uint64_t first = 0;
    volatile uint8_t *last = memory + size - 1;
    uint8_t *mine = memory + walk;
    for (uint64_t i = 0; i < iterations; i++) {
        rcg_sge sge = { mine, size, memory_mr };
        rcg_op op = RCG_OP_WRITE(&sge, 1, peer_addr, peer_key, &an_operation);
        if (client) AWAIT(*last == (uint8_t)(i + 1), 0);
        mine[size - 1] = (uint8_t)(i + 1);
        must(rcg_post(data.conn, &op, 1), "rcg_post");
        AWAIT(data.done > i, 0);
        if (!client) AWAIT(*last == (uint8_t)(i + 1), 0);
        if (i == 0) first = now_ns();
    }
    data.received = iterations;
    return first;
}

/* That octets have moved, seen where they went: perftest sends random ones. */
static void check_moved(const rcg_conn_info *info)
{
    size_t touched = 0, total = (uint64_t)iterations * size;
    for (size_t i = 0; i < size; i++) touched += memory[i] != UNTOUCHED;
    if (arrives() && touched < size / 2) die("only %zu of %zu octets came", touched, size);
    if (info->provider != RCG_PROVIDER_IWARP || test == WRITE_LAT) return;
    if ((arrives() ? info->bytes_received : info->bytes_sent) < total) die("less than %zu octets moved", total);
}

static void run(void)
{
    char version[16] = "6.06", mtu[2] = "3", theirs[16];
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    uint64_t start;
    double mib, seconds;
    int hellos = sends() || test == WRITE_LAT ? 4 : 3;

    exchange(version, theirs, sizeof version);
    if (theirs[15] || atof(theirs) < 5.70) die("not a version: %.15s", theirs);
    walk = exchange_number((uint32_t)walk);
    exchange_number(64);
    exchange(mtu, theirs, sizeof mtu);
    if (walk < size) walk = size;
    memory = shared_memory(2 * walk, &memory_mr);
    if (test != WRITE_LAT) memset(memory, arrives() ? UNTOUCHED : OURS, 2 * walk);
    hello();
    if (client) connect_link(&data);
    AWAIT(data.up, SLEEP_MS);
    must(rcg_conn_query(data.conn, &info), "rcg_conn_query");
    if (credits < 0) credits = info.provider == RCG_PROVIDER_IWARP || strncmp(info.device, "siw", 3) == 0;
    while (hellos-- >= 0) hello();

    start = now_ns();
    if (test == SEND_LAT) start = ping_pong_sends();
    else if (test == WRITE_LAT) start = ping_pong_writes();
    else if (client) stream();
    else if (test == SEND_BW)
        AWAIT(data.received == iterations && data.credits_done == data.credits, SLEEP_MS);
    seconds = (double)(now_ns() - start) / 1e9;
    mib = (double)iterations * (double)size / seconds / 1048576;

    if (test == WRITE_BW || test == READ_BW) {
        hello();
        report(size);
        if (report(iterations) != iterations && !client) die("the peer has done another number of iterations");
        report_double(0);
        mib = client ? (report_double(mib), mib) : report_double(0);
        report_double((double)iterations / seconds / 1e6);
    }
    if (data.conn) must(rcg_conn_query(data.conn, &info), "rcg_conn_query"); /* after write_lat the peer may be gone */
    check_moved(&info);
    ending = true; /* the client may leave at once when it has heard the last one */
    if (test != WRITE_LAT) hello();
    printf("%s %s: %" PRIu64 " x %zu octets, %" PRIu64 " operations, %" PRIu64 " messages, ", test_names[test],
           client ? "client" : "server", iterations, size, data.done, data.received);
    if (test == SEND_LAT || test == WRITE_LAT) printf("%.2f us", seconds * 1e6 / 2 / (double)(iterations - 1));
    else printf("%.2f MiB/s", mib);
    printf(", provider %s, device %s\n", provider_name(info.provider), info.device);
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "provider", 1, NULL, 'P' }, { "port", 1, NULL, 'p' },
                                             { "bind", 1, NULL, 'b' },     { "timeout", 1, NULL, 't' },
                                             { "credits", 1, NULL, 'c' },  { NULL, 0, NULL, 0 } };
    const char *host = "0.0.0.0";
    uint16_t port = 18515;
    unsigned seconds = 60;
    rcg_listener *listener = NULL;
    int c;
    while ((c = getopt_long(argc, argv, "n:s:", options, NULL)) != -1)
        switch (c) {
        case 'P': provider = provider_of(optarg); break;
        case 'p': port = (uint16_t)number(optarg, 65535); break;
        case 'b': host = optarg; break;
        case 't': seconds = (unsigned)number(optarg, 3600); break;
        case 'c': credits = (int)number(optarg, 1); break;
        case 'n': iterations = number(optarg, 1000000); break;
        case 's': size = number(optarg, 1 << 24); break;
        default: return 2;
        }
    if (argc - optind < 1 || argc - optind > 2 || iterations < 5 || !size) die("see the head of the source for the usage");
    while (test < TESTS && strcmp(argv[optind], test_names[test])) test++;
    if (test == TESTS) die("no such test: %s", argv[optind]);
    client = argc - optind == 2;
    address = address_of(client ? argv[optind + 1] : host, port);

    open_library(seconds);
    words = shared_memory(4096, &words_mr);
    if (client) connect_link(&control);
    else listener = listen_here();
    AWAIT(control.up, SLEEP_MS);
    run();
    if (!client) AWAIT(!data.up, SLEEP_MS); /* the client goes first */
    disconnect(&data);
    disconnect(&control);
    if (listener) must(rcg_listener_close(listener), "rcg_listener_close");
    close_library();
    must(rcg_mr_deregister(words_mr), "rcg_mr_deregister");
    must(rcg_mr_deregister(memory_mr), "rcg_mr_deregister");
    must(rcg_engine_destroy(engine), "rcg_engine_destroy");
    return 0;
}
