/* Remote keys: scope, range, rights, revocation, unpredictability; deregistration under fire; arenas.
 *
 * A peer that uses a key it may not use ends its connection, so most cases have a connection of their own. Around the
 * memory that is exposed lies memory that is not: it must never change. */
#include "helpers.h"

/* The window is smaller than an FPDU: of a longer Write the segments before the wrong one are placed. */
enum { AREA = 256 * 1024, WINDOW_AT = 64 * 1024, WINDOW = 32 * 1024, LOCAL_SIZE = 128 * 1024 };

static unsigned char *area;      /* the server's: a pattern, of which [WINDOW_AT, +WINDOW) may be exposed */
static unsigned char *local;     /* the client's */
static rcg_mr *area_mr, *local_mr;
static struct side client, server;
static struct address to;
static rcg_listener *lst;

enum { AREA_SEED = 77, LOCAL_SEED = 78 };

static void assert_area_untouched(void)
{
    ASSERT_PATTERN(area, AREA, AREA_SEED);
}

/* Nothing outside of the window has changed: what a Write has placed in it was allowed. */
static void assert_only_window_touched(void)
{
    size_t behind = WINDOW_AT + WINDOW;
    ASSERT_PATTERN(area, WINDOW_AT, AREA_SEED);
    ASSERT_PATTERN_AT(area + behind, AREA - behind, AREA_SEED, behind);
    pattern_fill(area, AREA, AREA_SEED);
}

/* The end that a peer's wrong access brings: both are told, and why. */
static void expect_violation(void)
{
    rcg_event ev = take(&server.in, RCG_EVENT_DISCONNECTED, server.conn, WAIT_MS);
    ASSERT(ev.error != NULL);
    if (can(CAN_TELL_VICTIM) && ev.error->reason != RCG_REASON_REMOTE_ACCESS)
        FAIL("the server was told: %s", ev.error->text);
    ev = take(&client.in, RCG_EVENT_DISCONNECTED, client.conn, WAIT_MS);
    ASSERT(ev.error != NULL);
    if (can(CAN_TELL_REFUSED))
        ASSERT(ev.error->reason == RCG_REASON_TERMINATED || ev.error->reason == RCG_REASON_REMOTE_ACCESS);
    else
        printf("%s: %s\n", test_step, ev.error->text);
    ASSERT(ev.error->code < 0 && ev.error->text[0] != '\0');
    await_end(&client);
    await_end(&server);
}

/* A refused Write may have been on its way. A device that is told so while it sends, fails it (siw_qp_sq_process). */
static void expect_end_of_write(int status)
{
    bool broken = status == -ECONNRESET && !can(CAN_TELL_REFUSED);
    if (status != 0 && status != -EACCES && status != -ECANCELED && !broken) FAIL("status %d", status);
}

/* The client reads or writes [addr, addr + length) with `key`. */
static void may_not(const char *what, uint32_t opcode, uint64_t addr, size_t length, uint32_t key)
{
    rcg_sge sge = { local, length, local_mr };
    rcg_op op = RCG_OP_WRITE(&sge, 1, addr, key, local);
    STEP(what);
    op.opcode = opcode;
    pattern_fill(local, LOCAL_SIZE, LOCAL_SEED);
    int rc = rcg_post(client.conn, &op, 1);
    if (addr > UINT64_MAX - length) { /* refused before it is sent; test_hostile sends such a one */
        ASSERT_RC(rc, -EINVAL);
        link_down(&client, &server);
        return;
    }
    ASSERT_OK(rc);
    rcg_event ev = take(&client.in, RCG_EVENT_COMPLETION, client.conn, WAIT_MS);
    if (opcode == RCG_READ && can(CAN_TELL_REFUSED)) ASSERT_EQ(ev.status, -EACCES);
    else if (opcode == RCG_READ) ASSERT(ev.status < 0);
    else expect_end_of_write(ev.status);
    expect_violation();
    ASSERT_PATTERN(local, LOCAL_SIZE, LOCAL_SEED); /* a refused Read brings nothing */
    if (opcode == RCG_WRITE && !can(CAN_REFUSE_WHOLE)) assert_only_window_touched();
    else assert_area_untouched();
}

