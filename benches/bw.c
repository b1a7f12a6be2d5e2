/* First numbers: bandwidth of Write, Read and Send and the round trip of 64 octets, against a raw TCP loop in the same
 * run. Both sides are threads of this process; the rounds of all cases are interleaved, so that a disturbance of the
 * machine meets all alike; medians are printed, and the ratio to raw TCP of the same size.
 *
 *   bw [--short]
 */
#include "../c-tests/helpers.h"

#include <sched.h>
#include <sys/uio.h>

enum { AREA = 8 << 20, WINDOW = 16, MAX_ROUNDS = 64, ROUND_TRIPS = 2000 };

static const char *congestion = "reno"; /* bbr paces loopback: the same for both, so that the protocols are compared */
static unsigned rounds = 15;
static double slice = 0.15; /* seconds of one measurement */

struct result {
    double samples[MAX_ROUNDS];
    unsigned n;
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(struct result *r)
{
    qsort(r->samples, r->n, sizeof *r->samples, compare);
    return r->n % 2 ? r->samples[r->n / 2] : (r->samples[r->n / 2 - 1] + r->samples[r->n / 2]) / 2;
}

static double now_s(void)
{
    return (double)now_us() / 1e6;
}

/* ---- raw TCP ------------------------------------------------------------------------------------------------------ */

static struct {
    int client, server;
    pthread_t thread;
} raw;

static void recv_all(int fd, void *buf, size_t n)
{
    for (size_t got = 0; got < n;) {
        ssize_t rc = recv(fd, (char *)buf + got, n - got, 0);
        if (rc <= 0) FAIL("recv gave %zd", rc);
        got += (size_t)rc;
    }
}

static void send_all(int fd, const void *buf, size_t n)
{
    for (size_t sent = 0; sent < n;) {
        ssize_t rc = send(fd, (const char *)buf + sent, n - sent, MSG_NOSIGNAL);
        if (rc <= 0) FAIL("send gave %zd", rc);
        sent += (size_t)rc;
    }
}

/* Messages go from slot to slot, to the same number of octets of memory in all cases: what is in the cache counts. */
static size_t slots_of(size_t size)
{
    return AREA / size < WINDOW ? AREA / size : WINDOW;
}

/* Before each burst: how many messages of which size; one octet back when all have come, or each comes back at once. */
struct burst {
    uint64_t size, count, echo;
};

static void *raw_server(void *arg)
{
    struct burst b;
    char *buf = malloc(AREA);
    (void)arg;
    ASSERT(buf != NULL);
    for (;;) {
        recv_all(raw.server, &b, sizeof b);
        if (b.count == 0) break;
        for (uint64_t i = 0; i < b.count; i++) {
            char *slot = buf + i % slots_of(b.size) * b.size;
            recv_all(raw.server, slot, b.size);
            if (b.echo) send_all(raw.server, slot, b.size);
        }
        if (!b.echo) send_all(raw.server, "", 1);
    }
    free(buf);
    return NULL;
}

static void set_congestion(int fd)
{
    if (congestion) ASSERT(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion)) == 0);
}

static char raw_from[AREA];

