/* Our requester against the Linux kernel's NFS server over RDMA, case by case: bed_rpc_probe PORT EXPORT CASE..., or --list
 *
 * For the test bed; where it runs is told as in helpers.h. EXPORT is the directory that the server, which is on the same
 * machine, exports as its root: what is read over RDMA was written there directly, and the other way round.
 *
 * Behind each case a call that does nothing shows that the connection is alive. Procedures, operations and their results:
 * RFC 1813, RFC 7530; headers: RFC 8166; what may leave the message: RFC 8267.
 *
 * Left out, as Linux 6.1 gets them wrong: two read chunks in a call, which spoil the message (svc_rdma_copy_inline_range);
 * READLINK of NFSv4 into a write chunk, which is placed from the word in front of it on (nfsd4_encode_readlink); the data
 * of a WRITE behind the first page of a long call, instead of which the beginning of their page is written
 * (svc_fill_write_vector). */
#include "rpc.h"

#include <stddef.h>

enum { GETATTR = 9, GETFH = 10, LOOKUP = 15, PUTROOTFH = 24, READ = 25, WRITE = 38 }; /* operations of version 4 */
enum { NULL_PROCEDURE = 0, COMPOUND = 1, READLINK3 = 5, READ3 = 6, WRITE3 = 7 }; /* procedures */
enum { FILE_SYNC = 2, NFS4ERR_FBIG = 27 };

/* How the memory of a payload or result is told. */
enum form { WHOLE, ROUNDED, SEGMENTS };

static const char *export;
static struct call call;
static char long_name[201];

/* What the case at hand is about. */
static size_t octets; /* of the payload */
static enum form form;

/* ---- calls, as XDR has them --------------------------------------------------------------------------------------- */

struct xdr {
    unsigned char text[8000];
    size_t length;
};

static void put_words(struct xdr *x, const uint32_t *words, size_t n)
{
    for (size_t i = 0; i < n; i++, x->length += 4) put_word(x->text + x->length, words[i]);
}
#define PUT(x, ...)                                                                                                    \
    put_words((x), (const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ }) / 4)

static void put_opaque(struct xdr *x, const void *data, size_t length)
{
    PUT(x, (uint32_t)length);
    memset(x->text + x->length, 0, padded(length));
    memcpy(x->text + x->length, data, length);
    x->length += padded(length);
}

/* An NFS call by root. */
static struct xdr nfs_call(uint32_t version, uint32_t procedure)
{
    struct xdr x = { .length = 0 };
    PUT(&x, ++last_xid, 0, 2, 100003, version, procedure);
    PUT(&x, 1, 20, 0, 0, 0, 0, 0, 0, 0); /* AUTH_SYS: a machine without name, user and group 0; no verifier */
    return x;
}

static void put_lookup(struct xdr *x, const char *name)
{
    PUT(x, PUTROOTFH, LOOKUP);
    put_opaque(x, name, strlen(name));
}

/* An NFSv4.0 call on a file: two operations, and `more` to come. Its reply begins with 52 octets. */
static struct xdr compound(const char *name, uint32_t more)
{
    struct xdr x = nfs_call(4, COMPOUND);
    PUT(&x, 0, 0, 2 + more);
    put_lookup(&x, name);
    return x;
}
#define COMPOUND_REPLY(status, more) 1, 0, 0, 0, 0, (status), 0, 2 + (more), PUTROOTFH, 0, LOOKUP, 0

/* READ from the beginning, with the state that stands for none. */
static void put_read(struct xdr *x, size_t count)
{
    PUT(x, READ, 0, 0, 0, 0, 0, 0, (uint32_t)count);
}

#define LONG_REPLY(lookups) (52 + 16 * (lookups))

/* So many lookups of a long name in front of the last one: too long a call for a message. */
static struct xdr long_compound(uint32_t lookups, uint32_t more)
{
    struct xdr x = nfs_call(4, COMPOUND);
    PUT(&x, 0, 0, 2 * lookups + 2 + more);
    for (uint32_t i = 0; i < lookups; i++) put_lookup(&x, long_name);
    put_lookup(&x, "file");
    return x;
}

