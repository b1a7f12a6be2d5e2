/* A thousand connects and disconnects leave no thread, no descriptor and no memory behind. */
#include "helpers.h"

#include <malloc.h>

enum { WARM_UP = 40, CYCLES = 1000, FEW_CYCLES = 20 };

struct footprint {
    int threads, fds;
    size_t heap;
};

static struct footprint measure(void)
{
    struct footprint f = { count_entries("/proc/self/task"), count_entries("/proc/self/fd"), mallinfo2().uordblks };
    return f;
}

static long rss_kib(void)
{
    char line[256];
    long kib = -1;
    FILE *f = fopen("/proc/self/status", "r");
    ASSERT(f != NULL);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1) break;
    fclose(f);
    return kib;
}

/* Descriptors of closed sockets that the peer may still read from live for a moment longer: gives them 3 s. */
static void settles_to(const struct footprint *before, const char *what)
{
    enum { HEAP_SLACK = 64 * 1024 };
    uint64_t start = now_us();
    struct footprint now;
    for (;;) {
        now = measure();
        if (now.threads == before->threads && now.fds <= before->fds && now.heap <= before->heap + HEAP_SLACK) return;
        if (ms_since(start) > 3000 * slow()) break;
        pump(10);
    }
    FAIL("%s: threads %d -> %d, descriptors %d -> %d, heap %zu -> %zu", what, before->threads, now.threads, before->fds,
         now.fds, before->heap, now.heap);
}

/* One message both ways, so that all of the connection has been used. */
static void exchange(struct side *client, struct side *server)
{
    rcg_op op = RCG_OP_SEND_COPY("ping", 4, NULL);
    rcg_event ev;
    ASSERT_OK(rcg_post(client->conn, &op, 1));
    ev = take(&server->in, RCG_EVENT_RECV, server->conn, WAIT_MS);
    ASSERT_EQ(ev.length, 4);
    ASSERT_OK(rcg_recv_release(server->conn, &ev));
    ASSERT_OK(rcg_post(server->conn, &op, 1));
    ev = take(&client->in, RCG_EVENT_RECV, client->conn, WAIT_MS);
    ASSERT_OK(rcg_recv_release(client->conn, &ev));
}

static void cycle(struct side *client, struct side *server, const struct address *to, const rcg_connect_attr *attr,
                  unsigned number)
{
    rcg_event ev;
    if (number % 5 == 4) {
        STEP("reject");
        client->conn = start_connect(&client->in, to, attr);
        server->conn = take(&server->in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS).conn;
        ASSERT_OK(rcg_reject(server->conn, RCG_REJECT_FULL, NULL, 0));
        ev = take(&client->in, RCG_EVENT_CONNECT_FAILED, client->conn, WAIT_MS);
        ASSERT_EQ(ev.error->reason, RCG_REASON_REJECTED);
        await_end(client);
        await_end(server);
    } else {
        STEP("connect");
        link_up(client, server, to, attr, NULL);
        STEP("exchange");
        exchange(client, server);
        STEP("end");
        switch (number % 5) {
        case 0: link_down(client, server); break;
        case 1: link_down(server, client); break;
        case 2: ASSERT_OK(rcg_conn_close(client->conn)); await_end(client); await_end(server); break;
        default:
            ASSERT_OK(rcg_conn_close(client->conn));
            /* it may have ended, and its handle with it, by the other's close */
            int rc = rcg_conn_close(server->conn);
            ASSERT(rc == 0 || rc == -EBADF);
            await_end(client);
            await_end(server);
            break;
        }
    }
    inbox_clear(&client->in);
    inbox_clear(&server->in);
}

static void run(enum style style, unsigned cycles)
{
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = 4096, .recv_count = 8 };
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .recv_size = 4096, .recv_count = 8 };
    struct side client, server;
    struct address to;
    rcg_listener *lst;

    side_open(&client, style);
    side_open(&server, style);
    lst = listen_on(&server.in, host4(), &listen, &to);
    for (unsigned i = 0; i < (light() ? FEW_CYCLES : WARM_UP); i++) cycle(&client, &server, &to, &connect, i);

    struct footprint before = measure();
    long rss = rss_kib();
    uint64_t start = now_us();
    for (unsigned i = 0; i < cycles; i++) cycle(&client, &server, &to, &connect, i);
    uint64_t took = now_us() - start;
    settles_to(&before, "after all cycles");
    long grown = rss_kib() - rss;
    if (grown > 8192) FAIL("resident memory grew by %ld KiB", grown);
    printf("%s: %u cycles in %.2f s, %.0f us each; threads %d, descriptors %d, heap %zu, resident %+ld KiB\n",
           style_names[style], cycles, (double)took / 1e6, (double)took / cycles, before.threads, before.fds,
           before.heap, grown);
    fflush(stdout);
    STEP("unlisten");
    unlisten(&server.in, lst);
    side_close(&client);
    side_close(&server);
}

int main(void)
{
    watchdog(60);
    struct footprint nothing;
    /* what is made once per process is made now */
    run(STYLE_CALLBACK, light() ? FEW_CYCLES : CYCLES);
    nothing = measure();
    run(STYLE_QUEUE, CYCLES);
    run(STYLE_CALLBACK, light() ? FEW_CYCLES : CYCLES);
    STEP("all destroyed");
    settles_to(&nothing, "with everything destroyed");
    return T_PASS;
}
