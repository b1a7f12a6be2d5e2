/* What can go wrong around a connection, and that each ends in the promised events in the promised time.
 *
 * Some cases need a process of their own: the program starts itself again with the name of a role. */
#include "helpers.h"

#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define MPA_REQUEST "MPA ID Req Frame\x10\x02\x00\x04\x00\x08\x00\x08" /* revision 2, IRD 8, ORD 8 */
#define MPA_REQUEST_LEN 24u

static const char *self;

/* ---- another process ------------------------------------------------------------------------------------------- */

struct child {
    pid_t pid;
    int from; /* its standard output */
};

static struct child spawn(const char *role, const char *arg)
{
    int pipes[2];
    struct child c;
    ASSERT(pipe2(pipes, O_CLOEXEC) == 0);
    c.pid = fork();
    ASSERT(c.pid >= 0);
    if (c.pid == 0) {
        dup2(pipes[1], 1);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/proc/self/exe", self, role, arg, (char *)NULL);
        _exit(T_FAIL);
    }
    close(pipes[1]);
    c.from = pipes[0];
    return c;
}

/* Reads the number that a child prints first. */
static unsigned read_number(struct child *c)
{
    char line[32];
    size_t n = 0;
    while (n < sizeof line - 1 && read(c->from, line + n, 1) == 1 && line[n] != '\n') n++;
    line[n] = '\0';
    ASSERT(n > 0);
    return (unsigned)atoi(line);
}

static void await_stopped(struct child *c)
{
    int status;
    ASSERT(waitpid(c->pid, &status, WUNTRACED) == c->pid);
    ASSERT(WIFSTOPPED(status));
}

static void kill_child(struct child *c)
{
    int status;
    kill(c->pid, SIGKILL);
    ASSERT(waitpid(c->pid, &status, 0) == c->pid);
    close(c->from);
}

/* Passes on what it prints, and returns its exit status. */
static int await_exit(struct child *c)
{
    char text[4096];
    ssize_t n;
    int status;
    while ((n = read(c->from, text, sizeof text)) > 0) fwrite(text, 1, (size_t)n, stdout);
    ASSERT(waitpid(c->pid, &status, 0) == c->pid);
    close(c->from);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A server that serves its memory. `stop` = it stops itself when a request has come, before it answers. */
static int role_server(bool stop)
{
    static unsigned char mem[1 << 16];
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = 4096, .recv_count = 4 };
    struct side s;
    struct address bound;
    rcg_mr *mr;
    side_open(&s, STYLE_QUEUE);
    ASSERT_OK(rcg_mr_register(s.engine, mem, sizeof mem, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &mr));
    listen_on(&s.in, host4(), &listen, &bound);
    printf("%u\n", port_of(&bound.ss));
    fflush(stdout);
    for (;;) {
        rcg_event ev;
        struct offer offer = { .addr = addr_of(mem), .length = sizeof mem };
        if (!inbox_try(&s.in, RCG_EVENT_CONNECT_REQUEST, NULL, 60000, &ev)) return T_FAIL;
        if (stop) raise(SIGSTOP);
        ASSERT_OK(rcg_mr_key(mr, ev.conn, &offer.key));
        ASSERT_OK(rcg_accept(ev.conn, &(rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT, .private_data = &offer,
                                                          .private_data_len = sizeof offer }));
    }
}

/* ---- a client of which something is expected ---------------------------------------------------------------------- */

static struct side client; /* the queue style */

/* The attempt has to fail in [least, most] ms, at this stage, for this reason; the connection then closes. */
static rcg_event expect_failure(rcg_conn *conn, uint64_t start, int least, int most, uint32_t stage, uint32_t reason)
{
    rcg_event ev = take(&client.in, RCG_EVENT_CONNECT_FAILED, conn, most + 3000);
    int took = ms_since(start);
    const rcg_error *why = ev.error;
    ASSERT(why != NULL);
    if (took < least || took > most * slow())
        FAIL("failed after %d ms, expected %d to %d: %s", took, least, most, why->text);
    if (why->stage != stage || why->reason != reason)
        FAIL("failed at stage %s for %s, expected %s for %s: %s", rcg_stage_name(why->stage),
             rcg_reason_name(why->reason), rcg_stage_name(stage), rcg_reason_name(reason), why->text);
    ASSERT(why->code < 0);
    ASSERT(why->text[0] != '\0' && strlen(why->text) < sizeof why->text);
    ASSERT(why->elapsed_ms + 100u * (unsigned)slow() >= (unsigned)least && why->elapsed_ms <= (unsigned)took + 50);
    printf("  %5d ms: %s\n", took, why->text);
    take(&client.in, RCG_EVENT_CLOSED, conn, 2000);
    ASSERT_RC(rcg_conn_close(conn), -EBADF);
    return ev;
}