/* Makes a call and waits for its end. */
static void ask(const struct xdr *x, rcg_rpc_request request, int status)
{
    struct iovec head = { (void *)x->text, x->length };
    memset(&call, 0, offsetof(struct call, text));
    request.head = &head, request.nhead = 1, request.user = &call;
    if (request.reply_max == 0) request.reply_max = 1000;
    ASSERT_OK(rcg_rpc_call(client.side.conn, &request));
    expect_over(&client, &call, status);
    if (status == 0) ASSERT_EQ(call.xid, get_word(x->text, 0));
}
#define REQUEST(...) ((rcg_rpc_request){ RCG_RPC_REQUEST_INIT, __VA_ARGS__ })

/* The reply has so many octets, which begin with the identifier and these words. */
#define EXPECT_REPLY(length_, ...)                                                                                     \
    do {                                                                                                               \
        const uint32_t words_[] = { __VA_ARGS__ };                                                                     \
        ASSERT_EQ(call.length, (length_));                                                                             \
        check_words(call.text + 4, words_, sizeof words_ / 4);                                                         \
    } while (0)

static void null_call(void)
{
    struct xdr x = nfs_call(4, NULL_PROCEDURE);
    ask(&x, REQUEST(0), 0);
    EXPECT_REPLY(24, 1, 0, 0, 0, 0);
}

/* Memory for so many octets of a payload. */
static rcg_rpc_memory room_for(rcg_sge sge[2], size_t offset, size_t length)
{
    size_t first = form == SEGMENTS ? length / 3 * 2 + 1 : form == ROUNDED ? padded(length) + 4 : length;
    sge[0] = sge_of(&client, offset, first);
    sge[1] = sge_of(&client, offset + first, length - first);
    return (rcg_rpc_memory){ .sge = sge, .nsge = form == SEGMENTS ? 2 : 1 };
}

/* ---- files -------------------------------------------------------------------------------------------------------- */

static const char *path_of(const char *name)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", export, name);
    return path;
}

static void make_file(const char *name, size_t length)
{
    static unsigned char text[30000];
    FILE *file = fopen(path_of(name), "w");
    ASSERT(file != NULL && length <= sizeof text);
    pattern_fill(text, length, ++seed);
    ASSERT(fwrite(text, 1, length, file) == length && fclose(file) == 0);
}

static void check_file(void)
{
    static unsigned char text[30000];
    FILE *file = fopen(path_of("file"), "r");
    ASSERT(file != NULL);
    ASSERT_EQ(fread(text, 1, sizeof text, file), octets);
    ASSERT_PATTERN(text, octets, seed);
    fclose(file);
}

/* What is to be written to a file that is empty before. */
static void make_data(void)
{
    make_file("file", 0);
    pattern_fill(client.mem + SOURCE, octets, ++seed);
    memset(client.mem + SOURCE + octets, 0, 4);
}

/* A call of version 3 on a file, whose handle version 4 tells: they share it. */
static struct xdr nfs3_call(uint32_t procedure, const char *name)
{
    struct xdr ask_handle = compound(name, 1), x;
    PUT(&ask_handle, GETFH);
    ask(&ask_handle, REQUEST(0), 0);
    size_t length = get_word(call.text, 60);
    ASSERT(get_word(call.text, 56) == 0 && length > 0 && call.length == 64 + padded(length));
    x = nfs_call(3, procedure);
    put_opaque(&x, call.text + 64, length);
    return x;
}

/* ---- calls of the library's --------------------------------------------------------------------------------------- */

static void null_in_reply_chunk(void)
{
    rcg_sge place = sge_of(&client, REPLY, octets);
    struct xdr x = nfs_call(4, NULL_PROCEDURE);
    ask(&x, REQUEST(.reply_max = octets, .reply = { .sge = &place, .nsge = 1 }), 0);
    EXPECT_REPLY(24, 1, 0, 0, 0, 0);
    ASSERT(call.data == client.mem + REPLY); /* the server uses a reply chunk whenever there is one */
}

