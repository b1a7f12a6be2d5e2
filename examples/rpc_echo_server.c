/* ONC RPC over RDMA (RFC 8166) as small as it gets: program 0x20000099, version 1, procedure 0 NULL, procedure 1 ECHO of an
 * opaque<>. Headers are put together by hand; programs leave that to their RPC library.
 *
 *   rpc_echo_server HOST PORT    port 0 = any; the port is printed first. Serves one client.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rdmacm_gluster.h>

enum { PROGRAM = 0x20000099, VERSION = 1, NULLPROC = 0, ECHO = 1, MOST = 1 << 20 };
enum { SUCCESS, PROG_UNAVAIL, PROG_MISMATCH, PROC_UNAVAIL, GARBAGE_ARGS, SYSTEM_ERR };

static rcg_arena *arena;

/* The word that begins at an octet of the message; 0 behind its end. */
static uint32_t word(const rcg_event *call, size_t at)
{
    uint32_t value = 0;
    if (at + 4 <= call->length) memcpy(&value, (const char *)call->data + at, 4);
    return ntohl(value);
}

/* Credential and verifier: flavor, length, so many octets and their pad. */
static size_t skip_auth(const rcg_event *call, size_t at)
{
    return at + 8 + (((size_t)word(call, at + 4) + 3) & ~(size_t)3);
}

/* The opaque<> that begins at an octet of the message. What is in it is there, or the client has offered it apart, and the
 * library has read it. NULL = neither. */
static const void *opaque(const rcg_event *call, size_t at, uint32_t *length)
{
    const rcg_rpc_piece *piece = call->rpc->pieces;
    *length = word(call, at);
    at += 4;
    if (at > call->length || *length > MOST) return NULL;
    if (call->rpc->npieces == 0) return *length <= call->length - at ? (const char *)call->data + at : NULL;
    return call->rpc->npieces == 1 && piece->at == at && *length <= piece->length ? piece->addr : NULL;
}

static void answer(const rcg_event *call)
{
    uint32_t xid = call->rpc->xid, stat = SUCCESS, length = 0, i;
    size_t args = skip_auth(call, skip_auth(call, 24));
    uint32_t procedure = word(call, 20);
    const void *from;
    rcg_buffer buffer = { 0 };

    if (word(call, 12) != PROGRAM) stat = PROG_UNAVAIL;
    else if (word(call, 16) != VERSION) stat = PROG_MISMATCH;
    else if (procedure == ECHO) {
        if ((from = opaque(call, args, &length)) == NULL) stat = GARBAGE_ARGS;
        else if (rcg_arena_get(arena, &buffer)) stat = SYSTEM_ERR;
        else memcpy(buffer.addr, from, length); /* what goes directly has to be in a region */
    } else if (procedure != NULLPROC) stat = PROC_UNAVAIL;

    /* xid, reply, accepted, no verifier, how it went; then the lowest and highest version, or the opaque's length */
    uint32_t head[8] = { xid, 1, 0, 0, 0, stat, VERSION, VERSION };
    size_t words = stat == PROG_MISMATCH ? 8 : 6;
    if (buffer.addr) head[words++] = length;
    for (i = 0; i < words; i++) head[i] = htonl(head[i]);
    rcg_sge sge = { .addr = buffer.addr, .length = length, .mr = buffer.mr };
    rcg_rpc_memory result = { .sge = &sge, .nsge = 1, .at = 28 };
    rcg_rpc_response response = { RCG_RPC_RESPONSE_INIT, .head = &(struct iovec){ head, 4 * words }, .nhead = 1,
                                  .payloads = &result, .npayloads = length > 0, .user = buffer.addr };
    if (rcg_rpc_reply(call->conn, call->rpc->call, &response) == 0) return;
    if (buffer.addr) rcg_arena_put(arena, buffer.addr);
    rcg_rpc_refuse(call->conn, call->rpc->call); /* the client has no room for it */
}

/* Returns 1 when the client has gone. */
static int handle(const rcg_event *ev)
{
    switch (ev->type) {
    case RCG_EVENT_CONNECT_REQUEST: rcg_accept(ev->conn, NULL); break;
    case RCG_EVENT_RPC_CALL: answer(ev); break;
    case RCG_EVENT_RPC_ANSWERED: /* the buffer is ours again */
        if (ev->user) rcg_arena_put(arena, ev->user);
        break;
    case RCG_EVENT_CONNECT_FAILED: fprintf(stderr, "%s\n", ev->error->text); break;
    case RCG_EVENT_CLOSED: return 1;
    default: break;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_in addr = { .sin_family = AF_INET };
    rcg_rpc_attr rpc = { RCG_RPC_ATTR_INIT, .max_payload = MOST };
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    rcg_engine *eng;
    rcg_channel *ch;
    rcg_listener *lst;
    rcg_event ev[64];
    int i, n, gone = 0;

    if (argc != 3 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1) return 2;
    addr.sin_port = htons((uint16_t)atoi(argv[2]));
    if (rcg_engine_create(NULL, &eng) || rcg_channel_create(eng, NULL, &ch) ||
        rcg_arena_create(eng, &(rcg_arena_attr){ RCG_ARENA_ATTR_INIT, .buffer_size = MOST, .count = 2 }, &arena) ||
        rcg_listen(ch, (struct sockaddr *)&addr, sizeof addr, &(rcg_listen_attr){ RCG_LISTEN_ATTR_INIT, .rpc = &rpc }, &lst) ||
        rcg_listener_query(lst, &info)) {
        rcg_error why = { RCG_ERROR_INIT };
        rcg_last_error(&why);
        fprintf(stderr, "%s\n%s\n", why.text, why.remedy);
        return 1;
    }
    printf("port %u\n", ntohs(((struct sockaddr_in *)&info.local)->sin_port));
    fflush(stdout);

    struct pollfd ready = { .fd = rcg_channel_fd(ch), .events = POLLIN };
    while (!gone) {
        poll(&ready, 1, -1);
        while ((n = rcg_channel_next(ch, ev, 64)) > 0)
            for (i = 0; i < n; i++) gone |= handle(&ev[i]);
    }
    rcg_channel_destroy(ch);
    rcg_arena_destroy(arena);
    rcg_engine_destroy(eng);
    return 0;
}
