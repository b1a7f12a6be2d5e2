/* Sections of a statedump. GlusterFS asks translators for theirs, not transports, so that ours come behind those of the
 * translator that has the transport.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

/* What a translator dumps by. Never freed, as nobody tells when a translator goes; it has one, whatever the number of its
 * transports. */
struct dumper {
    struct xlator_dumpops ops;
    struct xlator_dumpops *own;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list_head links = { &links, &links };

void dump_link(struct rdma_link *link, bool alive)
{
    pthread_mutex_lock(&lock);
    if (alive)
        list_add_tail(&link->all, &links);
    else
        list_del(&link->all);
    pthread_mutex_unlock(&lock);
}

static void write_link(struct rdma_link *link)
{
    rcg_conn_info conn = { RCG_CONN_INFO_INIT };
    rcg_rpc_info rpc = { RCG_RPC_INFO_INIT };

    if (!link->up || rcg_conn_query(link->conn, &conn) || rcg_rpc_query(link->conn, &rpc))
        return;
    gf_proc_dump_add_section("rdma.link.%s.%s", link->trans->name, link->trans->peerinfo.identifier);
    gf_proc_dump_write("peer", "%s", link->trans->peerinfo.identifier);
    gf_proc_dump_write("local", "%s", link->trans->myinfo.identifier);
    gf_proc_dump_write("provider", "%s", conn.provider == RCG_PROVIDER_VERBS ? "verbs" : "iwarp");
    gf_proc_dump_write("device", "%s", conn.device);
    gf_proc_dump_write("glusterfs_3_to_7", "%d", (rpc.flags & RCG_RPC_GLUSTERFS) != 0);
    gf_proc_dump_write("inline_send", "%u", rpc.inline_send);
    gf_proc_dump_write("credits", "%u", rpc.credits);
    gf_proc_dump_write("calls_made", "%" PRIu64, rpc.calls);
    gf_proc_dump_write("calls_taken", "%" PRIu64, rpc.asked);
    gf_proc_dump_write("read_chunks", "%" PRIu64, rpc.read_chunks);
    gf_proc_dump_write("write_chunks", "%" PRIu64, rpc.write_chunks);
    gf_proc_dump_write("reply_chunks", "%" PRIu64, rpc.reply_chunks);
    gf_proc_dump_write("bad_messages", "%" PRIu64, rpc.bad);
    gf_proc_dump_write("bytes_sent", "%" PRIu64, conn.bytes_sent);
    gf_proc_dump_write("bytes_received", "%" PRIu64, conn.bytes_received);
    gf_proc_dump_write("send_stalls", "%" PRIu64, conn.send_stalls);
    gf_proc_dump_write("receive_stalls", "%" PRIu64, conn.recv_stalls);
}

static int32_t dump_priv(xlator_t *xl)
{
    struct dumper *dumper = caa_container_of(xl->dumpops, struct dumper, ops);
    struct rdma_link *link;
    int32_t rc = dumper->own->priv ? dumper->own->priv(xl) : 0;

    pthread_mutex_lock(&lock);
    list_for_each_entry(link, &links, all)
    {
        if (link->trans->xl == xl)
            write_link(link);
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

void dump_attach(xlator_t *xl)
{
    struct dumper *dumper;

    pthread_mutex_lock(&lock);
    if (xl && xl->dumpops && xl->dumpops->priv != dump_priv) {
        dumper = GF_CALLOC(1, sizeof *dumper, gf_common_mt_char);
        if (dumper) {
            dumper->own = xl->dumpops;
            dumper->ops = *xl->dumpops;
            dumper->ops.priv = dump_priv;
            xl->dumpops = &dumper->ops;
        }
    }
    pthread_mutex_unlock(&lock);
}