static void null_with_write_chunk(void)
{
    rcg_sge sge[2];
    rcg_rpc_memory room = room_for(sge, RESULT, octets);
    struct xdr x = nfs_call(4, NULL_PROCEDURE);
    ask(&x, REQUEST(.results = &room, .nresults = 1), 0);
    EXPECT_REPLY(24, 1, 0, 0, 0, 0);
    ASSERT(call.npieces == 1 && call.piece[0].length == 0);
}

/* What has been read, in its chunk. */
static void check_chunk(const void *wanted)
{
    ASSERT(call.npieces == 1 && call.piece[0].addr == client.mem + RESULT);
    ASSERT_EQ(call.piece[0].length, octets);
    if (wanted) ASSERT(memcmp(client.mem + RESULT, wanted, octets) == 0);
    else ASSERT_PATTERN(client.mem + RESULT, octets, seed);
    assert_all_are(client.mem + RESULT + octets, 64, 0xee, "behind the data"); /* no pad goes there */
}

static void read_file(void)
{
    rcg_sge sge[2];
    rcg_rpc_memory room = room_for(sge, RESULT, octets);
    struct xdr x = compound("file", 1);
    make_file("file", octets);
    put_read(&x, octets);
    ask(&x, REQUEST(.results = &room, .nresults = 1), 0);
    EXPECT_REPLY(68, COMPOUND_REPLY(0, 1), READ, 0, 1, (uint32_t)octets); /* neither data nor pad */
    check_chunk(NULL);
}

/* All of it in the reply, which is a message or in the reply chunk. */
static void read_in_reply(void)
{
    rcg_sge place = sge_of(&client, REPLY, ROOM);
    struct xdr x = compound("file", 1);
    size_t longest = 68 + padded(octets);
    make_file("file", octets);
    put_read(&x, octets);
    ask(&x, REQUEST(.reply_max = longest, .reply = { .sge = &place, .nsge = 1 }), 0);
    EXPECT_REPLY(longest, COMPOUND_REPLY(0, 1), READ, 0, 1, (uint32_t)octets);
    ASSERT_PATTERN(call.text + 68, octets, seed);
    assert_all_are(call.text + 68 + octets, longest - 68 - octets, 0, "the pad");
    ASSERT_EQ(call.data == client.mem + REPLY, longest > 4096);
}

/* Two READs of one call: each has a chunk of its own. */
static void read_twice(void)
{
    rcg_sge sge[2] = { sge_of(&client, RESULT, octets), sge_of(&client, RESULT + octets, octets) };
    rcg_rpc_memory rooms[2] = { { .sge = &sge[0], .nsge = 1 }, { .sge = &sge[1], .nsge = 1 } };
    struct xdr x = compound("file", 2);
    uint32_t half = (uint32_t)octets;
    make_file("file", 2 * octets);
    put_read(&x, octets);
    PUT(&x, READ, 0, 0, 0, 0, 0, half, half);
    ask(&x, REQUEST(.results = rooms, .nresults = 2), 0);
    EXPECT_REPLY(84, COMPOUND_REPLY(0, 2), READ, 0, 0, half, READ, 0, 1, half);
    ASSERT(call.npieces == 2 && call.piece[0].length == octets && call.piece[1].length == octets);
    ASSERT_PATTERN(client.mem + RESULT, 2 * octets, seed);
}

static void read_nothing(void)
{
    rcg_sge sge[2];
    rcg_rpc_memory room = room_for(sge, RESULT, octets);
    struct xdr x = compound("file", 1);
    make_file("file", 0);
    put_read(&x, octets);
    ask(&x, REQUEST(.results = &room, .nresults = 1), 0);
    EXPECT_REPLY(68, COMPOUND_REPLY(0, 1), READ, 0, 1, 0);
    ASSERT(call.npieces == 1 && call.piece[0].length == 0);
}

static void read_into_too_little(void)
{
    rcg_sge sge[2];
    rcg_rpc_memory room = room_for(sge, RESULT, octets / 12);
    struct xdr x = compound("file", 1);
    make_file("file", octets);
    put_read(&x, octets);
    ask(&x, REQUEST(.results = &room, .nresults = 1), 0);
    EXPECT_REPLY(60, COMPOUND_REPLY(NFS4ERR_FBIG, 1), READ, NFS4ERR_FBIG); /* the READ fails, not the call */
    ASSERT(call.npieces == 1 && call.piece[0].length == 0);
}

