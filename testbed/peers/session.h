/* A connection as the scenarios see it: greeting with private data, control messages, the end. All of it dies when
 * something is not as expected. */
#ifndef SESSION_H
#define SESSION_H

#include "peer.h"

/* What the peer has offered. */
struct theirs {
    uint64_t address; /* its window */
    size_t length;
    uint32_t key;
    uint64_t readable_address; /* the beginning of its window, by a key that can only read */
    uint32_t readable_key;
};

struct words {
    uint32_t a, b;
};

/* Control messages. */
enum what { GO = 1, READY, WRITTEN, CHECKED, LIMITS, KEY, CANNOT, BYE };

extern struct theirs theirs;
extern size_t receive_size; /* of each receive */

/* Both ends: a connection up to where offers are exchanged; its orderly end. `round` tells connections apart. */
void meet(unsigned round);
void part(void);

/* The server's steps to the same. */
void await_client(unsigned round);
unsigned await_any_client(unsigned rounds);
enum outcome accept_client(unsigned round);
void finish_meeting(unsigned round); /* accepts, and exchanges offers */
/* The client's; side_connect() comes next. */
void begin(unsigned round, unsigned wait_ms);
void check_private(const struct heard *heard, const void *expected, size_t length);

void tell(enum what what, uint32_t a, uint32_t b);
struct words hear(enum what what);
bool is_control(const struct done *done, enum what what);

void post(struct work work);
void expect_sent(enum verb verb);
struct done expect_received(void);
void expect_end(void);

#endif
