/* Puts a buffer into the peer's memory, tells it, and leaves. Events come as callbacks on the channel's thread.
 *
 *   hello_client HOST PORT
 */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rdmacm_gluster.h>

struct app {
    struct {
        uint64_t addr;
        uint32_t key, length;
    } offer;
    char buf[64];
    size_t len;
    rcg_mr *mr;
    int status;
    sem_t finished;
};

static void on_events(rcg_channel *ch, const rcg_event *ev, size_t n, void *arg)
{
    struct app *a = arg;
    (void)ch;
    for (; n--; ev++) switch (ev->type) {
    case RCG_EVENT_ESTABLISHED: { /* peer's offer came with the accept */
        if (ev->private_data_len != sizeof a->offer) {
            rcg_conn_close(ev->conn);
            break;
        }
        memcpy(&a->offer, ev->private_data, sizeof a->offer);
        rcg_sge sge = { .addr = a->buf, .length = a->len, .mr = a->mr };
        rcg_op ops[2] = {
            RCG_OP_WRITE(&sge, 1, a->offer.addr, a->offer.key, NULL), /* unsignalled: no completion wanted */
            RCG_OP_SEND_COPY("done", 4, a),                           /* small, copied: no region needed */
        };
        if (rcg_post(ev->conn, ops, 2)) rcg_conn_close(ev->conn);
        break;
    }
    case RCG_EVENT_COMPLETION: /* ev->user == a, ev->op == RCG_SEND, ev->status */
        a->status = ev->status;
        rcg_conn_disconnect(ev->conn);
        break;
    case RCG_EVENT_CONNECT_FAILED: /* ev->error: stage, code, both addresses, elapsed, text, remedy */
        fprintf(stderr, "%s\n", ev->error->text);
        break;
    case RCG_EVENT_CLOSED: /* last event of this handle */
        sem_post(&a->finished);
        break;
    default: break;
    }
}

int main(int argc, char **argv)
{
    static struct app app = { .buf = "hello, memory of another process", .len = 33, .status = -1 };
    rcg_engine *eng;
    rcg_channel *ch;
    rcg_conn *conn;

    if (argc != 3) return 2;
    sem_init(&app.finished, 0, 0);
    if (rcg_engine_create(NULL, &eng) || /* no device needed */
        rcg_channel_create(eng, &(rcg_channel_attr){ RCG_CHANNEL_ATTR_INIT, .on_events = on_events, .arg = &app }, &ch) ||
        rcg_mr_register(eng, app.buf, sizeof app.buf, RCG_LOCAL, &app.mr) ||
        rcg_connect_host(ch, argv[1], argv[2], &(rcg_connect_attr){ RCG_CONNECT_ATTR_INIT, .timeout_ms = 5000 }, &conn)) {
        rcg_error why = { RCG_ERROR_INIT };
        rcg_last_error(&why);
        fprintf(stderr, "%s\n%s\n", why.text, why.remedy);
        return 1;
    }
    sem_wait(&app.finished);
    rcg_channel_destroy(ch);
    rcg_mr_deregister(app.mr);
    rcg_engine_destroy(eng);
    return app.status == 0 ? 0 : 1;
}