/* A reply that does not fit its chunk is the transport's error, of this call alone. */
static void reply_into_too_little(void)
{
    rcg_sge place = sge_of(&client, REPLY, octets / 2);
    struct xdr x = compound("file", 1);
    make_file("file", octets);
    put_read(&x, octets);
    ask(&x, REQUEST(.reply_max = octets / 2, .reply = { .sge = &place, .nsge = 1 }), -EREMOTEIO);
}

/* WRITE, and behind its data an operation that tells how long the file is then. Returns where the data belong. */
static uint32_t put_write(struct xdr *x)
{
    PUT(x, WRITE, 0, 0, 0, 0, 0, 0, FILE_SYNC, (uint32_t)octets);
    uint32_t at = (uint32_t)x->length;
    PUT(x, GETATTR, 1, 0x10); /* size */
    return at;
}

static void write_file(void)
{
    rcg_sge sge[2];
    rcg_rpc_memory payload = room_for(sge, SOURCE, octets);
    struct xdr x = compound("file", 2);
    payload.at = put_write(&x);
    make_data();
    ask(&x, REQUEST(.payload = payload), 0);
    EXPECT_REPLY(104, COMPOUND_REPLY(0, 2), WRITE, 0, (uint32_t)octets);
    ASSERT_EQ(get_word(call.text, 100), octets);
    check_file();
    ASSERT_EQ(figures(&client).read_chunks > 0, octets > 4000);
}

/* The whole call goes in a chunk at position 0, and what it reads in another. */
static void long_call(void)
{
    rcg_sge sge[2];
    rcg_rpc_memory room = room_for(sge, RESULT, octets);
    struct xdr x = long_compound(20, 1);
    make_file("file", octets);
    put_read(&x, octets);
    ASSERT(x.length > 4096);
    ask(&x, REQUEST(.results = &room, .nresults = 1), 0);
    EXPECT_REPLY(LONG_REPLY(20) + 16, 1, 0, 0, 0, 0, 0, 0, 43, PUTROOTFH, 0, LOOKUP, 0, PUTROOTFH, 0, LOOKUP, 0);
    check_chunk(NULL);
}

/* The data of a long call are part of it. */
static void long_call_with_data(void)
{
    rcg_sge sge[2];
    rcg_rpc_memory payload = room_for(sge, SOURCE, octets);
    struct xdr x = long_compound(5, 2);
    payload.at = put_write(&x);
    ASSERT(x.length > 1024); /* the longest message of this connection */
    make_data();
    ask(&x, REQUEST(.payload = payload), 0);
    EXPECT_REPLY(LONG_REPLY(5) + 52, 1, 0, 0, 0, 0, 0, 0, 14, PUTROOTFH, 0, LOOKUP, 0, PUTROOTFH, 0, LOOKUP, 0);
    ASSERT_EQ(get_word(call.text, call.length - 4), octets);
    check_file();
}

/* ---- version 3 ---------------------------------------------------------------------------------------------------- */

static void read_file3(void)
{
    rcg_sge sge[2];
    rcg_rpc_memory room = room_for(sge, RESULT, octets);
    make_file("file", octets);
    struct xdr x = nfs3_call(READ3, "file");
    PUT(&x, 0, 0, (uint32_t)octets);
    ask(&x, REQUEST(.results = &room, .nresults = 1), 0);
    EXPECT_REPLY(128, 1, 0, 0, 0, 0, 0, 1, 1);
    ASSERT(get_word(call.text, 116) == octets && get_word(call.text, 124) == octets);
    check_chunk(NULL);
}

static void write_file3(void)
{
    rcg_sge sge[2];
    rcg_rpc_memory payload = room_for(sge, SOURCE, octets);
    make_data();
    struct xdr x = nfs3_call(WRITE3, "file");
    PUT(&x, 0, 0, (uint32_t)octets, FILE_SYNC, (uint32_t)octets);
    payload.at = (uint32_t)x.length;
    ask(&x, REQUEST(.payload = payload), 0);
    ASSERT_EQ(get_word(call.text, 24), 0);
    ASSERT_EQ(get_word(call.text, call.length - 16), octets); /* count, committed, verifier */
    check_file();
}

