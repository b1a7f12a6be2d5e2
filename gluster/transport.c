/* What GlusterFS loads: the operations, and the life of a transport.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

struct rpc_transport_ops tops = {
    .submit_request = rdma_submit_request,
    .submit_reply = rdma_submit_reply,
    .connect = rdma_connect,
    .listen = rdma_listen,
    .disconnect = rdma_disconnect,
    .get_peername = rdma_peername,
    .get_peeraddr = rdma_peeraddr,
    .get_myname = rdma_myname,
    .get_myaddr = rdma_myaddr,
    .throttle = rdma_throttle,
};

int32_t init(rpc_transport_t *this)
{
    struct rdma_private *priv = GF_CALLOC(1, sizeof *priv, gf_common_mt_char);
    rcg_engine *engine;

    if (!priv)
        return -1;
    if (rdma_engine(&engine)) {
        GF_FREE(priv);
        return -1;
    }
    pthread_mutex_init(&priv->lock, NULL);
    rdma_options_read(this, &priv->options);
    dump_attach(this->xl);
    this->private = priv;
    return 0;
}

/* As it was: what a listener that is made later has. */
int reconfigure(rpc_transport_t *this, dict_t *options)
{
    struct rdma_private *priv = this->private;
    uint32_t backlog;

    if (priv && dict_get_uint32(options, "transport.listen-backlog", &backlog) == 0)
        priv->options.backlog = backlog;
    return priv ? 0 : -1;
}

/* A link has a reference, so that there is none here. */
void fini(rpc_transport_t *this)
{
    struct rdma_private *priv = this->private;

    if (!priv)
        return;
    door_close(priv);
    pthread_mutex_destroy(&priv->lock);
    GF_FREE(priv);
    this->private = NULL;
}
