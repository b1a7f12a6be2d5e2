/* Many idle connections on one channel, provider iwarp: idle connections --count N. Prints octets of memory of one
 * connection at the client and at the server, the kernel's apart, then microseconds of a round trip of 64 octets with one
 * connection and on one of N. No receive buffers of the library's; a receive is posted where the round trips are. */
#include "rcg.h"

enum { PENDING = 64, ROUND_TRIPS = 5000, DEPTH = 16 };

static unsigned char inbox[64];
static uint16_t port;
static rcg_conn **conns;
static uint64_t wanted, asked, there; /* connections: on the client's channel thread, but for `wanted` */
static uint64_t trips;

static double resident(void)
{
    unsigned long size, pages;
    FILE *file = fopen("/proc/self/statm", "r");
    MUST(file != NULL && fscanf(file, "%lu %lu", &size, &pages) == 2);
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void open_side(rcg_events_fn on_events)
{
    open_channel(on_events, SPIN_US, false);
    MUST_OK(rcg_mr_register(engine, inbox, sizeof inbox, RCG_LOCAL, &mr));
}

static void post_receive(rcg_conn *conn)
{
    rcg_sge sge = { inbox, sizeof inbox, mr };
    rcg_recv receive = { .sge = &sge, .nsge = 1 };
    MUST_OK(rcg_post_recv(conn, &receive, 1));
}

static void send_one(rcg_conn *conn)
{
    rcg_op op = RCG_OP_SEND_COPY(inbox, sizeof inbox, NULL);
    MUST_OK(rcg_post(conn, &op, 1));
}

static void on_server(rcg_channel *ch, const rcg_event *ev, size_t count, void *arg)
{
    (void)ch, (void)arg;
    for (; count--; ev++) {
        if (ev->type == RCG_EVENT_CONNECT_REQUEST) {
            post_receive(ev->conn);
            MUST_OK(rcg_accept(ev->conn, NULL));
        } else if (ev->type == RCG_EVENT_RECV && ev->status == 0) {
            post_receive(ev->conn);
            send_one(ev->conn);
        }
    }
}

static void serve(int control)
{
    rcg_listen_attr attr = { RCG_LISTEN_ATTR_INIT, .provider = RCG_PROVIDER_IWARP, .backlog = 2 * PENDING,
                             .recv_depth = DEPTH };
    struct hello hello = { 0 };
    open_side(on_server);
    hello.port = listen_at(&attr);
    double before = resident();
    tell(control, &hello);
    while (read(control, &hello, sizeof hello) == sizeof hello) {
        hello.addr = (uint64_t)(resident() - before);
        tell(control, &hello);
    }
}

static void connect_more(void)
{
    struct sockaddr_in to = loopback(port);
    rcg_addr addr = { .addr = (struct sockaddr *)&to, .length = sizeof to };
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .provider = RCG_PROVIDER_IWARP, .recv_depth = DEPTH };
    for (; asked < wanted && asked - there < PENDING; asked++) MUST_OK(rcg_connect(channel, &addr, 1, &attr, &conns[asked]));
}

static void on_client(rcg_channel *ch, const rcg_event *ev, size_t count, void *arg)
{
    (void)ch, (void)arg;
    for (; count--; ev++) switch (ev->type) {
    case RCG_EVENT_ESTABLISHED:
        if (++there == wanted) sem_post(&done);
        else connect_more();
        break;
    case RCG_EVENT_CONNECT_FAILED: die("%s", ev->error->text);
    case RCG_EVENT_RECV:
        if (++trips == ROUND_TRIPS) {
            sem_post(&done);
        } else {
            post_receive(ev->conn);
            send_one(ev->conn);
        }
        break;
    default: break;
    }
}

static double round_trip(rcg_conn *conn)
{
    trips = 0;
    double start = now_s();
    post_receive(conn);
    send_one(conn);
    await();
    return (now_s() - start) / ROUND_TRIPS * 1e6;
}

/* Nothing is on its way when this is called: the channel's thread does not connect at the same time. */
static void connect_to(uint64_t count)
{
    wanted = count;
    connect_more();
    await();
}

static void ask(const struct hello *hello)
{
    struct hello server = { 0 };
    double before, one, many, mine;
    port = hello->port;
    MUST((conns = calloc(opt.count, sizeof *conns)) != NULL);
    open_side(on_client);
    connect_to(1);
    round_trip(conns[0]);
    one = round_trip(conns[0]);
    before = resident();
    connect_to(opt.count);
    mine = resident() - before;
    tell(control_fd, &server);
    hear(&server);
    round_trip(conns[opt.count / 2]);
    many = round_trip(conns[opt.count / 2]);
    /* The server goes when all is printed: that connections end then is nobody's concern. */
    printf("%.0f %.0f %.3f %.3f\n", mine / (double)(opt.count - 1), (double)server.addr / (double)opt.count, one, many);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const char *const cases[] = { "connections", NULL };
    return both_sides(argc, argv, cases, serve, ask);
}
