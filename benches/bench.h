/* What the programs of the comparison share: their options, two processes on a processor each, the clock.
 *
 *   PROGRAM CASE [--size N] [--footprint N] [--count N | --seconds S] [--sleep] [--crc] [--write]
 *
 * Both sides are processes, the client on processor 0 and the server on 1. One case, one connection, one number printed:
 *   lat    microseconds of a round trip of messages of `size` octets, one at a time, mean; polling, or with --sleep sleeping
 *   rate   messages of `size` octets in a second, one way; Sends, or with --write RDMA Writes
 *   connect   microseconds until a connection is there, one at a time, median; raw TCP's and a round trip of `size` on it
 *   send, write, read   octets in a second, one way; messages go round in `footprint` octets of memory on each side
 * --crc: iWARP's, else none. */
#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WINDOW = 16, BATCH = 32, TIMES = 1 << 14, LIMIT_S = 60 };

static struct {
    const char *what;
    size_t size, footprint;
    uint64_t count; /* 0 = by time */
    double seconds;
    bool sleep, crc, write;
} opt = { .size = 64, .seconds = 0.25 };

/* What the server tells the client. */
struct hello {
    uint16_t port;
    uint64_t addr, key;
};

__attribute__((noreturn, format(printf, 1, 2), unused)) static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    _exit(1);
}

#define MUST(condition)                                                                                                \
    do {                                                                                                               \
        if (!(condition)) die("%s:%d: %s: %s", __FILE__, __LINE__, #condition, strerror(errno));                       \
    } while (0)

static inline double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static inline bool is_case(const char *name)
{
    return strcmp(opt.what, name) == 0;
}

static double began;

static inline void begin(void)
{
    began = now_s();
}

/* Whether there is to be more after so many messages. */
static inline bool more(uint64_t n)
{
    return opt.count ? n < opt.count : now_s() - began < opt.seconds;
}

static double times[TIMES]; /* of the last connects, seconds */

static inline void note(uint64_t n, double since)
{
    times[n % TIMES] = now_s() - since;
}

static inline int by_length(const void *a, const void *b)
{
    double one = *(const double *)a, other = *(const double *)b;
    return (one > other) - (one < other);
}

static inline double median(uint64_t n)
{
    size_t count = n < TIMES ? (size_t)n : TIMES;
    qsort(times, count, sizeof *times, by_length);
    return times[count / 2];
}

static inline void report(uint64_t n)
{
    double took = now_s() - began;
    if (is_case("connect")) printf("%.3f\n", median(n) * 1e6);
    else if (is_case("lat") || is_case("rpc")) printf("%.3f\n", took / (double)n * 1e6);
    else printf("%.0f\n", (double)n * (is_case("rate") ? 1 : (double)opt.size) / took);
    fflush(stdout);
}

/* Pages of its own, all there. */
static inline unsigned char *memory_of(size_t octets)
{
    unsigned char *p = mmap(NULL, octets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    MUST(p != MAP_FAILED);
    memset(p, 1, octets);
    return p;
}

static inline size_t area(void)
{
    return opt.footprint > opt.size ? opt.footprint : opt.size;
}

/* Where message number `n` is in an area. */
static inline size_t slot(uint64_t n)
{
    return n % (area() / opt.size) * opt.size;
}

static inline struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
}

/* Threads that come later are on the same processor. */
static inline void pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    MUST(sched_setaffinity(0, sizeof set, &set) == 0);
}

static inline void tell(int control, const struct hello *hello)
{
    MUST(write(control, hello, sizeof *hello) == sizeof *hello);
}

static int control_fd; /* the client's */

static inline void hear(struct hello *hello)
{
    if (read(control_fd, hello, sizeof *hello) != sizeof *hello) die("the server has failed");
}

static inline void parse(int argc, char **argv)
{
    static const struct option options[] = {
        { "size", 1, NULL, 's' },    { "footprint", 1, NULL, 'f' }, { "count", 1, NULL, 'n' },
        { "seconds", 1, NULL, 't' }, { "sleep", 0, NULL, 'S' },     { "crc", 0, NULL, 'c' },
        { "write", 0, NULL, 'w' },     { NULL, 0, NULL, 0 },
    };
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (c) {
    case 's': opt.size = strtoul(optarg, NULL, 0); break;
    case 'f': opt.footprint = strtoul(optarg, NULL, 0); break;
    case 'n': opt.count = strtoul(optarg, NULL, 0); break;
    case 't': opt.seconds = strtod(optarg, NULL); break;
    case 'S': opt.sleep = true; break;
    case 'c': opt.crc = true; break;
    case 'w': opt.write = true; break;
    default: exit(2);
    }
    if (optind + 1 != argc || opt.size == 0) die("usage: see the head of benches/bench.h");
    opt.what = argv[optind];
}

/* Runs both sides; `cases` are the words that may be given. The server never ends by itself: only the client knows when all
 * is done. */
static inline int both_sides(int argc, char **argv, const char *const *cases, void (*server)(int control),
                             void (*client)(const struct hello *))
{
    int control[2];
    struct hello hello;
    parse(argc, argv);
    while (*cases && !is_case(*cases)) cases++;
    if (*cases == NULL) die("no case %s", opt.what);
    MUST(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, control) == 0);
    alarm(LIMIT_S);
    pid_t child = fork();
    MUST(child >= 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(control[0]);
        pin(1);
        server(control[1]);
        for (;;) pause();
    }
    close(control[1]);
    pin(0);
    control_fd = control[0];
    hear(&hello);
    client(&hello);
    MUST(waitpid(child, NULL, WNOHANG) == 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return 0;
}

#endif
