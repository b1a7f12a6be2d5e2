/* The scenarios. Both ends run the same one; `turn 0` is the client's, `turn 1` the server's. */
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GAP = 64, TARGET = 64, REACH = 65536 }; /* REACH: what an intruder could have changed */

static const size_t sizes[] = { 0, 1, 63, 64, 4096, 65536, 1 << 20 };
enum { SIZES = sizeof sizes / sizeof *sizes };

static bool my_turn(int turn)
{
    return (turn == 1) == opt.listen;
}

/* A message that is gathered from pieces which do not lie in its order; all from the second half of the window. */
static struct work gather(enum verb verb, size_t size, unsigned pieces, uint64_t seed)
{
    struct work work = { .verb = verb, .pieces = pieces };
    size_t share = size / pieces, done = 0, base = window + window_length / 2;
    unsigned char *message = malloc(size + 1);
    if (!message) die("no memory");
    pattern_fill(message, size, seed);
    for (unsigned i = 0; i < pieces; i++) {
        size_t length = i + 1 < pieces ? share : size - done;
        work.piece[i] = (struct piece){ base + (pieces - 1 - i) * (share + pieces + GAP), length };
        memcpy(area + work.piece[i].offset, message + done, length);
        done += length;
    }
    free(message);
    return work;
}

static void check_message(const struct done *done, size_t size, uint64_t seed)
{
    if (done->length != size) die("a message of %zu octets, not %zu", done->length, size);
    pattern_check(done->data, size, seed, "message");
}

/* ---- send -------------------------------------------------------------------------------------------------------- */

static void take_message(size_t size, uint64_t seed)
{
    struct done done = expect_received();
    check_message(&done, size, seed);
    side_receive_again(&done, receive_size);
}

/* As many as there are receives, less one for the answer; only the last has a completion. */
static void burst(bool mine)
{
    for (unsigned i = 0; i < SLOTS - 1; i++) {
        if (mine) {
            struct work work = { .verb = SEND, .pieces = 1, .quiet = i + 1 < SLOTS - 1 };
            work.piece[0] = (struct piece){ window + i * 8192, 5000 + i };
            pattern_fill(area + work.piece[0].offset, work.piece[0].length, 500 + i);
            post(work);
        } else {
            take_message(5000 + i, 500 + i);
        }
    }
    if (mine) expect_sent(SEND), hear(CHECKED);
    else tell(CHECKED, 0, 0);
}

static void run_send(void)
{
    meet(0);
    for (int turn = 0; turn < 2; turn++) {
        for (unsigned i = 0; i < SIZES; i++)
            for (unsigned pieces = 1; pieces <= 3; pieces += 2) {
                uint64_t seed = 100 * i + pieces;
                if (my_turn(turn)) {
                    post(gather(SEND, sizes[i], pieces, seed));
                    expect_sent(SEND);
                    hear(CHECKED);
                } else {
                    take_message(sizes[i], seed);
                    tell(CHECKED, 0, 0);
                }
            }
        burst(my_turn(turn));
    }
    part();
}

/* ---- write and read ---------------------------------------------------------------------------------------------- */

static void set_guards(size_t size)
{
    memset(area + window, 0xee, TARGET + size + GAP);
}

static void check_target(size_t size, uint64_t seed)
{
    const unsigned char *w = area + window;
    for (size_t i = 0; i < GAP; i++)
        if (w[TARGET - 1 - i] != 0xee || w[TARGET + size + i] != 0xee) die("octets beside the target have changed");
    pattern_check(w + TARGET, size, seed, "target");
}

static void run_write(void)
{
    meet(0);
    for (int turn = 0; turn < 2; turn++)
        for (unsigned i = 0; i < SIZES; i++)
            for (unsigned pieces = 1; pieces <= 3; pieces += 2) {
                uint64_t seed = 100 * i + pieces;
                if (my_turn(turn)) {
                    struct work work = gather(WRITE, sizes[i], pieces, seed);
                    work.remote = theirs.address + TARGET, work.key = theirs.key;
                    hear(READY);
                    work.quiet = pieces == 3;
                    post(work);
                    if (!work.quiet) expect_sent(WRITE);
                    tell(WRITTEN, 0, 0);
                } else {
                    set_guards(sizes[i]);
                    tell(READY, 0, 0);
                    hear(WRITTEN);
                    check_target(sizes[i], seed);
                }
            }
    part();
}

static struct work read_work(size_t at, size_t size)
{
    return (struct work){ .verb = READ, .piece = { { window + at, size } }, .pieces = 1,
                          .remote = theirs.address + at, .key = theirs.key };
}

