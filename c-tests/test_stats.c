/* What is counted: the same by the connection, its channel and its engine; kept when connections and channels end. */
#include "helpers.h"

#include <dirent.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { RECVS = 8, SIZE = 4096, DEPTH = 4 };

static struct side c, s;

static rcg_stats of_engine(rcg_engine *engine)
{
    rcg_stats stats = { RCG_STATS_INIT };
    ASSERT_OK(rcg_engine_stats(engine, &stats));
    return stats;
}

static rcg_stats of_channel(rcg_channel *channel)
{
    rcg_stats stats = { RCG_STATS_INIT };
    ASSERT_OK(rcg_channel_stats(channel, &stats));
    return stats;
}

static rcg_stats of_conn(rcg_conn *conn)
{
    rcg_stats stats = { RCG_STATS_INIT };
    ASSERT_OK(rcg_conn_stats(conn, &stats));
    return stats;
}

static uint64_t sum(const uint64_t *table, size_t n)
{
    uint64_t all = 0;
    for (size_t i = 0; i < n; i++) all += table[i];
    return all;
}
#define SUM(table) sum((table), sizeof(table) / sizeof(*(table)))

/* The members that a connection has: what its channel and engine say of it alone is the same. */
static void assert_same(const rcg_stats *a, const rcg_stats *b)
{
    ASSERT(a->connects == b->connects && a->requests == b->requests && a->established == b->established);
    ASSERT(memcmp(a->failed_at, b->failed_at, sizeof a->failed_at) == 0);
    ASSERT(memcmp(a->ops, b->ops, sizeof a->ops) == 0 && memcmp(a->op_bytes, b->op_bytes, sizeof a->op_bytes) == 0);
    ASSERT(a->op_flushed == b->op_flushed && a->queue_full == b->queue_full && a->send_calls == b->send_calls);
}

static void send_and_write(const struct address *to)
{
    static unsigned char from[SIZE], target[SIZE];
    static int mark;
    rcg_mr *from_mr, *target_mr;
    uint32_t key;
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .send_depth = DEPTH };

    STEP("a connection that works");
    ASSERT_OK(rcg_mr_register(c.engine, from, SIZE, RCG_LOCAL, &from_mr));
    ASSERT_OK(rcg_mr_register(s.engine, target, SIZE, RCG_REMOTE_WRITE, &target_mr));
    ASSERT(of_engine(c.engine).registered_bytes >= SIZE && of_engine(c.engine).registrations >= 1);
    link_up(&c, &s, to, &attr, NULL);
    ASSERT_OK(rcg_mr_key(target_mr, s.conn, &key));
    rcg_sge sge = { from, SIZE, from_mr };
    rcg_op ops[2] = { RCG_OP_WRITE(&sge, 1, addr_of(target), key, NULL), RCG_OP_SEND_COPY("done", 4, &mark) };
    ASSERT_OK(rcg_post(c.conn, ops, 2));
    ASSERT_EQ(take(&c.in, RCG_EVENT_COMPLETION, c.conn, WAIT_MS).status, 0);
    rcg_event ev = take(&s.in, RCG_EVENT_RECV, s.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    ASSERT_OK(rcg_recv_release(s.conn, &ev));

    STEP("what is refused is not counted as posted");
    rcg_op many[DEPTH + 1];
    for (int i = 0; i <= DEPTH; i++) many[i] = ops[1];
    ASSERT_RC(rcg_post(c.conn, many, DEPTH + 1), -EINVAL);
    ASSERT_FAILS(rcg_post(c.conn, &(rcg_op){ .opcode = 99 }, 1));

    STEP("what its ends say");
    rcg_stats mine = of_conn(c.conn), theirs = of_conn(s.conn);
    ASSERT(mine.connects == 1 && mine.requests == 0 && mine.established == 1 && mine.open == 1);
    ASSERT(theirs.connects == 0 && theirs.requests == 1 && theirs.established == 1);
    ASSERT(mine.ops[RCG_WRITE] == 1 && mine.op_bytes[RCG_WRITE] == SIZE);
    ASSERT(mine.ops[RCG_SEND] == 1 && mine.op_bytes[RCG_SEND] == 4 && SUM(mine.ops) == 2);
    ASSERT(theirs.ops[RCG_RECV] == 1 && theirs.op_bytes[RCG_RECV] == 4 && SUM(theirs.ops) == 1);
    ASSERT(mine.send_calls >= 1 && mine.bytes_sent >= SIZE + 4);
    if (where() == ON_TCP) ASSERT(theirs.recv_calls >= 1 && theirs.bytes_received >= SIZE + 4);
    rcg_stats channel = of_channel(c.in.ch), engine = of_engine(c.engine);
    assert_same(&mine, &channel);
    assert_same(&mine, &engine);
    ASSERT(channel.events >= 2 && channel.loop_polls >= 1);

    STEP("after its end");
    link_down(&c, &s);
    rcg_stats gone = { RCG_STATS_INIT };
    ASSERT_FAILS(rcg_conn_stats(c.conn, &gone));
    channel = of_channel(c.in.ch);
    ASSERT(channel.open == 0 && channel.established == 1 && channel.ops[RCG_WRITE] == 1 && SUM(channel.ended_for) == 1);
    ASSERT_OK(rcg_mr_deregister(from_mr));
    ASSERT_OK(rcg_mr_deregister(target_mr));
}

