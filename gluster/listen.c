/* Listeners, and transports for those who come in.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

#include <glusterfs/timer.h>
#include <netdb.h>

/* Seconds until a listener that lacks something tries again. */
#define RETRY_SECONDS 10

/* What a listener's events name. They may be on their way on any channel when the listener ends, so that a door is never freed;
 * a process has one or two. */
struct rdma_door {
    bool is_door;
    pthread_mutex_t lock;
    rpc_transport_t *trans; /* NULL: it is closed */
    rcg_listener *listener;
    struct rdma_options options;
    char *host; /* NULL: all of this machine */
    int family, port;
    /* Where it listens, or tries to, and why it does not: of the one thread that opens it. */
    struct sockaddr_storage address;
    socklen_t length;
    int failure;
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

static struct rdma_door *door_new(rpc_transport_t *this)
{
    struct rdma_private *priv = this->private;
    const char *host = rdma_option_text(this, "transport.rdma.bind-address");
    const char *family = rdma_option_text(this, "transport.address-family");
    struct rdma_door *door = GF_CALLOC(1, sizeof *door, gf_common_mt_char);

    if (!door)
        return NULL;
    pthread_mutex_init(&door->lock, NULL);
    door->is_door = true;
    door->trans = this;
    door->options = priv->options;
    door->host = host ? gf_strdup(host) : NULL;
    door->family = family && strcmp(family, "inet6") == 0 ? AF_INET6 : host && !family ? AF_UNSPEC : AF_INET;
    door->port = rdma_option_port(this, "transport.rdma.listen-port", 0);
    return door;
}

/* -EADDRNOTAVAIL: nobody who knows the name answers yet. */
static int where(struct rdma_door *door, const char **why)
{
    struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_family = door->family, .ai_socktype = SOCK_STREAM };
    struct addrinfo *found;
    char service[8];
    int rc;

    snprintf(service, sizeof service, "%u", (uint16_t)door->port);
    rc = getaddrinfo(door->host, service, &hints, &found);
    if (rc) {
        *why = gai_strerror(rc);
        return rc == EAI_AGAIN ? -EADDRNOTAVAIL : -EINVAL;
    }
    door->length = found->ai_addrlen;
    memcpy(&door->address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

static int listen_locked(struct rdma_door *door, const char **why)
{
    rcg_rpc_attr rpc = rdma_rpc_attr(&door->options);
    rcg_channel *channels[RDMA_MAX_CHANNELS];
    rcg_listen_attr attr = { RCG_LISTEN_ATTR_INIT, .context = door, .backlog = door->options.backlog,
                             .provider = door->options.provider, .keepalive_ms = door->options.keepalive_ms,
                             .channels = channels, .rpc = &rpc };
    int rc = rdma_channels(door->options.channels, channels);

    if (rc > 0) {
        attr.nchannels = (size_t)rc;
        rc = rcg_listen(channels[0], (struct sockaddr *)&door->address, door->length, &attr, &door->listener);
    }
    *why = rdma_why();
    return rc;
}

/* What the port map, the list of clients and glusterd get to know. */
static void tell_port(struct rdma_door *door)
{
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    rpc_transport_t *this = door->trans;
    int port = door->port;

    if (door->listener && rcg_listener_query(door->listener, &info) == 0)
        door->address = info.local;
    names_of_listener(this, &door->address);
    /* The port is in the same place in both. */
    if (door->length > 0)
        port = ntohs(((struct sockaddr_in *)&door->address)->sin_port);
    if (this->ctx->cmd_args.brick_port2 == 0)
        this->ctx->cmd_args.brick_port2 = port;
}

/* What may be there later: a device, its driver, an address, the right to use it, descriptors, memory. */
static bool may_come(int rc)
{
    return rc == -ENODEV || rc == -ENOENT || rc == -EADDRNOTAVAIL || rc == -EACCES || rc == -EOPNOTSUPP || rc == -EMFILE ||
           rc == -ENFILE || rc == -ENOMEM;
}

static void retry(void *arg);

/* On a timer that keeps no translator: it may fire when that of the door is gone. */
static void retry_later(struct rdma_door *door)
{
    struct timespec pause = { .tv_sec = RETRY_SECONDS };
    xlator_t *before = THIS;

    THIS = NULL; /* the process's */
    gf_timer_call_after(door->trans->ctx, pause, retry, door);
    THIS = before;
}

/* A failure is told once, and again when it is another one. */
static void log_attempt(struct rdma_door *door, int rc, const char *why, bool again)
{
    rpc_transport_t *this = door->trans;
    const char *host = door->length > 0 ? this->myinfo.identifier : door->host ? door->host : "this machine";

    if (rc == 0 && again && door->port == 0)
        rdma_log(this, WARNING, 0, RDMA_MSG_LISTENING,
                 "listening on %s only now: clients get to know the port when this process or glusterd has been started again",
                 host);
    else if (rc == 0)
        rdma_log(this, INFO, 0, RDMA_MSG_LISTENING, "listening on %s", host);
    else if (rc != door->failure)
        rdma_log(this, ERROR, -rc, RDMA_MSG_LISTEN_FAILED, "can't listen on %s%s: %s", host,
                 again || may_come(rc) ? ", which is tried again without further messages" : "", why);
    door->failure = rc;
}

/* 0: it listens, has been closed, or is tried again. Names may take seconds, so that nobody is kept out meanwhile. */
static int open_door(struct rdma_door *door, bool again)
{
    const char *why;
    int rc = where(door, &why);

    pthread_mutex_lock(&door->lock);
    if (door->trans) {
        if (rc == 0)
            rc = listen_locked(door, &why);
        tell_port(door);
        log_attempt(door, rc, why, again);
        /* A brick of a tcp,rdma volume does not survive a transport that can't listen. */
        if (rc && (again || may_come(rc))) {
            retry_later(door);
            rc = 0;
        }
    }
    pthread_mutex_unlock(&door->lock);
    return rc;
}

static void *open_again(void *arg)
{
    open_door(arg, true);
    return NULL;
}

/* The thread of timers has others to tell. */
static void retry(void *arg)
{
    struct rdma_door *door = arg;
    pthread_t thread;

    if (gf_thread_create_detached(&thread, open_again, door, "rdmaopen") == 0)
        return;
    pthread_mutex_lock(&door->lock);
    if (door->trans)
        retry_later(door);
    pthread_mutex_unlock(&door->lock);
}

int32_t rdma_listen(rpc_transport_t *this)
{
    struct rdma_private *priv = this->private;
    struct rdma_door *door = door_new(this);
    int rc;

    if (!door)
        return -1;
    pthread_mutex_lock(&priv->lock);
    priv->door = door;
    pthread_mutex_unlock(&priv->lock);
    rc = open_door(door, false);
    if (rc == 0)
        return 0;
    door_close(priv);
    return rc == -EADDRINUSE ? -EADDRINUSE : -1;
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
