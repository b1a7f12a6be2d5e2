/* Wrong use is answered with an error, never with a crash: NULL, handles that are none or no more, wrong states,
 * sizes, flags, bounds. */
#include "helpers.h"

static unsigned char mem[1 << 16];

static struct side client, server;
static struct address to;
static rcg_listener *lst;
static rcg_mr *mr;

static void test_null(void)
{
    rcg_engine *eng = client.engine, *out_eng;
    rcg_channel *ch = client.in.ch, *out_ch;
    rcg_conn *conn = client.conn, *out_conn;
    rcg_mr *out_mr;
    rcg_arena *out_arena;
    rcg_listener *out_lst;
    rcg_limits limits = { RCG_LIMITS_INIT };
    rcg_channel_attr cattr = { RCG_CHANNEL_ATTR_INIT };
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT };
    rcg_listen_attr lattr = { RCG_LISTEN_ATTR_INIT };
    rcg_arena_attr aattr = { RCG_ARENA_ATTR_INIT, .buffer_size = 4096, .access = RCG_LOCAL };
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    rcg_listener_info linfo = { RCG_LISTENER_INFO_INIT };
    rcg_addr addr = rcg_addr_of(&to), no_addr = { 0 };
    rcg_event ev;
    rcg_buffer buffer;
    uint32_t key;
    size_t bytes;

    STEP("NULL");
    ASSERT_RC(rcg_engine_create(NULL, NULL), -EINVAL);
    ASSERT_OK(rcg_engine_create(NULL, &out_eng));
    ASSERT_OK(rcg_engine_destroy(out_eng));
    ASSERT_RC(rcg_engine_destroy(NULL), -EINVAL);
    ASSERT_RC(rcg_engine_limits(NULL, 0, &limits), -EINVAL);
    ASSERT_RC(rcg_engine_limits(eng, 0, NULL), -EINVAL);
    ASSERT_RC(rcg_engine_provider(NULL, RCG_PROVIDER_IWARP, NULL), -EINVAL);
    ASSERT_OK(rcg_engine_provider(eng, RCG_PROVIDER_IWARP, NULL));
    ASSERT_RC(rcg_conn_memory(NULL, &attr, &bytes), -EINVAL);
    ASSERT_RC(rcg_conn_memory(eng, &attr, NULL), -EINVAL);
    ASSERT_RC(rcg_channel_create(NULL, &cattr, &out_ch), -EINVAL);
    ASSERT_RC(rcg_channel_create(eng, &cattr, NULL), -EINVAL);
    ASSERT_RC(rcg_channel_destroy(NULL), -EINVAL);
    ASSERT_RC(rcg_channel_fd(NULL), -EINVAL);
    ASSERT_RC(rcg_channel_next(NULL, &ev, 1), -EINVAL);
    ASSERT_RC(rcg_channel_next(ch, NULL, 1), -EINVAL);
    ASSERT_RC(rcg_channel_run(NULL, 0), -EINVAL);
    ASSERT_RC(rcg_mr_register(NULL, mem, 1, RCG_LOCAL, &out_mr), -EINVAL);
    ASSERT_RC(rcg_mr_register(eng, NULL, 1, RCG_LOCAL, &out_mr), -EINVAL);
    ASSERT_RC(rcg_mr_register(eng, mem, 1, RCG_LOCAL, NULL), -EINVAL);
    ASSERT_RC(rcg_mr_register(eng, mem, 0, RCG_LOCAL, &out_mr), -EINVAL);
    ASSERT_RC(rcg_mr_deregister(NULL), -EINVAL);
    ASSERT_RC(rcg_mr_key(NULL, conn, &key), -EINVAL);
    ASSERT_RC(rcg_mr_key(mr, conn, NULL), -EINVAL);
    ASSERT_RC(rcg_mr_key_range(NULL, conn, 0, 1, RCG_REMOTE_READ, &key), -EINVAL);
    ASSERT_RC(rcg_mr_key_range(mr, conn, 0, 1, RCG_REMOTE_READ, NULL), -EINVAL);
    ASSERT_RC(rcg_mr_key_revoke(NULL, 1), -EINVAL);
    ASSERT_RC(rcg_arena_create(NULL, &aattr, &out_arena), -EINVAL);
    ASSERT_RC(rcg_arena_create(eng, NULL, &out_arena), -EINVAL); /* there is no default of buffer_size */
    ASSERT_RC(rcg_arena_create(eng, &aattr, NULL), -EINVAL);
    ASSERT_RC(rcg_arena_get(NULL, &buffer), -EINVAL);
    ASSERT_RC(rcg_arena_put(NULL, mem), -EINVAL);
    ASSERT_RC(rcg_arena_destroy(NULL), -EINVAL);
    ASSERT_RC(rcg_listen(NULL, addr.addr, addr.length, &lattr, &out_lst), -EINVAL);
    ASSERT_RC(rcg_listen(ch, NULL, addr.length, &lattr, &out_lst), -EINVAL);
    ASSERT_RC(rcg_listen(ch, addr.addr, addr.length, &lattr, NULL), -EINVAL);
    ASSERT_RC(rcg_listener_query(NULL, &linfo), -EINVAL);
    ASSERT_RC(rcg_listener_query(lst, NULL), -EINVAL);
    ASSERT_RC(rcg_listener_close(NULL), -EINVAL);
    ASSERT_RC(rcg_connect(NULL, &addr, 1, &attr, &out_conn), -EINVAL);
    ASSERT_RC(rcg_connect(ch, NULL, 1, &attr, &out_conn), -EINVAL);
    ASSERT_RC(rcg_connect(ch, &no_addr, 1, &attr, &out_conn), -EINVAL);
    ASSERT_RC(rcg_connect(ch, &addr, 0, &attr, &out_conn), -EINVAL);
    ASSERT_RC(rcg_connect(ch, &addr, 1, &attr, NULL), -EINVAL);
    ASSERT_RC(rcg_connect_host(NULL, "localhost", "1", &attr, &out_conn), -EINVAL);
    ASSERT_RC(rcg_connect_host(ch, NULL, "1", &attr, &out_conn), -EINVAL);
    ASSERT_RC(rcg_connect_host(ch, "localhost", NULL, &attr, &out_conn), -EINVAL);
    ASSERT_RC(rcg_connect_host(ch, "localhost", "1", &attr, NULL), -EINVAL);
    ASSERT_RC(rcg_accept(NULL, NULL), -EINVAL);
    ASSERT_RC(rcg_reject(NULL, 0, NULL, 0), -EINVAL);
    ASSERT_RC(rcg_conn_disconnect(NULL), -EINVAL);
    ASSERT_RC(rcg_conn_close(NULL), -EINVAL);
    ASSERT_RC(rcg_conn_query(NULL, &info), -EINVAL);
    ASSERT_RC(rcg_conn_query(conn, NULL), -EINVAL);
    ASSERT_RC(rcg_post(NULL, &(rcg_op){ 0 }, 1), -EINVAL);
    ASSERT_RC(rcg_post(conn, NULL, 1), -EINVAL);
    ASSERT_RC(rcg_post_recv(NULL, &(rcg_recv){ 0 }, 1), -EINVAL);
    ASSERT_RC(rcg_post_recv(conn, NULL, 1), -EINVAL);
    ASSERT_RC(rcg_recv_release(NULL, &(rcg_event){ 0 }), -EINVAL);
    ASSERT_RC(rcg_recv_release(conn, NULL), -EINVAL);
    ASSERT_RC(rcg_last_error(NULL), -EINVAL);
}