static void refused(void)
{
    struct address nobody = refused_address(host4());
    rcg_stats before = of_engine(c.engine);
    STEP("a connect that is refused");
    rcg_conn *conn = start_connect(&c.in, &nobody, NULL);
    ASSERT(take(&c.in, RCG_EVENT_CONNECT_FAILED, conn, WAIT_MS).status < 0);
    take(&c.in, RCG_EVENT_CLOSED, conn, WAIT_MS);
    rcg_stats after = of_engine(c.engine);
    ASSERT(after.connects == before.connects + 1 && after.established == before.established && after.open == 0);
    ASSERT(SUM(after.failed_at) == SUM(before.failed_at) + 1);
    ASSERT(after.failed_for[RCG_REASON_REFUSED] == before.failed_for[RCG_REASON_REFUSED] + 1);
}

/* A dump, in whatever pieces it comes. */
struct text {
    char octets[1 << 16];
    size_t len;
};

static void add(void *arg, const char *text, size_t len)
{
    struct text *t = arg;
    ASSERT(len < sizeof t->octets - t->len);
    memcpy(t->octets + t->len, text, len);
    t->octets[t->len += len] = 0;
}

static void assert_is_dump(const struct text *t, const char *state)
{
    char pid[32], conn[64];
    snprintf(pid, sizeof pid, "\"pid\":%d,", (int)getpid());
    snprintf(conn, sizeof conn, "\"state\":\"%s\"", state);
    ASSERT(t->octets[0] == '{' && t->octets[t->len - 1] == '}');
    ASSERT(strstr(t->octets, pid) != NULL && strstr(t->octets, "\"connections\":[") != NULL);
    ASSERT(*state == 0 || strstr(t->octets, conn) != NULL);
}

static void dump(const struct address *to)
{
    static struct text t;
    STEP("dump");
    link_up(&c, &s, to, NULL, NULL);
    ASSERT_OK(rcg_engine_dump(c.engine, add, &t));
    assert_is_dump(&t, "established");
    /* The connect that was refused is remembered. */
    ASSERT(strstr(t.octets, "\"failures\":[{\"time_ms\":") != NULL && strstr(t.octets, "failed at stage") != NULL);
    ASSERT_RC(rcg_engine_dump(c.engine, NULL, NULL), -EINVAL);
    ASSERT_RC(rcg_engine_dump(NULL, add, &t), -EINVAL);
    link_down(&c, &s);
}

