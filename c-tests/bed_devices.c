/* A device goes under load and comes back: bed_devices TYPE DEVICE NETDEV ADDRESS [OTHER-ADDRESS]
 *
 * For the test bed. Connections run over DEVICE (`rdma link add DEVICE type TYPE netdev NETDEV`), which serves ADDRESS, and
 * over another one, which serves OTHER-ADDRESS, unless this is the only device. The device is deleted: its connections end
 * with "device gone", the command returns although the program still holds memory that was registered, and the others go
 * on. It is added again: both the listener of that address and new connections find it, without a restart. */
#include "helpers.h"

#define LINKS 4
#define BLOCK 32768u

struct link {
    rcg_conn *client, *server;
    uint32_t key;
    bool on_device, client_gone, server_gone;
    unsigned rounds; /* answers that have come */
};

static struct side client, server;
static unsigned char *from, *to;
static rcg_mr *from_mr, *to_mr;
static struct link links[LINKS + 2];
static size_t nlinks;
static bool ending;

static struct link *link_of(const rcg_conn *conn)
{
    for (size_t i = 0; i < nlinks; i++)
        if (links[i].client == conn || links[i].server == conn) return &links[i];
    FAIL("an event of an unknown connection");
}

/* What can't be done any more where the device may have gone meanwhile, or the test is at its end. */
static void try(const struct link *l, int rc)
{
    if (rc != 0 && !((l->on_device || ending) && (rc == -ENOTCONN || rc == -EBADF))) ASSERT_OK(rc);
}

/* A Write and the message that tells of it; the answer starts the next one. */
static void turn(struct link *l)
{
    rcg_sge sge = { .addr = from, .length = BLOCK, .mr = from_mr };
    rcg_op ops[2] = {
        RCG_OP_WRITE(&sge, 1, addr_of(to), l->key, NULL),
        RCG_OP_SEND_COPY("written", 8, l),
    };
    try(l, rcg_post(l->client, ops, 2));
}

static void check_end(struct link *l, const rcg_event *ev, const char *who)
{
    if (ending) return;
    if (!l->on_device) FAIL("a connection of the other device ended: %s", ev->error ? ev->error->text : "?");
    ASSERT(ev->error != NULL);
    /* The peer's end is on the same device: the kernel may end it before we are told of the removal. */
    if (ev->error->reason != RCG_REASON_DEVICE_GONE && ev->error->reason != RCG_REASON_PEER_CLOSED)
        FAIL("%s: %s", who, ev->error->text);
}

static void handle(struct side *s, const rcg_event *ev)
{
    struct link *l = link_of(ev->conn);
    bool at_client = s == &client;
    switch (ev->type) {
    case RCG_EVENT_RECV:
        if (ev->status != 0) break;
        try(l, rcg_recv_release(ev->conn, ev));
        if (at_client) {
            l->rounds++;
            turn(l);
        } else {
            rcg_op answer = RCG_OP_SEND_COPY("got it", 7, l);
            try(l, rcg_post(ev->conn, &answer, 1));
        }
        break;
    case RCG_EVENT_DISCONNECTED: check_end(l, ev, at_client ? "client" : "server"); break;
    case RCG_EVENT_CLOSED: *(at_client ? &l->client_gone : &l->server_gone) = true; break;
    default: break; /* completions, flushed or not */
    }
}

static void work(int ms)
{
    struct side *sides[2] = { &client, &server };
    rcg_event ev;
    pump(ms);
    for (int i = 0; i < 2; i++)
        while (inbox_poll(&sides[i]->in, 0, NULL, &ev))
            if (ev.conn != NULL) handle(sides[i], &ev);
}

/* A connection to `to_addr`; NULL if none came about. */
static struct link *connect_link(const struct address *to_addr, bool on_device)
{
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .provider = RCG_PROVIDER_VERBS, .recv_size = 64, .recv_count = 8,
                              .timeout_ms = 10000u * (unsigned)slow() };
    rcg_addr addr = rcg_addr_of(to_addr);
    struct link *l = &links[nlinks++];
    rcg_event ev;
    memset(l, 0, sizeof *l);
    l->on_device = on_device;
    if (rcg_connect(client.in.ch, &addr, 1, &attr, &l->client) != 0) {
        nlinks--;
        return NULL;
    }
    for (;;) {
        if (inbox_poll(&client.in, RCG_EVENT_CONNECT_FAILED, l->client, &ev)) {
            fprintf(stderr, "connect: %s\n", ev.error->text);
            take(&client.in, RCG_EVENT_CLOSED, l->client, WAIT_MS);
            nlinks--;
            return NULL;
        }
        if (inbox_poll(&server.in, RCG_EVENT_CONNECT_REQUEST, NULL, &ev)) {
            uint32_t key;
            l->server = ev.conn;
            ASSERT_OK(rcg_mr_key(to_mr, ev.conn, &key));
            rcg_accept_attr accept = { RCG_ACCEPT_ATTR_INIT, .private_data = &key, .private_data_len = sizeof key };
            ASSERT_OK(rcg_accept(ev.conn, &accept));
        }
        if (inbox_poll(&client.in, RCG_EVENT_ESTABLISHED, l->client, &ev)) break;
        pump(100);
    }
    ASSERT_EQ(ev.private_data_len, sizeof l->key);
    memcpy(&l->key, ev.private_data, sizeof l->key);
    take(&server.in, RCG_EVENT_ESTABLISHED, l->server, 10000);
    turn(l);
    return l;
}