static void read_link3(void)
{
    rcg_sge sge[2];
    rcg_rpc_memory room = room_for(sge, RESULT, octets);
    char text[1024] = { 0 };
    memset(text, 'x', octets);
    unlink(path_of("link"));
    ASSERT(symlink(text, path_of("link")) == 0);
    struct xdr x = nfs3_call(READLINK3, "link");
    ask(&x, REQUEST(.results = &room, .nresults = 1), 0);
    EXPECT_REPLY(120, 1, 0, 0, 0, 0, 0, 1, 5);
    check_chunk(text);
}

/* ---- headers by hand, on a connection without RPC ------------------------------------------------------------------ */

#define NULL_CALL(xid) (xid), 0, 2, 100003, 4, 0, 0, 0, 0, 0

static void raw_null(void)
{
    SEND_WORDS(&client, 0x10, 1, 64, 0, 0, 0, 0, NULL_CALL(0x10));
    EXPECT_WORDS(&client, 28 + 24, 0x10, 1, 64, 0, 0, 0, 0, 0x10, 1, 0, 0, 0, 0);
}

static void another_version(void)
{
    SEND_WORDS(&client, 0x11, 2, 64, 0, 0, 0, 0, NULL_CALL(0x11));
    EXPECT_WORDS(&client, 28, 0x11, 2, 64, 4, 1, 1, 1); /* ERR_VERS: from 1 to 1 */
}

#define REFUSED(name, ...)                                                                                             \
    static void name(void)                                                                                             \
    {                                                                                                                  \
        SEND_WORDS(&client, 0x12, 1, 64, __VA_ARGS__);                                                                 \
        EXPECT_WORDS(&client, 20, 0x12, 1, 64, 4, 2); /* ERR_CHUNK */                                                  \
    }
REFUSED(unknown_procedure, 99, 0, 0, 0, NULL_CALL(0x12))
REFUSED(odd_position, 0, 1, 5, 1, 8, 0, 0, 0, 0, 0, NULL_CALL(0x12))
REFUSED(write_chunk_without_segments, 0, 0, 1, 0, 0, 0, NULL_CALL(0x12))
REFUSED(reply_chunk_without_segments, 0, 0, 0, 1, 0, NULL_CALL(0x12))
REFUSED(no_lists, 0)

/* Silence: the next message that comes is the answer to the next call. */
#define IGNORED(name, ...)                                                                                             \
    static void name(void) { SEND_WORDS(&client, 0x13, 1, 64, __VA_ARGS__); }
IGNORED(no_message, 0, 0, 0, 0)
IGNORED(rdma_done, 3)
IGNORED(error_to_nobody, 4, 2)
IGNORED(reply_to_nobody, 0, 0, 0, 0, 0x13, 1, 0, 0, 0, 0)

/* A header, and a message behind it. */
static void send_message(struct xdr *header, const struct xdr *message)
{
    rcg_sge sge = sge_of(&client, REPLY, header->length + message->length);
    memcpy(client.mem + REPLY, header->text, header->length);
    memcpy(client.mem + REPLY + header->length, message->text, message->length);
    ASSERT_OK(rcg_post(client.side.conn, &(rcg_op)RCG_OP_SEND(&sge, 1, NULL), 1));
}

static void put_read_segment(struct xdr *x, uint32_t position, size_t offset, size_t length)
{
    uint64_t at = addr_of(client.mem + offset);
    uint32_t key;
    ASSERT_OK(rcg_mr_key(client.mr, client.side.conn, &key));
    PUT(x, 1, position, key, (uint32_t)length, (uint32_t)(at >> 32), (uint32_t)at);
}

