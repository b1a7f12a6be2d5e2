/* The engine, its channels and its log: one of each kind for a process, whatever the number of transports.
 *
 * They are never ended: GlusterFS unloads a transport whenever it likes, and may do so on a thread of a channel. Channels
 * without connections sleep.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static rcg_engine *engine;
static rcg_channel *channels[RDMA_MAX_CHANNELS];
static uint32_t nchannels, turn;

static void engine_log(void *arg, uint32_t level, const char *message)
{
    gf_loglevel_t as = level == RCG_LOG_ERROR ? GF_LOG_ERROR : level == RCG_LOG_WARN ? GF_LOG_WARNING : GF_LOG_DEBUG;
    (void)arg;
    gf_msg("rdma", as, 0, RDMA_MSG_LIBRARY, "%s", message);
}

static int engine_locked(void)
{
    rcg_engine_attr attr = { RCG_ENGINE_ATTR_INIT, .log = engine_log, .log_level = RCG_LOG_INFO };
    int rc;

    if (engine)
        return 0;
    rc = rcg_engine_create(&attr, &engine);
    if (rc)
        gf_msg("rdma", GF_LOG_ERROR, -rc, RDMA_MSG_ENGINE, "librdmacm-gluster does not open: %s", rdma_why());
    return rc;
}

static int channels_locked(uint32_t wanted)
{
    /* What comes passes through several threads of GlusterFS's, which want the processor that would spin. */
    rcg_channel_attr attr = { RCG_CHANNEL_ATTR_INIT, .on_events = link_events, .spin_us = RCG_SPIN_NEVER };
    int rc = engine_locked();

    while (rc == 0 && nchannels < wanted) {
        rc = rcg_channel_create(engine, &attr, &channels[nchannels]);
        if (rc == 0)
            nchannels++;
    }
    if (rc && nchannels == 0) {
        gf_msg("rdma", GF_LOG_ERROR, -rc, RDMA_MSG_ENGINE, "no event channel: %s", rdma_why());
        return rc;
    }
    return 0;
}

int rdma_engine(rcg_engine **out)
{
    int rc;

    pthread_mutex_lock(&lock);
    rc = engine_locked();
    *out = engine;
    pthread_mutex_unlock(&lock);
    return rc;
}

int rdma_channels(uint32_t wanted, rcg_channel **list)
{
    int rc;

    pthread_mutex_lock(&lock);
    rc = channels_locked(wanted);
    if (rc == 0) {
        rc = (int)(nchannels < wanted ? nchannels : wanted);
        memcpy(list, channels, (size_t)rc * sizeof *list);
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

int rdma_channel(uint32_t wanted, rcg_channel **channel)
{
    rcg_channel *list[RDMA_MAX_CHANNELS];
    int n = rdma_channels(wanted, list);

    if (n <= 0)
        return n;
    *channel = list[__atomic_fetch_add(&turn, 1, __ATOMIC_RELAXED) % (uint32_t)n];
    return 0;
}

const char *rdma_why(void)
{
    static __thread rcg_error why;

    why.size = sizeof why;
    return rcg_last_error(&why) ? "unknown" : why.text;
}