/* Numbers that were never handles, and handles of other objects. */
static void test_garbage_handles(void)
{
    void *const garbage[] = { (void *)1, (void *)8, (void *)4096, (void *)(uintptr_t)0xdeadbeefu, mem, (void *)&lst,
                              (void *)UINTPTR_MAX, (void *)(UINTPTR_MAX / 2),
                              (void *)((uintptr_t)client.conn + ((uintptr_t)1 << 40)), (void *)client.in.ch,
                              (void *)client.engine, (void *)mr, (void *)lst, (void *)client.conn };
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    rcg_listener_info linfo = { RCG_LISTENER_INFO_INIT };
    rcg_limits limits = { RCG_LIMITS_INIT };
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT };
    rcg_listen_attr lattr = { RCG_LISTEN_ATTR_INIT };
    rcg_addr addr = rcg_addr_of(&to);
    uint32_t key;

    STEP("garbage handles");
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        void *g = garbage[i];
        rcg_event ev;
        rcg_buffer buffer;
        rcg_conn *conn;
        rcg_channel *ch;
        rcg_listener *l;
        rcg_mr *m;
        rcg_sge sge = { mem, 16, g };
        rcg_op op = RCG_OP_SEND(&sge, 1, NULL);
        if (g != (void *)client.engine) {
            ASSERT_RC(rcg_engine_destroy(g), -EBADF);
            ASSERT_RC(rcg_engine_limits(g, 0, &limits), -EBADF);
            ASSERT_RC(rcg_channel_create(g, &(rcg_channel_attr){ RCG_CHANNEL_ATTR_INIT }, &ch), -EBADF);
            ASSERT_RC(rcg_mr_register(g, mem, 16, RCG_LOCAL, &m), -EBADF);
        }
        if (g != (void *)client.in.ch) {
            ASSERT_RC(rcg_channel_destroy(g), -EBADF);
            ASSERT_RC(rcg_channel_fd(g), -EBADF);
            ASSERT_RC(rcg_channel_next(g, &ev, 1), -EBADF);
            ASSERT_RC(rcg_channel_run(g, 0), -EBADF);
            ASSERT_RC(rcg_connect(g, &addr, 1, &attr, &conn), -EBADF);
            ASSERT_RC(rcg_listen(g, addr.addr, addr.length, &lattr, &l), -EBADF);
            rcg_channel *const channels[1] = { g };
            rcg_listen_attr spread = { RCG_LISTEN_ATTR_INIT, .channels = channels, .nchannels = 1 };
            struct address any = address_of(host4(), 0);
            ASSERT_RC(rcg_listen(client.in.ch, (struct sockaddr *)&any.ss, (uint32_t)any.len, &spread, &l), -EBADF);
        }
        if (g != (void *)mr) {
            ASSERT_RC(rcg_mr_deregister(g), -EBADF);
            ASSERT_RC(rcg_mr_key(g, client.conn, &key), -EBADF);
            ASSERT_RC(rcg_mr_key_revoke(g, 5), -EBADF);
            ASSERT_RC(rcg_post(client.conn, &op, 1), -EBADF);
        }
        if (g != (void *)lst) {
            ASSERT_RC(rcg_listener_query(g, &linfo), -EBADF);
            ASSERT_RC(rcg_listener_close(g), -EBADF);
        }
        if (g != (void *)client.conn) {
            ASSERT_RC(rcg_conn_close(g), -EBADF);
            ASSERT_RC(rcg_conn_disconnect(g), -EBADF);
            ASSERT_RC(rcg_conn_query(g, &info), -EBADF);
            ASSERT_RC(rcg_accept(g, NULL), -EBADF);
            ASSERT_RC(rcg_reject(g, 0, NULL, 0), -EBADF);
            ASSERT_RC(rcg_post(g, &(rcg_op)RCG_OP_SEND_COPY("x", 1, NULL), 1), -EBADF);
            ASSERT_RC(rcg_post_recv(g, &(rcg_recv){ 0 }, 1), -EBADF);
            ASSERT_RC(rcg_recv_release(g, &(rcg_event){ 0 }), -EBADF);
            ASSERT_RC(rcg_mr_key(mr, g, &key), -EBADF);
        }
        ASSERT_RC(rcg_arena_get(g, &buffer), -EBADF);
        ASSERT_RC(rcg_arena_put(g, mem), -EBADF);
        ASSERT_RC(rcg_arena_destroy(g), -EBADF);
    }
}