/* The only entry of a directory; false where there is none. */
static bool only_entry(const char *dir, char *path, size_t room)
{
    int found = 0;
    DIR *d = opendir(dir);
    ASSERT(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        if (e->d_name[0] != '.') {
            int len = snprintf(path, room, "%s/%s", dir, e->d_name);
            ASSERT(len > 0 && (size_t)len < room);
            found++;
        }
    closedir(d);
    ASSERT(found <= 1);
    return found == 1;
}

static void note_socket(void *arg, uint32_t level, const char *text)
{
    if (strstr(text, "no statistics socket")) *(uint32_t *)arg = level;
}

static void stats_socket(void)
{
    static struct text t;
    char dir[] = "/tmp/rcg-stats-XXXXXX", octets[4096];
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    struct stat st;
    rcg_engine *engine;
    ssize_t n;

    STEP("a statistics socket");
    ASSERT(mkdtemp(dir) != NULL);
    ASSERT(setenv("RCG_STATS_DIR", dir, 1) == 0);
    ASSERT_OK(rcg_engine_create(NULL, &engine));
    ASSERT(only_entry(dir, un.sun_path, sizeof un.sun_path));
    ASSERT(stat(un.sun_path, &st) == 0 && S_ISSOCK(st.st_mode) && (st.st_mode & 0777) == 0600);
    for (int turn = 0; turn < 3; turn++) { /* it serves one reader after another */
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        ASSERT(fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof un) == 0);
        t.len = 0;
        while ((n = read(fd, octets, sizeof octets)) > 0) add(&t, octets, (size_t)n);
        ASSERT_EQ(n, 0);
        close(fd);
        assert_is_dump(&t, "");
    }
    STEP("its end, with a reader that does not read");
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ASSERT(fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof un) == 0);
    ASSERT_OK(rcg_engine_destroy(engine));
    ASSERT(!only_entry(dir, un.sun_path, sizeof un.sun_path));
    close(fd);
    ASSERT(rmdir(dir) == 0);
    STEP("where the directory is missing, and where it is none");
    const char *const none[] = { dir, "/dev/null" };
    const uint32_t levels[] = { RCG_LOG_INFO, RCG_LOG_WARN };
    for (int i = 0; i < 2; i++) {
        uint32_t level = 0;
        ASSERT(setenv("RCG_STATS_DIR", none[i], 1) == 0);
        rcg_engine_attr attr = { RCG_ENGINE_ATTR_INIT,  .flags = RCG_ENGINE_STATS_SOCKET,
                                 .log = note_socket, .log_arg = &level, .log_level = RCG_LOG_INFO };
        ASSERT_OK(rcg_engine_create(&attr, &engine));
        ASSERT_OK(rcg_engine_destroy(engine));
        ASSERT_EQ(level, levels[i]);
    }
    ASSERT(unsetenv("RCG_STATS_DIR") == 0);
}

static void misuse(void)
{
    rcg_stats stats = { RCG_STATS_INIT }, small;
    STEP("misuse");
    ASSERT_RC(rcg_engine_stats(NULL, &stats), -EINVAL);
    ASSERT_RC(rcg_engine_stats(c.engine, NULL), -EINVAL);
    ASSERT_RC(rcg_channel_stats((rcg_channel *)c.engine, &stats), -EBADF);
    stats.size = 0;
    ASSERT_RC(rcg_engine_stats(c.engine, &stats), -EINVAL);
    /* An older program's, which ends after the first number. */
    memset(&small, 0x5a, sizeof small);
    small.size = 2 * sizeof(uint64_t);
    ASSERT_OK(rcg_engine_stats(c.engine, &small));
    ASSERT(small.connects == of_engine(c.engine).connects && small.requests == 0x5a5a5a5a5a5a5a5a);
}

int main(void)
{
    struct address to;
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = 64, .recv_count = RECVS };

    watchdog(30);
    side_open(&c, STYLE_QUEUE);
    side_open(&s, STYLE_CALLBACK);
    rcg_listener *lst = listen_on(&s.in, host4(), &listen, &to);
    send_and_write(&to);
    refused();
    dump(&to);
    stats_socket();
    misuse();
    unlisten(&s.in, lst);

    STEP("after the channel's end");
    rcg_stats before = of_engine(c.engine);
    inbox_close(&c.in);
    rcg_stats after = of_engine(c.engine);
    assert_same(&before, &after);
    ASSERT(after.events >= before.events && after.open == 0);
    ASSERT_OK(rcg_engine_destroy(c.engine));
    side_close(&s);
    printf("passed\n");
    return T_PASS;
}
