/* Any function in any order from several threads, with handles that are valid, stale, NULL or none at all: nothing may
 * crash or hang, and at the end everything can be destroyed.
 *
 *   test_random_calls [SEED [MILLISECONDS]]
 *
 * What is registered is memory that lives as long as the program, so whatever the order, no operation touches freed
 * memory unless the library does. */
#include "helpers.h"

enum { THREADS = 3, SLOTS = 12, POOL = 64, PIECE = 4096 };

enum kind { ENGINE, CHANNEL, LISTENER, CONN, REGION, ARENA, KINDS };

static unsigned char pool[POOL][PIECE];
static _Atomic(void *) slots[KINDS][SLOTS];
static _Atomic(rcg_channel *) every_channel[4096];
static atomic_size_t channel_count;
static _Atomic(rcg_engine *) every_engine[512];
static atomic_size_t engine_count;
static _Atomic(rcg_mr *) every_region[65536];
static atomic_size_t region_count;
static _Atomic(rcg_arena *) every_arena[16384];
static atomic_size_t arena_count;
static struct {
    _Atomic(rcg_arena *) arena;
    _Atomic(void *) addr;
} lent[65536];
static atomic_size_t lent_count;
static atomic_uint ports[SLOTS];
static atomic_ullong calls, successes, events_seen, established;
static uint64_t seed;
static uint64_t stop_at;

static _Thread_local uint64_t random_state;

static uint64_t draw(void)
{
    random_state += 0x9e3779b97f4a7c15u;
    return mix64(random_state);
}

static uint32_t below(uint32_t n)
{
    return (uint32_t)(draw() >> 33) % n;
}

/* Mostly what should work, sometimes anything. */
static uint32_t mostly(uint32_t usual)
{
    return below(12) ? usual : below(3) ? below(300) : (uint32_t)draw();
}

static void *handle(enum kind kind)
{
    switch (below(40)) {
    case 0: return NULL;
    case 1: return (void *)(uintptr_t)draw();
    case 2: return (void *)(uintptr_t)below(100);
    case 3: return atomic_load(&slots[below(KINDS)][below(SLOTS)]);
    case 4: return pool[0];
    default: return atomic_load(&slots[kind][below(SLOTS)]);
    }
}

static void *keep(enum kind kind, void *h)
{
    return atomic_exchange(&slots[kind][below(SLOTS)], h);
}

static int called(int rc)
{
    atomic_fetch_add(&calls, 1);
    if (rc >= 0) atomic_fetch_add(&successes, 1);
    if (rc < -4095) FAIL("a return value that is no errno: %d", rc);
    return rc;
}

/* Only the numbers and handles of an event are looked at: another thread may have fetched on meanwhile. */
static void handle_event(const rcg_event *ev)
{
    atomic_fetch_add(&events_seen, 1);
    switch (ev->type) {
    case RCG_EVENT_CONNECT_REQUEST:
        switch (below(8)) {
        case 0: called(rcg_reject(ev->conn, below(7), pool[1], below(100))); break;
        case 1: called(rcg_conn_close(ev->conn)); break;
        case 2: break; /* left alone */
        default: called(rcg_accept(ev->conn, NULL)); break;
        }
        {
            rcg_conn *old = keep(CONN, ev->conn);
            if (old && below(2)) called(rcg_conn_close(old));
        }
        break;
    case RCG_EVENT_ESTABLISHED: atomic_fetch_add(&established, 1); break;
    case RCG_EVENT_RECV:
        if (below(8)) called(rcg_recv_release(ev->conn, ev));
        break;
    default: break;
    }
    if (below(50) == 0) called(rcg_conn_close(ev->conn));
}

static void on_events(rcg_channel *ch, const rcg_event *ev, size_t n, void *arg)
{
    (void)arg;
    for (; n--; ev++) handle_event(ev);
    if (below(50) == 0) called(rcg_channel_destroy(ch)); /* -EDEADLK */
}