/* Structs of programs older and newer than the library. */
static void test_attr_sizes(void)
{
    struct {
        rcg_connect_attr attr;
        unsigned char more[64];
    } newer = { .attr = { RCG_CONNECT_ATTR_INIT, .timeout_ms = 2000 } };
    struct {
        rcg_channel_attr attr;
        unsigned char more[64];
    } newer_channel = { .attr = { RCG_CHANNEL_ATTR_INIT } };
    rcg_addr addr = rcg_addr_of(&to);
    rcg_conn *conn;
    rcg_channel *ch;
    rcg_conn_info info;
    rcg_limits limits;
    rcg_error why;
    size_t bytes;

    STEP("attr sizes");
    newer.attr.size = sizeof newer;
    ASSERT_OK(rcg_conn_memory(client.engine, &newer.attr, &bytes)); /* what it does not know is zero */
    newer.more[63] = 1;
    ASSERT_RC(rcg_connect(client.in.ch, &addr, 1, &newer.attr, &conn), -E2BIG);
    ASSERT_RC(rcg_conn_memory(client.engine, &newer.attr, &bytes), -E2BIG);
    newer.attr.size = 0;
    ASSERT_RC(rcg_connect(client.in.ch, &addr, 1, &newer.attr, &conn), -EINVAL);
    newer.attr.size = 4;
    ASSERT_RC(rcg_connect(client.in.ch, &addr, 1, &newer.attr, &conn), -EINVAL);
    newer.attr.size = SIZE_MAX;
    ASSERT_FAILS(rcg_connect(client.in.ch, &addr, 1, &newer.attr, &conn));
    newer_channel.attr.size = sizeof newer_channel;
    newer_channel.more[0] = 1;
    ASSERT_RC(rcg_channel_create(client.engine, &newer_channel.attr, &ch), -E2BIG);
    newer_channel.more[0] = 0;
    ASSERT_OK(rcg_channel_create(client.engine, &newer_channel.attr, &ch));
    ASSERT_OK(rcg_channel_destroy(ch));

    /* an older program's struct ends early; what is behind it is not read */
    newer.attr = (rcg_connect_attr){ .size = offsetof(rcg_connect_attr, send_depth), .timeout_ms = 3000 };
    newer.attr.crc = 99, newer.attr.send_depth = UINT32_MAX, newer.attr.congestion = (const char *)1;
    rcg_conn *mine = client.conn, *theirs = server.conn;
    link_up(&client, &server, &to, &newer.attr, NULL);
    memset(&info, 0xee, sizeof info);
    info.size = offsetof(rcg_conn_info, local);
    ASSERT_OK(rcg_conn_query(client.conn, &info));
    ASSERT_EQ(info.state, RCG_STATE_ESTABLISHED);
    ASSERT_EQ(info.size, offsetof(rcg_conn_info, local));
    assert_all_are(&info.local, sizeof info - offsetof(rcg_conn_info, local), 0xee, "behind an older program's struct");
    link_down(&client, &server);
    client.conn = mine, server.conn = theirs;

    memset(&limits, 0xee, sizeof limits);
    limits.size = offsetof(rcg_limits, max_sge);
    ASSERT_OK(rcg_engine_limits(client.engine, RCG_PROVIDER_IWARP, &limits));
    ASSERT(limits.max_private_data > 0 && limits.max_private_data < 1024);
    assert_all_are(&limits.max_sge, 4, 0xee, "behind an older program's struct");
    limits.size = 0;
    ASSERT_RC(rcg_engine_limits(client.engine, RCG_PROVIDER_IWARP, &limits), -EINVAL);
    why.size = offsetof(rcg_error, stage);
    why.stage = 77;
    ASSERT_OK(rcg_last_error(&why));
    ASSERT_EQ(why.code, -EINVAL);
    ASSERT_EQ(why.stage, 77);
}

