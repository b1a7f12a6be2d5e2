/* For tests of RPC whose one end is a connection without RPC, which says what it likes, octet by octet. */
#ifndef RCG_TEST_RPC_RAW_H
#define RCG_TEST_RPC_RAW_H

#include "rpc.h"

/* The client speaks RPC, the server does not. */
static inline void open_with_raw_server(const rcg_rpc_attr *rpc, bool says_sizes)
{
    static const unsigned char sizes[8] = { 0xf6, 0xab, 0x0e, 0x18, 1, 0, 3, 1 }; /* RFC 8797: sends 4096, receives 2048 */
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = 4096, .recv_count = 64 };
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .rpc = rpc };
    rcg_accept_attr accept = { RCG_ACCEPT_ATTR_INIT, .flags = RCG_CONN_RAW_PRIVATE_DATA };
    rcg_event ev;
    end_open(&client, STYLE_QUEUE);
    end_open(&server, STYLE_QUEUE);
    lst = listen_on(&server.side.in, host4(), &listen, &to);
    client.side.conn = start_connect(&client.side.in, &to, &connect);
    ev = take(&server.side.in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS);
    server.side.conn = ev.conn;
    if (says_sizes) {
        static const unsigned char said[8] = { 0xf6, 0xab, 0x0e, 0x18, 1, 0, 3, 3 };
        ASSERT(ev.private_data_len >= 8 && memcmp(ev.private_data, said, 8) == 0);
        accept.private_data = sizes, accept.private_data_len = sizeof sizes;
    } else if (ev.private_data_len && rpc->flags & RCG_RPC_NO_PRIVATE_DATA) { /* InfiniBand's connection manager knows no length */
        assert_all_are(ev.private_data, ev.private_data_len, 0, "private data that nobody gave");
    }
    ASSERT_OK(rcg_accept(server.side.conn, &accept));
    take(&client.side.in, RCG_EVENT_ESTABLISHED, client.side.conn, WAIT_MS);
    take(&server.side.in, RCG_EVENT_ESTABLISHED, server.side.conn, WAIT_MS);
}

/* The server speaks RPC, the client does not. */
static inline void open_with_raw_client(const rcg_rpc_attr *rpc)
{
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .rpc = rpc };
    rcg_connect_attr connect = { RCG_CONNECT_ATTR_INIT, .recv_size = 4096, .recv_count = 64,
                                 .flags = RCG_CONN_RAW_PRIVATE_DATA };
    end_open(&client, STYLE_QUEUE);
    end_open(&server, STYLE_QUEUE);
    lst = listen_on(&server.side.in, host4(), &listen, &to);
    link_up(&client.side, &server.side, &to, &connect, NULL);
}

#endif