static rcg_sge random_sge(void)
{
    rcg_sge sge = { pool[below(POOL)] + below(100), mostly(below(PIECE - 100)), handle(REGION) };
    if (below(30) == 0) sge.addr = (void *)(uintptr_t)draw();
    return sge;
}

static void call_engine(void)
{
    rcg_engine *e = NULL;
    rcg_limits limits = { RCG_LIMITS_INIT };
    rcg_error why = { RCG_ERROR_INIT };
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT };
    size_t bytes;
    switch (below(12)) {
    case 0:
        if (atomic_load(&engine_count) < 200 && called(rcg_engine_create(NULL, below(20) ? &e : NULL)) == 0) {
            atomic_store(&every_engine[atomic_fetch_add(&engine_count, 1)], e);
            keep(ENGINE, e);
        }
        break;
    case 1: called(rcg_engine_destroy(handle(ENGINE))); break;
    case 2: called(rcg_engine_limits(handle(ENGINE), mostly(0), below(20) ? &limits : NULL)); break;
    case 3: called(rcg_engine_provider(handle(ENGINE), mostly(2), below(2) ? &why : NULL)); break;
    case 4: called(rcg_conn_memory(handle(ENGINE), &attr, &bytes)); break;
    case 5: called(rcg_last_error(&why)); break;
    default: break;
    }
}

static void call_channel(void)
{
    rcg_channel_attr attr = { RCG_CHANNEL_ATTR_INIT, .spin_us = below(3) ? RCG_SPIN_NEVER : below(50) };
    rcg_channel *ch;
    rcg_event ev[8];
    int n;
    switch (below(10)) {
    case 0:
        if (below(4) || atomic_load(&channel_count) > 600) break;
        if (below(2)) attr.on_events = on_events;
        attr.manual = below(3) == 0;
        attr.max_batch = mostly(below(20));
        if (called(rcg_channel_create(handle(ENGINE), &attr, &ch)) == 0) {
            atomic_store(&every_channel[atomic_fetch_add(&channel_count, 1)], ch);
            ch = keep(CHANNEL, ch);
            if (ch) called(rcg_channel_destroy(ch));
        }
        break;
    case 1:
        if (below(20) == 0) called(rcg_channel_destroy(handle(CHANNEL)));
        break;
    case 2: called(rcg_channel_fd(handle(CHANNEL))); break;
    case 3:
    case 4: called(rcg_channel_run(handle(CHANNEL), (int)below(3))); break;
    default:
        n = called(rcg_channel_next(handle(CHANNEL), ev, 1 + below(8)));
        for (int i = 0; i < n; i++) handle_event(&ev[i]);
        break;
    }
}

static void call_memory(void)
{
    uint32_t key = (uint32_t)draw();
    rcg_arena_attr attr = { RCG_ARENA_ATTR_INIT, .buffer_size = mostly(1000), .count = mostly(4), .max_count = mostly(8),
                            .access = mostly(RCG_LOCAL) };
    rcg_buffer buffer;
    rcg_arena *arena;
    rcg_mr *mr;
    size_t i;
    if (attr.buffer_size > 1u << 16) attr.buffer_size = 1u << 16; /* not to be about memory */
    if (attr.count > 64) attr.count = 64;
    switch (below(10)) {
    case 0:
        if (atomic_load(&region_count) > 60000) break;
        if (called(rcg_mr_register(handle(ENGINE), pool[0], mostly(sizeof pool) % (sizeof pool + 1),
                                   mostly(RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE), &mr)) == 0) {
            atomic_store(&every_region[atomic_fetch_add(&region_count, 1)], mr);
            keep(REGION, mr);
        }
        break;
    case 1:
        if (below(5) == 0) called(rcg_mr_deregister(handle(REGION)));
        break;
    case 2: called(rcg_mr_key(handle(REGION), below(2) ? NULL : handle(CONN), &key)); break;
    case 3:
        called(rcg_mr_key_range(handle(REGION), below(2) ? NULL : handle(CONN), mostly(below(5000)), mostly(below(5000)),
                                mostly(RCG_REMOTE_READ), &key));
        break;
    case 4: called(rcg_mr_key_revoke(handle(REGION), key)); break;
    case 5:
        if (atomic_load(&arena_count) > 16000 || below(5)) break;
        if (called(rcg_arena_create(handle(ENGINE), &attr, &arena)) == 0) {
            atomic_store(&every_arena[atomic_fetch_add(&arena_count, 1)], arena);
            keep(ARENA, arena);
        }
        break;
    case 6:
        arena = handle(ARENA);
        if (atomic_load(&lent_count) < 65000 && called(rcg_arena_get(arena, &buffer)) == 0) {
            i = atomic_fetch_add(&lent_count, 1);
            atomic_store(&lent[i].arena, arena);
            atomic_store(&lent[i].addr, buffer.addr);
        }
        break;
    case 7:
        if ((i = atomic_load(&lent_count)) == 0) break;
        i = draw() % i;
        called(rcg_arena_put(below(10) ? atomic_load(&lent[i].arena) : handle(ARENA), atomic_load(&lent[i].addr)));
        break;
    case 8: called(rcg_arena_destroy(handle(ARENA))); break;
    default: break;
    }
}

