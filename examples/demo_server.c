/* Serves one demo_client: a file comes by RDMA Write, then again by Send, and is read back by RDMA Read.
 *
 *   demo_server HOST PORT WORKDIR        port 0 = any; the port is printed first
 */
#define _GNU_SOURCE
#include "demo.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/mman.h>

struct server {
    rcg_engine *engine;
    rcg_conn *conn;
    const char *dir;
    size_t size;
    char *written; /* where the client writes to and reads from */
    char *sent;    /* where we put what it sends */
    size_t received;
    int sending; /* what was to be written has been; now it is sent */
    rcg_mr *mr;
    double start;
    int done;
};

static void *memory(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return p;
}

/* A client says how much it has: give it that much memory, and the key to it. */
static void request(struct server *s, const rcg_event *ev)
{
    struct hello hello;
    struct offer offer = { 0 };
    if (s->conn != NULL || ev->private_data_len != sizeof hello) {
        check(rcg_reject(ev->conn, RCG_REJECT_APP, "one client only", 15), "reject");
        return;
    }
    memcpy(&hello, ev->private_data, sizeof hello);
    s->conn = ev->conn;
    s->size = hello.size;
    s->written = memory(s->size);
    s->sent = memory(s->size);
    check(rcg_mr_register(s->engine, s->written, s->size, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &s->mr),
          "register");
    check(rcg_mr_key(s->mr, ev->conn, &offer.key), "key"); /* works on this connection only, and ends with it */
    offer.addr = (uintptr_t)s->written;
    rcg_accept_attr attr = { RCG_ACCEPT_ATTR_INIT, .private_data = &offer, .private_data_len = sizeof offer };
    check(rcg_accept(ev->conn, &attr), "accept");
}

/* All has arrived: say so, then save it and send its SHA-256. */
static void answer(struct server *s, const char *what, const void *data)
{
    char path[4096], sum[65];
    rcg_op op = RCG_OP_SEND_COPY(ARRIVED, strlen(ARRIVED), NULL);
    check(rcg_post(s->conn, &op, 1), "post");
    print_rate("server", what, s->size, seconds() - s->start);
    snprintf(path, sizeof path, "%s/server-%s", s->dir, data == s->sent ? "sent" : "written");
    save_and_sum(data, s->size, path, sum);
    printf("server: %-11s SHA-256 %s\n", what, sum);
    op = (rcg_op)RCG_OP_SEND_COPY(sum, 64, NULL);
    check(rcg_post(s->conn, &op, 1), "post");
}

static int is(const rcg_event *ev, const char *text)
{
    return ev->length == strlen(text) && memcmp(ev->data, text, ev->length) == 0;
}

/* A message, in a buffer that the library lends us. */
static void message(struct server *s, const rcg_event *ev)
{
    if (ev->status != 0) return;
    if (s->sending == 0 && is(ev, BEGIN)) {
        s->start = seconds();
    } else if (s->sending == 0 && is(ev, WRITTEN)) {
        answer(s, "RDMA Write", s->written);
        s->sending = 1;
        s->start = 0;
    } else if (ev->length <= s->size - s->received) {
        if (s->start == 0) s->start = seconds();
        memcpy(s->sent + s->received, ev->data, ev->length);
        s->received += ev->length;
        if (s->received == s->size) answer(s, "Send", s->sent);
    }
    check(rcg_recv_release(s->conn, ev), "release");
}

static void event(struct server *s, const rcg_event *ev)
{
    switch (ev->type) {
    case RCG_EVENT_CONNECT_REQUEST: request(s, ev); break;
    case RCG_EVENT_ESTABLISHED: print_stages("server", ev->conn); break;
    case RCG_EVENT_RECV: message(s, ev); break;
    case RCG_EVENT_CONNECT_FAILED:
    case RCG_EVENT_DISCONNECTED: printf("server: %s\n", ev->error ? ev->error->text : "disconnected"); break;
    case RCG_EVENT_CLOSED: s->done |= ev->conn == s->conn; break;
    default: break;
    }
}

static rcg_listener *start_listening(rcg_channel *channel, const char *host, const char *port)
{
    struct addrinfo hints = { .ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM }, *found;
    rcg_listen_attr attr = { RCG_LISTEN_ATTR_INIT, .recv_size = CHUNK, .recv_count = 16 };
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    rcg_listener *listener;
    int rc = getaddrinfo(host, port, &hints, &found);
    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", host, gai_strerror(rc));
        exit(1);
    }
    check(rcg_listen(channel, found->ai_addr, found->ai_addrlen, &attr, &listener), "listen");
    freeaddrinfo(found);
    check(rcg_listener_query(listener, &info), "query");
    /* the port is at the same place for both families */
    printf("port %u\n", ntohs(((struct sockaddr_in *)&info.local)->sin_port));
    fflush(stdout);
    return listener;
}

int main(int argc, char **argv)
{
    struct server server = { 0 };
    rcg_channel *channel;

    if (argc != 4) {
        fprintf(stderr, "usage: %s HOST PORT WORKDIR\n", argv[0]);
        return 2;
    }
    server.dir = argv[3];
    check(rcg_engine_create(NULL, &server.engine), "engine");
    check(rcg_channel_create(server.engine, &(rcg_channel_attr){ RCG_CHANNEL_ATTR_INIT }, &channel), "channel");
    start_listening(channel, argv[1], argv[2]);

    /* The event loop stays the program's own: the channel is one more descriptor in it. */
    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event interest = { .events = EPOLLIN }, ready;
    if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, rcg_channel_fd(channel), &interest) != 0) {
        perror("epoll");
        return 1;
    }
    while (!server.done) {
        rcg_event events[16];
        int n;
        epoll_wait(ep, &ready, 1, -1);
        while ((n = rcg_channel_next(channel, events, 16)) > 0)
            for (int i = 0; i < n; i++) event(&server, &events[i]);
        check(n, "next");
    }
    check(rcg_channel_destroy(channel), "channel"); /* closes the listener too */
    check(rcg_mr_deregister(server.mr), "deregister");
    check(rcg_engine_destroy(server.engine), "engine");
    printf("server: done\n");
    return server.received == server.size ? 0 : 1;
}