static void test_arguments(void)
{
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT };
    rcg_listen_attr lattr = { RCG_LISTEN_ATTR_INIT };
    rcg_limits limits = { RCG_LIMITS_INIT };
    struct address any = address_of(host4(), 0);
    struct sockaddr odd = { .sa_family = AF_UNIX };
    rcg_addr addr = rcg_addr_of(&to), bad;
    rcg_error why = { RCG_ERROR_INIT };
    unsigned char pd[2048] = { 0 };
    rcg_channel *ch;
    rcg_conn *conn = (void *)7;
    rcg_listener *l = (void *)7;
    rcg_mr *m = (void *)7;
    rcg_engine *e;
    uint32_t key = 7;

    STEP("arguments of connect");
    ASSERT_OK(rcg_engine_limits(client.engine, RCG_PROVIDER_AUTO, &limits));
    /* what fits any device is the limit; that one takes more is known only when it has been found */
    attr.private_data = pd, attr.private_data_len = where() == ON_TCP ? limits.max_private_data + 1 : sizeof pd;
    ASSERT_ONE_OF(rcg_connect(client.in.ch, &addr, 1, &attr, &conn), -EMSGSIZE, -EINVAL);
    attr.private_data_len = UINT32_MAX;
    ASSERT_ONE_OF(rcg_connect(client.in.ch, &addr, 1, &attr, &conn), -EMSGSIZE, -EINVAL);
    attr.private_data = NULL, attr.private_data_len = 4;
    ASSERT_RC(rcg_connect(client.in.ch, &addr, 1, &attr, &conn), -EINVAL);
