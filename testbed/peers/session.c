/* A connection as the scenarios see it: greeting with private data, control messages, the end. */
#include "session.h"

#include <arpa/inet.h>
#include <endian.h>
#include <string.h>

enum { MAGIC = 0x70656572 };

struct offer {
    uint64_t address;
    uint32_t key, length;
};

/* Private data of a connect and an accept, all in network order. A client has its keys only when it is connected: it
 * sends the greeting again as its first message. */
struct greeting {
    uint32_t magic, tag;
    struct offer window, readable;
};

struct control {
    uint32_t magic, what, a, b;
};

struct theirs theirs;
size_t receive_size = SLOT;

static uint32_t tag_of(unsigned round)
{
    uint32_t tag = 2166136261u + round;
    for (const char *c = scenario->name; *c; c++) tag = (tag ^ (unsigned char)*c) * 16777619u;
    return htonl(tag);
}

static struct offer offer_of(struct piece piece, unsigned rights)
{
    return (struct offer){ .address = htobe64((uintptr_t)area + piece.offset),
                           .key = htonl(side_key(piece, rights)),
                           .length = htonl((uint32_t)piece.length) };
}

static struct greeting greeting_of(unsigned round, bool with_keys)
{
    struct greeting g = { .magic = htonl(MAGIC), .tag = tag_of(round) };
    if (with_keys) {
        g.window = offer_of((struct piece){ window, window_length }, MAY_READ | MAY_WRITE);
        g.readable = offer_of((struct piece){ window, 4096 }, MAY_READ);
    }
    return g;
}

static void take_offers(const struct greeting *g, unsigned round)
{
    if (g->magic != htonl(MAGIC) || g->tag != tag_of(round)) die("the peer's greeting is of another scenario");
    theirs.address = be64toh(g->window.address);
    theirs.length = ntohl(g->window.length);
    theirs.key = ntohl(g->window.key);
    theirs.readable_address = be64toh(g->readable.address);
    theirs.readable_key = ntohl(g->readable.key);
    if (theirs.length != window_length) die("the peer offers %zu octets, not %zu", theirs.length, window_length);
}

void check_private(const struct heard *heard, const void *expected, size_t length)
{
    if (heard->length < length || (length && memcmp(heard->data, expected, length) != 0))
        die("wrong private data (%zu octets)", heard->length);
    if (side_is_iwarp() && heard->length != length) die("%zu octets of private data, not %zu", heard->length, length);
    for (size_t i = length; i < heard->length; i++)
        if (heard->data[i] != 0) die("private data go on after octet %zu", length); /* InfiniBand pads with zeros */
}

void await_client(unsigned round)
{
    struct greeting expected = greeting_of(round, false);
    struct heard heard;
    side_await_request(&heard);
    check_private(&heard, &expected, sizeof expected);
}

unsigned await_any_client(unsigned rounds)
{
    struct greeting expected;
    struct heard heard;
    side_await_request(&heard);
    for (unsigned round = 0; round < rounds; round++) {
        expected = greeting_of(round, false);
        if (heard.length < sizeof expected || memcmp(heard.data, &expected, sizeof expected) != 0) continue;
        check_private(&heard, &expected, sizeof expected);
        return round;
    }
    die("wrong private data (%zu octets)", heard.length);
}

static void post_receives(void)
{
    for (unsigned slot = 0; slot < SLOTS; slot++) side_post_receive(slot, receive_size);
}

enum outcome accept_client(unsigned round)
{
    struct greeting mine = greeting_of(round, true);
    post_receives();
    return side_accept(&mine, sizeof mine);
}

void begin(unsigned round, unsigned wait_ms)
{
    struct greeting mine = greeting_of(round, false);
    side_begin(&mine, sizeof mine, wait_ms);
    post_receives();
}

static void post_control(const void *message, size_t length)
{
    struct work work = { .verb = SEND, .piece = { { SLOTS * (size_t)SLOT, length } }, .pieces = 1 };
    memcpy(area + work.piece[0].offset, message, length);
    post(work);
}

static void post_words(enum what what, uint32_t a, uint32_t b)
{
    struct control c = { htonl(MAGIC), htonl(what), htonl(a), htonl(b) };
    post_control(&c, sizeof c);
}

void tell(enum what what, uint32_t a, uint32_t b)
{
    post_words(what, a, b);
    expect_sent(SEND);
}

bool is_control(const struct done *done, enum what what)
{
    struct control c;
    if (done->length != sizeof c) return false;
    memcpy(&c, done->data, sizeof c);
    return c.magic == htonl(MAGIC) && c.what == htonl(what);
}

struct words hear(enum what what)
{
    struct done done = expect_received();
    struct control c;
    if (!is_control(&done, what)) die("expected message %d, got another of %zu octets", what, done.length);
    memcpy(&c, done.data, sizeof c);
    side_receive_again(&done, receive_size);
    return (struct words){ ntohl(c.a), ntohl(c.b) };
}

void post(struct work work)
{
    int rc = side_post(&work);
    if (rc != 0) die("operation %d can't be posted: %s", work.verb, strerror(-rc));
}

void expect_sent(enum verb verb)
{
    struct done done = side_next_sent();
    if (done.result != DONE) die("operation %d: %s", verb, result_name(done.result));
    if (done.verb != verb) die("completion of operation %d, not %d", done.verb, verb);
}

struct done expect_received(void)
{
    struct done done = side_next_received();
    if (done.result != DONE) die("receive: %s", result_name(done.result));
    return done;
}

void expect_end(void)
{
    if (!side_await_end()) die("the connection does not end");
}

void finish_meeting(unsigned round)
{
    struct greeting g;
    if (accept_client(round) != ESTABLISHED) die("not established");
    struct done done = expect_received();
    if (done.length != sizeof g) die("a greeting of %zu octets", done.length);
    memcpy(&g, done.data, sizeof g);
    side_receive_again(&done, receive_size);
    take_offers(&g, round);
    tell(GO, 0, 0);
}

void meet(unsigned round)
{
    struct greeting g;
    struct heard heard;
    if (opt.listen) {
        await_client(round);
        finish_meeting(round);
        return;
    }
    begin(round, opt.timeout_ms);
    enum outcome outcome = side_connect(&heard);
    if (outcome != ESTABLISHED) die("no connection: outcome %d", outcome);
    memcpy(&g, heard.data, sizeof g);
    check_private(&heard, &g, sizeof g); /* its length */
    take_offers(&g, round);
    g = greeting_of(round, true);
    post_control(&g, sizeof g);
    expect_sent(SEND);
    hear(GO);
}

/* The client ends the connection when it has heard the server, whose last word may then be flushed: an InfiniBand queue
 * pair has a message before it acknowledges it. */
void part(void)
{
    post_words(BYE, 0, 0);
    struct done last = side_next_sent();
    if (last.result != DONE && !(opt.listen && last.result == FLUSHED)) die("the last word: %s", result_name(last.result));
    hear(BYE);
    if (!opt.listen) side_disconnect();
    expect_end();
    side_destroy();
}
