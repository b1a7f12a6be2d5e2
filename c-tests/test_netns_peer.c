/* Two processes, all operations between them; and what happens when the link between them goes. test_netns.sh runs it in
 * two network namespaces; without arguments it tests itself over loopback.
 *
 *   test_netns_peer server HOST                    serves one client; prints its port first
 *   test_netns_peer client HOST PORT               all operations
 *   test_netns_peer watch-server HOST MS           one client, and its death within 1.25 x MS
 *   test_netns_peer watch-client HOST PORT MS HOW  busy or idle; the same; "running" is printed, and a line on standard
 *                                                  input says that the link is down
 *   test_netns_peer reach HOST                     waits until plain TCP gets there
 *   test_netns_peer fail-client HOST PORT MS       a connect that has to fail within MS */
#include "helpers.h"

#include <netdb.h>
#include <sys/prctl.h>

enum { AREA = 4 << 20, RECV_SIZE = 65536, RECV_COUNT = 16, MAGIC = 0x7ec0de };

enum what { VERIFY = 1, FILL, CHECK_LAST, SEND_ME, PULL, PUSH, BYE };

/* What the client asks of the server; the answer is the same with `status` filled in. */
struct command {
    uint32_t magic, what;
    uint64_t offset, length, seed;
    uint64_t addr; /* in the client's memory */
    uint32_t key, imm;
    uint32_t flags; /* of the last event */
    int32_t status;
};

struct greeting {
    uint64_t addr;
    uint32_t key, doomed; /* the second key is to be invalidated */
};

static struct side me;
static unsigned char *area;
static rcg_mr *mr;

static void open_all(void)
{
    area = calloc(1, AREA);
    ASSERT(area != NULL);
    side_open(&me, STYLE_QUEUE);
    ASSERT_OK(rcg_mr_register(me.engine, area, AREA, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &mr));
}

static void close_all(void)
{
    ASSERT_OK(rcg_mr_deregister(mr));
    side_close(&me);
    free(area);
}

static rcg_sge piece(uint64_t offset, uint64_t length)
{
    ASSERT(offset <= AREA && length <= AREA - offset);
    return (rcg_sge){ area + offset, length, mr };
}

static void post(rcg_op op)
{
    ASSERT_OK(rcg_post(me.conn, &op, 1));
}

static void await_completion(uint32_t op)
{
    rcg_event ev = take(&me.in, RCG_EVENT_COMPLETION, me.conn, 2 * WAIT_MS);
    if (ev.status != 0) FAIL("%s: %s", rcg_op_name(op), strerror(-ev.status));
    ASSERT_EQ(ev.op, op);
}

static rcg_event receive(void)
{
    rcg_event ev = take(&me.in, RCG_EVENT_RECV, me.conn, 2 * WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    return ev;
}

/* ---- server -------------------------------------------------------------------------------------------------------------- */

static uint16_t serve_on(const char *host, const rcg_listen_attr *attr, rcg_listener **lst)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM }, *found;
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    int rc = getaddrinfo(host, "0", &hints, &found);
    if (rc != 0) FAIL("%s: %s", host, gai_strerror(rc));
    ASSERT_OK(rcg_listen(me.in.ch, found->ai_addr, (uint32_t)found->ai_addrlen, attr, lst));
    freeaddrinfo(found);
    ASSERT_OK(rcg_listener_query(*lst, &info));
    printf("%u\n", port_of(&info.local));
    fflush(stdout);
    return port_of(&info.local);
}

static void accept_one(void)
{
    struct greeting hello = { .addr = addr_of(area) };
    rcg_event ev = take(&me.in, RCG_EVENT_CONNECT_REQUEST, NULL, 15000);
    me.conn = ev.conn;
    ASSERT_OK(rcg_mr_key(mr, me.conn, &hello.key));
    ASSERT_OK(rcg_mr_key(mr, me.conn, &hello.doomed));
    ASSERT_OK(rcg_accept(me.conn, &(rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT, .private_data = &hello,
                                                      .private_data_len = sizeof hello }));
    take(&me.in, RCG_EVENT_ESTABLISHED, me.conn, WAIT_MS);
}