#define REFUSED(member, value)                                                                                         \
    do {                                                                                                               \
        attr = (rcg_connect_attr){ RCG_CONNECT_ATTR_INIT, .member = (value) };                                         \
        ASSERT_RC(rcg_connect(client.in.ch, &addr, 1, &attr, &conn), -EINVAL);                                         \
    } while (0)
    REFUSED(flags, 0x80000000u);
    REFUSED(crc, 3);
    REFUSED(mpa_revision, 3);
    REFUSED(provider, 9);
    REFUSED(send_depth, limits.max_send_depth + 1);
    REFUSED(recv_depth, limits.max_recv_depth + 1);
    REFUSED(ird, limits.max_ird + 1);
    REFUSED(ord, limits.max_ord + 1);
    REFUSED(recv_size, 100);  /* without recv_count */
    REFUSED(recv_count, 100); /* without recv_size */
    REFUSED(reserved, 1);
    REFUSED(max_fpdu, 1);
    attr = (rcg_connect_attr){ RCG_CONNECT_ATTR_INIT, .provider = RCG_PROVIDER_VERBS };
    int verbs = rcg_engine_provider(client.engine, RCG_PROVIDER_VERBS, &why);
    if (verbs != 0) { /* no RDMA device here: it says why */
        ASSERT_EQ(why.code, verbs);
        ASSERT(why.text[0] != '\0');
        ASSERT_FAILS(rcg_connect(client.in.ch, &addr, 1, &attr, &conn));
    }
    ASSERT_RC(rcg_engine_provider(client.engine, 9, NULL), -EINVAL);
    bad = (rcg_addr){ .addr = &odd, .length = sizeof odd };
    ASSERT_ONE_OF(rcg_connect(client.in.ch, &bad, 1, NULL, &conn), -EAFNOSUPPORT, -EINVAL);
    bad = addr, bad.length = 3;
    ASSERT_RC(rcg_connect(client.in.ch, &bad, 1, NULL, &conn), -EINVAL);
    bad = addr, bad.length = UINT32_MAX;
    ASSERT_RC(rcg_connect(client.in.ch, &bad, 1, NULL, &conn), -EINVAL);
    rcg_addr *many = calloc(limits.max_addresses + 1, sizeof *many);
    for (uint32_t i = 0; i <= limits.max_addresses; i++) many[i] = addr;
    ASSERT_FAILS(rcg_connect(client.in.ch, many, limits.max_addresses + 1, NULL, &conn));
    ASSERT_FAILS(rcg_connect(client.in.ch, &addr, SIZE_MAX, NULL, &conn));
    free(many);
    ASSERT(conn == (void *)7); /* outputs are written only on success */

    STEP("arguments of listen");
    ASSERT_RC(rcg_listen(client.in.ch, (struct sockaddr *)&to.ss, (uint32_t)to.len, NULL, &l), -EADDRINUSE);
    lattr.provider = test_provider();
    ASSERT_RC(rcg_listen(client.in.ch, (struct sockaddr *)&to.ss, (uint32_t)to.len, &lattr, &l), -EADDRINUSE);
    ASSERT_ONE_OF(rcg_listen(client.in.ch, &odd, sizeof odd, &lattr, &l), -EAFNOSUPPORT, -EINVAL);
    ASSERT_RC(rcg_listen(client.in.ch, (struct sockaddr *)&any.ss, 3, &lattr, &l), -EINVAL);
    lattr.flags = 0x100;
    ASSERT_RC(rcg_listen(client.in.ch, (struct sockaddr *)&any.ss, (uint32_t)any.len, &lattr, &l), -EINVAL);
    lattr = (rcg_listen_attr){ RCG_LISTEN_ATTR_INIT, .nchannels = 3 };
    ASSERT_RC(rcg_listen(client.in.ch, (struct sockaddr *)&any.ss, (uint32_t)any.len, &lattr, &l), -EINVAL);
    struct address foreign = address_of("192.0.2.77", 0);
    ASSERT_RC(rcg_listen(client.in.ch, (struct sockaddr *)&foreign.ss, (uint32_t)foreign.len, NULL, &l), -EADDRNOTAVAIL);
    ASSERT_OK(rcg_last_error(&why));
    ASSERT_EQ(why.code, -EADDRNOTAVAIL);
    ASSERT(why.text[0] != '\0');
    ASSERT(l == (void *)7);

    STEP("arguments of the others");
    ASSERT_RC(rcg_engine_create(&(rcg_engine_attr){ RCG_ENGINE_ATTR_INIT, .flags = 2 }, &e), -EINVAL);
    ASSERT_RC(rcg_engine_create(&(rcg_engine_attr){ RCG_ENGINE_ATTR_INIT, .log_level = 99 }, &e), -EINVAL);
    ASSERT_RC(rcg_channel_create(client.engine, &(rcg_channel_attr){ RCG_CHANNEL_ATTR_INIT, .flags = 1 }, &ch), -EINVAL);
    ASSERT_RC(rcg_channel_create(client.engine, &(rcg_channel_attr){ RCG_CHANNEL_ATTR_INIT, .manual = 2 }, &ch), -EINVAL);
    ASSERT_RC(rcg_mr_register(client.engine, mem, sizeof mem, 0, &m), -EINVAL);
    ASSERT_RC(rcg_mr_register(client.engine, mem, sizeof mem, 0x40, &m), -EINVAL);
    ASSERT_RC(rcg_mr_register(client.engine, mem, SIZE_MAX, RCG_LOCAL, &m), -EINVAL);
    ASSERT(m == (void *)7);
    ASSERT_RC(rcg_mr_key_range(mr, NULL, 0, sizeof mem + 1, RCG_REMOTE_READ, &key), -EINVAL);
    ASSERT_RC(rcg_mr_key_range(mr, NULL, sizeof mem, 1, RCG_REMOTE_READ, &key), -EINVAL);
    ASSERT_RC(rcg_mr_key_range(mr, NULL, SIZE_MAX, 2, RCG_REMOTE_READ, &key), -EINVAL);
    ASSERT_RC(rcg_mr_key_range(mr, NULL, 0, 0, RCG_REMOTE_READ, &key), -EINVAL);
    ASSERT_RC(rcg_mr_key_range(mr, NULL, 0, 1, 0x40, &key), -EINVAL);
    ASSERT_ONE_OF(rcg_mr_key_range(mr, NULL, 0, 1, RCG_REMOTE_WRITE, &key), -EINVAL, -EACCES); /* the region has no such right */
    ASSERT_EQ(key, 7);
    ASSERT_RC(rcg_mr_key_revoke(mr, 12345), -ENOENT);
    ASSERT_OK(rcg_mr_key(mr, NULL, &key));
    ASSERT_OK(rcg_mr_key_revoke(mr, key));
    ASSERT_RC(rcg_mr_key_revoke(mr, key), -ENOENT);
    ASSERT_RC(rcg_channel_run(client.in.ch, 0), -EINVAL); /* it has a thread */

    STEP("names of anything");
    for (uint32_t i = 0; i < 40; i++)
        ASSERT(rcg_stage_name(i) && rcg_event_name(i) && rcg_op_name(i) && rcg_reason_name(i));
    ASSERT(rcg_stage_name(UINT32_MAX) && rcg_event_name(UINT32_MAX) && rcg_op_name(UINT32_MAX) &&
           rcg_reason_name(UINT32_MAX));
    ASSERT_EQ(rcg_version(), (RCG_VERSION_MAJOR << 16) | (RCG_VERSION_MINOR << 8) | RCG_VERSION_PATCH);
    ASSERT(rcg_version_string()[0] >= '0' && rcg_version_string()[0] <= '9');
}

static void refused_post(const char *what, rcg_op op, int expected, int also)
{
    rcg_conn_info before = { RCG_CONN_INFO_INIT }, after = { RCG_CONN_INFO_INIT };
    rcg_op good = RCG_OP_SEND_COPY("x", 1, NULL), batch[2] = { good, op };
    STEP(what);
    ASSERT_OK(rcg_conn_query(client.conn, &before));
    ASSERT_ONE_OF(rcg_post(client.conn, &op, 1), expected, also);
    ASSERT_ONE_OF(rcg_post(client.conn, batch, 2), expected, also); /* all or nothing */
    ASSERT_OK(rcg_conn_query(client.conn, &after));
    ASSERT_EQ(after.operations, before.operations);
    ASSERT_EQ(after.bytes_sent, before.bytes_sent);
}

