/* No thread of the library's at all: one loop of the caller's drives a server and a client, which exchange a message.
 *
 *   manual [ADDRESS]      an IPv4 address of this machine; 127.0.0.1 without
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include <rdmacm_gluster.h>

static int closed, answered;

static void serve(const rcg_event *ev)
{
    switch (ev->type) {
    case RCG_EVENT_CONNECT_REQUEST: rcg_accept(ev->conn, &(rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT }); break;
    case RCG_EVENT_RECV:
        if (ev->status == 0) {
            rcg_op op = RCG_OP_SEND_COPY(ev->data, (uint32_t)ev->length, NULL); /* echo: copied at once */
            rcg_post(ev->conn, &op, 1);
            rcg_recv_release(ev->conn, ev);
        }
        break;
    case RCG_EVENT_CLOSED: closed++; break;
    default: break;
    }
}

static void ask(const rcg_event *ev)
{
    switch (ev->type) {
    case RCG_EVENT_ESTABLISHED: {
        rcg_op op = RCG_OP_SEND_COPY("hello", 5, NULL);
        if (rcg_post(ev->conn, &op, 1)) rcg_conn_close(ev->conn);
        break;
    }
    case RCG_EVENT_RECV:
        if (ev->status == 0) {
            answered = ev->length == 5 && memcmp(ev->data, "hello", 5) == 0;
            rcg_recv_release(ev->conn, ev);
            rcg_conn_disconnect(ev->conn);
        }
        break;
    case RCG_EVENT_CONNECT_FAILED: fprintf(stderr, "%s\n", ev->error->text); break;
    case RCG_EVENT_CLOSED: closed++; break;
    default: break;
    }
}

/* Lets a channel work for at most `timeout_ms` and handles its events. Negative = the channel is broken. */
static int drive(rcg_channel *ch, int timeout_ms, void (*handle)(const rcg_event *))
{
    rcg_event ev[16];
    int i, n = rcg_channel_run(ch, timeout_ms);
    if (n < 0) return n;
    while ((n = rcg_channel_next(ch, ev, 16)) > 0)
        for (i = 0; i < n; i++) handle(&ev[i]);
    return n;
}

int main(int argc, char **argv)
{
    struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    rcg_channel_attr by_hand = { RCG_CHANNEL_ATTR_INIT, .manual = 1 };
    rcg_engine *eng;
    rcg_channel *server, *client;
    rcg_listener *lst;
    rcg_conn *conn;

    if (argc > 1 && inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1) return 2;
    if (rcg_engine_create(NULL, &eng) || rcg_channel_create(eng, &by_hand, &server) ||
        rcg_channel_create(eng, &by_hand, &client) ||
        rcg_listen(server, (struct sockaddr *)&addr, sizeof addr,
                   &(rcg_listen_attr){ RCG_LISTEN_ATTR_INIT, .recv_size = 256, .recv_count = 4 }, &lst) ||
        rcg_listener_query(lst, &info) ||
        rcg_connect(client, &(rcg_addr){ .addr = (struct sockaddr *)&info.local, .length = sizeof addr }, 1,
                    &(rcg_connect_attr){ RCG_CONNECT_ATTR_INIT, .recv_size = 256, .recv_count = 4 }, &conn)) {
        rcg_error why = { RCG_ERROR_INIT };
        rcg_last_error(&why);
        fprintf(stderr, "%s\n%s\n", why.text, why.remedy);
        return 1;
    }
    while (closed < 2)
        if (drive(server, 1, serve) < 0 || drive(client, 1, ask) < 0) break;
    rcg_channel_destroy(client);
    rcg_channel_destroy(server);
    rcg_engine_destroy(eng);
    printf("%s\n", answered ? "answered" : "no answer");
    return answered ? 0 : 1;
}
