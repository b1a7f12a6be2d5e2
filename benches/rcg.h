/* What the programs over the library have on top of bench.h: an engine and one channel on each side. */
#ifndef BENCH_RCG_H
#define BENCH_RCG_H

#include "bench.h"

#include <semaphore.h>

#include <rdmacm_gluster.h>

enum { SPIN_US = 10000 };

#define MUST_OK(call)                                                                                                  \
    do {                                                                                                               \
        int rc_ = (call);                                                                                              \
        if (rc_ != 0) die("%s:%d: %s: %s", __FILE__, __LINE__, #call, strerror(-rc_));                                 \
    } while (0)

static rcg_engine *engine;
static rcg_channel *channel;
static rcg_mr *mr;
static sem_t done; /* what the channel's thread tells the program's */

static inline void await(void)
{
    while (sem_wait(&done) != 0) {}
}

static inline void open_channel(rcg_events_fn on_events, uint32_t spin_us, bool manual)
{
    rcg_channel_attr attr = { RCG_CHANNEL_ATTR_INIT, .on_events = on_events, .spin_us = spin_us, .manual = manual };
    MUST(sem_init(&done, 0, 0) == 0);
    MUST_OK(rcg_engine_create(NULL, &engine));
    MUST_OK(rcg_channel_create(engine, &attr, &channel));
}

/* Listens where the kernel chooses: the port. */
static inline uint16_t listen_at(const rcg_listen_attr *attr)
{
    struct sockaddr_in at = loopback(0);
    rcg_listener_info info = { RCG_LISTENER_INFO_INIT };
    rcg_listener *listener;
    MUST_OK(rcg_listen(channel, (struct sockaddr *)&at, sizeof at, attr, &listener));
    MUST_OK(rcg_listener_query(listener, &info));
    return ntohs(((struct sockaddr_in *)&info.local)->sin_port);
}

#endif