static void may(const char *what, uint32_t opcode, uint64_t addr, size_t length, uint32_t key)
{
    size_t offset = (size_t)(addr - addr_of(area));
    rcg_sge sge = { local, length, local_mr };
    rcg_op op = RCG_OP_WRITE(&sge, 1, addr, key, local);
    rcg_event ev;
    STEP(what);
    op.opcode = opcode;
    /* what is written is what is there already, so that the area stays what it is */
    memset(local, 0, LOCAL_SIZE);
    if (opcode == RCG_WRITE) memcpy(local, area + offset, length);
    ASSERT_OK(rcg_post(client.conn, &op, 1));
    ev = take(&client.in, RCG_EVENT_COMPLETION, client.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    if (opcode == RCG_READ) ASSERT_PATTERN_AT(local, length, AREA_SEED, offset);
    op = (rcg_op)RCG_OP_SEND_COPY("sync", 4, NULL); /* the server still takes messages: nothing went wrong */
    ASSERT_OK(rcg_post(client.conn, &op, 1));
    ev = take(&server.in, RCG_EVENT_RECV, server.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    ASSERT_OK(rcg_recv_release(server.conn, &ev));
    assert_area_untouched();
}

static void fresh(void)
{
    STEP("a new connection");
    link_up(&client, &server, &to, NULL, NULL);
}

static uint32_t window_key(uint32_t access)
{
    uint32_t key;
    ASSERT_OK(rcg_mr_key_range(area_mr, server.conn, WINDOW_AT, WINDOW, access, &key));
    return key;
}

/* What a key is good for. A device's key is good for all connections of the engine on that device, as their queue pairs
 * share one protection domain; and there is none for the engine as a whole. */
static void test_scope_of_devices(void)
{
    uint32_t key;
    fresh();
    ASSERT_OK(rcg_mr_key(area_mr, server.conn, &key));
    may("a key on its connection", RCG_READ, addr_of(area), 1000, key);
    STEP("a key ends with its connection");
    link_down(&client, &server);
    ASSERT_RC(rcg_mr_key_revoke(area_mr, key), -ENOENT);
    fresh();
    may_not("a key whose connection is gone", RCG_READ, addr_of(area), 1000, key);
}

static void test_scope(void)
{
    uint32_t key, domain;
    rcg_conn *first_client, *first_server;
    fresh();
    ASSERT_OK(rcg_mr_key(area_mr, server.conn, &key));
    ASSERT_OK(rcg_mr_key(area_mr, NULL, &domain));
    may("a key on its connection", RCG_READ, addr_of(area), 1000, key);
    may("a domain key on one connection", RCG_WRITE, addr_of(area) + 5, 1000, domain);
    first_client = client.conn, first_server = server.conn;
    fresh();
    may("a domain key on another connection", RCG_READ, addr_of(area), LOCAL_SIZE, domain);
    may_not("a key on another connection", RCG_READ, addr_of(area), 1000, key);
    fresh();
    may_not("a key on another connection", RCG_WRITE, addr_of(area), 1000, key);
    client.conn = first_client, server.conn = first_server;
    may("a key after others have tried it", RCG_READ, addr_of(area) + AREA - 1000, 1000, key);
    STEP("a key ends with its connection");
    link_down(&client, &server);
    ASSERT_RC(rcg_mr_key_revoke(area_mr, key), -ENOENT);
    fresh();
    may_not("a key whose connection is gone", RCG_READ, addr_of(area), 1000, key);
    fresh();
    may("a domain key outlives connections", RCG_READ, addr_of(area), 1000, domain);
    ASSERT_OK(rcg_mr_key_revoke(area_mr, domain));
    may_not("a revoked domain key", RCG_WRITE, addr_of(area), 1000, domain);
}

static void test_ranges_and_rights(void)
{
    const uint64_t base = addr_of(area), window = base + WINDOW_AT;
    const uint32_t both = RCG_REMOTE_READ | RCG_REMOTE_WRITE;
    const uint32_t opcodes[2] = { RCG_READ, RCG_WRITE };
    for (int i = 0; i < 2; i++) {
        uint32_t op = opcodes[i], key;
        fresh();
        key = window_key(both);
        may("all of the window", op, window, WINDOW, key);
        may("its first octet", op, window, 1, key);
        may("its last octet", op, window + WINDOW - 1, 1, key);
        may_not("one octet more", op, window, WINDOW + 1, key);
        fresh();
        may_not("one octet before", op, window - 1, 2, window_key(both));
        fresh();
        may_not("one octet behind", op, window + WINDOW, 1, window_key(both));
        fresh();
        may_not("across its end", op, window + WINDOW - 8, 16, window_key(both));
        fresh();
        may_not("around the end of the address space", op, UINT64_MAX - 15, 64, window_key(both));
        fresh();
        may_not("up to the end of the address space", op, UINT64_MAX - 63, 64, window_key(both));
        fresh();
        may_not("address 0", op, 0, 64, window_key(both));
        fresh();
        key = window_key(both);
        may("before the revocation", op, window, 100, key);
        ASSERT_OK(rcg_mr_key_revoke(area_mr, key));
        may_not("a revoked key", op, window, 100, key);
        fresh();
        may_not("a key that is none", op, window, 100, window_key(both) ^ 1u);
        fresh();
        window_key(both);
        may_not("key 0", op, window, 100, 0);
    }
    fresh();
    uint32_t read_only = window_key(RCG_REMOTE_READ);
    may("reading with the right to read", RCG_READ, window, WINDOW, read_only);
    may_not("writing with the right to read", RCG_WRITE, window, 16, read_only);
    fresh();
    uint32_t write_only = window_key(RCG_REMOTE_WRITE);
    may("writing with the right to write", RCG_WRITE, window, WINDOW, write_only);
    if (can(CAN_GUARD_READS)) may_not("reading with the right to write", RCG_READ, window, 16, write_only);
    else link_down(&client, &server);

    STEP("two keys of one region are independent");
    fresh();
    uint32_t one = window_key(both), two = window_key(both);
    ASSERT(one != two);
    ASSERT_OK(rcg_mr_key_revoke(area_mr, one));
    may("the other key", RCG_READ, window, 100, two);
    may_not("the revoked of two keys", RCG_READ, window, 100, one);
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Keys can't be guessed: over 10^5 of them no repeat, no order, every bit used evenly. */
static void test_unpredictable(void)
{
    enum { KEYS = 100000 };
    uint32_t *keys = malloc(KEYS * sizeof *keys);
    unsigned rises = 0, bits[32] = { 0 };
    STEP("100,000 keys");
    ASSERT(keys != NULL);
    fresh();
    for (size_t i = 0; i < KEYS; i++)
        ASSERT_OK(rcg_mr_key_range(area_mr, server.conn, i % WINDOW, 1, RCG_REMOTE_READ, &keys[i]));
    for (size_t i = 0; i < KEYS; i++) {
        if (i) rises += keys[i] > keys[i - 1];
        for (int bit = 0; bit < 32; bit++) bits[bit] += keys[i] >> bit & 1;
    }
    if (rises < KEYS * 48 / 100 || rises > KEYS * 52 / 100) FAIL("%u of %d keys rise", rises, KEYS);
    for (int bit = 0; bit < 32; bit++)
        if (bits[bit] < KEYS * 48 / 100 || bits[bit] > KEYS * 52 / 100)
            FAIL("bit %d is set in %u of %d keys", bit, bits[bit], KEYS);
    /* revoking them all leaves nothing: each is known once, and only once */
    for (size_t i = 0; i < KEYS; i++) ASSERT_OK(rcg_mr_key_revoke(area_mr, keys[i]));
    ASSERT_RC(rcg_mr_key_revoke(area_mr, keys[0]), -ENOENT);
    qsort(keys, KEYS, sizeof *keys, by_value);
    for (size_t i = 1; i < KEYS; i++)
        if (keys[i] == keys[i - 1]) FAIL("key %#x was given out twice", keys[i]);
    uint32_t widest = 0;
    for (size_t i = 1; i < KEYS; i++)
        if (keys[i] - keys[i - 1] > widest) widest = keys[i] - keys[i - 1];
    ASSERT(widest < 2000000u); /* 42950 on average: they fill the whole space */
    ASSERT(keys[0] > 1);
    free(keys);
    link_down(&client, &server);
}

/* The server takes its memory back while the client writes into it without end. */
static void test_deregister_under_fire(bool only_revoke)
{
    enum { ROUNDS = 30, BLOCK = 64 * 1024, BLOCKS = 4 };
    unsigned char *target = malloc(BLOCK * BLOCKS);
    uint64_t landed = 0;
    ASSERT(target != NULL);
    STEP(only_revoke ? "revoke under fire" : "deregister under fire");
    for (unsigned round = 0; round < ROUNDS; round += light() ? 4 : 1) {
        rcg_mr *mr;
        uint32_t key;
        rcg_event ev;
        rcg_sge sge = { local, BLOCK, local_mr };
        memset(target, 0, BLOCK * BLOCKS);
        memset(local, (int)(round % 100 + 1), LOCAL_SIZE);
        ASSERT_OK(rcg_mr_register(server.engine, target, BLOCK * BLOCKS, RCG_LOCAL | RCG_REMOTE_WRITE, &mr));
        link_up(&client, &server, &to, NULL, NULL);
        ASSERT_OK(rcg_mr_key(mr, round % 2 || !can(CAN_GUARD_KEYS) ? server.conn : NULL, &key));
        /* the volume differs from round to round, so that the moments do */
        for (unsigned i = 0; i < 8 + round * 8; i++) {
            rcg_op op = RCG_OP_WRITE(&sge, 1, addr_of(target) + (i % BLOCKS) * BLOCK, key, NULL);
            int rc = rcg_post(client.conn, &op, 1);
            ASSERT(rc == 0 || rc == -EAGAIN);
        }
        if (only_revoke) ASSERT_OK(rcg_mr_key_revoke(mr, key));
        else ASSERT_OK(rcg_mr_deregister(mr));
        /* now the memory is ours: whoever still wrote would destroy this */
        for (size_t i = 0; i < BLOCK * BLOCKS; i++) landed += target[i] != 0;
        memset(target, 0xee, BLOCK * BLOCKS);
        for (unsigned i = 0; i < 200; i++) { /* as long as writes keep coming in */
            rcg_op op = RCG_OP_WRITE(&sge, 1, addr_of(target), key, NULL);
            int rc = rcg_post(client.conn, &op, 1);
            if (rc == -ENOTCONN || rc == -EBADF) break;
            pump(0);
        }
        if (!inbox_try(&client.in, RCG_EVENT_CLOSED, client.conn, 0, &ev)) {
            rcg_op op = RCG_OP_WRITE(&sge, 1, addr_of(target), key, NULL);
            uint64_t start = now_us();
            int rc; /* at least one write after the revocation: all before it may have landed */
            while ((rc = rcg_post(client.conn, &op, 1)) == -EAGAIN && ms_since(start) < WAIT_MS * slow()) pump(10);
            ASSERT(rc == 0 || rc == -ENOTCONN || rc == -EBADF);
            take(&client.in, RCG_EVENT_CLOSED, client.conn, WAIT_MS);
        }
        await_end(&server);
        assert_all_are(target, BLOCK * BLOCKS, 0xee, "memory after its deregistration");
        if (only_revoke) ASSERT_OK(rcg_mr_deregister(mr));
        inbox_clear(&client.in);
    }
    printf("%s: %.1f MiB had landed before\n", only_revoke ? "revoke" : "deregister", (double)landed / 1048576);
    free(target);
}

static void test_arena(void)
{
    enum { COUNT = 20, SIZE = 3000 };
    rcg_arena_attr attr = { RCG_ARENA_ATTR_INIT, .buffer_size = SIZE, .count = 8, .max_count = COUNT,
                            .access = RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE };
    rcg_arena *arena;
    rcg_buffer buffers[COUNT], again;
    rcg_event ev;
    uint32_t key;
    STEP("arena");
    fresh();
    ASSERT_OK(rcg_arena_create(server.engine, &attr, &arena));
    for (int i = 0; i < COUNT; i++) {
        ASSERT_OK(rcg_arena_get(arena, &buffers[i]));
        ASSERT(buffers[i].addr != NULL && buffers[i].length >= SIZE && buffers[i].mr != NULL);
        pattern_fill(buffers[i].addr, SIZE, 500u + (unsigned)i);
        for (int j = 0; j < i; j++) {
            uint64_t a = addr_of(buffers[i].addr), b = addr_of(buffers[j].addr);
            ASSERT(a >= b + SIZE || b >= a + SIZE);
        }
    }
    ASSERT_RC(rcg_arena_get(arena, &again), -ENOBUFS);
    for (int i = 0; i < COUNT; i++) ASSERT_PATTERN(buffers[i].addr, SIZE, 500u + (unsigned)i);

    STEP("a buffer of an arena in operations");
    rcg_sge sge = { buffers[3].addr, SIZE, buffers[3].mr };
    rcg_op op = RCG_OP_SEND(&sge, 1, arena);
    rcg_sge into = { local, SIZE, local_mr };
    ASSERT_OK(rcg_post_recv(client.conn, &(rcg_recv){ .sge = &into, .nsge = 1, .user = local }, 1));
    ASSERT_OK(rcg_post(server.conn, &op, 1));
    ev = take(&client.in, RCG_EVENT_RECV, client.conn, WAIT_MS);
    ASSERT_EQ(ev.length, SIZE);
    ASSERT_PATTERN(local, SIZE, 503);
    take(&server.in, RCG_EVENT_COMPLETION, server.conn, WAIT_MS);
    ASSERT_OK(rcg_arena_put(arena, buffers[3].addr));
    ASSERT_OK(rcg_arena_get(arena, &again));
    ASSERT(again.addr == buffers[3].addr); /* the only one that is free */
    ASSERT_OK(rcg_mr_key(again.mr, server.conn, &key));
    pattern_fill(again.addr, SIZE, 600);
    op = (rcg_op)RCG_OP_READ(&into, 1, addr_of(again.addr), key, arena);
    ASSERT_OK(rcg_post(client.conn, &op, 1));
    ev = take(&client.in, RCG_EVENT_COMPLETION, client.conn, WAIT_MS);
    ASSERT_EQ(ev.status, 0);
    ASSERT_PATTERN(local, SIZE, 600);
    link_down(&client, &server);
    for (int i = 0; i < COUNT; i++) ASSERT_OK(rcg_arena_put(arena, buffers[i].addr));
    for (int round = 0; round < 1000; round++) { /* taking and giving back is not growing */
        ASSERT_OK(rcg_arena_get(arena, &again));
        ASSERT_OK(rcg_arena_put(arena, again.addr));
    }
    ASSERT_OK(rcg_arena_destroy(arena));
}

/* What a connection costs can be asked, and grows with what is asked for. */
static void test_conn_memory(void)
{
    rcg_connect_attr small = { RCG_CONNECT_ATTR_INIT, .send_depth = 8, .recv_depth = 8 };
    rcg_connect_attr large = { RCG_CONNECT_ATTR_INIT, .send_depth = 512, .recv_size = 65536, .recv_count = 64 };
    size_t little = 0, much = 0;
    STEP("memory of a connection");
    ASSERT_OK(rcg_conn_memory(client.engine, &small, &little));
    ASSERT_OK(rcg_conn_memory(client.engine, &large, &much));
    ASSERT(little > 1000 && little < 1 << 20);
    ASSERT(much > 64u * 65536 && much < 64u * 65536 + (4u << 20));
    printf("an idle connection holds %zu octets, with 64 receives of 64 KiB %zu\n", little, much);
}

int main(void)
{
    rcg_listen_attr listen = { RCG_LISTEN_ATTR_INIT, .recv_size = 64, .recv_count = 4 };
    watchdog(40);
    area = malloc(AREA), local = malloc(LOCAL_SIZE);
    ASSERT(area != NULL && local != NULL);
    pattern_fill(area, AREA, AREA_SEED);
    side_open(&client, STYLE_QUEUE);
    side_open(&server, STYLE_QUEUE);
    ASSERT_OK(rcg_mr_register(server.engine, area, AREA, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &area_mr));
    ASSERT_OK(rcg_mr_register(client.engine, local, LOCAL_SIZE, RCG_LOCAL, &local_mr));
    lst = listen_on(&server.in, host4(), &listen, &to);

    if (can(CAN_GUARD_KEYS)) test_scope();
    else test_scope_of_devices();
    test_ranges_and_rights();
    if (can(CAN_GUARD_KEYS)) test_unpredictable();
    test_deregister_under_fire(false);
    test_deregister_under_fire(true);
    test_arena();
    test_conn_memory();

    STEP("end");
    unlisten(&server.in, lst);
    ASSERT_OK(rcg_mr_deregister(area_mr));
    ASSERT_OK(rcg_mr_deregister(local_mr));
    side_close(&client);
    side_close(&server);
    free(area);
    free(local);
    return T_PASS;
}