/* Carries out one command; returns its status. */
static int obey(const struct command *c, const rcg_event *last, unsigned char *message)
{
    rcg_sge sge = piece(c->offset, c->what == CHECK_LAST ? 0 : c->length);
    switch (c->what) {
    case VERIFY: return pattern_wrong_at(area + c->offset, c->length, c->seed, 0) < 0 ? 0 : -EIO;
    case FILL: pattern_fill(area + c->offset, c->length, c->seed); return 0;
    case CHECK_LAST:
        if (last->length != c->length || pattern_wrong_at(message, c->length, c->seed, 0) >= 0) return -EIO;
        if ((last->flags & ~(uint32_t)RCG_EVENT_LENT) != c->flags) return -EBADMSG;
        if ((c->flags & RCG_EVENT_WITH_IMM) && last->imm != c->imm) return -EBADE;
        if ((c->flags & RCG_EVENT_INVALIDATED) && last->invalidated_key != c->key) return -EBADSLT;
        return 0;
    case SEND_ME:
        pattern_fill(area + c->offset, c->length, c->seed);
        post((rcg_op)RCG_OP_SEND(&sge, 1, area));
        await_completion(RCG_SEND);
        return 0;
    case PULL:
        post((rcg_op)RCG_OP_READ(&sge, 1, c->addr, c->key, area));
        await_completion(RCG_READ);
        return pattern_wrong_at(area + c->offset, c->length, c->seed, 0) < 0 ? 0 : -EIO;
    case PUSH:
        pattern_fill(area + c->offset, c->length, c->seed);
        post((rcg_op)RCG_OP_WRITE(&sge, 1, c->addr, c->key, NULL)); /* the answer follows it */
        return 0;
    default: return -EINVAL;
    }
}

static int server(const char *host)
{
    rcg_listen_attr attr = { RCG_LISTEN_ATTR_INIT, .recv_size = RECV_SIZE, .recv_count = RECV_COUNT };
    static unsigned char message[RECV_SIZE];
    rcg_listener *lst;
    rcg_event last = { 0 };
    bool bye = false;
    open_all();
    serve_on(host, &attr, &lst);
    accept_one();
    while (!bye) {
        struct command c;
        rcg_event ev = receive();
        memcpy(&c, ev.data, ev.length < sizeof c ? ev.length : sizeof c);
        if (ev.length == sizeof c && c.magic == MAGIC) {
            if (c.what == BYE) bye = true;
            c.status = bye ? 0 : obey(&c, &last, message);
            post((rcg_op)RCG_OP_SEND_COPY(&c, sizeof c, NULL));
        } else {
            memcpy(message, ev.data, ev.length);
            last = ev;
        }
        ASSERT_OK(rcg_recv_release(me.conn, &ev));
    }
    await_end(&me);
    unlisten(&me.in, lst);
    close_all();
    return T_PASS;
}

/* ---- client -------------------------------------------------------------------------------------------------------------- */

static struct greeting theirs;
static uint64_t seed = 1;

static void connect_to(const char *host, const char *port, uint32_t keepalive_ms)
{
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .timeout_ms = 5000, .recv_size = RECV_SIZE,
                              .recv_count = RECV_COUNT, .keepalive_ms = keepalive_ms };
    ASSERT_OK(rcg_connect_host(me.in.ch, host, port, &attr, &me.conn));
    rcg_event ev = take(&me.in, RCG_EVENT_ESTABLISHED, me.conn, 6000);
    ASSERT_EQ(ev.private_data_len, sizeof theirs);
    memcpy(&theirs, ev.private_data, sizeof theirs);
}