/* A read chunk with the pad in it: there may be one. */
static void write_padded(void)
{
    struct xdr header = { .length = 0 }, x = compound("file", 2);
    uint32_t at = put_write(&x), xid = last_xid;
    PUT(&header, xid, 1, 64, 0);
    put_read_segment(&header, at, SOURCE, padded(octets));
    PUT(&header, 0, 0, 0);
    make_data();
    send_message(&header, &x);
    EXPECT_WORDS(&client, 28 + 104, xid, 1, 64, 0, 0, 0, 0, xid, COMPOUND_REPLY(0, 2), WRITE, 0, (uint32_t)octets);
    check_file();
}

/* A long call in two segments: the library makes but one of it. */
static void long_call_in_segments(void)
{
    struct xdr header = { .length = 0 }, x = long_compound(20, 0), nothing = { .length = 0 };
    uint32_t xid = last_xid;
    make_file("file", 0);
    memcpy(client.mem + SOURCE, x.text, octets);
    memcpy(client.mem + RESULT, x.text + octets, x.length - octets);
    PUT(&header, xid, 1, 64, 1);
    put_read_segment(&header, 0, SOURCE, octets);
    put_read_segment(&header, 0, RESULT, x.length - octets);
    PUT(&header, 0, 0, 0);
    send_message(&header, &nothing);
    EXPECT_WORDS(&client, 28 + LONG_REPLY(20), xid, 1, 64, 0, 0, 0, 0, xid, 1, 0, 0, 0, 0, 0, 0, 42,
                 PUTROOTFH, 0, LOOKUP, 0, PUTROOTFH, 0);
}

/* ---- connections -------------------------------------------------------------------------------------------------- */

/* With RPC, with RPC in messages of 1024 octets, or without. */
enum connection { RPC, SHORT, RAW };

static void connect_to(enum connection how, uint32_t reads)
{
    rcg_rpc_attr rpc = { RCG_RPC_ATTR_INIT, .inline_send = how == SHORT ? 1024 : 0 };
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .rpc = &rpc, .ird = reads };
    if (how == RAW)
        attr.rpc = NULL, attr.recv_size = 4096, attr.recv_count = 64, attr.flags = RCG_CONN_RAW_PRIVATE_DATA;
    client.side.conn = start_connect(&client.side.in, &to, &attr);
    take(&client.side.in, RCG_EVENT_ESTABLISHED, client.side.conn, WAIT_MS);
}

static void disconnect(void)
{
    ASSERT_OK(rcg_conn_disconnect(client.side.conn));
    take(&client.side.in, RCG_EVENT_DISCONNECTED, client.side.conn, WAIT_MS);
    await_end(&client.side);
}

/* The kernel's server rejects who lets it do no RDMA Read at all. Nobody can ask for that here, where 0 is the default; the
 * fewest is 1. */
static void fewest_reads(void)
{
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    ASSERT_OK(rcg_conn_query(client.side.conn, &info));
    ASSERT(info.ird > 1);
    disconnect();
    connect_to(RPC, 1);
    ASSERT_OK(rcg_conn_query(client.side.conn, &info));
    ASSERT_EQ(info.ird, 1);
    write_file();
}

/* A message longer than the server's receives ends its own connection, and no other. */
static void too_long_a_message(void)
{
    rcg_sge sge = sge_of(&client, SOURCE, octets);
    rcg_conn *other = client.side.conn;
    connect_to(RAW, 0);
    raw_null();
    ASSERT_OK(rcg_post(client.side.conn, &(rcg_op)RCG_OP_SEND(&sge, 1, NULL), 1));
    take(&client.side.in, RCG_EVENT_DISCONNECTED, client.side.conn, WAIT_MS);
    await_end(&client.side);
    client.side.conn = other;
}

