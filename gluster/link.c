/* Links: connects, and what the library tells of connections.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

struct rdma_link *link_new(rpc_transport_t *trans, struct rdma_door *door)
{
    struct rdma_link *link = GF_CALLOC(1, sizeof *link, gf_common_mt_char);

    if (!link)
        return NULL;
    link->trans = rpc_transport_ref(trans);
    link->door = door;
    INIT_LIST_HEAD(&link->waiting);
    INIT_LIST_HEAD(&link->held);
    dump_link(link, true);
    return link;
}

void link_free(struct rdma_link *link)
{
    rpc_transport_t *trans = link->trans;

    dump_link(link, false);
    rdma_pool_end(&link->pool);
    GF_FREE(link);
    rpc_transport_unref(trans);
}

/* ---- connecting ---- */

rcg_rpc_attr rdma_rpc_attr(const struct rdma_options *options)
{
    return (rcg_rpc_attr){ RCG_RPC_ATTR_INIT, .credits = options->credits, .inline_send = options->inline_size,
                           .inline_recv = options->inline_size, .max_payload = RDMA_MAX_PAYLOAD,
                           .flags = RCG_RPC_NO_PADS | RCG_RPC_GLUSTERFS_IF_SILENT | RCG_RPC_STANDING_KEYS |
                                    RCG_RPC_ANSWERED_LATER };
}

/* A port that only root has, where the server wants to see one (client-bind-insecure off). One that is free now; if it is
 * not any more, the next connect finds another. */
static void privileged(rpc_transport_t *this, struct sockaddr_storage *local, rcg_addr *out)
{
    const char *family = rdma_option_text(this, "transport.address-family");
    bool six = family && strcmp(family, "inet6") == 0;
    struct sockaddr_in *in = (struct sockaddr_in *)local;

    /* The port is in the same place in both. */
    *in = (struct sockaddr_in){ .sin_family = six ? AF_INET6 : AF_INET };
    *out = (rcg_addr){ (struct sockaddr *)local, six ? sizeof(struct sockaddr_in6) : sizeof *in, 0 };
    for (int port = 1023; port >= 512; port--) {
        int fd = socket(in->sin_family, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

        in->sin_port = htons((uint16_t)port);
        rc = bind(fd, out->addr, out->length);
        if (fd >= 0)
            close(fd);
        if (rc == 0)
            return;
    }
    *out = (rcg_addr){ NULL, 0, 0 };
    rdma_log(this, WARNING, 0, RDMA_MSG_OPTION, "no privileged port is free, or permitted");
}

/* By the peer's addresses, where there are some, else by its name. */
static int dial(rpc_transport_t *this, rcg_channel *channel, const char *host, uint16_t port, const rcg_connect_attr *attr,
                rcg_conn **conn)
{
    struct rdma_addresses peer = { 0 };
    rcg_addr addrs[RDMA_MAX_ADDRESSES];
    char service[8];
    int rc = rdma_option_addresses(this, &peer);

    if (rc)
        return rc;
    for (size_t i = 0; i < peer.count; i++) {
        struct sockaddr_storage *address = &peer.address[i];

        /* The port is in the same place in both. */
        ((struct sockaddr_in *)address)->sin_port = htons(port);
        addrs[i] = (rcg_addr){ (struct sockaddr *)address,
                               address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in), 0 };
    }
    if (peer.count > 0)
        return rcg_connect(channel, addrs, peer.count, attr, conn);
    snprintf(service, sizeof service, "%u", port);
    return rcg_connect_host(channel, host, service, attr, conn);
}