static rcg_connect_attr timeout_of(uint32_t ms)
{
    return (rcg_connect_attr){ RCG_CONNECT_ATTR_INIT, .timeout_ms = ms, .recv_size = 4096, .recv_count = 4,
                               .provider = test_provider() };
}

static void test_silent_listener(void)
{
    struct address to;
    rcg_connect_attr attr = timeout_of(700);
    STEP("silent listener");
    int fd = plain_listen(host4(), 8, &to);
    uint64_t start = now_us();
    rcg_conn *conn = start_connect(&client.in, &to, &attr);
    rcg_event ev = expect_failure(conn, start, 650, 1200, RCG_STAGE_HANDSHAKE, RCG_REASON_TIMEOUT);
    ASSERT_EQ(ev.error->code, -ETIMEDOUT);
    ASSERT(strstr(ev.error->peer, host4()) != NULL);
    ASSERT_EQ(ev.error->provider, provider_here());
    close(fd);
}

static void test_refused(void)
{
    struct address to = refused_address(host4());
    rcg_connect_attr attr = timeout_of(5000);
    char port[16];
    STEP("refused");
    uint64_t start = now_us();
    rcg_conn *conn = start_connect(&client.in, &to, &attr);
    /* TCP tells before anything is said of RDMA; a device's connection manager when it is asked for a connection */
    uint32_t stage = where() == ON_TCP ? RCG_STAGE_ROUTE : RCG_STAGE_HANDSHAKE;
    rcg_event ev = expect_failure(conn, start, 0, 500, stage, RCG_REASON_REFUSED);
    ASSERT_EQ(ev.error->code, -ECONNREFUSED);
    ASSERT_EQ(ev.error->provider, provider_here());
    ASSERT(ev.error->remedy[0] != '\0');
    snprintf(port, sizeof port, "%u", port_of(&to.ss));
    ASSERT(strstr(ev.error->peer, port) != NULL);
    STEP("a name that is none");
    attr.timeout_ms = 1000;
    start = now_us();
    ASSERT_OK(rcg_connect_host(client.in.ch, "no-such-host.invalid", "24008", &attr, &conn));
    ev = take(&client.in, RCG_EVENT_CONNECT_FAILED, conn, 3000);
    ASSERT_EQ(ev.error->stage, RCG_STAGE_ADDRESS);
    ASSERT(ev.error->reason == RCG_REASON_RESOLVE || ev.error->reason == RCG_REASON_TIMEOUT);
    ASSERT(ms_since(start) < 1500 * slow());
    take(&client.in, RCG_EVENT_CLOSED, conn, 2000);
}

/* SYNs that nobody answers: the queue of a listener is full. */
static void test_no_answer_to_syn(void)
{
    struct address to;
    rcg_connect_attr attr = timeout_of(600);
    STEP("no answer to a SYN");
    int fd = plain_listen(host4(), 0, &to), first = plain_connect(&to);
    int second = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ASSERT(connect(second, (struct sockaddr *)&to.ss, to.len) == 0 || errno == EINPROGRESS);
    uint64_t start = now_us();
    rcg_conn *conn = start_connect(&client.in, &to, &attr);
    expect_failure(conn, start, 550, 1100, RCG_STAGE_ROUTE, RCG_REASON_TIMEOUT);
    close(second), close(first), close(fd);
}

/* In a network namespace where only loopback is up, nothing else has a route. */
static int role_unreachable(void)
{
    rcg_connect_attr attr = timeout_of(5000);
    struct address to = address_of("10.11.12.13", 24008);
    if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return T_SKIP;
    side_open(&client, STYLE_QUEUE);
    uint64_t start = now_us();
    rcg_conn *conn = start_connect(&client.in, &to, &attr);
    expect_failure(conn, start, 0, 500, where() == ON_TCP ? RCG_STAGE_ROUTE : RCG_STAGE_ADDRESS,
                   RCG_REASON_UNREACHABLE);
    side_close(&client);
    return T_PASS;
}

