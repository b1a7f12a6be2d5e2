/* Our side of what rping(1) speaks, over librdmacm-gluster, to be tried against the unmodified program.
 *
 *   rcg_rping [-l] [-C COUNT] [-S SIZE] [-p PROVIDER] [-c CRC] [-m MPA] HOST PORT
 *
 * Each message is 16 octets in network order: address, key, size. In one round the client offers a buffer that the
 * server reads; the server says go on; the client offers another that the server writes the same octets to; the server
 * says go on; the client compares. All octets of a buffer but the last are printable, the last is 0. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rdmacm_gluster.h>

enum { WAIT_MS = 20000 };

struct message {
    uint64_t address;
    uint32_t key, size;
};
_Static_assert(sizeof(struct message) == 16, "rping's message");

static rcg_engine *engine;
static rcg_channel *channel;
static rcg_conn *conn;
static unsigned char *buffer; /* `size` octets to be read, and as many to be written */
static uint32_t size = 64;
static rcg_mr *region;

__attribute__((noreturn)) static void die(const char *what, int rc)
{
    rcg_error why = { RCG_ERROR_INIT };
    if (rc >= 0 || rcg_last_error(&why) != 0) why.text[0] = '\0';
    fprintf(stderr, "rcg_rping: %s: %s %s\n", what, rc < 0 ? strerror(-rc) : "", why.text);
    exit(1);
}

static void check(int rc, const char *what)
{
    if (rc < 0) die(what, rc);
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The next event, which has to be of this type; or DISCONNECTED, where that may be. */
static rcg_event next_event(uint32_t type, bool may_end)
{
    int64_t deadline = now_ms() + WAIT_MS, left;
    struct pollfd fd = { .fd = rcg_channel_fd(channel), .events = POLLIN };
    rcg_event ev;
    while ((left = deadline - now_ms()) > 0) {
        int n = rcg_channel_next(channel, &ev, 1);
        check(n, "rcg_channel_next");
        if (n == 0) {
            poll(&fd, 1, (int)left);
            continue;
        }
        if (ev.type == RCG_EVENT_DISCONNECTED && may_end) return ev;
        /* Flushed by the end. siw may so call even a Send that the peer has had: the peer left before siw had booked it. */
        if ((ev.type == RCG_EVENT_RECV || ev.type == RCG_EVENT_COMPLETION) && ev.status == -ECANCELED && may_end) continue;
        if (ev.error) fprintf(stderr, "rcg_rping: %s\n", ev.error->text);
        if (ev.type != type) die(rcg_event_name(ev.type), ev.status);
        check(ev.status, rcg_event_name(type));
        return ev;
    }
    die("nothing happens", -ETIMEDOUT);
}

/* false = the peer has left instead. */
static bool hear(struct message *message)
{
    rcg_event ev = next_event(RCG_EVENT_RECV, true);
    if (ev.type == RCG_EVENT_DISCONNECTED) return false;
    if (ev.length != sizeof *message) die("a message that is not rping's", 0);
    memcpy(message, ev.data, sizeof *message);
    check(rcg_recv_release(conn, &ev), "rcg_recv_release");
    return true;
}

static void do_one(rcg_op op)
{
    check(rcg_post(conn, &op, 1), "rcg_post");
    if (op.flags & RCG_SIGNALED) next_event(RCG_EVENT_COMPLETION, false);
}

static void tell(const void *at, uint32_t key)
{
    struct message message = { htobe64((uintptr_t)at), htonl(key), htonl(size) };
    do_one((rcg_op)RCG_OP_SEND_COPY(&message, sizeof message, NULL));
}

static void connect_to(const char *host, const char *port, rcg_connect_attr attr)
{
    check(rcg_connect_host(channel, host, port, &attr, &conn), "rcg_connect");
    next_event(RCG_EVENT_ESTABLISHED, false);
}

static void run_client(unsigned count)
{
    struct message message;
    uint32_t key;
    unsigned char *from = buffer, *to = buffer + size;
    check(rcg_mr_key(region, conn, &key), "rcg_mr_key");
    for (unsigned round = 0; round < count; round++) {
        for (uint32_t i = 0; i + 1 < size; i++) from[i] = (unsigned char)('A' + (round + i) % 58);
        memset(to, 0, size);
        tell(from, key);
        if (!hear(&message)) die("the server left", 0);
        tell(to, key);
        if (!hear(&message)) die("the server left", 0);
        if (memcmp(from, to, size) != 0) die("what came back is not what was sent", 0);
    }
    check(rcg_conn_disconnect(conn), "rcg_conn_disconnect");
    next_event(RCG_EVENT_DISCONNECTED, true);
    printf("client: %u rounds of %u octets\n", count, size);
}

static void accept_one(const char *host, const char *port, rcg_listen_attr attr)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *found;
    rcg_listener *listener;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0) die(gai_strerror(rc), 0);
    check(rcg_listen(channel, found->ai_addr, found->ai_addrlen, &attr, &listener), "rcg_listen");
    freeaddrinfo(found);
    printf("listening\n");
    fflush(stdout);
    conn = next_event(RCG_EVENT_CONNECT_REQUEST, false).conn;
    check(rcg_accept(conn, NULL), "rcg_accept");
    next_event(RCG_EVENT_ESTABLISHED, false);
}