static int begin(rpc_transport_t *this, struct rdma_private *priv, int port)
{
    const struct rdma_options *options = &priv->options;
    rcg_rpc_attr rpc = rdma_rpc_attr(options);
    rcg_connect_attr attr = { RCG_CONNECT_ATTR_INIT, .provider = options->provider, .timeout_ms = options->timeout_ms,
                              .keepalive_ms = options->keepalive_ms, .rpc = &rpc };
    const char *host = rdma_option_text(this, "remote-host");
    struct sockaddr_storage local = { 0 };
    rcg_channel *channel;
    int rc;

    if (!host) {
        rdma_log(this, ERROR, 0, RDMA_MSG_OPTION, "option remote-host is missing");
        return -EINVAL;
    }
    if (port <= 0)
        port = rdma_option_port(this, "remote-port", RDMA_PORT);
    priv->link = link_new(this, NULL);
    if (!priv->link)
        return -ENOMEM;
    snprintf(this->peerinfo.identifier, sizeof this->peerinfo.identifier, "%s:%u", host, (uint16_t)port);
    attr.context = priv->link;
    if (!this->bind_insecure)
        privileged(this, &local, &attr.local);
    rc = rdma_channel(options->channels, &channel);
    if (rc == 0)
        rc = dial(this, channel, host, (uint16_t)port, &attr, &priv->link->conn);
    if (rc) {
        rdma_log(this, WARNING, -rc, RDMA_MSG_CONNECT_FAILED, "%s: %s", this->peerinfo.identifier, rdma_why());
        dump_link(priv->link, false);
        GF_FREE(priv->link);
        priv->link = NULL;
        /* Not the last reference: the caller has one. */
        rpc_transport_unref(this);
    }
    return rc;
}

static void tell(rpc_transport_t *this, rpc_transport_event_t event)
{
    THIS = this->xl;
    rpc_transport_notify(this, event, this);
}

static void untold(struct rdma_private *priv, int change)
{
    pthread_mutex_lock(&priv->lock);
    priv->untold += change;
    pthread_mutex_unlock(&priv->lock);
}

/* One that `untold` counts. */
static void tell_disconnect(rpc_transport_t *this)
{
    tell(this, RPC_TRANSPORT_DISCONNECT);
    untold(this->private, -1);
}

static void *tell_failed(void *arg)
{
    rpc_transport_t *this = arg;

    tell_disconnect(this);
    rpc_transport_unref(this);
    return NULL;
}

bool rdma_later(rpc_transport_t *this, void *(*task)(void *))
{
    pthread_t thread;

    if (gf_thread_create_detached(&thread, task, rpc_transport_ref(this), "rdmalate") == 0)
        return true;
    rdma_log(this, ERROR, errno, RDMA_MSG_NO_MEMORY, "no thread");
    rpc_transport_unref(this);
    return false;
}

int32_t rdma_connect(rpc_transport_t *this, int port)
{
    struct rdma_private *priv = this->private;
    int rc = -EINPROGRESS;

    pthread_mutex_lock(&priv->lock);
    if (!priv->link) {
        rc = begin(this, priv, port);
        priv->untold += rc != 0;
    }
    pthread_mutex_unlock(&priv->lock);
    if (rc == -EINPROGRESS) {
        errno = EINPROGRESS;
        return -1;
    }
    /* Whoever waits for what becomes of it has to hear. */
    if (rc && !rdma_later(this, tell_failed))
        untold(priv, -1);
    return 0;
}

/* 0: a DISCONNECT is still to come. -1: there is none, and who takes a graph apart would wait for it in vain (notify() of
 * protocol/client). While one is being told nobody knows whether it has been counted already; 0 leaves the graph there at worst,
 * -1 would have it freed under a client that is still connected. */
int32_t rdma_disconnect(rpc_transport_t *this, gf_boolean_t wait)
{
    struct rdma_private *priv = this->private;
    rcg_conn *conn = NULL;
    bool comes;

    (void)wait;
    pthread_mutex_lock(&priv->lock);
    if (priv->link)
        conn = priv->link->conn;
    comes = conn || priv->untold > 0;
    pthread_mutex_unlock(&priv->lock);
    /* A handle that is gone meanwhile is refused. */
    if (conn)
        rcg_conn_disconnect(conn);
    return door_close(priv) || comes ? 0 : -1;
}

/* ---- events ---- */