static void test_several_addresses(void)
{
    struct side server;
    struct address silent, real, refused = refused_address(host4());
    rcg_connect_attr attr = timeout_of(1600);
    rcg_conn *conn;
    char port[16];

    STEP("several addresses, the last works");
    int fd = plain_listen(host4(), 8, &silent);
    side_open(&server, STYLE_QUEUE);
    rcg_listener *lst = listen_on(&server.in, host4(), NULL, &real);
    rcg_addr addrs[3] = { rcg_addr_of(&refused), rcg_addr_of(&silent), rcg_addr_of(&real) };
    uint64_t start = now_us();
    ASSERT_OK(rcg_connect(client.in.ch, addrs, 3, &attr, &conn));
    server.conn = take(&server.in, RCG_EVENT_CONNECT_REQUEST, NULL, 2000).conn;
    ASSERT_OK(rcg_accept(server.conn, &(rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT }));
    take(&client.in, RCG_EVENT_ESTABLISHED, conn, 2000);
    ASSERT(ms_since(start) < 1700 * slow());
    ASSERT_OK(rcg_conn_close(conn));
    take(&client.in, RCG_EVENT_CLOSED, conn, 2000);
    await_end(&server);

    STEP("several addresses, none works");
    struct address also_refused = refused_address(host4());
    addrs[2] = rcg_addr_of(&also_refused);
    start = now_us();
    ASSERT_OK(rcg_connect(client.in.ch, addrs, 3, &attr, &conn));
    rcg_event ev = take(&client.in, RCG_EVENT_CONNECT_FAILED, conn, 4000);
    ASSERT(ms_since(start) < 2000 * slow());
    printf("  %5d ms: %s\n", ms_since(start), ev.error->text);
    struct address *tried[3] = { &refused, &silent, &also_refused };
    for (int i = 0; i < 3; i++) {
        snprintf(port, sizeof port, "%u", port_of(&tried[i]->ss));
        if (strstr(ev.error->text, port) == NULL) FAIL("the text does not name what was tried: %s", ev.error->text);
    }
    take(&client.in, RCG_EVENT_CLOSED, conn, 2000);
    unlisten(&server.in, lst);
    side_close(&server);
    close(fd);
}

/* ---- the peer dies or stops ---------------------------------------------------------------------------------------- */

static unsigned char local[1 << 16];

/* Connects to a child; returns where its memory is. */
static struct offer connect_child(struct child *c, const rcg_connect_attr *attr)
{
    struct address to = address_of(host4(), (uint16_t)read_number(c));
    struct offer offer;
    client.conn = start_connect(&client.in, &to, attr);
    rcg_event ev = take(&client.in, RCG_EVENT_ESTABLISHED, client.conn, WAIT_MS);
    ASSERT_EQ(ev.private_data_len, sizeof offer);
    memcpy(&offer, ev.private_data, sizeof offer);
    return offer;
}

static void test_peer_killed(rcg_mr *mr)
{
    STEP("peer killed");
    struct child c = spawn("server", "");
    rcg_connect_attr attr = timeout_of(5000);
    struct offer offer = connect_child(&c, &attr);
    rcg_sge sge = { local, sizeof local, mr };
    rcg_op op = RCG_OP_READ(&sge, 1, offer.addr, offer.key, &c);
    ASSERT_OK(rcg_post(client.conn, &op, 1));
    rcg_event ev = take(&client.in, RCG_EVENT_COMPLETION, client.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);

    kill(c.pid, SIGSTOP);
    await_stopped(&c);
    for (int i = 0; i < 3; i++) ASSERT_OK(rcg_post(client.conn, &op, 1)); /* no answer will come, but from a device */
    uint64_t start = now_us();
    kill_child(&c);
    ev = take(&client.in, RCG_EVENT_DISCONNECTED, client.conn, 2000);
    ASSERT(ms_since(start) < 1000 * slow());
    ASSERT(ev.error != NULL);
    ASSERT(ev.error->reason == RCG_REASON_PEER_CLOSED || ev.error->reason == RCG_REASON_PEER_RESET);
    for (int i = 0; i < 3; i++) {
        ev = take(&client.in, RCG_EVENT_COMPLETION, client.conn, 1000);
        ASSERT_EQ(ev.op, RCG_READ);
        if (can(CAN_STOP) || ev.status != 0) ASSERT_EQ(ev.status, -ECANCELED);
    }
    await_end(&client);
}

