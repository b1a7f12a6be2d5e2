/* The command line of the peers, and what their parts share.
 *
 *   cm_peer|rcg_peer [OPTION...] HOST PORT SCENARIO...
 *
 * Runs the scenarios one after the other, each on connections of its own; the peer has to be given the same list. With
 * `--listen` the address is ours; "listening PORT" is printed when the peer can come. 0 = all was as expected. */
#include "peer.h"

#include <getopt.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

unsigned char *area;
size_t area_length, window, window_length;
const struct scenario *scenario;
struct options opt = {
    .timeout_ms = 20000, .deadline_ms = 2000, .bulk_mib = 256, .count = 50, .ird = 8, .ord = 8,
    .provider = "auto", .crc = "auto", .mpa = 2,
};

void die(const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fprintf(stderr, "%s: %s %s: ", side_name, opt.listen ? "server" : "client", scenario ? scenario->name : "start");
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    side_last_word();
    _exit(1);
}

void note(const char *format, ...)
{
    va_list args;
    printf("%s ", opt.listen ? "server" : "client");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

const char *result_name(enum result result)
{
    static const char *const names[] = { "done", "flushed", "no access", "too long", "broken" };
    return names[result];
}

static uint64_t pattern_word(uint64_t seed, size_t index)
{
    uint64_t x = (seed + 1) * 0xd6e8feb86659fd93u ^ index * 0x9e3779b97f4a7c15u;
    x ^= x >> 29;
    return x * 0xbf58476d1ce4e5b9u;
}

void pattern_fill(unsigned char *at, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = pattern_word(seed, i / 8);
        memcpy(at + i, &word, length - i < 8 ? length - i : 8);
    }
}

void pattern_check(const unsigned char *at, size_t length, uint64_t seed, const char *what)
{
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = pattern_word(seed, i / 8);
        if (memcmp(at + i, &word, length - i < 8 ? length - i : 8) != 0)
            die("%s: wrong octets at %zu of %zu", what, i, length);
    }
}

/* ---- command line ------------------------------------------------------------------------------------------------ */

enum { LISTEN = 'l' }; /* the others have no letter */
enum { TIMEOUT = 256, DEADLINE, BULK, COUNT, IRD, ORD, REFUSED, PROVIDER, CRC, MPA, MAX_FPDU, TAGGED, LENT };

static const struct option long_options[] = {
    { "listen", no_argument, NULL, LISTEN },
    { "timeout", required_argument, NULL, TIMEOUT },   /* milliseconds */
    { "deadline", required_argument, NULL, DEADLINE }, /* milliseconds */
    { "bulk", required_argument, NULL, BULK },         /* MiB */
    { "count", required_argument, NULL, COUNT },
    { "ird", required_argument, NULL, IRD },
    { "ord", required_argument, NULL, ORD },
    { "refused", no_argument, NULL, REFUSED },
    { "provider", required_argument, NULL, PROVIDER }, /* auto, verbs, iwarp */
    { "crc", required_argument, NULL, CRC },           /* auto, on, off */
    { "mpa", required_argument, NULL, MPA },           /* 1, 2 */
    { "max-fpdu", required_argument, NULL, MAX_FPDU },
    { "tagged", no_argument, NULL, TAGGED }, /* private data with the library's tag */
    { "lent", no_argument, NULL, LENT },     /* receive buffers of the library's */
    { NULL, 0, NULL, 0 },
};

__attribute__((noreturn)) static void usage(void)
{
    fprintf(stderr, "usage: %s [OPTION...] HOST PORT SCENARIO...\noptions:", side_name);
    for (const struct option *o = long_options; o->name; o++)
        if (side_is_library || o->val < PROVIDER) fprintf(stderr, " --%s%s", o->name, o->has_arg ? " X" : "");
    fprintf(stderr, "\nscenarios:");
    for (const struct scenario *s = scenarios; s->name; s++) fprintf(stderr, " %s", s->name);
    fputc('\n', stderr);
    exit(1);
}

static unsigned number(const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || value > 1000000) usage();
    return (unsigned)value;
}

static void parse_option(int option)
{
    if (option >= PROVIDER && !side_is_library) usage();
    switch (option) {
    case LISTEN: opt.listen = true; break;
    case TIMEOUT: opt.timeout_ms = number(optarg); break;
    case DEADLINE: opt.deadline_ms = number(optarg); break;
    case BULK: opt.bulk_mib = number(optarg); break;
    case COUNT: opt.count = number(optarg); break;
    case IRD: opt.ird = number(optarg); break;
    case ORD: opt.ord = number(optarg); break;
    case REFUSED: opt.refused = true; break;
    case PROVIDER: opt.provider = optarg; break;
    case CRC: opt.crc = optarg; break;
    case MPA: opt.mpa = number(optarg); break;
    case MAX_FPDU: opt.max_fpdu = number(optarg); break;
    case TAGGED: opt.tagged = true; break;
    case LENT: opt.lent = true; break;
    default: usage();
    }
}

static void parse_address(const char *host, const char *port)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM }, *found;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0) die("%s port %s: %s", host, port, gai_strerror(rc));
    memcpy(&opt.address, found->ai_addr, found->ai_addrlen);
    opt.address_length = found->ai_addrlen;
    freeaddrinfo(found);
}

static const struct scenario *find_scenario(const char *name)
{
    for (const struct scenario *s = scenarios; s->name; s++)
        if (strcmp(s->name, name) == 0) return s;
    fprintf(stderr, "no scenario '%s'\n", name);
    usage();
}

/* Only `bulk` needs much of it. */
static void make_area(char **names)
{
    window = (size_t)SLOTS * SLOT + 4096;
    window_length = MIN_WINDOW;
    for (; *names; names++)
        if (strcmp(*names, "bulk") == 0 && (size_t)opt.bulk_mib << 20 > window_length)
            window_length = (size_t)opt.bulk_mib << 20;
    area_length = window + window_length;
    area = mmap(NULL, area_length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) die("no memory");
}

static void hung(int signal)
{
    static const char text[] = "hung: a wait had no bound\n";
    ssize_t ignored = write(2, text, sizeof text - 1);
    (void)ignored, (void)signal;
    _exit(1);
}

int main(int argc, char **argv)
{
    int option;
    while ((option = getopt_long(argc, argv, "l", long_options, NULL)) != -1) parse_option(option);
    if (argc - optind < 3) usage();
    parse_address(argv[optind], argv[optind + 1]);
    char **names = argv + optind + 2;
    for (char **name = names; *name; name++) find_scenario(*name);
    make_area(names);
    signal(SIGALRM, hung);
    side_start();
    if (opt.listen) printf("listening %u\n", side_listen()), fflush(stdout);
    for (; *names; names++) {
        uint64_t start = now_ms();
        scenario = find_scenario(*names);
        alarm(20 * opt.timeout_ms / 1000 + 1); /* should a wait have no bound */
        scenario->run();
        note("ok %s %llu ms", scenario->name, (unsigned long long)(now_ms() - start));
    }
    side_stop();
    return 0;
}
