/* Listeners, and transports for those who come in.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

#include <glusterfs/timer.h>
#include <netdb.h>

/* Seconds until a listener that no provider serves tries again. */
#define RETRY_SECONDS 10

/* What a listener's events name. They may be on their way on any channel when the listener ends, so that a door is never freed;
 * a process has one or two. */
struct rdma_door {
    bool is_door;
    pthread_mutex_t lock;
    rpc_transport_t *trans; /* NULL: it is closed */
    rcg_listener *listener;
    struct rdma_options options;
    struct sockaddr_storage address;
    socklen_t length;
};

/* ---- those who come in ---- */

static void child_free(rpc_transport_t *child)
{
    child->fini(child);
    pthread_mutex_destroy(&child->lock);
    GF_FREE(child->name);
    GF_FREE(child);
}

static rpc_transport_t *child_new(rpc_transport_t *listener, const struct rdma_options *options)
{
    rpc_transport_t *child = GF_CALLOC(1, sizeof *child, gf_common_mt_rpc_trans_t);
    struct rdma_private *priv = GF_CALLOC(1, sizeof *priv, gf_common_mt_char);

    if (!child || !priv) {
        GF_FREE(child);
        GF_FREE(priv);
        return NULL;
    }
    pthread_mutex_init(&child->lock, NULL);
    pthread_mutex_init(&priv->lock, NULL);
    INIT_LIST_HEAD(&child->list);
    GF_ATOMIC_INIT(child->disconnect_progress, 0);
    priv->options = *options;
    child->private = priv;
    child->name = gf_strdup(listener->name);
    child->ops = listener->ops;
    child->init = listener->init;
    child->fini = listener->fini;
    child->ctx = listener->ctx;
    child->xl = listener->xl;
    child->mydata = listener->mydata;
    child->notify = listener->notify;
    child->listener = listener;
    return child;
}

void door_request(const rcg_event *ev)
{
    struct rdma_door *door = ev->context;
    rcg_accept_attr attr = { RCG_ACCEPT_ATTR_INIT };
    rpc_transport_t *child = NULL;
    struct rdma_link *link = NULL;
    struct rdma_private *priv;
    xlator_t *before = THIS;

    pthread_mutex_lock(&door->lock);
    /* GlusterFS says where to tell of it only after it has had it listen. */
    if (door->trans && door->trans->notify) {
        THIS = door->trans->xl;
        child = child_new(door->trans, &door->options);
        link = child ? link_new(child, door) : NULL;
        THIS = before;
    }
    pthread_mutex_unlock(&door->lock);
    if (!link) {
        rcg_reject(ev->conn, RCG_REJECT_STALE, NULL, 0);
        if (child)
            child_free(child);
        return;
    }
    priv = child->private;
    priv->link = link;
    link->conn = ev->conn;
    attr.context = link;
    if (rcg_accept(ev->conn, &attr)) {
        /* The peer has gone; the rest is told of the door. */
        dump_link(link, false);
        GF_FREE(link);
        child_free(child);
    }
}

int door_opened(struct rdma_link *link)
{
    struct rdma_door *door = link->door;
    rpc_transport_t *listener;

    pthread_mutex_lock(&door->lock);
    listener = door->trans;
    pthread_mutex_unlock(&door->lock);
    /* GlusterFS has no reference to its listeners, so that to give one back would end them. */
    return listener ? rpc_transport_notify(listener, RPC_TRANSPORT_ACCEPT, link->trans) : -1;
}

/* ---- listening ---- */