static void call_connection(void)
{
    struct address any = address_of(below(4) ? host4() : host6(), 0);
    rcg_listen_attr lattr = { RCG_LISTEN_ATTR_INIT, .crc = mostly(below(3)), .max_pending = below(10),
                              .provider = test_provider() };
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .timeout_ms = (50 + below(500)) * (unsigned)slow(), .crc = mostly(below(3)),
                              .mpa_revision = mostly(below(3)), .private_data = pool[2],
                              .private_data_len = mostly(below(150)), .linger_ms = 50 + below(200),
                              .provider = test_provider() };
    rcg_listener_info linfo = { RCG_LISTENER_INFO_INIT };
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    rcg_addr addrs[3];
    struct address to[3];
    rcg_listener *lst;
    rcg_conn *conn;
    uint32_t i, n;
    if (attr.private_data_len > PIECE) attr.private_data_len = PIECE;
    if (below(2)) lattr.recv_size = attr.recv_size = 256, lattr.recv_count = attr.recv_count = 1 + below(8);
    switch (below(12)) {
    case 0:
        if (below(4)) break;
        if (called(rcg_listen(handle(CHANNEL), (struct sockaddr *)&any.ss, (uint32_t)any.len, &lattr, &lst)) == 0) {
            if (rcg_listener_query(lst, &linfo) == 0) atomic_store(&ports[below(SLOTS)], port_of(&linfo.local));
            lst = keep(LISTENER, lst);
            if (lst) called(rcg_listener_close(lst));
        }
        break;
    case 1: called(rcg_listener_query(handle(LISTENER), &linfo)); break;
    case 2:
        if (below(10) == 0) called(rcg_listener_close(handle(LISTENER)));
        break;
    case 3:
    case 4:
    case 5:
        n = 1 + below(3);
        for (i = 0; i < n; i++) {
            to[i] = address_of(below(4) ? host4() : host6(), (uint16_t)atomic_load(&ports[below(SLOTS)]));
            addrs[i] = rcg_addr_of(&to[i]);
        }
        if (below(30) == 0) addrs[0].length = mostly(16);
        if (called(rcg_connect(handle(CHANNEL), addrs, below(30) ? n : 0, &attr, &conn)) == 0) {
            conn = keep(CONN, conn);
            if (conn) called(rcg_conn_close(conn));
        }
        break;
    case 6:
        if (below(10)) break;
        if (called(rcg_connect_host(handle(CHANNEL), host4(), below(2) ? "1" : "nonsense", &attr, &conn)) == 0) {
            conn = keep(CONN, conn);
            if (conn) called(rcg_conn_close(conn));
        }
        break;
    case 7: called(rcg_accept(handle(CONN), NULL)); break;
    case 8: called(rcg_reject(handle(CONN), mostly(0), pool[3], mostly(10) % PIECE)); break;
    case 9:
        if (below(4) == 0) called(rcg_conn_disconnect(handle(CONN)));
        break;
    case 10:
        if (below(8) == 0) called(rcg_conn_close(handle(CONN)));
        break;
    default: called(rcg_conn_query(handle(CONN), below(20) ? &info : NULL)); break;
    }
}