/* More at once than can be outstanding: the others wait, none fails. */
static void many_reads(bool mine, unsigned count)
{
    enum { STEP = 32768 };
    for (unsigned i = 0; i < count && !mine; i++) pattern_fill(area + window + i * STEP, STEP, 900 + i);
    if (!mine) tell(READY, 0, 0), hear(CHECKED);
    if (!mine) return;
    hear(READY);
    memset(area + window, 0, (size_t)count * STEP);
    for (unsigned i = 0; i < count; i++) post(read_work((size_t)i * STEP, STEP - 8 * i));
    for (unsigned i = 0; i < count; i++) expect_sent(READ);
    for (unsigned i = 0; i < count; i++) pattern_check(area + window + i * STEP, STEP - 8 * i, 900 + i, "read");
    tell(CHECKED, 0, 0);
}

static void run_read(void)
{
    meet(0);
    for (int turn = 0; turn < 2; turn++) {
        for (unsigned i = 0; i < SIZES; i++) {
            if (my_turn(turn)) {
                struct work work = read_work(TARGET, sizes[i]);
                hear(READY);
                set_guards(sizes[i]);
                post(work);
                expect_sent(READ);
                check_target(sizes[i], i);
                tell(CHECKED, 0, 0);
            } else {
                pattern_fill(area + window + TARGET, sizes[i], i);
                tell(READY, 0, 0);
                hear(CHECKED);
            }
        }
        many_reads(my_turn(turn), 32);
    }
    part();
}

/* ---- bulk -------------------------------------------------------------------------------------------------------- */

/* The whole window, in operations of 1 MiB. */
static void transfer(enum verb verb)
{
    enum { CHUNK = 1 << 20, AT_ONCE = 16 };
    uint64_t start = now_ms();
    size_t posted = 0, finished = 0;
    while (finished < window_length) {
        while (posted < window_length && posted - finished < (size_t)AT_ONCE * CHUNK) {
            struct work work = read_work(posted, CHUNK);
            work.verb = verb;
            post(work);
            posted += CHUNK;
        }
        expect_sent(verb);
        finished += CHUNK;
    }
    note("bulk %s of %zu MiB: %llu ms", verb == READ ? "read" : "write", window_length >> 20,
         (unsigned long long)(now_ms() - start));
}

static void run_bulk(void)
{
    unsigned usual = opt.timeout_ms;
    opt.timeout_ms += (unsigned)(window_length >> 20) * 500; /* who is written to waits for all of it */
    meet(0);
    for (int turn = 0; turn < 4; turn++) {
        bool mine = my_turn(turn % 2), reads = turn >= 2;
        if (mine) {
            if (reads) memset(area + window, 0, window_length);
            else pattern_fill(area + window, window_length, 7000 + turn);
            hear(READY);
            transfer(reads ? READ : WRITE);
            if (reads) pattern_check(area + window, window_length, 7000 + turn, "bulk read");
            tell(WRITTEN, 0, 0);
            hear(CHECKED);
        } else {
            if (reads) pattern_fill(area + window, window_length, 7000 + turn);
            else memset(area + window, 0, window_length);
            tell(READY, 0, 0);
            hear(WRITTEN);
            if (!reads) pattern_check(area + window, window_length, 7000 + turn, "bulk write");
            tell(CHECKED, 0, 0);
        }
    }
    part();
    opt.timeout_ms = usual;
}

/* ---- the life of a connection ------------------------------------------------------------------------------------ */

static void run_reject(void)
{
    static const size_t lengths[] = { 7, 64, 0 };
    unsigned char reason[64];
    unsigned round = 0;
    for (; round < 3; round++) {
        pattern_fill(reason, sizeof reason, round);
        if (opt.listen) {
            await_client(round);
            side_reject(reason, lengths[round]);
            side_destroy();
        } else {
            struct heard heard;
            begin(round, opt.timeout_ms);
            enum outcome outcome = side_connect(&heard);
            if (outcome != REJECTED) die("round %u: not rejected, but outcome %d", round, outcome);
            check_private(&heard, reason, lengths[round]);
            side_destroy();
        }
    }
    meet(round); /* the listener is none the worse */
    part();
}

/* A client that leaves as soon as it is connected; a server that leaves while operations are outstanding. */
static void run_early(void)
{
    enum { AT_ONCE, BUSY, FINE };
    struct heard heard;
    unsigned finished = 0;
    if (opt.listen) {
        await_client(AT_ONCE);
        if (accept_client(AT_ONCE) == ESTABLISHED) expect_end(); /* or it had gone before */
        side_destroy();
        meet(BUSY);
        expect_received();
    } else {
        begin(AT_ONCE, opt.timeout_ms);
        if (side_connect(&heard) != ESTABLISHED) die("no connection");
        side_disconnect();
        expect_end();
        side_destroy();
        meet(BUSY);
        for (unsigned i = 0; i < 8; i++) post(read_work(i * (size_t)SLOT, SLOT));
        post((struct work){ .verb = SEND, .piece = { { window, 0 } }, .pieces = 1 });
        for (unsigned i = 0; i < 9; i++) finished += side_next_sent().result == DONE;
        expect_end();
        note("early: %u of 9 operations were finished", finished);
    }
    side_destroy();
    meet(FINE);
    part();
}