static void run_server(unsigned count)
{
    struct message offer;
    unsigned rounds = 0;
    rcg_sge sge = { .addr = buffer, .mr = region };
    for (; hear(&offer); rounds++) {
        sge.length = ntohl(offer.size);
        if (sge.length == 0 || sge.length > size) die("an offer of more than SIZE", 0);
        do_one((rcg_op)RCG_OP_READ(&sge, 1, be64toh(offer.address), ntohl(offer.key), buffer));
        tell(buffer, 0);
        if (!hear(&offer)) die("the client left in the middle of a round", 0);
        rcg_op ops[2] = { RCG_OP_WRITE(&sge, 1, be64toh(offer.address), ntohl(offer.key), NULL),
                          RCG_OP_SEND_COPY(&offer, sizeof offer, NULL) };
        check(rcg_post(conn, ops, 2), "rcg_post");
    }
    printf("server: %u rounds\n", rounds);
    if (rounds != count) die("not COUNT rounds", 0);
}

static uint32_t choice(const char *text, const char *const names[3])
{
    for (uint32_t i = 0; i < 3; i++)
        if (strcmp(text, names[i]) == 0) return i;
    die(text, -EINVAL);
}

int main(int argc, char **argv)
{
    static const char *const providers[] = { "auto", "verbs", "iwarp" }, *const crcs[] = { "auto", "on", "off" };
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .recv_size = sizeof(struct message), .recv_count = 4 };
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = sizeof(struct message), .recv_count = 4 };
    bool server = false;
    unsigned count = 10;
    for (int option; (option = getopt(argc, argv, "lC:S:p:c:m:")) != -1;) switch (option) {
        case 'l': server = true; break;
        case 'C': count = (unsigned)atoi(optarg); break;
        case 'S': size = (uint32_t)atoi(optarg); break;
        case 'p': connect.provider = listen.provider = choice(optarg, providers); break;
        case 'c': connect.crc = listen.crc = choice(optarg, crcs); break;
        case 'm': connect.mpa_revision = (uint32_t)atoi(optarg); break;
        default: return 1;
        }
    if (argc - optind != 2 || size == 0) die("usage: rcg_rping [-l] [OPTION...] HOST PORT", 0);
    alarm(10 * WAIT_MS / 1000);
    buffer = calloc(2, size);
    if (!buffer) die("no memory", 0);
    check(rcg_engine_create(NULL, &engine), "rcg_engine_create");
    check(rcg_channel_create(engine, NULL, &channel), "rcg_channel_create");
    check(rcg_mr_register(engine, buffer, 2 * (size_t)size, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &region),
          "rcg_mr_register");
    if (server) accept_one(argv[optind], argv[optind + 1], listen), run_server(count);
    else connect_to(argv[optind], argv[optind + 1], connect), run_client(count);
    check(rcg_channel_destroy(channel), "rcg_channel_destroy");
    check(rcg_mr_deregister(region), "rcg_mr_deregister");
    check(rcg_engine_destroy(engine), "rcg_engine_destroy");
    free(buffer);
    return 0;
}
