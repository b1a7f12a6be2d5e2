/* What the test peers share. A peer is this header, peer.c, scenarios.c and one side: cm_peer.c stands on librdmacm and
 * libibverbs alone, rcg_peer.c on librdmacm-gluster. Each plays both roles, one connection at a time. */
#ifndef PEER_H
#define PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* ---- memory: one area; everything that is sent, received, written or read lies in it ----------------------------- */

enum {
    SLOT = 1 << 20, /* octets of one receive */
    SLOTS = 8,      /* receives that are posted all the time */
    PIECES = 4,     /* most pieces of one operation */
    DEPTH = 48,     /* operations that can be outstanding */
    PRIVATE = 256,  /* room for private data */
    MIN_WINDOW = 8 << 20,
};

extern unsigned char *area; /* SLOTS receives, a page for control messages, the window */
extern size_t area_length;
extern size_t window; /* where in the area the peer may read and write */
extern size_t window_length;

struct piece {
    size_t offset, length; /* octets, from the beginning of the area */
};

/* ---- options ----------------------------------------------------------------------------------------------------- */

struct options {
    bool listen;
    struct sockaddr_storage address;
    socklen_t address_length;
    unsigned timeout_ms;  /* bound on every wait */
    unsigned deadline_ms; /* `silent`: when the client gives up */
    unsigned bulk_mib, count;
    unsigned ird, ord;
    bool refused; /* what this side's provider can't do has to be refused */
    /* For librdmacm-gluster only. */
    const char *provider, *crc;
    unsigned mpa, max_fpdu;
    bool tagged, lent;
};

extern struct options opt;

/* ---- what a side does -------------------------------------------------------------------------------------------- */

enum verb { SEND, SEND_IMM, SEND_INV, WRITE, WRITE_IMM, READ, RECV };
enum result { DONE, FLUSHED, NO_ACCESS, TOO_LONG, BROKEN };
enum outcome { ESTABLISHED, REJECTED, FAILED, EXPIRED };
enum rights { MAY_READ = 1, MAY_WRITE = 2 };

struct work {
    enum verb verb;
    struct piece piece[PIECES];
    unsigned pieces;
    uint64_t remote;    /* address in the peer's memory */
    uint32_t key;       /* the peer's key to it, or the one to invalidate */
    uint32_t immediate; /* in host order */
    bool quiet;         /* no completion unless it fails */
};

struct done {
    enum verb verb;
    enum result result;
    const unsigned char *data; /* of a receive */
    size_t length;
    bool has_immediate, has_invalidated;
    uint32_t immediate, invalidated;
    unsigned slot; /* which receive it was */
    uint64_t lent; /* names a lent buffer */
};

struct heard { /* private data that came with a request, an accept or a reject */
    unsigned char data[PRIVATE];
    size_t length;
};

extern const char *const side_name;
extern const bool side_is_library; /* false: --provider and its like make no sense */

void side_start(void);
void side_stop(void);

uint16_t side_listen(void);
/* The next request; the connection can post receives and hand out keys from then on. */
void side_await_request(struct heard *heard);
enum outcome side_accept(const void *data, size_t length);
void side_reject(const void *data, size_t length);
/* Leaves the connection as it is, to be destroyed with the side. */
void side_abandon(void);

/* side_begin() makes the connection, so that it can post receives; side_connect() connects and waits for so long. */
void side_begin(const void *data, size_t length, unsigned wait_ms);
enum outcome side_connect(struct heard *heard);

void side_disconnect(void);
/* Whether the established connection ends within the bound. */
bool side_await_end(void);
void side_destroy(void);

uint32_t side_key(struct piece piece, unsigned rights);
/* A key with both rights that the peer can invalidate, where the provider has such keys. */
uint32_t side_fleeting_key(struct piece piece);
/* 0, or a negative errno if this can't be posted. */
int side_post(const struct work *work);
void side_post_receive(unsigned slot, size_t length);
/* Gives back what a finished receive has used. */
void side_receive_again(const struct done *done, size_t length);
struct done side_next_sent(void);
struct done side_next_received(void);

/* What the side knows of how the connection ended, for one who looks for the cause of a failure. */
void side_last_word(void);

/* iWARP: private data have their length, and a Write is finished when it was sent. */
bool side_is_iwarp(void);
/* Reads that the peer, and that we may have outstanding. */
void side_limits(uint32_t *ird, uint32_t *ord);

/* ---- what sides and scenarios use (peer.c) ----------------------------------------------------------------------- */

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *format, ...);
/* A line on standard output. */
__attribute__((format(printf, 1, 2))) void note(const char *format, ...);
uint64_t now_ms(void);
const char *result_name(enum result result);

/* A pattern of its own for every seed, with every eight octets different. */
void pattern_fill(unsigned char *at, size_t length, uint64_t seed);
void pattern_check(const unsigned char *at, size_t length, uint64_t seed, const char *what);

/* ---- scenarios.c ------------------------------------------------------------------------------------------------- */

struct scenario {
    const char *name;
    void (*run)(void);
};

extern const struct scenario scenarios[];
extern const struct scenario *scenario; /* the one that runs */

#endif
