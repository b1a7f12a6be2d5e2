/* What rcg_perf.c and rcg_bench.c share: one engine, one manual channel, a bound on all waiting. */
#ifndef PERF_COMMON_H
#define PERF_COMMON_H

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <rdmacm_gluster.h>

static rcg_engine *engine;
static rcg_channel *channel;
static uint64_t deadline_us; /* when the program gives up */

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list args;
    fflush(stdout);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    exit(1);
}

__attribute__((noreturn, noinline, cold)) static void failed(int rc, const char *what)
{
    rcg_error why = { RCG_ERROR_INIT };
    rcg_last_error(&why);
    die("%s: %s: %s%s%s", what, strerror(-rc), why.text, why.remedy[0] ? "\n" : "", why.remedy);
}

/* The result of a call that has to succeed. */
static inline void must(int rc, const char *what)
{
    if (rc < 0) failed(rc, what);
}

/* Every program says what to do with an event. */
static void on_event(const rcg_event *ev);

/* Lets the channel work for at most `ms` and handles its events. 0 = polls. */
static inline void step(int ms)
{
    rcg_event ev[64];
    int i, n = rcg_channel_run(channel, ms);
    must(n, "rcg_channel_run");
    while ((n = rcg_channel_next(channel, ev, 64)) > 0)
        for (i = 0; i < n; i++) on_event(&ev[i]);
    must(n, "rcg_channel_next");
}

/* Waits for a condition that events bring about; asleep, or polling as perftest does: the clock, a system call on some
 * machines, is looked at once in a while. */
#define AWAIT(condition, ms)                                                                                           \
    do {                                                                                                               \
        for (unsigned steps_ = 1; !(condition); steps_++) {                                                            \
            step(ms);                                                                                                  \
            if ((ms) == 0 && steps_ % 1024 != 0) continue;                                                             \
            if (now_ns() / 1000 > deadline_us) die("gave up waiting for: %s", #condition);                             \
        }                                                                                                              \
    } while (0)

static inline uint64_t number(const char *text, uint64_t max)
{
    char *end;
    unsigned long long n;
    errno = 0;
    n = strtoull(text, &end, 0);
    if (errno || *end || end == text || *text == '-' || n > max) die("not a number up to %" PRIu64 ": %s", max, text);
    return n;
}

static const char *const provider_names[] = { "auto", "verbs", "iwarp" };

static inline uint32_t provider_of(const char *name)
{
    for (uint32_t i = 0; i < 3; i++)
        if (strcmp(name, provider_names[i]) == 0) return i;
    die("no such provider: %s", name);
}

static inline const char *provider_name(uint32_t provider)
{
    return provider < 3 ? provider_names[provider] : "unknown";
}

static inline struct sockaddr_in address_of(const char *host, uint16_t port)
{
    struct addrinfo hints = { .ai_family = AF_INET, .ai_socktype = SOCK_STREAM }, *list;
    struct sockaddr_in a;
    int rc = getaddrinfo(host, NULL, &hints, &list);
    if (rc) die("%s: %s", host, gai_strerror(rc));
    memcpy(&a, list->ai_addr, sizeof a);
    a.sin_port = htons(port);
    freeaddrinfo(list);
    return a;
}

static inline void log_line(void *arg, uint32_t level, const char *message)
{
    (void)arg, (void)level;
    fprintf(stderr, "%s\n", message);
}

static inline void open_library(unsigned seconds)
{
    rcg_engine_attr attr = { RCG_ENGINE_ATTR_INIT, .log = log_line, .log_level = RCG_LOG_WARN };
    /* Run without end, as perftest polls: never in need of being woken. */
    rcg_channel_attr by_hand = { RCG_CHANNEL_ATTR_INIT, .manual = 1, .spin_us = 10000 };
    deadline_us = now_ns() / 1000 + (uint64_t)seconds * 1000000u;
    must(rcg_engine_create(&attr, &engine), "rcg_engine_create");
    must(rcg_channel_create(engine, &by_hand, &channel), "rcg_channel_create");
}

/* Memory that the peer may use, too, from a page of its own. */
static inline void *shared_memory(size_t length, rcg_mr **mr)
{
    void *memory = NULL;
    if (posix_memalign(&memory, 4096, length)) die("no memory");
    memset(memory, 0, length);
    must(rcg_mr_register(engine, memory, length, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, mr),
         "rcg_mr_register");
    return memory;
}

static inline void close_library(void)
{
    must(rcg_channel_destroy(channel), "rcg_channel_destroy");
}

#endif