static void log_end(struct rdma_link *link, const rcg_event *ev)
{
    rpc_transport_t *trans = link->trans;
    struct rdma_private *priv = trans->private;
    const char *text = ev->error ? ev->error->text : "";
    bool asked = ev->status == -ECANCELED, left = ev->status == -ESHUTDOWN;
    rcg_rpc_info rpc = { RCG_RPC_INFO_INIT };

    if (ev->type == RCG_EVENT_CONNECT_FAILED) {
        bool again = priv->failure == ev->status || asked;
        priv->failure = ev->status;
        gf_msg(trans->name, again ? GF_LOG_DEBUG : GF_LOG_WARNING, -ev->status, RDMA_MSG_CONNECT_FAILED,
               "no connection with %s: %s", trans->peerinfo.identifier, text);
        return;
    }
    rcg_rpc_query(ev->conn, &rpc);
    gf_msg(trans->name, asked || left ? GF_LOG_INFO : GF_LOG_WARNING, asked || left ? 0 : -ev->status, RDMA_MSG_DISCONNECTED,
           "disconnected from %s %s%s; calls made %" PRIu64 ", taken %" PRIu64 ", chunks read %" PRIu64 ", written %" PRIu64
           ", of replies %" PRIu64 ", bad messages %" PRIu64, trans->peerinfo.identifier,
           asked ? "by this side" : left ? "by the peer" : ": ", asked || left ? "" : text, rpc.calls, rpc.asked,
           rpc.read_chunks, rpc.write_chunks, rpc.reply_chunks, rpc.bad);
}

static void established(struct rdma_link *link, const rcg_event *ev)
{
    rpc_transport_t *trans = link->trans;
    struct rdma_private *priv = trans->private;
    rcg_conn_info info = { RCG_CONN_INFO_INIT };
    rcg_rpc_info rpc = { RCG_RPC_INFO_INIT };

    if (rcg_conn_query(ev->conn, &info) || rcg_rpc_query(ev->conn, &rpc))
        return;
    names_of_conn(trans, ev->conn);
    pthread_mutex_lock(&priv->lock);
    link->provider = info.provider;
    link->inline_send = rpc.inline_send;
    link->inline_recv = rpc.inline_recv;
    link->up = true;
    priv->failure = 0;
    pthread_mutex_unlock(&priv->lock);
    rdma_log(trans, INFO, 0, RDMA_MSG_CONNECTED, "connected with %s from %s, provider %s, device %s, %u octets inline%s",
             trans->peerinfo.identifier, trans->myinfo.identifier,
             info.provider == RCG_PROVIDER_VERBS ? "verbs" : "iwarp", info.device, rpc.inline_send,
             rpc.flags & RCG_RPC_GLUSTERFS ? ", dialect of GlusterFS 3.4 to 7" : "");
    if (!link->door)
        tell(trans, RPC_TRANSPORT_CONNECT);
    else if (door_opened(link) < 0)
        rcg_conn_close(ev->conn);
}

/* Both ways in which it can end: before it was established, and after. */
static void ended(struct rdma_link *link, const rcg_event *ev)
{
    rpc_transport_t *trans = link->trans;
    struct rdma_private *priv = trans->private;
    /* Of a peer that was not accepted nobody has heard. */
    bool known = !link->door || ev->type == RCG_EVENT_DISCONNECTED;

    pthread_mutex_lock(&priv->lock);
    link->up = false;
    if (priv->link == link)
        priv->link = NULL;
    priv->untold += known;
    pthread_mutex_unlock(&priv->lock);
    calls_end(link);
    replies_end(link);
    log_end(link, ev);
    /* From here GlusterFS may connect again. */
    if (known)
        tell_disconnect(trans);
}

/* The thread outlives translators, and looks at THIS whenever it logs. */
static void link_event(struct rdma_link *link, const rcg_event *ev)
{
    xlator_t *before = THIS;

    THIS = link->trans->xl;
    switch (ev->type) {
    case RCG_EVENT_ESTABLISHED: established(link, ev); break;
    case RCG_EVENT_CONNECT_FAILED:
    case RCG_EVENT_DISCONNECTED: ended(link, ev); break;
    case RCG_EVENT_RPC_CALL: replies_call(link, ev); break;
    case RCG_EVENT_RPC_REPLY: calls_reply(link, ev); break;
    case RCG_EVENT_RPC_ANSWERED: replies_answered(ev); break;
    case RCG_EVENT_CLOSED: link_free(link); break;
    default: break;
    }
    THIS = before;
}

void link_events(rcg_channel *channel, const rcg_event *events, size_t n, void *arg)
{
    (void)channel, (void)arg;
    for (size_t i = 0; i < n; i++) {
        const rcg_event *ev = &events[i];
        struct rdma_link *link = ev->context;

        /* Also what becomes of requests that were not accepted. */
        if (link->is_door) {
            if (ev->type == RCG_EVENT_CONNECT_REQUEST)
                door_request(ev);
        } else
            link_event(link, ev);
    }
}