static void ask(struct command c)
{
    struct command answer;
    c.magic = MAGIC;
    post((rcg_op)RCG_OP_SEND_COPY(&c, sizeof c, NULL));
    rcg_event ev = receive();
    ASSERT_EQ(ev.length, sizeof answer);
    memcpy(&answer, ev.data, sizeof answer);
    ASSERT_OK(rcg_recv_release(me.conn, &ev));
    ASSERT_EQ(answer.what, c.what);
    if (answer.status != 0)
        FAIL("the server: command %u of %llu octets: %s", c.what, (unsigned long long)c.length, strerror(-answer.status));
}

static void one_sided(uint64_t length)
{
    rcg_sge sge = piece(0, length);
    uint32_t key;
    STEP("write");
    pattern_fill(area, length, ++seed);
    post((rcg_op)RCG_OP_WRITE(&sge, 1, theirs.addr, theirs.key, area));
    await_completion(RCG_WRITE);
    ask((struct command){ .what = VERIFY, .length = length, .seed = seed });
    STEP("read");
    ask((struct command){ .what = FILL, .length = length, .seed = ++seed });
    memset(area, 0, length);
    post((rcg_op)RCG_OP_READ(&sge, 1, theirs.addr, theirs.key, area));
    await_completion(RCG_READ);
    ASSERT_PATTERN(area, length, seed);
    STEP("the server reads");
    ASSERT_OK(rcg_mr_key(mr, me.conn, &key));
    pattern_fill(area, length, ++seed);
    ask((struct command){ .what = PULL, .length = length, .seed = seed, .addr = addr_of(area), .key = key });
    STEP("the server writes");
    memset(area, 0, length);
    ask((struct command){ .what = PUSH, .length = length, .seed = ++seed, .addr = addr_of(area), .key = key });
    ASSERT_PATTERN(area, length, seed);
    ASSERT_OK(rcg_mr_key_revoke(mr, key));
}

static void two_sided(uint64_t length, bool invalidate)
{
    rcg_sge sge = piece(0, length);
    STEP("send");
    pattern_fill(area, length, ++seed);
    post((rcg_op)RCG_OP_SEND(&sge, 1, area));
    await_completion(RCG_SEND);
    ask((struct command){ .what = CHECK_LAST, .length = length, .seed = seed });
    STEP("send with immediate");
    post((rcg_op)RCG_OP_SEND_IMM(&sge, 1, 0x1234567, area));
    await_completion(RCG_SEND_IMM);
    ask((struct command){ .what = CHECK_LAST, .length = length, .seed = seed, .flags = RCG_EVENT_WITH_IMM, .imm = 0x1234567 });
    STEP("write with immediate");
    post((rcg_op)RCG_OP_WRITE_IMM(&sge, 1, theirs.addr + 64, theirs.key, 0x89abcdef, area));
    await_completion(RCG_WRITE_IMM);
    ask((struct command){ .what = CHECK_LAST, .flags = RCG_EVENT_WITH_IMM, .imm = 0x89abcdef });
    ask((struct command){ .what = VERIFY, .offset = 64, .length = length, .seed = seed });
    if (invalidate) {
        STEP("send with invalidate");
        post((rcg_op)RCG_OP_SEND_INV(&sge, 1, theirs.doomed, area));
        await_completion(RCG_SEND_INV);
        ask((struct command){ .what = CHECK_LAST, .length = length, .seed = seed, .flags = RCG_EVENT_INVALIDATED,
                              .key = theirs.doomed });
    }
    STEP("the server sends");
    struct command c = { .magic = MAGIC, .what = SEND_ME, .length = length, .seed = ++seed };
    post((rcg_op)RCG_OP_SEND_COPY(&c, sizeof c, NULL));
    rcg_event ev = receive();
    ASSERT_EQ(ev.length, length);
    ASSERT_PATTERN(ev.data, length, seed);
    ASSERT_OK(rcg_recv_release(me.conn, &ev));
    ev = receive(); /* the answer */
    ASSERT_EQ(ev.length, sizeof c);
    ASSERT_OK(rcg_recv_release(me.conn, &ev));
}