static void test_posts(void)
{
    rcg_limits limits = { RCG_LIMITS_INIT };
    rcg_sge sge = { mem, 16, mr }, many[64], part;
    rcg_op op;
    rcg_event ev;
    unsigned char text[4096] = { 0 };
    uint32_t i;
    rcg_mr *m;
    rcg_error why = { RCG_ERROR_INIT };

    ASSERT_OK(rcg_engine_limits(client.engine, RCG_PROVIDER_AUTO, &limits));
    ASSERT(limits.max_sge >= 3 && limits.max_sge < 64 && limits.max_inline >= 64 && limits.max_inline < sizeof text);
    op = (rcg_op)RCG_OP_SEND(&sge, 1, NULL);
    op.opcode = 0;
    refused_post("opcode 0", op, -EINVAL, -EINVAL);
    op.opcode = RCG_RECV;
    refused_post("opcode RECV", op, -EINVAL, -EINVAL);
    op.opcode = 99;
    refused_post("opcode 99", op, -EINVAL, -EINVAL);
    op = (rcg_op)RCG_OP_SEND(&sge, 1, NULL);
    op.flags = 0x40;
    refused_post("unknown flags", op, -EINVAL, -EINVAL);
    op = (rcg_op)RCG_OP_SEND(&sge, 1, NULL);
    op.reserved = 1;
    refused_post("reserved", op, -EINVAL, -EINVAL);
    op = (rcg_op)RCG_OP_SEND(NULL, 1, NULL);
    refused_post("no sge", op, -EINVAL, -EINVAL);
    part = (rcg_sge){ mem, 16, NULL };
    op = (rcg_op)RCG_OP_SEND(&part, 1, NULL);
    refused_post("no region", op, -EINVAL, -EINVAL);
    part = (rcg_sge){ mem + sizeof mem - 8, 16, mr };
    refused_post("beyond the region", op, -EINVAL, -EINVAL);
    part = (rcg_sge){ (void *)((uintptr_t)mem - 1), 16, mr };
    refused_post("before the region", op, -EINVAL, -EINVAL);
    part = (rcg_sge){ mem + 16, SIZE_MAX - 8, mr };
    refused_post("a length that wraps", op, -EINVAL, -EINVAL);
    part = (rcg_sge){ NULL, 16, mr };
    refused_post("address NULL", op, -EINVAL, -EINVAL);
    for (i = 0; i < 64; i++) many[i] = sge;
    refused_post("too many sges", (rcg_op)RCG_OP_SEND(many, limits.max_sge + 1, NULL), -EINVAL, -EINVAL);
    refused_post("UINT32_MAX sges", (rcg_op)RCG_OP_SEND(many, UINT32_MAX, NULL), -EINVAL, -EINVAL);
    refused_post("too long to be inline", (rcg_op)RCG_OP_SEND_COPY(text, limits.max_inline + 1, NULL), -EINVAL, -EMSGSIZE);
    part = (rcg_sge){ text, limits.max_inline + 1, NULL };
    op = (rcg_op)RCG_OP_SEND(&part, 1, NULL);
    op.flags |= RCG_INLINE;
    refused_post("an sge too long to be inline", op, -EINVAL, -EMSGSIZE);
    refused_post("inline from NULL", (rcg_op)RCG_OP_SEND_COPY(NULL, 4, NULL), -EINVAL, -EINVAL);
    op = (rcg_op)RCG_OP_READ(&sge, 1, addr_of(mem), 1, NULL);
    op.flags |= RCG_INLINE;
    refused_post("an inline Read", op, -EINVAL, -EINVAL);
    rcg_op *batch = calloc(100000, sizeof *batch);
    for (i = 0; i < 100000; i++) batch[i] = (rcg_op)RCG_OP_SEND_COPY("x", 1, NULL);
    ASSERT_RC(rcg_post(client.conn, batch, 100000), -EINVAL); /* more than the queue could ever hold */
    ASSERT_FAILS(rcg_post(client.conn, batch, SIZE_MAX));
    free(batch);

    STEP("receives");
    rcg_recv recv = { .sge = many, .nsge = limits.max_sge + 1 };
    ASSERT_RC(rcg_post_recv(client.conn, &recv, 1), -EINVAL);
    recv = (rcg_recv){ .sge = NULL, .nsge = 1 };
    ASSERT_RC(rcg_post_recv(client.conn, &recv, 1), -EINVAL);
    part = (rcg_sge){ mem + sizeof mem - 8, 16, mr };
    recv = (rcg_recv){ .sge = &part, .nsge = 1 };
    ASSERT_RC(rcg_post_recv(client.conn, &recv, 1), -EINVAL);
    recv = (rcg_recv){ .sge = &sge, .nsge = 1, .reserved = 1 };
    ASSERT_RC(rcg_post_recv(client.conn, &recv, 1), -EINVAL);
    recv = (rcg_recv){ .sge = &sge, .nsge = 1, .user = &sge };
    ASSERT_FAILS(rcg_post_recv(server.conn, &recv, 1)); /* the region is another engine's */
    ASSERT_RC(rcg_recv_release(client.conn, &(rcg_event){ .buffer = 77 }), -EINVAL);

    STEP("a region in use");
    ASSERT_OK(rcg_mr_register(client.engine, mem, 4096, RCG_LOCAL, &m));
    sge = (rcg_sge){ mem, 16, m };
    for (i = 0; i < limits.default_recv_depth; i++) ASSERT_OK(rcg_post_recv(client.conn, &recv, 1));
    ASSERT_RC(rcg_post_recv(client.conn, &recv, 1), -EAGAIN);
    ASSERT_RC(rcg_mr_deregister(m), -EBUSY);
    ASSERT_RC(rcg_engine_destroy(client.engine), -EBUSY);
    ASSERT_OK(rcg_last_error(&why));
    ASSERT_EQ(why.code, -EBUSY);

    STEP("flushed receives");
    ASSERT_OK(rcg_conn_close(client.conn));
    ASSERT_OK(rcg_conn_close(client.conn));
    ASSERT_RC(rcg_post(client.conn, &(rcg_op)RCG_OP_SEND_COPY("x", 1, NULL), 1), -ENOTCONN);
    take(&client.in, RCG_EVENT_CLOSED, client.conn, WAIT_MS);
    for (i = 0; i < limits.default_recv_depth; i++) {
        ASSERT(inbox_poll(&client.in, RCG_EVENT_RECV, client.conn, &ev));
        ASSERT_EQ(ev.status, -ECANCELED);
        ASSERT(ev.user == &sge);
    }
    take(&client.in, RCG_EVENT_DISCONNECTED, client.conn, 0);
    await_end(&server);
    ASSERT_OK(rcg_mr_deregister(m));
    ASSERT_RC(rcg_mr_deregister(m), -EBADF);
}