static rcg_listener *serve(const char *host, struct address *bound)
{
    rcg_listen_attr attr = { RCG_LISTEN_ATTR_INIT, .provider = RCG_PROVIDER_VERBS, .recv_size = 64, .recv_count = 8 };
    return listen_on(&server.in, host, &attr, bound);
}

static void run(const char *format, ...)
{
    char command[256];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    int rc = system(command);
    if (rc != 0) FAIL("%s: status %d", command, rc);
}

static void *delete_device(void *device)
{
    run("timeout 60 rdma link delete %s", (const char *)device);
    return NULL;
}

/* Everything of the links on the device, or of all, is over. */
static bool all_gone(bool also_others)
{
    for (size_t i = 0; i < nlinks; i++)
        if ((also_others || links[i].on_device) && !(links[i].client_gone && links[i].server_gone)) return false;
    return true;
}

static void lose_device(const char *device)
{
    pthread_t deleter;
    uint64_t start = now_us();
    struct link *other = links[nlinks - 1].on_device ? NULL : &links[nlinks - 1];
    STEP("the device goes");
    ASSERT(pthread_create(&deleter, NULL, delete_device, (void *)device) == 0);
    while (!all_gone(false)) {
        work(100);
        if (ms_since(start) > 20000 * slow()) FAIL("connections of the device did not end");
    }
    printf("the connections ended after %d ms\n", ms_since(start));
    /* It returns when the driver has no user left. */
    ASSERT(pthread_join(deleter, NULL) == 0);
    printf("the device was gone after %d ms\n", ms_since(start));
    STEP("the others go on");
    for (unsigned before = other ? other->rounds : 0; other && other->rounds < before + 10;) {
        work(100);
        if (ms_since(start) > 40000 * slow()) FAIL("the other device's connection stopped");
    }
}

static void find_device(const char *type, const char *device, const char *netdev, const struct address *bound)
{
    uint64_t start = now_us();
    struct link *again = NULL;
    STEP("the device comes back");
    run("rdma link add %s type %s netdev %s", device, type, netdev);
    while (again == NULL) {
        if (ms_since(start) > 30000 * slow()) FAIL("no connection over the device that has come back");
        work(100);
        again = connect_link(bound, true);
    }
    while (again->rounds < 10) work(100);
    printf("a connection over it after %d ms\n", ms_since(start));
}

int main(int argc, char **argv)
{
    struct address bound, other;
    rcg_listener *lst, *other_lst = NULL;
    if (argc != 5 && argc != 6) {
        fprintf(stderr, "usage: %s TYPE DEVICE NETDEV ADDRESS [OTHER-ADDRESS]\n", argv[0]);
        return 2;
    }
    watchdog(200);
    setvbuf(stdout, NULL, _IOLBF, 0);
    side_open(&client, STYLE_QUEUE);
    side_open(&server, STYLE_QUEUE);
    from = calloc(1, BLOCK);
    to = calloc(1, BLOCK);
    ASSERT(from && to);
    ASSERT_OK(rcg_mr_register(client.engine, from, BLOCK, RCG_LOCAL, &from_mr));
    ASSERT_OK(rcg_mr_register(server.engine, to, BLOCK, RCG_LOCAL | RCG_REMOTE_WRITE, &to_mr));

    STEP("load on both devices");
    lst = serve(argv[4], &bound);
    if (argc == 6) other_lst = serve(argv[5], &other);
    for (int i = 0; i < LINKS; i++) ASSERT(connect_link(&bound, true) != NULL);
    if (other_lst) ASSERT(connect_link(&other, false) != NULL);
    for (size_t i = 0; i < nlinks; i++)
        while (links[i].rounds < 10) work(100);

    lose_device(argv[2]);
    find_device(argv[1], argv[2], argv[3], &bound);

    STEP("the end");
    ending = true;
    for (size_t i = 0; i < nlinks; i++)
        if (!links[i].client_gone) ASSERT_OK(rcg_conn_disconnect(links[i].client));
    while (!all_gone(true)) work(100);
    unlisten(&server.in, lst);
    if (other_lst) unlisten(&server.in, other_lst);
    ASSERT_OK(rcg_mr_deregister(from_mr));
    ASSERT_OK(rcg_mr_deregister(to_mr));
    side_close(&client);
    side_close(&server);
    free(from);
    free(to);
    puts("passed");
    return T_PASS;
}