static int client(const char *host, const char *port)
{
    /* around the payload of one FPDU at MTU 1500 and 9000, and of our own longest */
    static const uint64_t sizes[] = { 1, 7, 1000, 1423, 1424, 1425, 1428, 8919, 8920, 8921, 65023, 65024, 65025, 65536 };
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    open_all();
    STEP("connect");
    connect_to(host, port, 0);
    ASSERT_OK(rcg_conn_query(me.conn, &info));
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        two_sided(sizes[i], i == 0);
        one_sided(sizes[i]);
    }
    one_sided(1 << 20);
    one_sided(AREA);
    STEP("bye");
    ask((struct command){ .what = BYE });
    printf("%s: all operations; CRC %s, FPDUs of %u octets\n", host, info.crc ? "on" : "off", info.max_fpdu);
    ASSERT_OK(rcg_conn_disconnect(me.conn));
    take(&me.in, RCG_EVENT_DISCONNECTED, me.conn, WAIT_MS);
    await_end(&me);
    close_all();
    return T_PASS;
}

/* ---- the link goes ---------------------------------------------------------------------------------------------------------- */

/* Works (or idles) until told that the link is down, and then expects the end of the connection. */
static int await_death(int keepalive_ms, bool busy)
{
    const int bound = keepalive_ms * 5 / 4, slack = 700;
    struct pollfd in = { .fd = 0, .events = POLLIN };
    rcg_sge sge = piece(0, RECV_SIZE);
    uint64_t down_at = 0, dead_at = 0, start = now_us();
    rcg_event ev, why = { 0 };
    char line[16];
    printf("running\n");
    fflush(stdout);
    while (down_at == 0 || dead_at == 0) {
        if (down_at == 0 && poll(&in, 1, 0) == 1) {
            ASSERT(read(0, line, sizeof line) > 0);
            down_at = now_us();
        }
        if (busy && dead_at == 0) {
            int rc = rcg_post(me.conn, &(rcg_op)RCG_OP_WRITE(&sge, 1, theirs.addr, theirs.key, NULL), 1);
            ASSERT(rc == 0 || rc == -EAGAIN || rc == -ENOTCONN);
        }
        pump(busy ? 1 : 10);
        if (dead_at == 0 && inbox_poll(&me.in, RCG_EVENT_DISCONNECTED, me.conn, &ev)) dead_at = now_us(), why = ev;
        if (down_at && dead_at == 0 && ms_since(down_at) > (bound + slack) * slow())
            FAIL("alive %d ms after the link went down, %d were promised", ms_since(down_at), bound);
        if (down_at == 0 && dead_at && ms_since(dead_at) > 1000) FAIL("it ended with the link up: %s", why.error->text);
        if (ms_since(start) > 15000) FAIL("nobody took the link down");
    }
    printf("dead %d ms after the link (%d promised): %s\n", dead_at > down_at ? (int)((dead_at - down_at) / 1000) : 0,
           bound, why.error->text);
    ASSERT(why.error->reason == RCG_REASON_PEER_DEAD || why.error->reason == RCG_REASON_UNREACHABLE ||
           why.error->reason == RCG_REASON_TIMEOUT);
    await_end(&me);
    return T_PASS;
}

static int watch_server(const char *host, int keepalive_ms)
{
    rcg_listen_attr attr = { RCG_LISTEN_ATTR_INIT, .recv_size = RECV_SIZE, .recv_count = RECV_COUNT,
                             .keepalive_ms = (uint32_t)keepalive_ms };
    rcg_listener *lst;
    open_all();
    serve_on(host, &attr, &lst);
    accept_one();
    await_death(keepalive_ms, false);
    unlisten(&me.in, lst);
    close_all();
    return T_PASS;
}

