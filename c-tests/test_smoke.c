/* The shortest way through the whole library: connect, send, receive into a lent buffer, close. Callback mode.
 * Each step is printed, so that the first one that hangs is known. */
#include "helpers.h"

#include <semaphore.h>

struct app {
    const char *name;
    sem_t received, closed;
    rcg_conn *conn;
    char text[64];
    size_t length;
    unsigned settled, disconnected;
};

static struct app client = { .name = "client" }, server = { .name = "server" };

static void say(const struct app *a, const rcg_event *ev)
{
    printf("%s: %s%s%s\n", a->name, rcg_event_name(ev->type), ev->error ? ": " : "", ev->error ? ev->error->text : "");
    fflush(stdout);
}

static void on_events(rcg_channel *ch, const rcg_event *ev, size_t n, void *arg)
{
    struct app *a = arg;
    rcg_op op = RCG_OP_SEND_COPY("hello from C", 12, arg);
    ASSERT(ch != NULL && n > 0);
    for (; n--; ev++) {
        say(a, ev);
        switch (ev->type) {
        case RCG_EVENT_CONNECT_REQUEST:
            ASSERT(a == &server && a->conn == NULL && ev->listener != NULL && ev->peer != NULL);
            ASSERT_EQ(ev->private_data_len, 5);
            ASSERT(memcmp(ev->private_data, "who's", 5) == 0);
            a->conn = ev->conn;
            ASSERT_OK(rcg_accept(ev->conn, &(rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT, .context = a,
                                                               .private_data = "there", .private_data_len = 5 }));
            break;
        case RCG_EVENT_ESTABLISHED:
            ASSERT(ev->context == a);
            a->settled++;
            if (a == &server) break;
            ASSERT_EQ(ev->private_data_len, 5);
            ASSERT(memcmp(ev->private_data, "there", 5) == 0);
            ASSERT_OK(rcg_post(ev->conn, &op, 1));
            break;
        case RCG_EVENT_COMPLETION:
            ASSERT(ev->user == a);
            ASSERT_EQ(ev->op, RCG_SEND);
            ASSERT_EQ(ev->status, 0);
            break;
        case RCG_EVENT_RECV:
            ASSERT_EQ(ev->status, 0);
            ASSERT(ev->flags & RCG_EVENT_LENT);
            ASSERT(ev->length < sizeof a->text);
            memcpy(a->text, ev->data, a->length = ev->length);
            ASSERT_OK(rcg_recv_release(ev->conn, ev));
            if (a == &server) ASSERT_OK(rcg_post(ev->conn, &op, 1));
            sem_post(&a->received);
            break;
        case RCG_EVENT_CONNECT_FAILED: FAIL("%s", ev->error->text);
        case RCG_EVENT_DISCONNECTED: a->disconnected++; break;
        case RCG_EVENT_CLOSED:
            if (ev->conn != NULL) ASSERT(a->settled == 1 && a->disconnected == 1);
            sem_post(&a->closed);
            break;
        default: FAIL("unknown event %u", ev->type);
        }
    }
}

int main(void)
{
    struct address any = address_of(host4(), 0);
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    rcg_channel_attr server_attr = { RCG_CHANNEL_ATTR_INIT, .on_events = on_events, .arg = &server };
    rcg_channel_attr client_attr = { RCG_CHANNEL_ATTR_INIT, .on_events = on_events, .arg = &client };
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = 4096, .recv_count = 8, .provider = test_provider() };
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .context = &client, .recv_size = 4096, .recv_count = 8,
                                 .private_data = "who's", .private_data_len = 5, .provider = test_provider() };
    rcg_engine *engine;
    rcg_channel *server_ch, *client_ch;
    rcg_listener *lst;

    watchdog(10);
    STEP("version");
    ASSERT_EQ(rcg_version(), (RCG_VERSION_MAJOR << 16) | (RCG_VERSION_MINOR << 8) | RCG_VERSION_PATCH);
    printf("library %s\n", rcg_version_string());
    for (struct app *a = &client; a; a = a == &client ? &server : NULL) {
        sem_init(&a->received, 0, 0);
        sem_init(&a->closed, 0, 0);
    }
    STEP("engine");
    ASSERT_OK(rcg_engine_create(NULL, &engine));
    STEP("channels");
    ASSERT_OK(rcg_channel_create(engine, &server_attr, &server_ch));
    ASSERT_OK(rcg_channel_create(engine, &client_attr, &client_ch));
    STEP("listen");
    ASSERT_OK(rcg_listen(server_ch, (struct sockaddr *)&any.ss, (uint32_t)any.len, &listen, &lst));
    ASSERT_OK(rcg_listener_query(lst, &info));
    printf("%s, port %u\n", host4(), port_of(&info.local));
    fflush(stdout);
    STEP("connect");
    ASSERT_OK(rcg_connect(client_ch, &(rcg_addr){ .addr = (struct sockaddr *)&info.local, .length = (uint32_t)any.len },
                          1, &connect, &client.conn));
    STEP("message to the server");
    sem_wait(&server.received);
    ASSERT(server.length == 12 && memcmp(server.text, "hello from C", 12) == 0);
    STEP("message to the client");
    sem_wait(&client.received);
    ASSERT(client.length == 12 && memcmp(client.text, "hello from C", 12) == 0);
    STEP("disconnect");
    ASSERT_OK(rcg_conn_disconnect(client.conn));
    sem_wait(&client.closed);
    STEP("the server's end of it");
    sem_wait(&server.closed);
    STEP("close the listener");
    ASSERT_OK(rcg_listener_close(lst));
    sem_wait(&server.closed);
    STEP("destroy");
    ASSERT_OK(rcg_channel_destroy(client_ch));
    ASSERT_OK(rcg_channel_destroy(server_ch));
    ASSERT_OK(rcg_engine_destroy(engine));
    printf("passed\n");
    return T_PASS;
}