/* ---- cases -------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*run)(void);
    enum connection on;
    enum form form;
    size_t octets;
    unsigned pads; /* so many lengths, from `octets` */
} cases[] = {
    { "null", null_call, RPC, WHOLE, 0, 1 },
    { "null-reply-chunk", null_in_reply_chunk, RPC, WHOLE, 5000, 1 },
    { "null-unused-write-chunk", null_with_write_chunk, RPC, WHOLE, 1000, 1 },
    { "read", read_file, RPC, WHOLE, 12344, 4 },
    { "read-rounded", read_file, RPC, ROUNDED, 12344, 4 },
    { "read-two-segments", read_file, RPC, SEGMENTS, 12344, 4 },
    { "read-twice", read_twice, RPC, WHOLE, 12344, 4 },
    { "read-nothing", read_nothing, RPC, WHOLE, 12345, 1 },
    { "read-inline", read_in_reply, RPC, WHOLE, 996, 4 },
    { "read-reply-chunk", read_in_reply, RPC, WHOLE, 6000, 4 },
    { "read-write-chunk-too-small", read_into_too_little, RPC, WHOLE, 12345, 1 },
    { "read-reply-chunk-too-small", reply_into_too_little, RPC, WHOLE, 12345, 1 },
    { "write", write_file, RPC, WHOLE, 4096, 4 },
    { "write-two-segments", write_file, RPC, SEGMENTS, 4096, 4 },
    { "write-inline", write_file, RPC, WHOLE, 996, 4 },
    { "write-rounded", write_padded, RAW, WHOLE, 4096, 4 },
    { "long-call", long_call, RPC, WHOLE, 12344, 4 },
    { "long-call-with-data", long_call_with_data, SHORT, WHOLE, 4096, 4 },
    { "long-call-two-segments", long_call_in_segments, RAW, WHOLE, 3001, 1 },
    { "v3-read", read_file3, RPC, WHOLE, 12344, 4 },
    { "v3-write", write_file3, RPC, WHOLE, 4096, 4 },
    { "v3-readlink", read_link3, RPC, WHOLE, 996, 4 },
    { "version-2", another_version, RAW, WHOLE, 0, 1 },
    { "procedure-99", unknown_procedure, RAW, WHOLE, 0, 1 },
    { "position-5", odd_position, RAW, WHOLE, 0, 1 },
    { "write-chunk-without-segments", write_chunk_without_segments, RAW, WHOLE, 0, 1 },
    { "reply-chunk-without-segments", reply_chunk_without_segments, RAW, WHOLE, 0, 1 },
    { "header-of-16-octets", no_lists, RAW, WHOLE, 0, 1 },
    { "no-message", no_message, RAW, WHOLE, 0, 1 },
    { "rdma-done", rdma_done, RAW, WHOLE, 0, 1 },
    { "rdma-error", error_to_nobody, RAW, WHOLE, 0, 1 },
    { "reply-to-nobody", reply_to_nobody, RAW, WHOLE, 0, 1 },
    { "message-of-5000-octets", too_long_a_message, RPC, WHOLE, 5000, 1 },
    { "one-rdma-read", fewest_reads, RPC, SEGMENTS, 4096, 1 },
};
enum { CASES = sizeof cases / sizeof *cases };

static void run_case(size_t i)
{
    STEP(cases[i].name);
    form = cases[i].form;
    connect_to(cases[i].on, 0);
    for (unsigned pad = 0; pad < cases[i].pads; pad++) {
        octets = cases[i].octets + pad;
        memset(client.mem + RESULT, 0xee, 32768);
        cases[i].run();
        if (cases[i].on == RAW) raw_null();
        else null_call();
    }
    if (cases[i].on != RAW) ASSERT(figures(&client).bad == 0 && figures(&client).errors == 0);
    disconnect();
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < CASES; i++) puts(cases[i].name);
        return T_PASS;
    }
    if (argc < 4) {
        fprintf(stderr, "usage: %s PORT EXPORT CASE..., or --list\n", argv[0]);
        return 2;
    }
    watchdog(60);
    to = address_of(host4(), (uint16_t)atoi(argv[1]));
    export = argv[2];
    end_open(&client, STYLE_QUEUE);
    /* The server remembers what it has answered, across connections. */
    last_xid = (uint32_t)now_us();
    memset(long_name, 'n', sizeof long_name - 1);
    make_file(long_name, 0);
    for (int arg = 3; arg < argc; arg++) {
        size_t i = 0;
        while (i < CASES && strcmp(cases[i].name, argv[arg]) != 0) i++;
        if (i == CASES) FAIL("there is no case %s", argv[arg]);
        run_case(i);
        printf("passed: %s\n", argv[arg]);
    }
    end_close(&client);
    return T_PASS;
}
