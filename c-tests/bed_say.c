/* What a person gets to read: bed_say [ADDRESS]
 *
 * For the test bed. Says whether the verbs provider can be used and, with an address, connects to itself over it, sends one
 * message and says over which device, or what went wrong. Exit 0 = it worked, 1 = it did not and has been explained. */
#include "helpers.h"

static int explain(const char *what, const rcg_error *why)
{
    printf("%s: %s\n", what, why->text);
    printf("remedy: %s\n", why->remedy);
    return T_FAIL;
}

static int last_error(const char *what)
{
    rcg_error why = { RCG_ERROR_INIT };
    rcg_last_error(&why);
    return explain(what, &why);
}

int main(int argc, char **argv)
{
    rcg_error why = { RCG_ERROR_INIT };
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    rcg_listener_info where = { RCG_LISTENER_INFO_INIT };
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .provider = RCG_PROVIDER_VERBS, .recv_size = 65536, .recv_count = 16 };
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .provider = RCG_PROVIDER_VERBS, .timeout_ms = 20000 };
    rcg_accept_attr accept = { RCG_ACCEPT_ATTR_INIT };
    rcg_op hello = RCG_OP_SEND_COPY("hello", 5, NULL);
    struct inbox in = { 0 };
    struct address a;
    rcg_engine *engine;
    rcg_listener *lst;
    rcg_conn *conn = NULL;
    rcg_event ev;

    watchdog(100);
    ASSERT_OK(rcg_engine_create(NULL, &engine));
    if (rcg_engine_provider(engine, RCG_PROVIDER_VERBS, &why) != 0) return explain("provider verbs", &why);
    puts("provider verbs: available");
    if (argc < 2) return T_PASS;

    inbox_open(&in, engine, STYLE_QUEUE, NULL);
    a = address_of(argv[1], 0);
    if (rcg_listen(in.ch, (struct sockaddr *)&a.ss, a.len, &listen, &lst) != 0) return last_error("listen");
    ASSERT_OK(rcg_listener_query(lst, &where));
    a.ss = where.local;
    rcg_addr to = rcg_addr_of(&a);
    if (rcg_connect(in.ch, &to, 1, &connect, &conn) != 0) return last_error("connect");
    for (;;) {
        if (inbox_poll(&in, RCG_EVENT_CONNECT_REQUEST, NULL, &ev)) ASSERT_OK(rcg_accept(ev.conn, &accept));
        if (inbox_poll(&in, RCG_EVENT_CONNECT_FAILED, NULL, &ev)) return explain("failed", ev.error);
        if (inbox_poll(&in, RCG_EVENT_ESTABLISHED, conn, &ev)) break;
        pump(100);
    }
    if (rcg_post(conn, &hello, 1) != 0) return last_error("post");
    take(&in, RCG_EVENT_RECV, NULL, 20000);
    ASSERT_OK(rcg_conn_query(conn, &info));
    printf("hello over %s\n", info.device);
    inbox_close(&in);
    ASSERT_OK(rcg_engine_destroy(engine));
    return T_PASS;
}