static void test_peer_stopped(rcg_mr *mr)
{
    STEP("peer stopped while established");
    for (int graceful = 0; graceful < 2; graceful++) {
        struct child c = spawn("server", "");
        rcg_connect_attr attr = timeout_of(5000);
        attr.linger_ms = 400;
        struct offer offer = connect_child(&c, &attr);
        rcg_sge sge = { local, sizeof local, mr };
        rcg_op op = RCG_OP_WRITE(&sge, 1, offer.addr, offer.key, NULL);
        if (!can(CAN_STOP)) op = (rcg_op)RCG_OP_SEND_COPY("for an application", 18, NULL); /* a device takes Writes */
        kill(c.pid, SIGSTOP);
        await_stopped(&c);
        uint64_t posting = now_us(); /* until the socket is full and the queue too */
        for (int full = can(CAN_WAIT) ? 0 : 5; full < 5; pump(10)) {
            int rc = rcg_post(client.conn, &op, 1);
            while (rc == 0) full = 0, rc = rcg_post(client.conn, &op, 1);
            ASSERT_RC(rc, -EAGAIN);
            full++;
            if (ms_since(posting) > WAIT_MS * slow()) FAIL("the send queue never fills");
        }
        uint64_t start = now_us();
        if (graceful) {
            ASSERT_OK(rcg_conn_disconnect(client.conn)); /* can't be: the peer takes nothing */
            take(&client.in, RCG_EVENT_CLOSED, client.conn, 2000);
            int took = ms_since(start);
            int least = can(CAN_WAIT) ? 300 : 0; /* nothing is in the way */
            if (took < least || took > 900 * slow()) FAIL("a graceful end with linger_ms 400 took %d ms", took);
        } else {
            ASSERT_OK(rcg_conn_close(client.conn));
            ASSERT(ms_since(start) < 100 * slow());
            rcg_event ev = take(&client.in, RCG_EVENT_DISCONNECTED, client.conn, 1000);
            ASSERT_EQ(ev.error->reason, RCG_REASON_CANCELLED);
            take(&client.in, RCG_EVENT_CLOSED, client.conn, 1000);
            ASSERT(ms_since(start) < 500 * slow());
        }
        inbox_clear(&client.in);
        kill_child(&c);
    }
}

static void test_peer_stopped_in_handshake(void)
{
    STEP("peer stopped in the handshake");
    struct child c = spawn("stopping-server", "");
    struct address to = address_of(host4(), (uint16_t)read_number(&c));
    rcg_connect_attr attr = timeout_of(600);
    uint64_t start = now_us();
    rcg_conn *conn = start_connect(&client.in, &to, &attr);
    expect_failure(conn, start, 550, 1100, RCG_STAGE_HANDSHAKE, RCG_REASON_TIMEOUT);
    await_stopped(&c);
    kill_child(&c);

    STEP("close while connecting to a stopped peer");
    c = spawn("stopping-server", "");
    to = address_of(host4(), (uint16_t)read_number(&c));
    conn = start_connect(&client.in, &to, NULL);
    await_stopped(&c);
    start = now_us();
    ASSERT_OK(rcg_conn_close(conn));
    ASSERT_OK(rcg_conn_close(conn));
    rcg_event ev = take(&client.in, RCG_EVENT_CONNECT_FAILED, conn, 1000);
    ASSERT_EQ(ev.error->reason, RCG_REASON_CANCELLED);
    take(&client.in, RCG_EVENT_CLOSED, conn, 1000);
    ASSERT(ms_since(start) < 500 * slow());
    kill_child(&c);
}

/* ---- no file descriptors ------------------------------------------------------------------------------------------- */