static void raw_open(void)
{
    struct address at;
    int one = 1, listener = plain_listen("127.0.0.1", 1, &at);
    memset(raw_from, 1, sizeof raw_from); /* pages of its own, not the page of zeros */
    set_congestion(listener);
    raw.client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT(raw.client >= 0);
    set_congestion(raw.client);
    ASSERT(connect(raw.client, (struct sockaddr *)&at.ss, at.len) == 0);
    raw.server = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ASSERT(raw.server >= 0);
    setsockopt(raw.client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(raw.server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    close(listener);
    ASSERT(pthread_create(&raw.thread, NULL, raw_server, NULL) == 0);
}

static void raw_close(void)
{
    struct burst end = { 0, 0, 0 };
    send_all(raw.client, &end, sizeof end);
    pthread_join(raw.thread, NULL);
    close(raw.client), close(raw.server);
}

/* ---- ours --------------------------------------------------------------------------------------------------------- */

static struct {
    rcg_engine *engine;
    rcg_channel *client_ch, *server_ch;
    rcg_conn *client, *server;
    unsigned char *from, *to;
    rcg_mr *from_mr, *to_mr;
    uint32_t key;
    int done, established; /* eventfds */
    /* the burst: read and written on the client's channel thread, set before it begins */
    uint32_t opcode;
    size_t size, window, posted, completed, count;
    /* round trips */
    size_t left;
    /* what the server receives into */
    size_t recv_size;
} rc;

static void signal_fd(int fd)
{
    uint64_t one = 1;
    ASSERT(write(fd, &one, sizeof one) == sizeof one);
}

static void wait_fd(int fd)
{
    uint64_t value;
    ASSERT(read(fd, &value, sizeof value) == sizeof value);
}

/* The next operation: it goes to another slot of the area than the one before. */
static void fill_op(rcg_op *op, rcg_sge *sge, size_t number)
{
    size_t at = number % slots_of(rc.size) * rc.size;
    *sge = (rcg_sge){ rc.from + at, rc.size, rc.from_mr };
    *op = (rcg_op){ .opcode = rc.opcode, .flags = RCG_SIGNALED, .sge = sge, .nsge = 1, .user = &rc.posted };
    if (rc.opcode == RCG_SEND) return;
    op->remote_addr = addr_of(rc.to) + at, op->remote_key = rc.key;
}

static void post_some(rcg_conn *conn)
{
    rcg_op ops[WINDOW];
    rcg_sge sges[WINDOW];
    size_t n = 0;
    while (rc.posted < rc.count && rc.posted - rc.completed < rc.window && n < WINDOW) {
        fill_op(&ops[n], &sges[n], rc.posted);
        n++, rc.posted++;
    }
    if (n) ASSERT_OK(rcg_post(conn, ops, n));
}

static void ping(rcg_conn *conn)
{
    rcg_op op = RCG_OP_SEND_COPY(rc.from, 64, NULL);
    ASSERT_OK(rcg_post(conn, &op, 1));
}

static void on_client(rcg_channel *ch, const rcg_event *ev, size_t n, void *arg)
{
    (void)ch, (void)arg;
    size_t completed = rc.completed;
    for (; n--; ev++) switch (ev->type) {
    case RCG_EVENT_ESTABLISHED: signal_fd(rc.established); break;
    case RCG_EVENT_CONNECT_FAILED: FAIL("%s", ev->error->text);
    case RCG_EVENT_DISCONNECTED:
        if (ev->error && ev->error->reason != RCG_REASON_CANCELLED) FAIL("%s", ev->error->text);
        break;
    case RCG_EVENT_CLOSED:
        if (ev->conn) signal_fd(rc.done);
        break;
    case RCG_EVENT_COMPLETION:
        if (ev->status != 0) FAIL("%s: status %d", rcg_op_name(ev->op), ev->status);
        if (ev->user != &rc.posted) { /* what begins a burst */
            if (ev->user == &rc.left) ping(ev->conn);
            else post_some(ev->conn);
            break;
        }
        if (++rc.completed < rc.count) break;
        if (rc.opcode == RCG_READ) signal_fd(rc.done);
        else ASSERT_OK(rcg_post(ev->conn, &(rcg_op)RCG_OP_SEND_COPY("end", 3, NULL), 1)); /* it comes back */
        break;
    case RCG_EVENT_RECV:
        if (ev->status != 0) break;
        if (ev->length != 64 || --rc.left == 0) signal_fd(rc.done);
        else ping(ev->conn);
        ASSERT_OK(rcg_recv_release(ev->conn, ev));
        break;
    default: break;
    }
    if (rc.completed != completed) post_some(rc.client);
}

static void server_recv(rcg_conn *conn, const rcg_event *ev)
{
    if (ev->status != 0) return;
    if (ev->length == 64 || ev->length == 3) {
        rcg_op op = RCG_OP_SEND_COPY(ev->data, (uint32_t)ev->length, NULL);
        ASSERT_OK(rcg_post(conn, &op, 1));
    }
    rcg_sge sge = { ev->user, rc.recv_size, rc.to_mr };
    ASSERT_OK(rcg_post_recv(conn, &(rcg_recv){ .sge = &sge, .nsge = 1, .user = ev->user }, 1));
}

static void on_server(rcg_channel *ch, const rcg_event *ev, size_t n, void *arg)
{
    (void)ch, (void)arg;
    for (; n--; ev++) switch (ev->type) {
    case RCG_EVENT_CONNECT_REQUEST:
        rc.server = ev->conn;
        for (size_t i = 0; i < AREA / rc.recv_size; i++) { /* Sends of 64 KiB land in slots of 1 MiB */
            rcg_sge sge = { rc.to + i * rc.recv_size, rc.recv_size, rc.to_mr };
            ASSERT_OK(rcg_post_recv(ev->conn, &(rcg_recv){ .sge = &sge, .nsge = 1, .user = sge.addr }, 1));
        }
        ASSERT_OK(rcg_accept(ev->conn, NULL));
        break;
    case RCG_EVENT_ESTABLISHED: signal_fd(rc.established); break;
    case RCG_EVENT_RECV: server_recv(ev->conn, ev); break;
    case RCG_EVENT_CLOSED:
        if (ev->conn) signal_fd(rc.done);
        break;
    default: break;
    }
}

static void ours_open(void)
{
    rc.from = malloc(AREA), rc.to = malloc(AREA);
    ASSERT(rc.from != NULL && rc.to != NULL);
    memset(rc.from, 1, AREA), memset(rc.to, 2, AREA);
    rc.done = eventfd(0, EFD_CLOEXEC), rc.established = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
    ASSERT_OK(rcg_engine_create(NULL, &rc.engine));
    ASSERT_OK(rcg_channel_create(rc.engine, &(rcg_channel_attr){ RCG_CHANNEL_ATTR_INIT, .on_events = on_client },
                                 &rc.client_ch));
    ASSERT_OK(rcg_channel_create(rc.engine, &(rcg_channel_attr){ RCG_CHANNEL_ATTR_INIT, .on_events = on_server },
                                 &rc.server_ch));
    ASSERT_OK(rcg_mr_register(rc.engine, rc.from, AREA, RCG_LOCAL, &rc.from_mr));
    ASSERT_OK(rcg_mr_register(rc.engine, rc.to, AREA, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &rc.to_mr));
    ASSERT_OK(rcg_mr_key(rc.to_mr, NULL, &rc.key));
    rc.recv_size = 1 << 20;
}

/* A connection for one case: the CRC is agreed when it is made. */
static void ours_connect(const struct address *to, uint32_t crc)
{
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .recv_size = 64, .recv_count = 64, .crc = crc,
                              .congestion = congestion };
    rcg_addr addr = rcg_addr_of(to);
    ASSERT_OK(rcg_connect(rc.client_ch, &addr, 1, &attr, &rc.client));
    wait_fd(rc.established), wait_fd(rc.established);
}

static void ours_disconnect(void)
{
    uint64_t n = 0, value;
    ASSERT_OK(rcg_conn_disconnect(rc.client));
    while (n < 2) {
        ASSERT(read(rc.done, &value, sizeof value) == sizeof value);
        n += value;
    }
}

/* ---- measurements --------------------------------------------------------------------------------------------------- */

static double raw_bandwidth(size_t size, size_t count)
{
    struct burst b = { size, count, 0 };
    char answer;
    double start = now_s();
    send_all(raw.client, &b, sizeof b);
    for (size_t i = 0; i < count; i++) send_all(raw.client, raw_from + i % slots_of(size) * size, size);
    recv_all(raw.client, &answer, 1);
    return (double)size * (double)count / (now_s() - start) / 1e9;
}

static double raw_round_trip(void)
{
    static char buf[64];
    struct burst b = { 64, ROUND_TRIPS, 1 };
    double start = now_s();
    send_all(raw.client, &b, sizeof b);
    for (int i = 0; i < ROUND_TRIPS; i++) send_all(raw.client, buf, 64), recv_all(raw.client, buf, 64);
    return (now_s() - start) / ROUND_TRIPS * 1e6;
}

static double ours_bandwidth(uint32_t opcode, size_t size, size_t count)
{
    static int begin;
    rc.opcode = opcode, rc.size = size, rc.count = count;
    rc.window = slots_of(size);
    rc.posted = rc.completed = 0;
    double start = now_s();
    ASSERT_OK(rcg_post(rc.client, &(rcg_op)RCG_OP_SEND_COPY("begin", 5, &begin), 1)); /* its completion begins */
    wait_fd(rc.done);
    return (double)size * (double)count / (now_s() - start) / 1e9;
}

static double ours_round_trip(void)
{
    rc.left = ROUND_TRIPS;
    double start = now_s();
    ASSERT_OK(rcg_post(rc.client, &(rcg_op)RCG_OP_SEND_COPY("begin", 5, &rc.left), 1));
    wait_fd(rc.done);
    return (now_s() - start) / ROUND_TRIPS * 1e6;
}

/* How many messages take about one slice at this speed (GB/s). */
static size_t count_for(double speed, size_t size)
{
    double n = speed * 1e9 * slice / (double)size;
    return n < 16 ? 16 : (size_t)n;
}

enum { RAW, WRITE, READ, SEND, KINDS };
static const uint32_t opcodes[KINDS] = { 0, RCG_WRITE, RCG_READ, RCG_SEND };
static const char *const kinds[KINDS] = { "raw TCP", "RDMA Write", "RDMA Read", "Send" };
static const size_t sizes[2] = { 65536, 1 << 20 };

static struct result bandwidth[2][2][KINDS]; /* CRC, size */
static struct result trips[2], raw_trips;

static void one_round(const struct address *to, unsigned crc)
{
    ours_connect(to, crc ? RCG_CRC_ON : RCG_CRC_OFF);
    for (int s = 0; s < 2; s++) {
        double speed = 2.0; /* a guess, corrected by what the raw loop shows */
        for (int kind = 0; kind < KINDS; kind++) {
            struct result *r = &bandwidth[crc][s][kind];
            size_t count = count_for(speed, sizes[s]);
            double got = kind == RAW ? raw_bandwidth(sizes[s], count) : ours_bandwidth(opcodes[kind], sizes[s], count);
            if (kind == RAW) speed = got;
            r->samples[r->n++] = got;
        }
    }
    trips[crc].samples[trips[crc].n++] = ours_round_trip();
    if (!crc) raw_trips.samples[raw_trips.n++] = raw_round_trip();
    ours_disconnect();
}

static void print_results(void)
{
    for (int crc = 0; crc < 2; crc++)
        for (int s = 0; s < 2; s++) {
            double base = median(&bandwidth[crc][s][RAW]);
            for (int kind = 0; kind < KINDS; kind++) {
                double m = median(&bandwidth[crc][s][kind]);
                printf("%-11s %5zu KiB  CRC %-3s  %6.2f GB/s  %5.2f x raw\n", kinds[kind], sizes[s] / 1024,
                       kind == RAW ? "-" : crc ? "on" : "off", m, m / base);
            }
        }
    double base = median(&raw_trips);
    printf("%-11s    64 B    CRC -    %6.1f us round trip (blocking recv)\n", kinds[RAW], base);
    for (int crc = 0; crc < 2; crc++)
        printf("%-11s    64 B    CRC %-3s  %6.1f us round trip  %5.2f x raw\n", "Send", crc ? "on" : "off",
               median(&trips[crc]), median(&trips[crc]) / base);
}

int main(int argc, char **argv)
{
    struct address at = address_of("127.0.0.1", 0);
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT };
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    rcg_listener *lst;
    bool brief = argc > 1 && strcmp(argv[1], "--short") == 0;
    int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (brief) rounds = 5, slice = 0.04;
    watchdog(brief ? 30 : 180);
    if (getenv("BENCH_CONGESTION")) congestion = getenv("BENCH_CONGESTION");
    if (setsockopt(probe, IPPROTO_TCP, TCP_CONGESTION, congestion, (socklen_t)strlen(congestion)) != 0) {
        printf("congestion control %s is not allowed here: the system's own on both sides\n", congestion);
        congestion = NULL;
    } else {
        printf("congestion control %s on both sides\n", congestion);
    }
    close(probe);

    raw_open();
    ours_open();
    listen.congestion = congestion;
    ASSERT_OK(rcg_listen(rc.server_ch, (struct sockaddr *)&at.ss, (uint32_t)at.len, &listen, &lst));
    ASSERT_OK(rcg_listener_query(lst, &info));
    at.ss = info.local;
    printf("%u rounds, window %d operations, one process, library %s\n", rounds, WINDOW, rcg_version_string());
    fflush(stdout);
    for (unsigned round = 0; round < rounds; round++) {
        one_round(&at, round % 2);
        one_round(&at, !(round % 2));
    }
    print_results();
    raw_close();
    ASSERT_OK(rcg_channel_destroy(rc.client_ch));
    ASSERT_OK(rcg_channel_destroy(rc.server_ch));
    ASSERT_OK(rcg_mr_deregister(rc.from_mr));
    ASSERT_OK(rcg_mr_deregister(rc.to_mr));
    ASSERT_OK(rcg_engine_destroy(rc.engine));
    return 0;
}
