/* The server's side of hello_client: an epoll loop that stays the program's own.
 *
 *   hello_server HOST PORT       port 0 = any; the port is printed first. Serves one client.
 */
#include <netinet/in.h>
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <rdmacm_gluster.h>

struct offer {
    uint64_t addr;
    uint32_t key, length;
};

static char buf[1 << 20];
static rcg_mr *mr;

static int allowed(const struct sockaddr *peer)
{
    return peer->sa_family == AF_INET || peer->sa_family == AF_INET6;
}

/* Returns 1 when the client has gone. */
static int handle(const rcg_event *ev)
{
    switch (ev->type) {
    case RCG_EVENT_CONNECT_REQUEST: { /* who, from where, over what, with which private data */
        struct offer o = { .addr = (uintptr_t)buf, .length = sizeof buf };
        if (rcg_mr_key(mr, ev->conn, &o.key) == 0 && allowed(ev->peer))
            rcg_accept(ev->conn, &(rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT, .private_data = &o, .private_data_len = sizeof o });
        else
            rcg_reject(ev->conn, RCG_REJECT_AUTH, NULL, 0);
        break;
    }
    case RCG_EVENT_RECV: /* a received message, in a buffer lent by the library */
        if (ev->status != 0) break;
        printf("message '%.*s'; the buffer says: %s\n", (int)ev->length, (char *)ev->data, buf);
        rcg_recv_release(ev->conn, ev);
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
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    rcg_engine *eng;
    rcg_channel *ch;
    rcg_listener *lst;
    rcg_event ev[64];
    int i, n, gone = 0;

    if (argc != 3 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1) return 2;
    addr.sin_port = htons((uint16_t)atoi(argv[2]));
    if (rcg_engine_create(NULL, &eng) || rcg_channel_create(eng, &(rcg_channel_attr){ RCG_CHANNEL_ATTR_INIT }, &ch) ||
        rcg_mr_register(eng, buf, sizeof buf, RCG_LOCAL | RCG_REMOTE_WRITE, &mr) ||
        rcg_listen(ch, (struct sockaddr *)&addr, sizeof addr,
                   &(rcg_listen_attr){ RCG_LISTEN_ATTR_INIT, .backlog = 128, .recv_size = 4096, .recv_count = 64 }, &lst) ||
        rcg_listener_query(lst, &info)) {
        rcg_error why = { RCG_ERROR_INIT };
        rcg_last_error(&why);
        fprintf(stderr, "%s\n%s\n", why.text, why.remedy);
        return 1;
    }
    printf("port %u\n", ntohs(((struct sockaddr_in *)&info.local)->sin_port));
    fflush(stdout);

    int ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ready = { .events = EPOLLIN };
    epoll_ctl(ep, EPOLL_CTL_ADD, rcg_channel_fd(ch), &ready);
    while (!gone) {
        epoll_wait(ep, &ready, 1, -1);
        while ((n = rcg_channel_next(ch, ev, 64)) > 0)
            for (i = 0; i < n; i++) gone |= handle(&ev[i]);
    }
    rcg_channel_destroy(ch);
    rcg_mr_deregister(mr);
    rcg_engine_destroy(eng);
    return 0;
}