static long cpu_us(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000L + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

/* Takes every descriptor there is below a low limit. */
static int fill_descriptors(int *fds, int room)
{
    struct rlimit limit = { 0 };
    int n = 0;
    ASSERT(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = 128;
    ASSERT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    while (n < room && (fds[n] = dup(2)) >= 0) n++;
    ASSERT(n > 0 && n < room && errno == EMFILE);
    return n;
}

static int role_no_descriptors(void)
{
    struct side server;
    struct address to;
    int fds[256], n;
    rcg_connect_attr attr = timeout_of(3000);
    rcg_conn *conn = NULL;
    rcg_event ev;
    rcg_error why = { RCG_ERROR_INIT };
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };

    STEP("no descriptors: connect");
    side_open(&client, STYLE_QUEUE);
    side_open(&server, STYLE_QUEUE);
    rcg_listener *lst = listen_on(&server.in, host4(), NULL, &to);
    link_up(&client, &server, &to, &attr, NULL); /* whatever is made lazily is there now */
    link_down(&client, &server);
    pause_ms(50);
    int knocker = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    n = fill_descriptors(fds, 256);
    rcg_addr addr = rcg_addr_of(&to);
    int rc = rcg_connect(client.in.ch, &addr, 1, &attr, &conn);
    if (rc == 0) {
        ev = take(&client.in, RCG_EVENT_CONNECT_FAILED, conn, 1000);
        why = *ev.error;
        take(&client.in, RCG_EVENT_CLOSED, conn, 1000);
    } else {
        ASSERT_OK(rcg_last_error(&why));
        ASSERT_EQ(why.code, rc);
    }
    ASSERT_EQ(why.code, -EMFILE);
    ASSERT_EQ(why.reason, RCG_REASON_RESOURCES);
    ASSERT(why.remedy[0] != '\0');
    printf("  %s [%s]\n", why.text, why.remedy);

    STEP("no descriptors: accept");
    ASSERT(connect(knocker, (struct sockaddr *)&to.ss, to.len) == 0); /* the kernel takes it, we can't */
    ASSERT(send(knocker, MPA_REQUEST, MPA_REQUEST_LEN, 0) == MPA_REQUEST_LEN);
    long cpu = cpu_us();
    pause_ms(1000);
    cpu = cpu_us() - cpu;
    printf("  1 s without descriptors cost %ld us of CPU time\n", cpu);
    ASSERT(cpu < 100000L * slow());
    ASSERT_OK(rcg_listener_query(lst, &info));
    ASSERT(info.accept_errors > 0 && info.accept_errors < 100);

    STEP("no descriptors: recovery");
    while (n > 0) close(fds[--n]);
    server.conn = take(&server.in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS).conn; /* it has waited */
    ASSERT_OK(rcg_reject(server.conn, RCG_REJECT_FULL, NULL, 0));
    await_end(&server);
    close(knocker);
    link_up(&client, &server, &to, &attr, NULL);
    ASSERT_OK(rcg_conn_close(client.conn));
    await_end(&client);
    await_end(&server);
    side_close(&client);
    side_close(&server);
    return T_PASS;
}

/* ---- private data and rejects -------------------------------------------------------------------------------------- */

/* Private data of `len` octets of pattern; those that are not exact have zeros behind them. */
static void expect_private(const rcg_event *ev, uint32_t len, uint64_t s, bool exact)
{
    if (exact) ASSERT_EQ(ev->private_data_len, len);
    ASSERT(ev->private_data_len >= len);
    ASSERT_PATTERN(ev->private_data, len, s);
    if (!exact) assert_all_are((const char *)ev->private_data + len, ev->private_data_len - len, 0, "padding");
}

/* More private data than the device has room for: found out when the device is, and told. */
static void test_too_much_private_data(void)
{
    static const unsigned char pd[200];
    struct side server;
    struct address to;
    rcg_connect_attr attr = timeout_of(3000);
    STEP("too much private data for the device");
    side_open(&server, STYLE_QUEUE);
    rcg_listener *lst = listen_on(&server.in, host4(), NULL, &to);
    attr.private_data = pd, attr.private_data_len = sizeof pd;
    client.conn = start_connect(&client.in, &to, &attr);
    rcg_event ev = take(&client.in, RCG_EVENT_CONNECT_FAILED, client.conn, WAIT_MS);
    ASSERT_EQ(ev.error->code, -EMSGSIZE);
    ASSERT_EQ(ev.error->reason, RCG_REASON_INVALID);
    printf("  %s\n", ev.error->text);
    await_end(&client);
    ASSERT_NONE(&server.in, 0, NULL);
    unlisten(&server.in, lst);
    side_close(&server);
}

/* A client that does not wait for the answer: the server hears of it, at the latest when it answers. */
static void test_leaver(void)
{
    struct side server;
    struct address to;
    rcg_connect_attr attr = timeout_of(3000);
    STEP("a client that leaves before the answer");
    side_open(&server, STYLE_QUEUE);
    rcg_listener *lst = listen_on(&server.in, host4(), NULL, &to);
    for (int accept = can(CAN_HEAR_LEAVER) ? 0 : 1; accept < 2; accept++) {
        client.conn = start_connect(&client.in, &to, &attr);
        server.conn = take(&server.in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS).conn;
        ASSERT_OK(rcg_conn_close(client.conn));
        await_end(&client);
        if (accept) {
            int rc = rcg_accept(server.conn, NULL);
            ASSERT(rc == 0 || rc == -ENOTCONN || rc == -EBADF || rc == -EINVAL);
        }
        rcg_event ev;
        take(&server.in, RCG_EVENT_CLOSED, server.conn, WAIT_MS);
        if (!inbox_poll(&server.in, RCG_EVENT_CONNECT_FAILED, server.conn, &ev)) {
            ASSERT(!can(CAN_TELL_LEAVER) && inbox_poll(&server.in, RCG_EVENT_ESTABLISHED, server.conn, &ev));
            ASSERT(inbox_poll(&server.in, RCG_EVENT_DISCONNECTED, server.conn, &ev));
        }
        ASSERT_NONE(&server.in, 0, server.conn);
        server.conn = NULL;
        printf("  %s: %s\n", accept ? "accepted" : "unanswered", ev.error->text);
        ASSERT(ev.error->reason == RCG_REASON_PEER_CLOSED || ev.error->reason == RCG_REASON_PEER_RESET);
    }
    unlisten(&server.in, lst);
    side_close(&server);
}

static void test_private_data(void)
{
    struct side server;
    struct address to;
    rcg_limits limits = { RCG_LIMITS_INIT };
    unsigned char pd[1024], back[1024];

    STEP("private data");
    side_open(&server, STYLE_QUEUE);
    ASSERT_OK(rcg_engine_limits(client.engine, provider_here(), &limits));
    if (can(CAN_MPA)) ASSERT(limits.max_private_data >= 196 && limits.max_private_data < sizeof pd);
    else ASSERT(limits.max_private_data >= 32 && limits.max_reject_data >= 32);
    rcg_listener *lst = listen_on(&server.in, host4(), NULL, &to);
    const uint32_t lengths[] = { 0, 1, 3, 4, 5, 17, 56, 255, 256, limits.max_private_data };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (uint32_t variant = 0; variant < 3; variant++) { /* revision 2, revision 1, raw */
            uint32_t len = lengths[i] < limits.max_private_data ? lengths[i] : limits.max_private_data;
            bool exact = variant < 2 || can(CAN_EXACT_RAW);
            if (variant == 1 && !can(CAN_MPA)) continue;
            rcg_connect_attr attr = timeout_of(3000);
            rcg_accept_attr accept = { RCG_ACCEPT_ATTR_INIT, .private_data = back, .private_data_len = len };
            rcg_event ev;
            attr.mpa_revision = variant == 1 ? 1 : 2;
            attr.flags = variant == 2 ? RCG_CONN_RAW_PRIVATE_DATA : 0;
            attr.private_data = pd, attr.private_data_len = len;
            pattern_fill(pd, len, i + 100);
            pattern_fill(back, len, i + 200);
            client.conn = start_connect(&client.in, &to, &attr);
            memset(pd, 0, len); /* it was copied */
            ev = take(&server.in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS);
            server.conn = ev.conn;
            expect_private(&ev, len, i + 100, exact);
            ASSERT(ev.peer != NULL && ev.peer->sa_family == AF_INET && ev.listener == lst);
            if (i % 2 == 0) {
                ASSERT_OK(rcg_accept(server.conn, &accept));
                ev = take(&client.in, RCG_EVENT_ESTABLISHED, client.conn, WAIT_MS);
                expect_private(&ev, len, i + 200, exact);
                take(&server.in, RCG_EVENT_ESTABLISHED, server.conn, WAIT_MS);
                link_down(&client, &server);
            } else {
                ASSERT_OK(rcg_reject(server.conn, RCG_REJECT_AUTH, back, len));
                ev = take(&client.in, RCG_EVENT_CONNECT_FAILED, client.conn, WAIT_MS);
                ASSERT_EQ(ev.error->reason, RCG_REASON_REJECTED);
                ASSERT_EQ(ev.error->stage, RCG_STAGE_HANDSHAKE);
                ASSERT_EQ(ev.error->provider_code, variant == 2 ? 0 : RCG_REJECT_AUTH);
                expect_private(&ev, len, i + 200, exact);
                await_end(&client);
                await_end(&server);
                ASSERT_NONE(&server.in, RCG_EVENT_CONNECT_FAILED, NULL);
            }
        }
    }
    unlisten(&server.in, lst);
    side_close(&server);
}