static void test_states(void)
{
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    rcg_op op = RCG_OP_SEND_COPY("x", 1, NULL);
    rcg_accept_attr aattr = { RCG_ACCEPT_ATTR_INIT };
    unsigned char pd[2048] = { 0 };
    uint32_t key;
    rcg_event ev;

    STEP("states of a connecting side");
    client.conn = start_connect(&client.in, &to, NULL);
    ASSERT_FAILS(rcg_accept(client.conn, &aattr));
    ASSERT_FAILS(rcg_reject(client.conn, 0, NULL, 0));
    ASSERT_RC(rcg_post(client.conn, &op, 1), -ENOTCONN);
    ev = take(&server.in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS);
    server.conn = ev.conn;
    ASSERT_RC(rcg_post(client.conn, &op, 1), -ENOTCONN);

    STEP("states of a requested side");
    ASSERT_RC(rcg_post(server.conn, &op, 1), -ENOTCONN);
    ASSERT_OK(rcg_conn_query(server.conn, &info));
    ASSERT_EQ(info.state, RCG_STATE_REQUESTED);
    aattr.private_data = pd, aattr.private_data_len = sizeof pd;
    ASSERT_ONE_OF(rcg_accept(server.conn, &aattr), -EMSGSIZE, -EINVAL);
    ASSERT_ONE_OF(rcg_reject(server.conn, 0, pd, sizeof pd), -EMSGSIZE, -EINVAL);
    ASSERT_RC(rcg_reject(server.conn, 0, NULL, 4), -EINVAL);
    aattr = (rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT, .flags = 0x80 };
    ASSERT_RC(rcg_accept(server.conn, &aattr), -EINVAL);
    aattr = (rcg_accept_attr){ RCG_ACCEPT_ATTR_INIT, .ird = 1u << 20 };
    ASSERT_RC(rcg_accept(server.conn, &aattr), -EINVAL);
    ASSERT_OK(rcg_accept(server.conn, NULL)); /* none of the errors has done harm */
    ASSERT_FAILS(rcg_accept(server.conn, NULL));
    ASSERT_FAILS(rcg_reject(server.conn, 0, NULL, 0));
    take(&client.in, RCG_EVENT_ESTABLISHED, client.conn, WAIT_MS);
    take(&server.in, RCG_EVENT_ESTABLISHED, server.conn, WAIT_MS);
    ASSERT_FAILS(rcg_accept(server.conn, NULL));
    ASSERT_FAILS(rcg_accept(client.conn, NULL));

    STEP("states of an ending side");
    ASSERT_OK(rcg_conn_disconnect(client.conn));
    ASSERT_OK(rcg_conn_disconnect(client.conn));
    ASSERT_OK(rcg_conn_close(client.conn));
    ASSERT_OK(rcg_conn_close(client.conn));
    ASSERT_RC(rcg_post(client.conn, &op, 1), -ENOTCONN);
    rcg_conn *old = client.conn, *old_server = server.conn;
    await_end(&client);
    await_end(&server);
    pump(0);

    STEP("a closed connection");
    for (int i = 0; i < 2; i++) {
        ASSERT_RC(rcg_conn_close(old), -EBADF);
        ASSERT_RC(rcg_conn_disconnect(old), -EBADF);
        ASSERT_RC(rcg_conn_query(old, &info), -EBADF);
        ASSERT_RC(rcg_post(old, &op, 1), -EBADF);
        ASSERT_RC(rcg_post_recv(old, &(rcg_recv){ 0 }, 1), -EBADF);
        ASSERT_RC(rcg_mr_key(mr, old, &key), -EBADF);
        old = old_server;
    }

    STEP("close before the answer, from both sides");
    client.conn = start_connect(&client.in, &to, NULL);
    server.conn = take(&server.in, RCG_EVENT_CONNECT_REQUEST, NULL, WAIT_MS).conn;
    ASSERT_OK(rcg_conn_close(server.conn));
    ASSERT_OK(rcg_conn_close(client.conn));
    ASSERT_FAILS(rcg_accept(server.conn, NULL));
    take(&client.in, RCG_EVENT_CONNECT_FAILED, client.conn, WAIT_MS);
    await_end(&client);
    await_end(&server);
}