static void call_operation(void)
{
    rcg_sge sges[4] = { random_sge(), random_sge(), random_sge(), random_sge() };
    rcg_op ops[6];
    rcg_recv recvs[3];
    rcg_event fake = { .type = RCG_EVENT_RECV, .buffer = mostly(below(10)), .flags = RCG_EVENT_LENT };
    uint32_t i, n = 1 + below(6);
    switch (below(8)) {
    case 0: called(rcg_recv_release(handle(CONN), &fake)); break;
    case 1:
    case 2:
        for (i = 0; i < 3; i++) recvs[i] = (rcg_recv){ .sge = sges, .nsge = mostly(below(4)), .user = &pool[i] };
        for (i = 0; i < 3; i++)
            if (recvs[i].nsge > 4) recvs[i].nsge = 100000 + below(1000); /* refused before it is read */
        called(rcg_post_recv(handle(CONN), recvs, 1 + below(3)));
        break;
    default:
        for (i = 0; i < n; i++) {
            ops[i] = (rcg_op){ .opcode = mostly(1 + below(6)), .flags = mostly(below(16)), .sge = sges,
                               .nsge = below(4), .imm = below(1000), .remote_addr = addr_of(pool[below(POOL)]),
                               .remote_key = (uint32_t)draw(), .user = &pool[i] };
            if (below(3) == 0) {
                ops[i].opcode = RCG_SEND, ops[i].flags = RCG_INLINE, ops[i].nsge = 0;
                ops[i].copy = pool[4], ops[i].copy_len = mostly(below(100));
                if (ops[i].copy_len > PIECE) ops[i].copy_len = PIECE;
            }
            if (ops[i].flags & RCG_INLINE) /* inline reads what it is pointed to: it has to be there */
                for (uint32_t j = 0; j < 4; j++) sges[j].addr = pool[5], sges[j].length %= PIECE;
        }
        called(rcg_post(handle(CONN), ops, n));
        break;
    }
}

static void *run(void *arg)
{
    random_state = seed * 1000 + (uintptr_t)arg;
    while (now_us() < stop_at) {
        switch (below(8)) {
        case 0: call_engine(); break;
        case 1: call_memory(); break;
        case 2:
        case 3: call_channel(); break;
        case 4: call_connection(); break;
        default: call_operation(); break;
        }
        if (below(64) == 0) called(rcg_conn_query(handle(CONN), NULL));
    }
    return NULL;
}

/* Something to begin with, so that not all calls fail. */
static void prepare(void)
{
    static const int manual[3] = { 0, 1, 0 };
    rcg_engine *e;
    random_state = seed;
    ASSERT_OK(rcg_engine_create(NULL, &e));
    for (int i = 0; i < SLOTS; i++) atomic_store(&slots[ENGINE][i], e);
    atomic_store(&every_engine[atomic_fetch_add(&engine_count, 1)], e);
    for (int i = 0; i < SLOTS; i++) {
        rcg_channel_attr attr = { RCG_CHANNEL_ATTR_INIT, .manual = (uint32_t)manual[i % 3], .spin_us = RCG_SPIN_NEVER,
                                  .on_events = i % 3 == 2 ? on_events : NULL };
        rcg_listen_attr lattr = { RCG_LISTEN_ATTR_INIT, .recv_size = 256, .recv_count = 4,
                                  .provider = test_provider() };
        rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
        struct address any = address_of(host4(), 0);
        rcg_channel *ch;
        rcg_listener *lst;
        rcg_mr *mr;
        ASSERT_OK(rcg_channel_create(e, &attr, &ch));
        atomic_store(&every_channel[atomic_fetch_add(&channel_count, 1)], ch);
        atomic_store(&slots[CHANNEL][i], ch);
        ASSERT_OK(rcg_listen(ch, (struct sockaddr *)&any.ss, (uint32_t)any.len, &lattr, &lst));
        ASSERT_OK(rcg_listener_query(lst, &info));
        atomic_store(&slots[LISTENER][i], lst);
        atomic_store(&ports[i], port_of(&info.local));
        ASSERT_OK(rcg_mr_register(e, pool, sizeof pool, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE, &mr));
        atomic_store(&every_region[atomic_fetch_add(&region_count, 1)], mr);
        atomic_store(&slots[REGION][i], mr);
    }
}