/* A client that connects and closes at once may be heard of or not. */
static void run_unborn(void)
{
    enum { UNBORN, FINE, ROUNDS };
    struct heard heard;
    for (int i = 0; i < 5 && !opt.listen; i++) {
        begin(UNBORN, 0);
        side_connect(&heard);
        side_destroy();
    }
    while (opt.listen && await_any_client(ROUNDS) != FINE) {
        if (accept_client(UNBORN) == ESTABLISHED) expect_end();
        side_destroy();
    }
    if (opt.listen) finish_meeting(FINE);
    else meet(FINE);
    part();
}

static void run_many(void)
{
    for (unsigned round = 0; round < opt.count; round++) {
        meet(round);
        for (int turn = 0; turn < 2; turn++) {
            if (my_turn(turn)) post(gather(SEND, 64, 1, round)), expect_sent(SEND);
            else take_message(64, round);
        }
        part();
    }
}

/* The first request is never answered. */
static void run_silent(void)
{
    if (opt.listen) {
        await_client(0);
        side_abandon();
    } else {
        struct heard heard;
        uint64_t start = now_ms();
        begin(0, opt.deadline_ms);
        enum outcome outcome = side_connect(&heard);
        uint64_t waited = now_ms() - start;
        if (outcome != EXPIRED) die("outcome %d after %llu ms", outcome, (unsigned long long)waited);
        if (waited + 20 < opt.deadline_ms || waited > opt.deadline_ms + 5000)
            die("gave up after %llu ms, not %u", (unsigned long long)waited, opt.deadline_ms);
        side_destroy();
    }
    meet(1);
    part();
}

static void run_ird(void)
{
    static const struct { unsigned ird, ord; } asks[] = { { 1, 1 }, { 16, 16 }, { 4, 0 }, { 0, 4 } };
    struct options given = opt;
    for (unsigned round = 0; round < 4; round++) {
        uint32_t ird, ord;
        if (!opt.listen) opt.ird = asks[round].ird, opt.ord = asks[round].ord;
        meet(round);
        side_limits(&ird, &ord);
        tell(LIMITS, ird, ord);
        struct words peer = hear(LIMITS);
        note("ird: asked %u/%u, has %u/%u, the peer %u/%u", opt.ird, opt.ord, ird, ord, peer.a, peer.b);
        if (ord > peer.a) die("we may have %u Reads outstanding, the peer takes %u", ord, peer.a);
        for (int turn = 0; turn < 2; turn++)
            if (my_turn(turn) ? ord > 0 : peer.b > 0) many_reads(my_turn(turn), 32);
        part();
    }
    opt = given;
}

/* ---- what is wrong ----------------------------------------------------------------------------------------------- */

/* After an operation that the peer can't grant: it fails, or is a Write on iWARP, and the connection ends. */
static void expect_failure(enum verb verb, const char *what)
{
    struct done done = side_next_sent();
    bool unknowing = side_is_iwarp() && verb != READ; /* nothing tells of its arrival */
    note("%s: %s", what, result_name(done.result));
    if (done.result == DONE && !unknowing) die("%s: was done", what);
    if (!side_is_iwarp()) side_disconnect(); /* nothing else ends it there; on iWARP the peer's Terminate does */
    expect_end();
    side_destroy();
}

static void run_badkey(void)
{
    static const struct { const char *name; enum verb verb; enum { KEY_WRONG, BEYOND, NO_RIGHT } how; } cases[] = {
        { "read by a bad key", READ, KEY_WRONG }, { "write by a bad key", WRITE, KEY_WRONG },
        { "read out of bounds", READ, BEYOND },   { "write out of bounds", WRITE, BEYOND },
        { "write without the right", WRITE, NO_RIGHT },
    };
    for (unsigned round = 0; round < 10; round++) {
        unsigned i = round / 2;
        meet(round);
        if (my_turn(round % 2)) {
            struct work work = read_work(0, 64); /* one segment: of several, those within bounds are written */
            work.verb = cases[i].verb;
            work.piece[0].offset += window_length / 2;
            memset(area + work.piece[0].offset, 0x11, 64);
            if (cases[i].how == KEY_WRONG) work.key ^= 0x5a000000;
            if (cases[i].how == BEYOND) work.remote += window_length - 56;
            if (cases[i].how == NO_RIGHT) work.remote = theirs.readable_address, work.key = theirs.readable_key;
            hear(READY);
            post(work);
            expect_failure(work.verb, cases[i].name);
            for (unsigned at = 0; at < 64; at++)
                if (area[work.piece[0].offset + at] != 0x11) die("%s: has brought something", cases[i].name);
        } else {
            pattern_fill(area + window, REACH, round);
            pattern_fill(area + window + window_length - REACH, REACH, round);
            tell(READY, 0, 0);
            expect_end();
            pattern_check(area + window, REACH, round, cases[i].name);
            pattern_check(area + window + window_length - REACH, REACH, round, cases[i].name);
            side_destroy();
        }
    }
}

