/* Our side of what ucmatose(1) and cmtime(1) speak, over librdmacm-gluster, to be tried against the unmodified programs.
 *
 *   rcg_cmatose [-l] [-P PROVIDER] [-c CONNECTIONS] [-C MESSAGES] [-S SIZE] HOST PORT
 *
 * ucmatose: all connections are made; the server sends MESSAGES on each, the client has them and sends as many; the server
 * has those and disconnects. cmtime (-C 0): all connections are made, and the client disconnects them. What the messages say
 * does not matter to either. */
#include "perf_common.h"

#include <unistd.h>

enum { SLEEP_MS = 200, MOST = 256 };

struct link {
    rcg_conn *conn;
    unsigned sent, received;
};
static struct link links[MOST];
static unsigned count = 1, messages = 10, asked, established, ended, closed;
static size_t size = 100;
static unsigned char *memory;
static rcg_mr *region;
static bool server;
static rcg_conn_info info = { RCG_CONN_INFO_INIT };

static void post_recvs(struct link *link)
{
    rcg_sge sge = { memory, size, region };
    rcg_recv recv = { .sge = &sge, .nsge = 1 };
    for (unsigned i = 0; i < messages; i++) must(rcg_post_recv(link->conn, &recv, 1), "rcg_post_recv");
}

static void on_event(const rcg_event *ev)
{
    struct link *link = ev->context;
    if (ev->conn == NULL) return; /* the listener */
    switch (ev->type) {
    case RCG_EVENT_CONNECT_REQUEST: {
        rcg_accept_attr attr = { RCG_ACCEPT_ATTR_INIT };
        if (asked == count) die("a connection more than %u", count);
        attr.context = link = &links[asked++];
        link->conn = ev->conn;
        post_recvs(link);
        must(rcg_accept(ev->conn, &attr), "rcg_accept");
        break;
    }
    case RCG_EVENT_ESTABLISHED:
        must(rcg_conn_query(ev->conn, &info), "rcg_conn_query");
        established++;
        break;
    case RCG_EVENT_CONNECT_FAILED: die("%s", ev->error->text);
    case RCG_EVENT_DISCONNECTED:
        if (ev->status != -ESHUTDOWN && ev->status != -ECANCELED) die("%s", ev->error->text);
        ended++;
        break;
    case RCG_EVENT_CLOSED: closed++; break;
    case RCG_EVENT_COMPLETION:
        /* siw may call a Send flushed that the peer has had, where that left before siw had booked it. */
        if (ev->status && (server || ev->status != -ECANCELED)) die("%s: %s", rcg_op_name(ev->op), strerror(-ev->status));
        link->sent++;
        break;
    case RCG_EVENT_RECV:
        if (ev->status) die("a receive: %s", strerror(-ev->status));
        if (ev->length != size) die("a message of %zu octets, not %zu", ev->length, size);
        link->received++;
        break;
    default: break;
    }
}

static bool all_sent(void)
{
    for (unsigned i = 0; i < count; i++)
        if (links[i].sent < messages) return false;
    return true;
}

static bool all_received(void)
{
    for (unsigned i = 0; i < count; i++)
        if (links[i].received < messages) return false;
    return true;
}

static void send_all(void)
{
    rcg_sge sge = { memory + size, size, region };
    rcg_op op = RCG_OP_SEND(&sge, 1, memory);
    for (unsigned i = 0; i < count; i++)
        for (unsigned n = 0; n < messages; n++) must(rcg_post(links[i].conn, &op, 1), "rcg_post");
}

int main(int argc, char **argv)
{
    uint32_t provider = RCG_PROVIDER_AUTO;
    rcg_listener *listener = NULL;
    int c;
    while ((c = getopt(argc, argv, "lP:c:C:S:")) != -1)
        switch (c) {
        case 'l': server = true; break;
        case 'P': provider = provider_of(optarg); break;
        case 'c': count = (unsigned)number(optarg, MOST); break;
        case 'C': messages = (unsigned)number(optarg, 64); break;
        case 'S': size = number(optarg, 1 << 20); break;
        default: return 2;
        }
    if (argc - optind != 2 || !count || !size) die("see the head of the source for the usage");
    struct sockaddr_in address = address_of(argv[optind], (uint16_t)number(argv[optind + 1], 65535));
    rcg_addr to = { .addr = (struct sockaddr *)&address, .length = sizeof address };
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .provider = provider };
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .provider = provider };

    open_library(100);
    memory = shared_memory(2 * size, &region);
    if (server) {
        must(rcg_listen(channel, to.addr, to.length, &listen, &listener), "rcg_listen");
        printf("listening\n");
        fflush(stdout);
    }
    for (; !server && asked < count; asked++) {
        connect.context = &links[asked];
        must(rcg_connect(channel, &to, 1, &connect, &links[asked].conn), "rcg_connect");
        post_recvs(&links[asked]);
    }
    AWAIT(established == count, SLEEP_MS);
    if (messages) {
        if (server) send_all();
        AWAIT(all_received(), SLEEP_MS);
        if (!server) send_all();
        AWAIT(all_sent(), SLEEP_MS);
    }
    for (unsigned i = 0; i < count && server == (messages > 0); i++)
        must(rcg_conn_disconnect(links[i].conn), "rcg_conn_disconnect");
    AWAIT(closed == count, SLEEP_MS);
    if (ended != count) die("%u of %u connections have ended by DISCONNECTED", ended, count);
    printf("%u connections, %u messages on each in both directions, provider %s\n", count, messages,
           provider_name(info.provider));
    if (listener) must(rcg_listener_close(listener), "rcg_listener_close");
    close_library();
    must(rcg_mr_deregister(region), "rcg_mr_deregister");
    must(rcg_engine_destroy(engine), "rcg_engine_destroy");
    return 0;
}
