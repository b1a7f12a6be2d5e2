/* What the C tests share: checks that survive NDEBUG, a watchdog, an inbox for events, patterns, clocks.
 *
 * A test is a stand-alone program: exit 0 = passed, 1 = failed, 77 = could not be run here.
 * Include this file before any other.
 *
 * The same programs run over RDMA devices, told by the environment:
 *   RCG_TEST_PROVIDER              auto (as without), verbs or iwarp: what listens and connects
 *   RCG_TEST_HOST, RCG_TEST_HOST6  addresses of this machine instead of 127.0.0.1 and ::1
 *   RCG_TEST_DEVICE                rxe or siw: what it is that has these addresses; see `abilities`
 *   RCG_TEST_LIGHT=1               fewer rounds and smaller sizes, where the processor is emulated
 *   RCG_TEST_SLOW=N                all bounds N times longer */
#ifndef RCG_TEST_HELPERS_H
#define RCG_TEST_HELPERS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rdmacm_gluster.h>

#define T_PASS 0
#define T_FAIL 1
#define T_SKIP 77

/* ---- checks ------------------------------------------------------------------------------------------------ */

/* What the test is doing just now: printed with a failure, and by the watchdog. */
static const char *volatile test_step = "start";
#define STEP(text) (test_step = (text))

__attribute__((noreturn, format(printf, 3, 4), unused)) static void
test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    fprintf(stderr, "%s:%d: FAILED at step '%s': ", file, line, test_step);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    fflush(NULL);
    _exit(T_FAIL);
}