/* ---- silent clients ------------------------------------------------------------------------------------------------- */

/* Waits for the end of a plain socket; returns after how many ms it came. */
static int ends_after(int fd, uint64_t start, int most)
{
    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        char c;
        if (poll(&p, 1, most) <= 0) FAIL("not closed within %d ms", most);
        if (recv(fd, &c, 1, 0) <= 0) return ms_since(start);
    }
}

static void test_silent_clients(void)
{
    enum { CLIENTS = 12, PENDING = 4 };
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .handshake_timeout_ms = 500, .max_pending = PENDING };
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    struct side server;
    struct address to;
    int fds[CLIENTS];

    STEP("silent clients");
    side_open(&server, STYLE_QUEUE);
    rcg_listener *lst = listen_on(&server.in, host4(), &listen, &to);
    uint64_t start = now_us();
    int silent = plain_connect(&to), half = plain_connect(&to);
    ASSERT(send(half, MPA_REQUEST, 17, 0) == 17);
    int took = ends_after(silent, start, 3000);
    if (took < 400 || took > 1500 * slow()) FAIL("a silent client was closed after %d ms", took);
    took = ends_after(half, start, 3000);
    if (took < 400 || took > 1500 * slow()) FAIL("half a request was closed after %d ms", took);
    close(silent), close(half);
    for (start = now_us(); info.failed_handshakes != 2 || info.pending != 0; pump(10)) {
        ASSERT_OK(rcg_listener_query(lst, &info));
        if (ms_since(start) > 1000 * slow())
            FAIL("pending %u, failed handshakes %llu", info.pending, (unsigned long long)info.failed_handshakes);
    }
    ASSERT_NONE(&server.in, 0, NULL); /* the application hears nothing of them */

    STEP("more silent clients than max_pending");
    start = now_us();
    for (int i = 0; i < CLIENTS; i++) fds[i] = plain_connect(&to);
    while (info.refused_pending < CLIENTS - PENDING) {
        ASSERT_OK(rcg_listener_query(lst, &info));
        ASSERT(info.pending <= PENDING);
        if (ms_since(start) > 3000 * slow()) FAIL("only %llu refused", (unsigned long long)info.refused_pending);
        pump(10);
    }
    for (int i = 0; i < CLIENTS; i++) ends_after(fds[i], start, 3000), close(fds[i]);
    client.conn = NULL;
    link_up(&client, &server, &to, NULL, NULL);
    link_down(&client, &server);

    STEP("a client that leaves before the answer");
    int fd = plain_connect(&to);
    ASSERT(send(fd, MPA_REQUEST, MPA_REQUEST_LEN, 0) == MPA_REQUEST_LEN);
    server.conn = take(&server.in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS).conn;
    close(fd);
    take(&server.in, RCG_EVENT_CONNECT_FAILED, server.conn, WAIT_MS);
    await_end(&server);

    STEP("a client that leaves before the first FPDU");
    fd = plain_connect(&to);
    ASSERT(send(fd, MPA_REQUEST, MPA_REQUEST_LEN, 0) == MPA_REQUEST_LEN);
    server.conn = take(&server.in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS).conn;
    ASSERT_OK(rcg_accept(server.conn, &(rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT }));
    close(fd);
    await_end(&server);
    unlisten(&server.in, lst);
    side_close(&server);
}