static int where(rpc_transport_t *this, int port, struct sockaddr_storage *address, socklen_t *length)
{
    const char *host = rdma_option_text(this, "transport.rdma.bind-address");
    const char *family = rdma_option_text(this, "transport.address-family");
    struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM }, *found;
    char service[8];
    int rc;

    hints.ai_family = family && strcmp(family, "inet6") == 0 ? AF_INET6 : host && !family ? AF_UNSPEC : AF_INET;
    snprintf(service, sizeof service, "%u", (uint16_t)port);
    rc = getaddrinfo(host, service, &hints, &found);
    if (rc) {
        rdma_log(this, ERROR, 0, RDMA_MSG_LISTEN_FAILED, "no address of %s: %s", host ? host : "this host", gai_strerror(rc));
        return -EADDRNOTAVAIL;
    }
    *length = found->ai_addrlen;
    memcpy(address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

static int open_locked(struct rdma_door *door)
{
    rcg_rpc_attr rpc = rdma_rpc_attr(&door->options);
    rcg_channel *channels[RDMA_MAX_CHANNELS];
    rcg_listen_attr attr = { RCG_LISTEN_ATTR_INIT, .context = door, .backlog = door->options.backlog,
                             .provider = door->options.provider, .keepalive_ms = door->options.keepalive_ms,
                             .channels = channels, .rpc = &rpc };
    int n = rdma_channels(door->options.channels, channels);

    if (n < 0)
        return n;
    attr.nchannels = (size_t)n;
    return rcg_listen(channels[0], (struct sockaddr *)&door->address, door->length, &attr, &door->listener);
}

/* What the port map, the list of clients and glusterd get to know. */
static void tell_port(rpc_transport_t *this, struct rdma_door *door)
{
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    int port;

    if (door->listener && rcg_listener_query(door->listener, &info) == 0)
        door->address = info.local;
    names_of_listener(this, &door->address);
    port = ntohs(door->address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&door->address)->sin6_port
                                                     : ((struct sockaddr_in *)&door->address)->sin_port);
    if (this->ctx->cmd_args.brick_port2 == 0)
        this->ctx->cmd_args.brick_port2 = port;
}

static void retry(void *arg);

static void retry_later(struct rdma_door *door)
{
    struct timespec pause = { .tv_sec = RETRY_SECONDS };

    gf_timer_call_after(door->trans->ctx, pause, retry, door);
}

static void retry(void *arg)
{
    struct rdma_door *door = arg;
    int rc;

    pthread_mutex_lock(&door->lock);
    if (door->trans) {
        rc = open_locked(door);
        if (rc)
            retry_later(door);
        else
            rdma_log(door->trans, INFO, 0, RDMA_MSG_LISTENING, "listening on %s", door->trans->myinfo.identifier);
    }
    pthread_mutex_unlock(&door->lock);
}

/* What may be there later: a device, its driver, the right to use it, descriptors, memory. */
static bool may_come(int rc)
{
    return rc == -ENODEV || rc == -ENOENT || rc == -EACCES || rc == -EOPNOTSUPP || rc == -EMFILE || rc == -ENFILE ||
           rc == -ENOMEM;
}

static int open_door(rpc_transport_t *this, struct rdma_door *door)
{
    int rc = open_locked(door);

    tell_port(this, door);
    if (rc == 0) {
        rdma_log(this, INFO, 0, RDMA_MSG_LISTENING, "listening on %s", this->myinfo.identifier);
        return 0;
    }
    rdma_log(this, ERROR, -rc, RDMA_MSG_LISTEN_FAILED, "can't listen on %s: %s", this->myinfo.identifier, rdma_why());
    /* A brick of a tcp,rdma volume does not survive a transport that can't listen. */
    if (may_come(rc)) {
        retry_later(door);
        return 0;
    }
    return rc == -EADDRINUSE ? -EADDRINUSE : -1;
}

int32_t rdma_listen(rpc_transport_t *this)
{
    struct rdma_private *priv = this->private;
    struct rdma_door *door = GF_CALLOC(1, sizeof *door, gf_common_mt_char);
    int rc;

    if (!door)
        return -1;
    door->is_door = true;
    door->options = priv->options;
    door->trans = this;
    pthread_mutex_init(&door->lock, NULL);
    rc = where(this, rdma_option_port(this, "transport.rdma.listen-port", 0), &door->address, &door->length);
    if (rc) {
        GF_FREE(door);
        return -1;
    }
    pthread_mutex_lock(&door->lock);
    rc = open_door(this, door);
    if (rc)
        door->trans = NULL;
    else
        priv->door = door;
    pthread_mutex_unlock(&door->lock);
    return rc;
}

bool door_close(struct rdma_private *priv)
{
    struct rdma_door *door;

    pthread_mutex_lock(&priv->lock);
    door = priv->door;
    priv->door = NULL;
    pthread_mutex_unlock(&priv->lock);
    if (!door)
        return false;
    pthread_mutex_lock(&door->lock);
    door->trans = NULL;
    if (door->listener)
        rcg_listener_close(door->listener);
    pthread_mutex_unlock(&door->lock);
    return true;
}