static int watch_client(const char *host, const char *port, int keepalive_ms, const char *how)
{
    open_all();
    connect_to(host, port, (uint32_t)keepalive_ms);
    /* an idle connection with a living peer outlives its keepalive */
    pump(0);
    uint64_t start = now_us();
    while (ms_since(start) < keepalive_ms * 3 / 2) {
        pump(50);
        ASSERT_NONE(&me.in, RCG_EVENT_DISCONNECTED, me.conn);
    }
    await_death(keepalive_ms, strcmp(how, "busy") == 0);
    close_all();
    return T_PASS;
}

static int fail_client(const char *host, const char *port, int timeout_ms)
{
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .timeout_ms = (uint32_t)timeout_ms };
    open_all();
    uint64_t start = now_us();
    ASSERT_OK(rcg_connect_host(me.in.ch, host, port, &attr, &me.conn));
    rcg_event ev = take(&me.in, RCG_EVENT_CONNECT_FAILED, me.conn, timeout_ms + 500);
    printf("failed after %d ms: %s\n", ms_since(start), ev.error->text);
    ASSERT(ev.error->reason == RCG_REASON_UNREACHABLE || ev.error->reason == RCG_REASON_TIMEOUT);
    ASSERT(ev.error->stage == RCG_STAGE_ROUTE || ev.error->stage == RCG_STAGE_ADDRESS);
    await_end(&me);
    close_all();
    return T_PASS;
}

/* Waits until the host can be reached again: until it refuses a plain connection to a port without a listener. */
static int reach(const char *host)
{
    struct address to = address_of(host, 9);
    for (uint64_t start = now_us(); ms_since(start) < 8000; pause_ms(20)) {
        int fd = socket(to.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = 0;
        socklen_t len = sizeof error;
        struct pollfd p = { .fd = fd, .events = POLLOUT };
        ASSERT(fd >= 0);
        if (connect(fd, (struct sockaddr *)&to.ss, to.len) != 0) error = errno;
        if (error == EINPROGRESS && poll(&p, 1, 300) == 1) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
        close(fd);
        if (error == ECONNREFUSED) return T_PASS;
    }
    FAIL("%s can't be reached", host);
}

/* ---- over loopback ------------------------------------------------------------------------------------------------------------ */

static int alone(const char *self, const char *host)
{
    int pipes[2], status;
    char port[16] = "";
    ASSERT(pipe2(pipes, O_CLOEXEC) == 0);
    pid_t pid = fork();
    ASSERT(pid >= 0);
    if (pid == 0) {
        dup2(pipes[1], 1);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/proc/self/exe", self, "server", host, (char *)NULL);
        _exit(T_FAIL);
    }
    close(pipes[1]);
    for (size_t n = 0; n < sizeof port - 1 && read(pipes[0], port + n, 1) == 1; n++)
        if (port[n] == '\n') {
            port[n] = '\0';
            break;
        }
    ASSERT(port[0] != '\0');
    client(host, port);
    STEP("the server's end");
    ASSERT(waitpid(pid, &status, 0) == pid);
    ASSERT_EQ(status, 0);
    close(pipes[0]);
    return T_PASS;
}

int main(int argc, char **argv)
{
    watchdog(40);
    if (argc == 1) {
        alone(argv[0], "127.0.0.1");
        if (have_ipv6()) alone(argv[0], "::1");
        return T_PASS;
    }
    if (argc == 3 && strcmp(argv[1], "reach") == 0) return reach(argv[2]);
    if (argc == 3 && strcmp(argv[1], "server") == 0) return server(argv[2]);
    if (argc == 4 && strcmp(argv[1], "client") == 0) return client(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "watch-server") == 0) return watch_server(argv[2], atoi(argv[3]));
    if (argc == 6 && strcmp(argv[1], "watch-client") == 0) return watch_client(argv[2], argv[3], atoi(argv[4]), argv[5]);
    if (argc == 5 && strcmp(argv[1], "fail-client") == 0) return fail_client(argv[2], argv[3], atoi(argv[4]));
    fprintf(stderr, "see the top of test_netns_peer.c\n");
    return T_FAIL;
}