/* Where little can be done in the time, some connections are there at the beginning; the callbacks of a third of the
 * channels answer for them. */
static void prepare_connections(void)
{
    uint64_t start = now_us();
    for (int i = 0; i < SLOTS; i++) {
        struct address to = address_of(host4(), (uint16_t)atomic_load(&ports[2 + i / 3 * 3]));
        rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .recv_size = 256, .recv_count = 4, .provider = test_provider() };
        rcg_addr addr = rcg_addr_of(&to);
        rcg_conn *conn;
        ASSERT_OK(rcg_connect(atomic_load(&slots[CHANNEL][2 + i % 4 * 3]), &addr, 1, &attr, &conn));
        atomic_store(&slots[CONN][i], conn);
    }
    while (atomic_load(&established) == 0) {
        if (ms_since(start) > 5000 * slow()) FAIL("no connection is established");
        pause_ms(10);
    }
}

/* Everything can be destroyed, in the right order, whatever has happened. */
static void tear_down(void)
{
    size_t i;
    int rc;
    STEP("destroy the channels");
    for (i = 0; i < atomic_load(&channel_count); i++) {
        rc = rcg_channel_destroy(atomic_load(&every_channel[i]));
        if (rc != 0) ASSERT_RC(rc, -EBADF);
    }
    STEP("destroy the arenas");
    for (i = 0; i < atomic_load(&lent_count); i++)
        rcg_arena_put(atomic_load(&lent[i].arena), atomic_load(&lent[i].addr));
    for (i = 0; i < atomic_load(&arena_count); i++) {
        rc = rcg_arena_destroy(atomic_load(&every_arena[i]));
        if (rc != 0) ASSERT_RC(rc, -EBADF);
    }
    STEP("deregister");
    for (i = 0; i < atomic_load(&region_count); i++) {
        rc = rcg_mr_deregister(atomic_load(&every_region[i]));
        if (rc != 0) ASSERT_RC(rc, -EBADF);
    }
    STEP("destroy the engines");
    for (i = 0; i < atomic_load(&engine_count); i++) {
        rc = rcg_engine_destroy(atomic_load(&every_engine[i]));
        if (rc != 0) ASSERT_RC(rc, -EBADF);
    }
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    int duration = argc > 2 ? atoi(argv[2]) : light() ? 12000 : 6000; /* light is slow */
    seed = argc > 1 ? strtoull(argv[1], NULL, 0) : now_us() ^ (uint64_t)getpid() << 32;
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    watchdog((unsigned)duration / 1000 + 30);
    prepare();
    if (light()) prepare_connections();
    stop_at = now_us() + (uint64_t)duration * 1000;
    STEP("random calls");
    for (uintptr_t i = 0; i < THREADS; i++)
        ASSERT(pthread_create(&threads[i], NULL, run, (void *)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    tear_down();
    printf("%llu calls, %llu of them successful, %llu events, %llu established\n",
           (unsigned long long)atomic_load(&calls), (unsigned long long)atomic_load(&successes),
           (unsigned long long)atomic_load(&events_seen), (unsigned long long)atomic_load(&established));
    STEP("the threads of the library end");
    for (uint64_t start = now_us(); count_entries("/proc/self/task") != 1; pause_ms(5))
        if (ms_since(start) > 3000 * slow()) FAIL("%d threads are left", count_entries("/proc/self/task"));
    ASSERT(atomic_load(&established) > 0);
    return T_PASS;
}
