/* What posting costs: no allocation, once as much has been outstanding before, and at most one system call per batch.
 * Counted, not timed. On software devices that one call is the doorbell, a write().
 *
 * The program defines the functions that would be called, counts them per thread while a post is going on, and passes
 * them on. One more write() is allowed: the eventfd that wakes a channel which sleeps. */
#include "helpers.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <sys/epoll.h>
#include <sys/uio.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

struct cost {
    unsigned allocations, frees, sendmsg, write, others;
};

static _Thread_local bool counting;
static _Thread_local struct cost cost;

/* Where the first allocation was made: the names are for whoever has to find it. */
static void *culprit[40];
static int culprit_depth;

static void note_allocation(void)
{
    counting = false;
    if (culprit_depth == 0) culprit_depth = backtrace(culprit, 40);
    counting = true;
}

#define COUNT(what)                                                                                                    \
    do {                                                                                                               \
        if (counting) cost.what++;                                                                                     \
    } while (0)

#define COUNT_ALLOCATION()                                                                                             \
    do {                                                                                                               \
        if (counting) cost.allocations++, note_allocation();                                                           \
    } while (0)

void *malloc(size_t n) { COUNT_ALLOCATION(); return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { COUNT_ALLOCATION(); return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { COUNT_ALLOCATION(); return __libc_realloc(p, n); }
void *memalign(size_t a, size_t n) { COUNT_ALLOCATION(); return __libc_memalign(a, n); }
void *aligned_alloc(size_t a, size_t n) { COUNT_ALLOCATION(); return __libc_memalign(a, n); }
int posix_memalign(void **p, size_t a, size_t n)
{
    COUNT_ALLOCATION();
    *p = __libc_memalign(a, n);
    return *p ? 0 : ENOMEM;
}
void free(void *p) { COUNT(frees); __libc_free(p); }

static struct {
    ssize_t (*sendmsg)(int, const struct msghdr *, int);
    ssize_t (*send)(int, const void *, size_t, int);
    ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*writev)(int, const struct iovec *, int);
    ssize_t (*recvmsg)(int, struct msghdr *, int);
    int (*epoll_ctl)(int, int, int, struct epoll_event *);
    int (*setsockopt)(int, int, int, const void *, socklen_t);
    long (*syscall)(long, ...);
} real;

__attribute__((constructor)) static void find_real(void)
{
#define FIND(name) (*(void **)&real.name = dlsym(RTLD_NEXT, #name))
    FIND(sendmsg), FIND(send), FIND(sendto), FIND(write), FIND(writev), FIND(recvmsg), FIND(epoll_ctl);
    FIND(setsockopt), FIND(syscall);
}

ssize_t sendmsg(int fd, const struct msghdr *m, int flags) { COUNT(sendmsg); return real.sendmsg(fd, m, flags); }
ssize_t send(int fd, const void *p, size_t n, int flags) { COUNT(sendmsg); return real.send(fd, p, n, flags); }
ssize_t sendto(int fd, const void *p, size_t n, int flags, const struct sockaddr *to, socklen_t len)
{
    COUNT(sendmsg);
    return real.sendto(fd, p, n, flags, to, len);
}
ssize_t write(int fd, const void *p, size_t n) { COUNT(write); return real.write(fd, p, n); }
ssize_t writev(int fd, const struct iovec *v, int n) { COUNT(sendmsg); return real.writev(fd, v, n); }
ssize_t recvmsg(int fd, struct msghdr *m, int flags) { COUNT(others); return real.recvmsg(fd, m, flags); }
int epoll_ctl(int ep, int op, int fd, struct epoll_event *ev) { COUNT(others); return real.epoll_ctl(ep, op, fd, ev); }
int setsockopt(int fd, int level, int name, const void *p, socklen_t n)
{
    COUNT(others);
    return real.setsockopt(fd, level, name, p, n);
}
/* Futexes: a lock that is contended. Not the post's own doing, so it is only printed. */
static _Thread_local unsigned futexes;
long syscall(long number, ...)
{
    va_list a;
    va_start(a, number);
    long p[6];
    for (int i = 0; i < 6; i++) p[i] = va_arg(a, long);
    va_end(a);
    if (counting) futexes++;
    return real.syscall(number, p[0], p[1], p[2], p[3], p[4], p[5]);
}

/* A thread that waits for a lock for the first time in its life gets a place to wait at, for which the C library notes a
 * destructor. What is allocated for that, once in a thread's life, is no cost of posting: it is printed. */
static _Thread_local unsigned first_waits;
int __cxa_thread_atexit_impl(void (*destroy)(void *), void *object, void *dso)
{
    static int (*next)(void (*)(void *), void *, void *);
    bool was = counting;
    if (was) first_waits++;
    counting = false;
    if (next == NULL) *(void **)&next = dlsym(RTLD_NEXT, "__cxa_thread_atexit_impl");
    int rc = next(destroy, object, dso);
    counting = was;
    return rc;
}

/* ---- what is posted ----------------------------------------------------------------------------------------------- */

enum { AREA = 4 << 20, BATCH = 16, DEPTH = 24, ROUNDS = 200, FEW_ROUNDS = 20 };

static int rounds(void)
{
    return light() ? FEW_ROUNDS : ROUNDS;
}

static struct {
    struct side c, s;
    unsigned char *from, *to;
    rcg_mr *from_mr;
    uint32_t key;
} t;

enum shape { ONE_COPY, ONE_WRITE, ONE_READ, MANY_COPIES, MANY_WRITES, MANY_MIXED, ONE_LARGE, MANY_LARGE, SHAPES };
static const char *const shape_names[SHAPES] = {
    "1 Send of 16 octets, copied", "1 Write of 64 octets", "1 Read of 4 KiB", "16 Sends of 16 octets, copied",
    "16 Writes of 64 octets", "16 Writes, Sends and Reads", "1 Write of 4 MiB", "16 Writes of 256 KiB",
};

static rcg_sge sges[BATCH];
static rcg_op ops[BATCH];

/* Fills `ops`; the last one is signalled. Returns how many. */
static size_t prepare(enum shape shape, void *user)
{
    static const unsigned char small[16] = "sixteen octets..";
    size_t n = shape == ONE_COPY || shape == ONE_WRITE || shape == ONE_READ || shape == ONE_LARGE ? 1 : BATCH;
    for (size_t i = 0; i < n; i++) {
        size_t length = shape == ONE_LARGE ? AREA : shape == MANY_LARGE ? AREA / BATCH : shape == ONE_READ ? 4096 : 64;
        uint64_t at = addr_of(t.to) + i * length;
        int kind = shape == MANY_MIXED ? (int)(i % 3) : shape == ONE_COPY || shape == MANY_COPIES ? 1 : shape == ONE_READ ? 2 : 0;
        sges[i] = (rcg_sge){ t.from + i * length, length, t.from_mr };
        if (kind == 0) ops[i] = (rcg_op)RCG_OP_WRITE(&sges[i], 1, at, t.key, NULL);
        else if (kind == 1) ops[i] = (rcg_op)RCG_OP_SEND_COPY(small, sizeof small, NULL);
        else ops[i] = (rcg_op)RCG_OP_READ(&sges[i], 1, at, t.key, NULL);
    }
    ops[n - 1].flags |= RCG_SIGNALED, ops[n - 1].user = user;
    return n;
}

struct result {
    struct cost sum, most;
    unsigned posts, futexes, first_waits;
};

static void begin_counting(void)
{
    memset(&cost, 0, sizeof cost);
    futexes = first_waits = 0;
    counting = true;
}

/* Adds what this thread's calls have cost since then. */
static void end_counting(struct result *r)
{
    counting = false;
    if (first_waits > 0) cost.allocations = cost.frees = 0, culprit_depth = 0;
#define ADD(what) (r->sum.what += cost.what, r->most.what = cost.what > r->most.what ? cost.what : r->most.what)
    ADD(allocations), ADD(frees), ADD(sendmsg), ADD(write), ADD(others);
    r->futexes += futexes, r->first_waits += first_waits;
    r->posts++;
}

static int post_counted(struct result *r, const rcg_op *op, size_t n)
{
    begin_counting();
    int rc = rcg_post(t.c.conn, op, n);
    end_counting(r);
    return rc;
}

static void judge(const char *what, const char *where, const struct result *r, bool may_wake)
{
    printf("%-32s %-22s %4u posts: allocations %u, sends %u (at most %u), wake-ups %u (at most %u), other calls %u, "
           "futexes %u, first waits %u\n", what, where, r->posts, r->sum.allocations + r->sum.frees, r->sum.sendmsg, r->most.sendmsg,
           r->sum.write, r->most.write, r->sum.others, r->futexes, r->first_waits);
    fflush(stdout);
    /* The table of threads that wait for locks is made when the first one waits, once in a process. */
    static unsigned once = 4;
    if (r->sum.allocations > once) backtrace_symbols_fd(culprit, culprit_depth, 2);
    ASSERT(r->sum.allocations <= once && r->sum.frees <= r->sum.allocations);
    once -= r->sum.allocations;
    ASSERT_EQ(r->sum.others, 0);
    ASSERT(r->most.sendmsg <= 1);
    ASSERT(r->most.write <= (may_wake || !can(CAN_MPA) ? 1 : 0));
}

static void use(const rcg_op *op, size_t n)
{
    ASSERT_OK(rcg_post(t.c.conn, op, n));
    rcg_event ev = take(&t.c.in, RCG_EVENT_COMPLETION, t.c.conn, 2 * WAIT_MS);
    ASSERT_EQ(ev.status, 0);
}

/* What is the first of its kind makes room for others, and a region that was there before the device was in use is
 * registered with it. */
static void use_once(enum shape shape)
{
    STEP("first use");
    use(ops, prepare(shape, &t));
}

/* The send queue becomes as long as it is used. */
static void fill_queue(void)
{
    rcg_op many[DEPTH];
    STEP("first use of the queue");
    for (int i = 0; i < DEPTH; i++) many[i] = (rcg_op)RCG_OP_SEND_COPY("x", 1, NULL);
    many[DEPTH - 1].flags |= RCG_SIGNALED;
    use(many, DEPTH);
}

/* ---- from the callback, on the channel's own thread --------------------------------------------------------------- */

static struct {
    enum shape shape;
    struct result result;
    int left;
} chain;

static bool on_client(struct inbox *b, const rcg_event *ev)
{
    (void)b;
    if (ev->type != RCG_EVENT_COMPLETION || ev->user != &chain || ev->status != 0) return true;
    if (chain.left-- == 0) return true; /* told to the main thread */
    int rc = post_counted(&chain.result, ops, prepare(chain.shape, &chain));
    ASSERT_RC(rc, 0);
    return false;
}

static bool on_server(struct inbox *b, const rcg_event *ev)
{
    (void)b;
    if (ev->type != RCG_EVENT_RECV) return true;
    if (ev->status == 0) ASSERT_OK(rcg_recv_release(ev->conn, ev));
    return false;
}

static void test_from_callback(enum shape shape)
{
    rcg_op first;
    use_once(shape);
    STEP(shape_names[shape]);
    memset(&chain, 0, sizeof chain);
    chain.shape = shape, chain.left = rounds();
    first = (rcg_op)RCG_OP_SEND_COPY("go", 2, &chain);
    ASSERT_OK(rcg_post(t.c.conn, &first, 1));
    rcg_event ev = take(&t.c.in, RCG_EVENT_COMPLETION, t.c.conn, 2 * WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    ASSERT_EQ(chain.result.posts, (unsigned)rounds());
    judge(shape_names[shape], "in the callback", &chain.result, false);
}

/* ---- from another thread ------------------------------------------------------------------------------------------- */

static void test_from_thread(enum shape shape, bool asleep)
{
    static int mark;
    struct result r = { 0 };
    STEP(shape_names[shape]);
    for (int i = 0; i < rounds(); i++) {
        if (asleep && i % 10 == 0) pause_ms(1); /* the channel has gone to sleep: nothing is outstanding */
        ASSERT_RC(post_counted(&r, ops, prepare(shape, &mark)), 0);
        rcg_event ev = take(&t.c.in, RCG_EVENT_COMPLETION, t.c.conn, WAIT_MS);
        ASSERT(ev.status == 0 && ev.user == &mark);
    }
    judge(shape_names[shape], "from another thread", &r, true);
}

/* Without waiting in between, so that the socket is full and operations queue. */
static void test_backlog(void)
{
    static int mark;
    struct result r = { 0 };
    int outstanding = 0;
    STEP("posting to a full socket");
    for (int i = 0; i < 300; i++) {
        ASSERT_RC(post_counted(&r, ops, prepare(ONE_LARGE, &mark)), 0);
        outstanding++;
        while (outstanding == DEPTH || (i == 299 && outstanding > 0)) {
            rcg_event ev = take(&t.c.in, RCG_EVENT_COMPLETION, t.c.conn, WAIT_MS);
            ASSERT_EQ(ev.status, 0);
            outstanding--;
        }
    }
    judge("1 Write of 4 MiB, in a queue", "from another thread", &r, true);
}

static void test_receives(void)
{
    enum { RECVS = 64 };
    struct result first = { 0 }, r = { 0 };
    rcg_event ev;
    STEP("posting receives");
    for (int round = 0; round < (light() ? 5 : 50); round++) {
        for (int i = 0; i < RECVS; i++) {
            rcg_sge sge = { t.from + i * 64, 64, t.from_mr };
            rcg_recv recv = { .sge = &sge, .nsge = 1, .user = &r };
            begin_counting();
            int rc = rcg_post_recv(t.c.conn, &recv, 1);
            end_counting(round == 0 ? &first : &r);
            ASSERT_RC(rc, 0);
        }
        for (int i = 0; i < RECVS; i++) {
            rcg_op op = RCG_OP_SEND_COPY("x", 1, NULL);
            int rc;
            while ((rc = rcg_post(t.s.conn, &op, 1)) == -EAGAIN) pump(1);
            ASSERT_RC(rc, 0);
        }
        for (int i = 0; i < RECVS; i++) {
            ev = take(&t.c.in, RCG_EVENT_RECV, t.c.conn, WAIT_MS);
            ASSERT_EQ(ev.status, 0);
        }
    }
    judge("1 receive", "from another thread", &r, true);
    ASSERT_EQ(r.sum.sendmsg, 0);
}

int main(void)
{
    struct address to;
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = 64, .recv_count = 256 };
    if (!can(CAN_WAIT)) listen.recv_count = 4096; /* more than the server's thread can be behind */
    rcg_mr *to_mr;
    void *volatile p; /* or the compiler drops both calls */

    watchdog(30);
    STEP("the counters count");
    culprit_depth = backtrace(culprit, 40); /* loads what it needs; and now nothing is traced */
    counting = true;
    p = malloc(10);
    free(p);
    (void)!write(-1, "", 1);
    counting = false;
    ASSERT(cost.allocations == 1 && cost.frees == 1 && cost.write == 1);
    culprit_depth = 0;

    t.from = calloc(1, AREA), t.to = calloc(1, AREA);
    ASSERT(t.from != NULL && t.to != NULL);
    t.c.in.hook = on_client, t.s.in.hook = on_server;
    ASSERT_OK(rcg_engine_create(NULL, &t.c.engine));
    ASSERT_OK(rcg_engine_create(NULL, &t.s.engine));
    inbox_open(&t.c.in, t.c.engine, STYLE_CALLBACK, NULL);
    inbox_open(&t.s.in, t.s.engine, STYLE_CALLBACK, NULL);
    ASSERT_OK(rcg_mr_register(t.c.engine, t.from, AREA, RCG_LOCAL, &t.from_mr));
    ASSERT_OK(rcg_mr_register(t.s.engine, t.to, AREA, RCG_REMOTE_READ | RCG_REMOTE_WRITE | RCG_LOCAL, &to_mr));
    rcg_listener *lst = listen_on(&t.s.in, host4(), &listen, &to);
    for (int crc = can(CAN_MPA) ? RCG_CRC_ON : RCG_CRC_OFF; crc <= RCG_CRC_OFF; crc++) {
        if (can(CAN_MPA)) printf("CRC %s\n", crc == RCG_CRC_ON ? "on" : "off");
        rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .crc = (uint32_t)crc };
        link_up(&t.c, &t.s, &to, &connect, NULL);
        ASSERT_OK(rcg_mr_key(to_mr, t.s.conn, &t.key));
        fill_queue();
        for (int shape = 0; shape < (light() ? ONE_LARGE : SHAPES); shape++) {
            test_from_callback((enum shape)shape);
            test_from_thread((enum shape)shape, shape < ONE_LARGE);
        }
        if (!light()) test_backlog();
        test_receives();
        STEP("disconnect");
        link_down(&t.c, &t.s);
    }
    unlisten(&t.s.in, lst);
    ASSERT_OK(rcg_mr_deregister(t.from_mr));
    ASSERT_OK(rcg_mr_deregister(to_mr));
    side_close(&t.c);
    side_close(&t.s);
    free(t.from);
    free(t.to);
    return T_PASS;
}