/* A message that is longer than the receive it meets. */
static void run_shortrecv(void)
{
    receive_size = 64;
    for (unsigned round = 0; round < 2; round++) {
        meet(round);
        if (my_turn(round)) {
            hear(READY);
            post(gather(SEND, 4096, 1, round));
            expect_failure(SEND, "too long a message");
        } else {
            tell(READY, 0, 0);
            struct done done = side_next_received();
            note("receive of too long a message: %s", result_name(done.result));
            if (done.result == DONE) die("a message of 4096 octets has gone into 64");
            expect_end();
            side_destroy();
        }
    }
    receive_size = SLOT;
}

/* ---- immediate data and invalidation ----------------------------------------------------------------------------- */

/* Posts it, or tells the peer that this can't be; as --refused says. */
static bool post_or_refuse(struct work work, const char *what)
{
    int rc = side_post(&work);
    note("%s: %s", what, rc == 0 ? "posted" : strerror(-rc));
    if ((rc != 0) != opt.refused) die("%s: %s", what, opt.refused ? "should be refused" : "is refused");
    if (rc == 0) expect_sent(work.verb);
    else tell(CANNOT, 0, 0);
    return rc == 0;
}

static void immediate(bool mine, enum verb verb, size_t size)
{
    uint32_t value = 0x80c0ffee ^ (uint32_t)size;
    if (mine) {
        struct work work = gather(verb, size, 1, size);
        work.immediate = value, work.remote = theirs.address + TARGET, work.key = theirs.key;
        hear(READY);
        post_or_refuse(work, verb == WRITE_IMM ? "write with immediate" : "send with immediate");
        hear(CHECKED);
        return;
    }
    set_guards(size);
    tell(READY, 0, 0);
    struct done done = expect_received();
    if (!is_control(&done, CANNOT)) {
        if (!done.has_immediate || done.immediate != value) die("immediate %x, not %x", done.immediate, value);
        if (verb == SEND_IMM) check_message(&done, size, size);
        else check_target(size, size);
    }
    side_receive_again(&done, receive_size);
    tell(CHECKED, 0, 0);
}

static void run_imm(void)
{
    meet(0);
    for (int turn = 0; turn < 2; turn++)
        for (size_t size = 0; size <= 40000; size += 20000) {
            immediate(my_turn(turn), SEND_IMM, size);
            immediate(my_turn(turn), WRITE_IMM, size);
        }
    part();
}

/* A key that was invalidated is of no use any more. */
static void run_inv(void)
{
    for (unsigned round = 0; round < 2; round++) {
        meet(round);
        if (my_turn(round)) {
            struct work work = gather(SEND_INV, 100, 1, round), after = read_work(0, 64);
            work.key = after.key = hear(KEY).a;
            if (post_or_refuse(work, "send with invalidate")) {
                hear(CHECKED);
                post(after);
                expect_failure(READ, "read by an invalidated key");
            } else {
                part();
            }
            continue;
        }
        uint32_t key = side_fleeting_key((struct piece){ window, 4096 });
        tell(KEY, key, 0);
        struct done done = expect_received();
        bool sent = !is_control(&done, CANNOT);
        if (sent) {
            check_message(&done, 100, round);
            note("invalidation is %s", done.has_invalidated ? "reported" : "not reported");
            if (done.has_invalidated && done.invalidated != key) die("key %x is invalidated", done.invalidated);
        }
        side_receive_again(&done, receive_size);
        if (!sent) {
            part();
            continue;
        }
        tell(CHECKED, 0, 0);
        expect_end();
        side_destroy();
    }
}

const struct scenario scenarios[] = {
    { "send", run_send },     { "write", run_write },   { "read", run_read },     { "bulk", run_bulk },
    { "reject", run_reject }, { "early", run_early },   { "unborn", run_unborn }, { "badkey", run_badkey },
    { "imm", run_imm },       { "inv", run_inv },       { "ird", run_ird },       { "shortrecv", run_shortrecv },
    { "many", run_many },     { "silent", run_silent }, { NULL, NULL },
};