/* ---- close from every callback --------------------------------------------------------------------------------------- */

struct closer {
    uint32_t on; /* the event at which it closes */
    int how;     /* 0 close, 1 close twice, 2 disconnect, 3 disconnect and close */
    atomic_int done;
    bool accept, send;
};

static bool close_hook(struct inbox *b, const rcg_event *ev)
{
    struct closer *c = b->hook_arg;
    if (ev->conn == NULL) return true;
    if (ev->type == c->on && atomic_fetch_add(&c->done, 1) == 0) {
        if (c->how >= 2) ASSERT_OK(rcg_conn_disconnect(ev->conn));
        if (c->how != 2) ASSERT_OK(rcg_conn_close(ev->conn));
        if (c->how == 1) ASSERT_OK(rcg_conn_close(ev->conn));
        ASSERT_RC(rcg_channel_destroy(b->ch), -EDEADLK);
        return true;
    }
    if (ev->type == RCG_EVENT_CONNECT_REQUEST && c->accept)
        ASSERT_OK(rcg_accept(ev->conn, &(rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT }));
    if (ev->type == RCG_EVENT_ESTABLISHED && c->send) {
        rcg_op op = RCG_OP_SEND_COPY("hi", 2, c);
        int rc = rcg_post(ev->conn, &op, 1);
        ASSERT(rc == 0 || rc == -ENOTCONN);
    }
    if (ev->type == RCG_EVENT_DISCONNECTED) ASSERT_OK(rcg_conn_close(ev->conn)); /* harmless, and it is common */
    return true;
}