static void test_callback_channel(void)
{
    struct inbox in = { 0 };
    rcg_event ev;
    STEP("a channel with callbacks");
    inbox_open(&in, client.engine, STYLE_CALLBACK, NULL);
    ASSERT_RC(rcg_channel_fd(in.ch), -EINVAL);
    ASSERT_RC(rcg_channel_next(in.ch, &ev, 1), -EINVAL);
    ASSERT_RC(rcg_channel_run(in.ch, 0), -EINVAL);
    rcg_channel *ch = in.ch;
    inbox_close(&in);
    ASSERT_RC(rcg_channel_destroy(ch), -EBADF);
    ASSERT_RC(rcg_channel_fd(ch), -EBADF);
}

static void test_arena(void)
{
    rcg_arena_attr attr = { RCG_ARENA_ATTR_INIT, .buffer_size = 1000, .count = 2, .max_count = 3, .access = RCG_LOCAL };
    rcg_buffer b[4];
    rcg_arena *arena;
    STEP("arena");
    ASSERT_RC(rcg_arena_create(client.engine, &(rcg_arena_attr){ RCG_ARENA_ATTR_INIT, .access = RCG_LOCAL }, &arena), -EINVAL);
    ASSERT_FAILS(rcg_arena_create(client.engine, &(rcg_arena_attr){ RCG_ARENA_ATTR_INIT, .buffer_size = SIZE_MAX, .access = RCG_LOCAL }, &arena));
    attr.flags = 4;
    ASSERT_RC(rcg_arena_create(client.engine, &attr, &arena), -EINVAL);
    attr.flags = 0, attr.access = 0x80;
    ASSERT_RC(rcg_arena_create(client.engine, &attr, &arena), -EINVAL);
    attr.access = RCG_LOCAL;
    ASSERT_OK(rcg_arena_create(client.engine, &attr, &arena));
    ASSERT_RC(rcg_arena_get(arena, NULL), -EINVAL);
    for (int i = 0; i < 3; i++) ASSERT_OK(rcg_arena_get(arena, &b[i]));
    ASSERT_RC(rcg_arena_get(arena, &b[3]), -ENOBUFS);
    ASSERT_RC(rcg_arena_put(arena, NULL), -EINVAL);
    ASSERT_RC(rcg_arena_put(arena, mem), -EINVAL);
    ASSERT_RC(rcg_arena_put(arena, (char *)b[0].addr + 1), -EINVAL);
    ASSERT_RC(rcg_arena_destroy(arena), -EBUSY);
    ASSERT_RC(rcg_engine_destroy(client.engine), -EBUSY);
    for (int i = 0; i < 3; i++) ASSERT_OK(rcg_arena_put(arena, b[i].addr));
    ASSERT_RC(rcg_arena_put(arena, b[0].addr), -EINVAL);
    ASSERT_OK(rcg_arena_destroy(arena));
    ASSERT_RC(rcg_arena_destroy(arena), -EBADF);
    ASSERT_RC(rcg_arena_get(arena, &b[0]), -EBADF);
    ASSERT_RC(rcg_mr_deregister(b[0].mr), -EBADF); /* its regions went with it */
}

/* A child has none of the library's threads. */
static void test_fork(void)
{
    rcg_engine *engine, *another;
    rcg_error why = { RCG_ERROR_INIT };
    int status;
    STEP("fork");
    ASSERT_OK(rcg_engine_create(NULL, &engine));
    pid_t pid = fork();
    ASSERT(pid >= 0);
    if (pid == 0) {
        ASSERT_RC(rcg_engine_create(NULL, &another), -EPERM);
        ASSERT_RC(rcg_engine_destroy(engine), -EPERM);
        ASSERT_OK(rcg_last_error(&why));
        ASSERT(strstr(why.text, "forked") != NULL && why.remedy[0] != '\0');
        _exit(0);
    }
    ASSERT(waitpid(pid, &status, 0) == pid);
    ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ASSERT_OK(rcg_engine_destroy(engine));
    if ((pid = fork()) == 0) { /* nothing lived */
        ASSERT_OK(rcg_engine_create(NULL, &engine));
        ASSERT_OK(rcg_engine_destroy(engine));
        _exit(0);
    }
    ASSERT(waitpid(pid, &status, 0) == pid);
    ASSERT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    watchdog(30);
    side_open(&client, STYLE_QUEUE);
    side_open(&server, STYLE_QUEUE);
    ASSERT_OK(rcg_mr_register(client.engine, mem, sizeof mem, RCG_LOCAL | RCG_REMOTE_READ, &mr));
    lst = listen_on(&server.in, host4(), NULL, &to);
    link_up(&client, &server, &to, NULL, NULL);

    errno = 4321; /* errno is the caller's */
    test_null();
    test_garbage_handles();
    ASSERT_EQ(errno, 4321);
    test_attr_sizes();
    test_arguments();
    test_posts();
    test_states();
    test_callback_channel();
    test_arena();

    STEP("close and destroy twice");
    rcg_listener *old = lst;
    unlisten(&server.in, lst);
    pump(0);
    ASSERT_RC(rcg_listener_close(old), -EBADF);
    ASSERT_OK(rcg_mr_deregister(mr));
    rcg_engine *engine = client.engine;
    side_close(&client);
    ASSERT_RC(rcg_engine_destroy(engine), -EBADF);
    side_close(&server);
    test_fork();
    return T_PASS;
}
