/* Sends a file to demo_server by RDMA Write and again by Send, reads it back by RDMA Read, and compares SHA-256 sums.
 *
 *   demo_client HOST PORT FILE WORKDIR
 */
#define _GNU_SOURCE
#include "demo.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static rcg_channel *channel;

/* Waits for one event. Its pointers are valid until the next call. */
static rcg_event next_event(void)
{
    rcg_event ev;
    int n;
    while ((n = rcg_channel_next(channel, &ev, 1)) == 0) {
        struct pollfd readable = { .fd = rcg_channel_fd(channel), .events = POLLIN };
        if (poll(&readable, 1, -1) < 0 && errno != EINTR) exit(1);
    }
    check(n, "next");
    if (ev.error) { /* CONNECT_FAILED, or DISCONNECTED when nobody expects it */
        fprintf(stderr, "client: %s\n%s\n", ev.error->text, ev.error->remedy);
        exit(1);
    }
    return ev;
}

/* Waits for a message of the server's. */
static void expect_message(rcg_conn *conn, const char *what, const char *text)
{
    rcg_event ev;
    while ((ev = next_event()).type != RCG_EVENT_RECV) {}
    if (ev.length != strlen(text) || memcmp(ev.data, text, ev.length) != 0) {
        fprintf(stderr, "client: %s: expected '%s', got '%.*s'\n", what, text, (int)ev.length, (char *)ev.data);
        exit(1);
    }
    check(rcg_recv_release(conn, &ev), "release");
}

/* The server says at once that all has arrived, and a little later what its SHA-256 is. */
static void expect_answers(rcg_conn *conn, const char *what, uint64_t size, double start, const char *sum)
{
    expect_message(conn, what, ARRIVED);
    print_rate("client", what, size, seconds() - start);
    expect_message(conn, what, sum);
    printf("client: %-11s the server has the same SHA-256\n", what);
}

static void write_file(rcg_conn *conn, rcg_sge file, struct offer to, const char *sum)
{
    /* One Write of any size, and behind it a message that tells the server: the order is kept. */
    rcg_op ops[3] = {
        RCG_OP_SEND_COPY(BEGIN, strlen(BEGIN), NULL), /* for the server's clock */
        RCG_OP_WRITE(&file, 1, to.addr, to.key, NULL),
        RCG_OP_SEND_COPY(WRITTEN, strlen(WRITTEN), NULL),
    };
    double start = seconds();
    check(rcg_post(conn, ops, 3), "post");
    expect_answers(conn, "RDMA Write", file.length, start, sum);
}

static void send_file(rcg_conn *conn, rcg_sge file, const char *sum)
{
    double start = seconds();
    size_t offset = 0;
    while (offset < file.length) {
        size_t length = file.length - offset < CHUNK ? file.length - offset : CHUNK;
        rcg_sge chunk = { .addr = (char *)file.addr + offset, .length = length, .mr = file.mr };
        rcg_op op = RCG_OP_SEND(&chunk, 1, conn); /* a user cookie: a completion is wanted */
        int rc = rcg_post(conn, &op, 1);
        if (rc == -EAGAIN) { /* the send queue is full: one completion makes room for one */
            while (next_event().type != RCG_EVENT_COMPLETION) {}
            continue;
        }
        check(rc, "post");
        offset += length;
    }
    expect_answers(conn, "Send", file.length, start, sum);
}

static void read_file(rcg_conn *conn, rcg_sge into, struct offer from, const char *path, const char *sum)
{
    char read_sum[65];
    rcg_op op = RCG_OP_READ(&into, 1, from.addr, from.key, conn);
    rcg_event ev;
    double start = seconds();
    check(rcg_post(conn, &op, 1), "post");
    do ev = next_event();
    while (ev.type != RCG_EVENT_COMPLETION || ev.op != RCG_READ);
    check(ev.status, "RDMA Read");
    print_rate("client", "RDMA Read", into.length, seconds() - start);
    save_and_sum(into.addr, into.length, path, read_sum);
    if (strcmp(read_sum, sum) != 0) {
        fprintf(stderr, "client: what was read back differs\n");
        exit(1);
    }
    printf("client: %-11s SHA-256 %s\n", "RDMA Read", read_sum);
}

static rcg_sge map(rcg_engine *engine, size_t size, int fd)
{
    rcg_sge sge = { .length = size };
    int flags = (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE) | MAP_POPULATE;
    sge.addr = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (sge.addr == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    check(rcg_mr_register(engine, sge.addr, size, RCG_LOCAL, &sge.mr), "register");
    return sge;
}

int main(int argc, char **argv)
{
    rcg_engine *engine;
    rcg_conn *conn;
    rcg_event ev;
    struct offer offer;
    struct stat st;
    char path[4096], sum[65];

    if (argc != 5) {
        fprintf(stderr, "usage: %s HOST PORT FILE WORKDIR\n", argv[0]);
        return 2;
    }
    int fd = open(argv[3], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        perror(argv[3]);
        return 1;
    }

    check(rcg_engine_create(NULL, &engine), "engine");
    check(rcg_channel_create(engine, &(rcg_channel_attr){ RCG_CHANNEL_ATTR_INIT }, &channel), "channel");
    rcg_sge file = map(engine, (size_t)st.st_size, fd), copy = map(engine, (size_t)st.st_size, -1);

    snprintf(path, sizeof path, "%s/client-sent", argv[4]);
    save_and_sum(file.addr, file.length, path, sum);
    printf("client: %-11s SHA-256 %s\n", "the file", sum);

    struct hello hello = { .size = file.length };
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .timeout_ms = 5000, .recv_size = 256, .recv_count = 4,
                              .private_data = &hello, .private_data_len = sizeof hello };
    check(rcg_connect_host(channel, argv[1], argv[2], &attr, &conn), "connect");
    ev = next_event(); /* ESTABLISHED: CONNECT_FAILED comes with an error, which ends the program */
    if (ev.private_data_len != sizeof offer) return 1;
    memcpy(&offer, ev.private_data, sizeof offer);
    print_stages("client", conn);

    write_file(conn, file, offer, sum);
    send_file(conn, file, sum);
    snprintf(path, sizeof path, "%s/client-read", argv[4]);
    read_file(conn, copy, offer, path, sum);

    check(rcg_conn_disconnect(conn), "disconnect");
    for (;;) { /* CLOSED is the last event of a connection; DISCONNECTED, before it, says why it ended */
        int n = rcg_channel_next(channel, &ev, 1);
        check(n, "next");
        if (n == 1 && ev.type == RCG_EVENT_CLOSED) break;
        struct pollfd readable = { .fd = rcg_channel_fd(channel), .events = POLLIN };
        if (n == 0) poll(&readable, 1, -1);
    }
    check(rcg_mr_deregister(file.mr), "deregister");
    check(rcg_mr_deregister(copy.mr), "deregister");
    check(rcg_channel_destroy(channel), "channel");
    check(rcg_engine_destroy(engine), "engine");
    printf("client: done\n");
    return 0;
}