/* One side closes at `on`; both sides have to come to their ends. */
static void close_at(uint32_t on, bool at_server, int how)
{
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = 64, .recv_count = 4 };
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .recv_size = 64, .recv_count = 4, .timeout_ms = 3000 };
    struct closer c = { .on = at_server ? 0 : on, .how = how, .accept = true, .send = true };
    struct closer s = { .on = at_server ? on : 0, .how = how, .accept = true, .send = true };
    struct closer *which = at_server ? &s : &c, *other = at_server ? &c : &s;
    rcg_engine *engine;
    struct inbox ci = { .hook = close_hook, .hook_arg = &c }, si = { .hook = close_hook, .hook_arg = &s };
    struct address to;
    rcg_event ev;

    if (on == RCG_EVENT_DISCONNECTED || on == RCG_EVENT_CLOSED) other->on = RCG_EVENT_RECV, other->how = 2;
    if (on == RCG_EVENT_CONNECT_FAILED) s.accept = false;
    ASSERT_OK(rcg_engine_create(NULL, &engine));
    inbox_open(&ci, engine, STYLE_CALLBACK, NULL);
    inbox_open(&si, engine, STYLE_CALLBACK, NULL);
    rcg_listener *lst = listen_on(&si, host4(), &listen, &to);
    rcg_conn *conn = start_connect(&ci, &to, &connect);
    if (on == RCG_EVENT_CONNECT_FAILED)
        ASSERT_OK(rcg_reject(take(&si, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS).conn, RCG_REJECT_APP, NULL, 0));
    take(&ci, RCG_EVENT_CLOSED, conn, WAIT_MS);
    take(&si, RCG_EVENT_CLOSED, NULL, WAIT_MS);
    if (atomic_load(&which->done) < 1) FAIL("%s never came", rcg_event_name(on));
    if (on == RCG_EVENT_CONNECT_REQUEST) {
        ev = take(&ci, RCG_EVENT_CONNECT_FAILED, conn, WAIT_MS);
        ASSERT(ev.error->reason == RCG_REASON_REJECTED || ev.error->reason == RCG_REASON_PEER_CLOSED ||
               ev.error->reason == RCG_REASON_PEER_RESET);
        ASSERT_NONE(&si, RCG_EVENT_CONNECT_FAILED, NULL);
        ASSERT_NONE(&si, RCG_EVENT_ESTABLISHED, NULL);
    }
    unlisten(&si, lst);
    inbox_close(&ci);
    inbox_close(&si);
    ASSERT_OK(rcg_engine_destroy(engine));
}

static void test_close_from_callbacks(void)
{
    static const uint32_t both[] = { RCG_EVENT_ESTABLISHED, RCG_EVENT_RECV, RCG_EVENT_COMPLETION,
                                     RCG_EVENT_DISCONNECTED, RCG_EVENT_CLOSED };
    static char step[64];
    for (int how = 0; how < 4; how++) {
        for (size_t i = 0; i < sizeof both / sizeof *both; i++)
            for (int at_server = 0; at_server < 2; at_server++) {
                snprintf(step, sizeof step, "close (%d) at %s of the %s", how, rcg_event_name(both[i]),
                         at_server ? "server" : "client");
                STEP(step);
                close_at(both[i], at_server, how);
            }
        STEP("close at CONNECT_REQUEST");
        close_at(RCG_EVENT_CONNECT_REQUEST, true, how);
        STEP("close at CONNECT_FAILED");
        close_at(RCG_EVENT_CONNECT_FAILED, false, how);
    }
}

/* ---- main ------------------------------------------------------------------------------------------------------------ */

int main(int argc, char **argv)
{
    rcg_mr *mr;
    self = argv[0];
    signal(SIGPIPE, SIG_DFL); /* the library must not depend on it being ignored */
    watchdog(60);
    if (argc > 1) {
        if (strcmp(argv[1], "server") == 0) return role_server(false);
        if (strcmp(argv[1], "stopping-server") == 0) return role_server(true);
        if (strcmp(argv[1], "unreachable") == 0) return role_unreachable();
        if (strcmp(argv[1], "no-descriptors") == 0) return role_no_descriptors();
        return T_FAIL;
    }
    side_open(&client, STYLE_QUEUE);
    ASSERT_OK(rcg_mr_register(client.engine, local, sizeof local, RCG_LOCAL, &mr));
    test_refused();
    if (can(CAN_TCP_PEER)) test_silent_listener();
    if (can(CAN_MPA)) test_no_answer_to_syn();
    test_several_addresses();
    test_peer_killed(mr);
    test_peer_stopped(mr);
    test_peer_stopped_in_handshake();
    test_private_data();
    if (where() == ON_RXE) test_too_much_private_data();
    test_leaver();
    if (can(CAN_MPA)) test_silent_clients();
    ASSERT_OK(rcg_mr_deregister(mr));
    side_close(&client);
    test_close_from_callbacks();

    STEP("unreachable");
    struct child c = spawn("unreachable", "");
    int status = await_exit(&c);
    if (status == T_SKIP) printf("no network namespace to be had: 'unreachable' is left to test_netns.sh\n");
    else ASSERT_EQ(status, T_PASS);
    if (!can(CAN_MPA)) return T_PASS; /* a connection on a device takes no descriptor */
    STEP("no descriptors");
    c = spawn("no-descriptors", "");
    ASSERT_EQ(await_exit(&c), T_PASS);
    return T_PASS;
}