#define FAIL(...) test_fail(__FILE__, __LINE__, __VA_ARGS__)
#define ASSERT(cond)                                                                                                   \
    do {                                                                                                               \
        if (!(cond)) FAIL("%s", #cond);                                                                                \
    } while (0)
#define ASSERT_EQ(a, b)                                                                                                \
    do {                                                                                                               \
        long long a_ = (long long)(a), b_ = (long long)(b);                                                            \
        if (a_ != b_) FAIL("%s is %lld (%#llx), expected %s = %lld (%#llx)", #a, a_, a_, #b, b_, b_);                  \
    } while (0)
/* A call of the library that has to succeed. */
#define ASSERT_OK(call)                                                                                                \
    do {                                                                                                               \
        int rc_ = (call);                                                                                              \
        if (rc_ != 0) test_fail_rc(__FILE__, __LINE__, #call, rc_, 0);                                                 \
    } while (0)
/* A call of the library that has to fail with this negative errno. */
#define ASSERT_RC(call, expected)                                                                                      \
    do {                                                                                                               \
        int rc_ = (call);                                                                                              \
        if (rc_ != (expected)) test_fail_rc(__FILE__, __LINE__, #call, rc_, (expected));                               \
    } while (0)

/* Errors whose number is a matter of taste. */
#define ASSERT_FAILS(call)                                                                                             \
    do {                                                                                                               \
        int fails_ = (call);                                                                                           \
        if (fails_ >= 0) FAIL("%s gave %d, expected an error", #call, fails_);                                         \
    } while (0)
#define ASSERT_ONE_OF(call, a, b)                                                                                      \
    do {                                                                                                               \
        int one_ = (call);                                                                                             \
        if (one_ != (a) && one_ != (b)) FAIL("%s gave %d, expected %d or %d", #call, one_, (a), (b));                  \
    } while (0)

__attribute__((noreturn, unused)) static void
test_fail_rc(const char *file, int line, const char *call, int rc, int expected)
{
    rcg_error why = { RCG_ERROR_INIT };
    if (rc >= 0 || rcg_last_error(&why) != 0) why.text[0] = '\0';
    test_fail(file, line, "%s gave %d (%s), expected %d (%s); last error: %s", call, rc, rc < 0 ? strerror(-rc) : "-",
              expected, expected < 0 ? strerror(-expected) : "-", why.text);
}

__attribute__((unused)) static void watchdog_fired(int sig)
{
    static const char head[] = "watchdog: hung at step '";
    const char *step = test_step;
    ssize_t ignored = write(2, head, sizeof head - 1);
    ignored = write(2, step, strlen(step));
    ignored = write(2, "'\n", 2);
    (void)ignored, (void)sig;
    _exit(T_FAIL);
}

/* Ends the program if it runs longer. RCG_TEST_SLOW=N (sanitizers, valgrind) makes all bounds N times longer. */
static inline int slow(void)
{
    const char *factor = getenv("RCG_TEST_SLOW");
    int n = factor ? atoi(factor) : 1;
    return n > 0 ? n : 1;
}

static inline void watchdog(unsigned seconds)
{
    signal(SIGALRM, watchdog_fired);
    alarm(seconds * (unsigned)slow());
}

/* ---- where the test runs ------------------------------------------------------------------------------------ */

enum where { ON_TCP, ON_RXE, ON_SIW };

/* What differs between the providers and devices, as far as a test has to know. */
enum {
    CAN_IMM = 1 << 0,               /* immediate data */
    CAN_INVALIDATE = 1 << 1,        /* Send with invalidate */
    CAN_REFUSE_INVALIDATE = 1 << 2, /* or says that it can't */
    CAN_SOLICIT = 1 << 3,           /* the receiver learns that a message was solicited: completions of verbs don't tell */
    CAN_MPA = 1 << 4,               /* MPA's revisions, CRC, frames and Terminates are the library's */
    CAN_TCP_PEER = 1 << 5,          /* a TCP socket that says nothing is a peer that says nothing */
    CAN_WAIT = 1 << 6,              /* a message without a receive waits, and so does its sender */
    CAN_STOP = 1 << 7,              /* a process that has stopped serves nothing: no device does it in its place */
    CAN_EXACT_RAW = 1 << 8,         /* raw private data come without the zeros behind them of InfiniBand's messages */
    /* Who asked for a connection and left is heard of before it is answered. rdma_cm tells nothing before the answer. */
    CAN_HEAR_LEAVER = 1 << 9,
    /* A key is one connection's or the engine's, and can't be guessed. A device's is a small number, good for all of its
     * protection domain: the connections of the engine on that device. */
    CAN_GUARD_KEYS = 1 << 10,
    /* A key with the right to write alone can't be used to read. siw of Linux 6.1 looks at a Read's key and range only. */
    CAN_GUARD_READS = 1 << 11,
    /* Of a Write of less than 64 KiB that goes too far nothing is placed. Where frames are shorter, those before the wrong
     * one are (RFC 5041 section 5.3). */
    CAN_REFUSE_WHOLE = 1 << 12,
    /* Who refuses access to its memory is told so, and not only that the connection has ended. */
    CAN_TELL_VICTIM = 1 << 13,
    /* And so is who was refused access: its Read completes with -EACCES, and the end has a reason. */
    CAN_TELL_REFUSED = 1 << 14,
    /* Who leaves before the answer has never been connected. siw takes the answer, and tells that the peer was there and
     * has gone. */
    CAN_TELL_LEAVER = 1 << 15,
};

static const unsigned abilities[] __attribute__((unused)) = {
    [ON_TCP] = ~0u & ~CAN_REFUSE_INVALIDATE,
    /* RoCE in software. What a Send can invalidate there is a memory window, which the library does not make yet. */
    [ON_RXE] = CAN_IMM | CAN_WAIT | CAN_GUARD_READS | CAN_REFUSE_WHOLE | CAN_TELL_REFUSED |
               CAN_TELL_LEAVER,
    /* iWARP in the kernel: no immediate data, no Send with invalidate from programs, and a message without a receive
     * ends the connection. */
    [ON_SIW] = CAN_REFUSE_INVALIDATE | CAN_TCP_PEER | CAN_EXACT_RAW,
};

static inline enum where where(void)
{
    const char *device = getenv("RCG_TEST_DEVICE");
    if (device == NULL) return ON_TCP;
    if (strcmp(device, "rxe") == 0) return ON_RXE;
    if (strcmp(device, "siw") == 0) return ON_SIW;
    FAIL("RCG_TEST_DEVICE is %s", device);
}

/* Whether all of these are to be expected here. */
static inline bool can(unsigned what)
{
    return (abilities[where()] & what) == what;
}

/* RCG_PROVIDER_* to ask for. */
static inline uint32_t test_provider(void)
{
    const char *name = getenv("RCG_TEST_PROVIDER");
    if (name == NULL || strcmp(name, "auto") == 0) return RCG_PROVIDER_AUTO;
    if (strcmp(name, "verbs") == 0) return RCG_PROVIDER_VERBS;
    if (strcmp(name, "iwarp") == 0) return RCG_PROVIDER_IWARP;
    FAIL("RCG_TEST_PROVIDER is %s", name);
}

/* RCG_PROVIDER_* that connections are expected to have. */
static inline uint32_t provider_here(void)
{
    return where() == ON_TCP ? RCG_PROVIDER_IWARP : RCG_PROVIDER_VERBS;
}

static inline const char *host4(void)
{
    const char *host = getenv("RCG_TEST_HOST");
    return host ? host : "127.0.0.1";
}

static inline const char *host6(void)
{
    const char *host = getenv("RCG_TEST_HOST6");
    return host ? host : "::1";
}

static inline bool light(void)
{
    const char *text = getenv("RCG_TEST_LIGHT");
    return text != NULL && strcmp(text, "0") != 0;
}

/* ---- clocks and patterns ----------------------------------------------------------------------------------- */

static inline uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static inline int ms_since(uint64_t start_us)
{
    return (int)((now_us() - start_us) / 1000u);
}

/* For where there is no event to wait for: something outside the library has to pass. */
static inline void pause_ms(int ms)
{
    poll(NULL, 0, ms);
}

static inline uint64_t mix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/* Eight octets of the pattern of `seed`; every seed has another, and every place in it looks different. */
static inline uint64_t pattern_word(uint64_t seed, size_t index)
{
    uint64_t x = (seed * 0xd6e8feb86659fd93u) ^ (index * 0x9e3779b97f4a7c15u);
    x ^= x >> 29;
    return x * 0xbf58476d1ce4e5b9u;
}

static inline void pattern_fill(void *buf, size_t len, uint64_t seed)
{
    unsigned char *p = buf;
    size_t i, words = len / 8;
    for (i = 0; i < words; i++) {
        uint64_t w = pattern_word(seed, i);
        memcpy(p + 8 * i, &w, 8);
    }
    if (len % 8) {
        uint64_t w = pattern_word(seed, words);
        memcpy(p + 8 * words, &w, len % 8);
    }
}

/* Checks octets [offset, offset + len) of a pattern; -1 = right, else the index of the first wrong octet. */
static inline long pattern_wrong_at(const void *buf, size_t len, uint64_t seed, size_t offset)
{
    const unsigned char *p = buf;
    size_t i = 0;
    while (i < len) {
        size_t at = offset + i, in_word = at % 8, take = 8 - in_word;
        uint64_t w = pattern_word(seed, at / 8);
        if (take > len - i) take = len - i;
        if (memcmp(p + i, (unsigned char *)&w + in_word, take) != 0) {
            while (p[i] == ((unsigned char *)&w)[in_word]) i++, in_word++;
            return (long)i;
        }
        i += take;
    }
    return -1;
}

#define ASSERT_PATTERN_AT(buf, len, seed, offset)                                                                      \
    do {                                                                                                               \
        long bad_ = pattern_wrong_at((buf), (len), (seed), (offset));                                                  \
        if (bad_ >= 0) FAIL("wrong data at octet %ld of %zu (%s, seed %llu)", bad_, (size_t)(len), #buf,               \
                            (unsigned long long)(seed));                                                               \
    } while (0)
#define ASSERT_PATTERN(buf, len, seed) ASSERT_PATTERN_AT(buf, len, seed, 0)

static inline void assert_all_are(const void *buf, size_t len, int octet, const char *what)
{
    const unsigned char *p = buf;
    for (size_t i = 0; i < len; i++)
        if (p[i] != (unsigned char)octet)
            FAIL("%s: octet %zu of %zu is %#x, expected %#x", what, i, len, p[i], (unsigned)octet);
}

/* ---- addresses --------------------------------------------------------------------------------------------- */

struct address {
    struct sockaddr_storage ss;
    socklen_t len;
};

static inline struct address address_of(const char *host, uint16_t port)
{
    struct address a;
    memset(&a, 0, sizeof a);
    struct sockaddr_in *v4 = (struct sockaddr_in *)&a.ss;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a.ss;
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET, v4->sin_port = htons(port), a.len = sizeof *v4;
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6, v6->sin6_port = htons(port), a.len = sizeof *v6;
    } else {
        FAIL("not a numeric address: %s", host);
    }
    return a;
}

static inline uint16_t port_of(const struct sockaddr_storage *ss)
{
    if (ss->ss_family == AF_INET6) return ntohs(((const struct sockaddr_in6 *)ss)->sin6_port);
    return ntohs(((const struct sockaddr_in *)ss)->sin_port);
}

static inline rcg_addr rcg_addr_of(const struct address *a)
{
    return (rcg_addr){ .addr = (const struct sockaddr *)&a->ss, .length = (uint32_t)a->len };
}

/* A plain TCP listener on an ephemeral port. */
static inline int plain_listen(const char *host, int backlog, struct address *bound)
{
    struct address a = address_of(host, 0);
    int fd = socket(a.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT(fd >= 0);
    ASSERT(bind(fd, (struct sockaddr *)&a.ss, a.len) == 0 && listen(fd, backlog) == 0);
    bound->len = sizeof bound->ss;
    ASSERT(getsockname(fd, (struct sockaddr *)&bound->ss, &bound->len) == 0);
    return fd;
}

static inline int plain_connect(const struct address *to)
{
    int one = 1, fd = socket(to->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&to->ss, to->len) != 0) FAIL("plain connect: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

/* An address whose port nobody listens on: it was ours a moment ago. */
static inline struct address refused_address(const char *host)
{
    struct address a;
    close(plain_listen(host, 1, &a));
    return a;
}

static inline bool have_ipv6(void)
{
    struct address a = address_of(host6(), 0);
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&a.ss, a.len) == 0;
    if (fd >= 0) close(fd);
    return ok;
}

/* ---- inbox: the events of a channel, whatever its style ------------------------------------------------------ */

enum style { STYLE_QUEUE, STYLE_CALLBACK, STYLE_MANUAL, STYLES };
static const char *const style_names[STYLES] __attribute__((unused)) = { "queue", "callback", "manual" };

enum { LIFE_SETTLED = 1, LIFE_DISCONNECTED = 2, LIFE_CLOSED = 4 };

struct life {
    const rcg_conn *conn;
    int seen;
};

/* Keeps copies of all events, so that what they point to stays valid until inbox_clear(). */
struct inbox {
    rcg_channel *ch;
    enum style style;
    int fd; /* the channel's, or with callbacks an eventfd of ours */
    pthread_mutex_t lock;
    rcg_event *events;
    size_t count, room;
    void **extras;
    size_t extra_count, extra_room;
    struct life lives[512]; /* ring: what each connection has told */
    size_t life_next;
    /* Called before an event is kept, on the thread that brings it; false = it is not kept. */
    bool (*hook)(struct inbox *, const rcg_event *);
    void *hook_arg;
};

/* The inboxes that this thread looks after while it waits. */
static _Thread_local struct inbox *test_boxes[32];
static _Thread_local size_t test_box_count;

static inline void *inbox_keep(struct inbox *b, const void *from, size_t len)
{
    void *copy = malloc(len ? len : 1);
    ASSERT(copy != NULL);
    memcpy(copy, from, len);
    if (b->extra_count == b->extra_room) {
        b->extra_room = b->extra_room ? 2 * b->extra_room : 64;
        b->extras = realloc(b->extras, b->extra_room * sizeof *b->extras);
        ASSERT(b->extras != NULL);
    }
    b->extras[b->extra_count++] = copy;
    return copy;
}

/* The promises of the life cycle: one ESTABLISHED or CONNECT_FAILED; CLOSED once, and last. */
static inline void inbox_check_life(struct inbox *b, const rcg_event *ev)
{
    struct life *life = NULL;
    if (ev->conn == NULL) {
        ASSERT(ev->listener != NULL);
        return;
    }
    for (size_t i = 0; i < 512 && life == NULL; i++)
        if (b->lives[i].conn == ev->conn) life = &b->lives[i];
    if (life == NULL) {
        life = &b->lives[b->life_next++ % 512];
        *life = (struct life){ .conn = ev->conn };
    }
    if (life->seen & LIFE_CLOSED) FAIL("event %s after CLOSED", rcg_event_name(ev->type));
    switch (ev->type) {
    case RCG_EVENT_ESTABLISHED:
    case RCG_EVENT_CONNECT_FAILED:
        if (life->seen & LIFE_SETTLED) FAIL("a second outcome: %s", rcg_event_name(ev->type));
        life->seen |= LIFE_SETTLED;
        break;
    case RCG_EVENT_DISCONNECTED:
        if (life->seen & LIFE_DISCONNECTED) FAIL("a second DISCONNECTED");
        life->seen |= LIFE_DISCONNECTED;
        break;
    case RCG_EVENT_CLOSED: life->seen |= LIFE_CLOSED; break;
    default: break;
    }
}

static inline void inbox_put(struct inbox *b, const rcg_event *ev)
{
    pthread_mutex_lock(&b->lock);
    inbox_check_life(b, ev);
    pthread_mutex_unlock(&b->lock);
    if (b->hook && !b->hook(b, ev)) return;
    pthread_mutex_lock(&b->lock);
    if (b->count == b->room) {
        b->room = b->room ? 2 * b->room : 64;
        b->events = realloc(b->events, b->room * sizeof *b->events);
        ASSERT(b->events != NULL);
    }
    rcg_event *copy = &b->events[b->count++];
    *copy = *ev;
    if (ev->private_data_len) copy->private_data = inbox_keep(b, ev->private_data, ev->private_data_len);
    if (ev->error) copy->error = inbox_keep(b, ev->error, sizeof *ev->error);
    if (ev->peer) {
        size_t len = ev->peer->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
        copy->peer = inbox_keep(b, ev->peer, len);
    }
    pthread_mutex_unlock(&b->lock);
}

static inline void inbox_on_events(rcg_channel *ch, const rcg_event *ev, size_t n, void *arg)
{
    struct inbox *b = arg;
    uint64_t one = 1;
    ASSERT(n > 0);
    (void)ch;
    for (; n--; ev++) inbox_put(b, ev);
    ASSERT(write(b->fd, &one, sizeof one) == sizeof one);
}

/* Creates the channel of an inbox. `attr` may be NULL. */
static inline void inbox_open(struct inbox *b, rcg_engine *engine, enum style style, const rcg_channel_attr *attr)
{
    rcg_channel_attr a = { RCG_CHANNEL_ATTR_INIT };
    bool (*hook)(struct inbox *, const rcg_event *) = b->hook;
    void *hook_arg = b->hook_arg;
    if (attr) a = *attr;
    memset(b, 0, sizeof *b);
    b->hook = hook, b->hook_arg = hook_arg;
    b->style = style;
    pthread_mutex_init(&b->lock, NULL);
    a.manual = style == STYLE_MANUAL;
    if (style == STYLE_CALLBACK) {
        b->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        ASSERT(b->fd >= 0);
        a.on_events = inbox_on_events, a.arg = b;
    }
    ASSERT_OK(rcg_channel_create(engine, &a, &b->ch));
    if (style != STYLE_CALLBACK) {
        b->fd = rcg_channel_fd(b->ch);
        ASSERT(b->fd >= 0);
    }
    ASSERT(test_box_count < 32);
    test_boxes[test_box_count++] = b;
}

static inline void inbox_clear(struct inbox *b)
{
    pthread_mutex_lock(&b->lock);
    b->count = 0;
    while (b->extra_count) free(b->extras[--b->extra_count]);
    pthread_mutex_unlock(&b->lock);
}

/* Stops waiting for this inbox, and frees it; its channel has to be destroyed already. */
static inline void inbox_drop(struct inbox *b)
{
    for (size_t i = 0; i < test_box_count; i++)
        if (test_boxes[i] == b) test_boxes[i] = test_boxes[--test_box_count];
    inbox_clear(b);
    if (b->style == STYLE_CALLBACK) close(b->fd);
    free(b->events);
    free(b->extras);
    pthread_mutex_destroy(&b->lock);
    b->ch = NULL;
}

static inline void inbox_close(struct inbox *b)
{
    ASSERT_OK(rcg_channel_destroy(b->ch));
    inbox_drop(b);
}

/* Fetches what the channel has; never waits. */
static inline void inbox_fetch(struct inbox *b)
{
    rcg_event ev[64];
    uint64_t value;
    int n, i;
    switch (b->style) {
    case STYLE_CALLBACK:
        if (read(b->fd, &value, sizeof value) < 0) ASSERT_EQ(errno, EAGAIN);
        return;
    case STYLE_MANUAL:
        n = rcg_channel_run(b->ch, 0);
        if (n < 0) test_fail_rc(__FILE__, __LINE__, "rcg_channel_run", n, 0);
        break;
    default: break;
    }
    while ((n = rcg_channel_next(b->ch, ev, 64)) > 0)
        for (i = 0; i < n; i++) inbox_put(b, &ev[i]);
    if (n < 0) test_fail_rc(__FILE__, __LINE__, "rcg_channel_next", n, 0);
}

/* Waits at most `ms` for something to happen on this thread's inboxes, and fetches it. */
static inline void pump(int ms)
{
    struct pollfd fds[32];
    size_t i;
    int rc;
    for (i = 0; i < test_box_count; i++) {
        fds[i] = (struct pollfd){ .fd = test_boxes[i]->fd, .events = POLLIN };
        if (test_boxes[i]->style == STYLE_MANUAL && ms > 20) ms = 20; /* its timers run only when it is run */
    }
    rc = poll(fds, test_box_count, ms);
    ASSERT(rc >= 0 || errno == EINTR);
    for (i = 0; i < test_box_count; i++) inbox_fetch(test_boxes[i]);
}

static inline void inbox_print(struct inbox *b, const char *name)
{
    pthread_mutex_lock(&b->lock);
    fprintf(stderr, "  %s holds %zu events:", name, b->count);
    for (size_t i = 0; i < b->count && i < 20; i++) {
        const rcg_event *ev = &b->events[i];
        fprintf(stderr, " %s(%p op %u status %d%s%s)", rcg_event_name(ev->type), (void *)ev->conn, ev->op, ev->status,
                ev->error ? " " : "", ev->error ? ev->error->text : "");
    }
    fputc('\n', stderr);
    pthread_mutex_unlock(&b->lock);
}

/* Takes the first event of this type (0 = any) and connection (NULL = any); false = there is none yet. */
static inline bool inbox_poll(struct inbox *b, uint32_t type, const rcg_conn *conn, rcg_event *out)
{
    bool found = false;
    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < b->count && !found; i++) {
        if ((type && b->events[i].type != type) || (conn && b->events[i].conn != conn)) continue;
        *out = b->events[i];
        memmove(&b->events[i], &b->events[i + 1], (b->count - i - 1) * sizeof *b->events);
        b->count--;
        found = true;
    }
    pthread_mutex_unlock(&b->lock);
    return found;
}

static inline bool inbox_try(struct inbox *b, uint32_t type, const rcg_conn *conn, int ms, rcg_event *out)
{
    uint64_t start = now_us();
    for (;;) {
        int left = ms - ms_since(start);
        if (inbox_poll(b, type, conn, out)) return true;
        if (left <= 0) return false;
        pump(left);
    }
}

/* Takes an event that has to come within `ms`. */
#define take(box, type, conn, ms) inbox_take((box), (type), (conn), (ms), __FILE__, __LINE__)
static inline rcg_event inbox_take(struct inbox *b, uint32_t type, const rcg_conn *conn, int ms, const char *file,
                                   int line)
{
    rcg_event ev;
    memset(&ev, 0, sizeof ev);
    if (!inbox_try(b, type, conn, ms * slow(), &ev)) {
        for (size_t i = 0; i < test_box_count; i++) inbox_print(test_boxes[i], test_boxes[i] == b ? "box*" : "box");
        test_fail(file, line, "no event %s within %d ms", rcg_event_name(type), ms);
    }
    return ev;
}

/* No event of this type has come so far. */
#define ASSERT_NONE(box, type_, conn_)                                                                                 \
    do {                                                                                                               \
        rcg_event ev_;                                                                                                 \
        inbox_fetch(box);                                                                                              \
        if (inbox_poll((box), (type_), (conn_), &ev_)) FAIL("unexpected event %s", rcg_event_name(ev_.type));            \
    } while (0)

/* ---- sides: an engine, a channel, a connection ---------------------------------------------------------------- */

#define WAIT_MS 5000

struct side {
    rcg_engine *engine;
    struct inbox in;
    rcg_conn *conn;
};

static inline void side_open(struct side *s, enum style style)
{
    memset(s, 0, sizeof *s);
    ASSERT_OK(rcg_engine_create(NULL, &s->engine));
    inbox_open(&s->in, s->engine, style, NULL);
}

/* Everything of the side but its channel has to be gone. */
static inline void side_close(struct side *s)
{
    inbox_close(&s->in);
    ASSERT_OK(rcg_engine_destroy(s->engine));
    s->engine = NULL;
}

/* Listens on an ephemeral port. */
static inline rcg_listener *listen_on(struct inbox *b, const char *host, const rcg_listen_attr *attr,
                                      struct address *bound)
{
    rcg_listen_attr wanted = { RCG_LISTEN_ATTR_INIT };
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    struct address a = address_of(host, 0);
    rcg_listener *lst = NULL;
    if (attr) wanted = *attr;
    if (wanted.provider == 0) wanted.provider = test_provider();
    ASSERT_OK(rcg_listen(b->ch, (struct sockaddr *)&a.ss, (uint32_t)a.len, &wanted, &lst));
    ASSERT_OK(rcg_listener_query(lst, &info));
    bound->ss = info.local;
    bound->len = a.len;
    ASSERT(port_of(&bound->ss) != 0);
    return lst;
}

/* Closes a listener and waits for its last event. */
static inline void unlisten(struct inbox *b, rcg_listener *lst)
{
    uint64_t start = now_us();
    rcg_event ev;
    ASSERT_OK(rcg_listener_close(lst));
    for (;;) {
        size_t i, found = 0;
        pthread_mutex_lock(&b->lock);
        for (i = 0; i < b->count && !found; i++)
            if (b->events[i].type == RCG_EVENT_CLOSED && b->events[i].listener == lst && b->events[i].conn == NULL) {
                memmove(&b->events[i], &b->events[i + 1], (b->count - i - 1) * sizeof *b->events);
                b->count--;
                found = 1;
            }
        pthread_mutex_unlock(&b->lock);
        if (found) return;
        if (ms_since(start) > WAIT_MS * slow()) FAIL("no CLOSED event for the listener");
        pump(100);
    }
    (void)ev;
}

static inline rcg_conn *start_connect(struct inbox *b, const struct address *to, const rcg_connect_attr *attr)
{
    rcg_connect_attr wanted = { RCG_CONNECT_ATTR_INIT };
    rcg_addr addr = rcg_addr_of(to);
    rcg_conn *conn = NULL;
    if (attr) wanted = *attr;
    if (wanted.provider == 0) wanted.provider = test_provider();
    ASSERT_OK(rcg_connect(b->ch, &addr, 1, &wanted, &conn));
    ASSERT(conn != NULL);
    return conn;
}

/* Connects `client` to a listener of `server` and accepts; both conn members are set. */
#define link_up(client, server, to, connect, accept) link_pair((client), (server), (to), (connect), (accept), __LINE__)
static inline void link_pair(struct side *client, struct side *server, const struct address *to,
                             const rcg_connect_attr *connect, const rcg_accept_attr *accept, int line)
{
    rcg_accept_attr defaults = { RCG_ACCEPT_ATTR_INIT };
    rcg_event ev;
    client->conn = start_connect(&client->in, to, connect);
    ev = inbox_take(&server->in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS, __FILE__, line);
    server->conn = ev.conn;
    ASSERT_OK(rcg_accept(server->conn, accept ? accept : &defaults));
    inbox_take(&client->in, RCG_EVENT_ESTABLISHED, client->conn, WAIT_MS, __FILE__, line);
    inbox_take(&server->in, RCG_EVENT_ESTABLISHED, server->conn, WAIT_MS, __FILE__, line);
}

/* Waits for the end of a connection that is ending by itself. */
static inline void await_end(struct side *s)
{
    rcg_event ev;
    take(&s->in, RCG_EVENT_CLOSED, s->conn, WAIT_MS);
    while (inbox_poll(&s->in, 0, s->conn, &ev)) {} /* flushed operations and DISCONNECTED */
    s->conn = NULL;
}

/* Disconnects gracefully, from the first side. */
static inline void link_down(struct side *from, struct side *other)
{
    ASSERT_OK(rcg_conn_disconnect(from->conn));
    take(&from->in, RCG_EVENT_DISCONNECTED, from->conn, WAIT_MS);
    take(&other->in, RCG_EVENT_DISCONNECTED, other->conn, WAIT_MS);
    await_end(from);
    await_end(other);
}

/* ---- the process ------------------------------------------------------------------------------------------------ */

#include <dirent.h>

/* Entries of a folder: /proc/self/task = threads, /proc/self/fd = descriptors (and one for looking). */
static inline int count_entries(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;
    struct dirent *entry;
    ASSERT(dir != NULL);
    while ((entry = readdir(dir)) != NULL) n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

/* A key and where it leads, as our tests send it in private data. */
struct offer {
    uint64_t addr;
    uint64_t length;
    uint32_t key;
    uint32_t reserved;
};

static inline uint64_t addr_of(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

#endif
