/* Calls rpc_echo_server: NULL, then ECHO of 100,000 octets, which the server reads from our memory and writes back to it.
 * Events come as callbacks on the channel's thread.
 *
 *   rpc_echo_client HOST PORT
 */
#include <arpa/inet.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rdmacm_gluster.h>

enum { PROGRAM = 0x20000099, VERSION = 1, NULLPROC = 0, ECHO = 1, SIZE = 100000 };

struct app {
    char sent[SIZE], got[SIZE];
    rcg_mr *source, *target;
    int status;
    sem_t finished;
};

/* A call's head: xid, call, version 2 of RPC, what is called, neither credential nor verifier. `xid` is `user` as well. */
static int call(rcg_conn *conn, uint32_t xid, uint32_t procedure, struct app *a)
{
    uint32_t head[11] = { xid, 0, 2, PROGRAM, VERSION, procedure, 0, 0, 0, 0, SIZE }, i;
    rcg_sge source = { .addr = a->sent, .length = SIZE, .mr = a->source };
    rcg_sge target = { .addr = a->got, .length = SIZE, .mr = a->target };
    rcg_rpc_memory result = { .sge = &target, .nsge = 1 };
    struct iovec words = { head, 40 };
    rcg_rpc_request request = { RCG_RPC_REQUEST_INIT, .head = &words, .nhead = 1, .reply_max = 28,
                                .user = (void *)(uintptr_t)xid };
    for (i = 0; i < 11; i++) head[i] = htonl(head[i]);
    if (procedure == ECHO) { /* the length of the opaque<> stays in the message, its octets don't, in both directions */
        words.iov_len = 44;
        request.payload = (rcg_rpc_memory){ .sge = &source, .nsge = 1, .at = 44 };
        request.results = &result;
        request.nresults = 1;
    }
    return rcg_rpc_call(conn, &request);
}

/* Whether a reply says that the call was done: call, accepted, no verifier, success. */
static int succeeded(const rcg_event *ev, uint32_t *length)
{
    uint32_t words[7] = { 0 };
    if (ev->status != 0 || ev->length < 24) return 0;
    memcpy(words, ev->data, ev->length < sizeof words ? ev->length : sizeof words);
    *length = ntohl(words[6]);
    return words[2] == 0 && words[3] == 0 && words[4] == 0 && words[5] == 0;
}

static void on_events(rcg_channel *ch, const rcg_event *ev, size_t n, void *arg)
{
    struct app *a = arg;
    uint32_t length;
    (void)ch;
    for (; n--; ev++) switch (ev->type) {
    case RCG_EVENT_ESTABLISHED:
        if (call(ev->conn, 1, NULLPROC, a)) rcg_conn_close(ev->conn);
        break;
    case RCG_EVENT_RPC_REPLY:
        if (!succeeded(ev, &length)) {
            fprintf(stderr, "call %u failed: status %d\n", (unsigned)(uintptr_t)ev->user, ev->status);
            rcg_conn_close(ev->conn);
        } else if (ev->user == (void *)1) {
            if (call(ev->conn, 2, ECHO, a)) rcg_conn_close(ev->conn);
        } else { /* pieces[0] is what has been written of the first result: `got` */
            if (length == SIZE && ev->rpc->pieces[0].length >= SIZE && memcmp(a->sent, a->got, SIZE) == 0) a->status = 0;
            rcg_conn_disconnect(ev->conn);
        }
        break;
    case RCG_EVENT_CONNECT_FAILED: fprintf(stderr, "%s\n", ev->error->text); break;
    case RCG_EVENT_CLOSED: /* last event of this handle */
        sem_post(&a->finished);
        break;
    default: break;
    }
}

int main(int argc, char **argv)
{
    static struct app app = { .status = -1 };
    rcg_rpc_attr rpc = { RCG_RPC_ATTR_INIT }; /* the defaults: 64 calls at a time, messages of 4 KiB */
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .timeout_ms = 5000, .rpc = &rpc };
    rcg_engine *eng;
    rcg_channel *ch;
    rcg_conn *conn;
    int i;

    if (argc != 3) return 2;
    for (i = 0; i < SIZE; i++) app.sent[i] = (char)(i ^ i >> 8);
    sem_init(&app.finished, 0, 0);
    if (rcg_engine_create(NULL, &eng) ||
        rcg_channel_create(eng, &(rcg_channel_attr){ RCG_CHANNEL_ATTR_INIT, .on_events = on_events, .arg = &app }, &ch) ||
        rcg_mr_register(eng, app.sent, SIZE, RCG_LOCAL | RCG_REMOTE_READ, &app.source) ||
        rcg_mr_register(eng, app.got, SIZE, RCG_LOCAL | RCG_REMOTE_WRITE, &app.target) ||
        rcg_connect_host(ch, argv[1], argv[2], &attr, &conn)) {
        rcg_error why = { RCG_ERROR_INIT };
        rcg_last_error(&why);
        fprintf(stderr, "%s\n%s\n", why.text, why.remedy);
        return 1;
    }
    sem_wait(&app.finished);
    if (app.status == 0) printf("echo of %d octets: as sent\n", SIZE);
    rcg_channel_destroy(ch);
    rcg_mr_deregister(app.source);
    rcg_mr_deregister(app.target);
    rcg_engine_destroy(eng);
    return app.status == 0 ? 0 : 1;
}
