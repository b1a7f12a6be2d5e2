/* Options: the names of GlusterFS 3.4 to 7, and those that this transport has besides. What they mean and their defaults:
 * rdmacm-gluster-transport(7).
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

#include <netdb.h>

#define CREDITS 128
#define MAX_CREDITS 1024
#define INLINE_SIZE 8192

#define NUMBER GF_OPTION_TYPE_INT

struct volume_options options[] = {
    { .key = { "remote-port", "transport.remote-port", "transport.rdma.remote-port" }, .type = NUMBER },
    { .key = { "transport.rdma.listen-port", "listen-port" }, .type = NUMBER },
    { .key = { "transport.rdma.bind-address", "bind-address" }, .type = GF_OPTION_TYPE_INTERNET_ADDRESS },
    { .key = { "transport.address-family", "address-family" },
      .value = { "inet", "inet6", "inet/inet6", "inet6/inet" },
      .type = GF_OPTION_TYPE_STR },
    { .key = { "transport.listen-backlog" },
      .type = GF_OPTION_TYPE_SIZET,
      .flags = OPT_FLAG_SETTABLE,
      .default_value = "1024",
      .description = "Connections that the kernel queues for a listener." },
    { .key = { "transport.rdma.work-request-send-count", "rdma-work-request-send-count" },
      .type = NUMBER,
      .description = "Calls outstanding at a time, 1 to 1024." },
    { .key = { "transport.rdma.work-request-recv-count", "rdma-work-request-recv-count" },
      .type = NUMBER,
      .description = "The same; the lower of the two counts." },
    { .key = { "transport.rdma.provider", "rdma-provider" },
      .value = { "auto", "verbs", "iwarp" },
      .type = GF_OPTION_TYPE_STR,
      .default_value = "auto",
      .description = "verbs: an RDMA device. iwarp: TCP. auto: a device for peers that one reaches, else TCP." },
    { .key = { "transport.rdma.addresses", "rdma-addresses" },
      .type = GF_OPTION_TYPE_STR,
      .description = "Addresses of the peer on all its networks, with commas: the best that answers is connected to." },
    { .key = { "transport.rdma.inline-size", "rdma-inline-size" },
      .type = NUMBER,
      .min = 1024,
      .max = 65536,
      .default_value = "8192",
      .description = "Octets of a message that go with the Send. The smaller of the two sides' is used." },
    { .key = { "transport.rdma.channels", "rdma-channels" },
      .type = NUMBER,
      .min = 1,
      .max = RDMA_MAX_CHANNELS,
      .default_value = "2",
      .description = "Threads of the process over which connections are spread." },
    { .key = { "transport.rdma.keepalive-time", "rdma-keepalive-time" },
      .type = NUMBER,
      .min = 1,
      .max = 3600,
      .default_value = "20",
      .description = "Seconds after which a silent peer is taken for dead, at most a quarter more." },
    { .key = { "transport.rdma.connect-timeout", "rdma-connect-timeout" },
      .type = NUMBER,
      .min = 1,
      .max = 600,
      .default_value = "10",
      .description = "Seconds that a connect may take." },
    /* Without meaning, and accepted as they stand in volfiles. */
    { .key = { "transport.rdma.port", "rdma-port" }, .type = NUMBER },
    { .key = { "transport.rdma.mtu", "rdma-mtu" }, .type = NUMBER },
    { .key = { "transport.rdma.device-name", "rdma-device-name" }, .type = GF_OPTION_TYPE_ANY },
    { .key = { "transport.rdma.attr-timeout", "rdma-attr-timeout" }, .type = NUMBER },
    { .key = { "transport.rdma.attr-retry-cnt", "rdma-attr-retry-cnt" }, .type = NUMBER },
    { .key = { "transport.rdma.attr-rnr-retry", "rdma-attr-rnr-retry" }, .type = NUMBER },
    { .key = { "transport.rdma.connect-path", "connect-path" }, .type = GF_OPTION_TYPE_ANY },
    { .key = { "transport.rdma.bind-path", "bind-path" }, .type = GF_OPTION_TYPE_ANY },
    { .key = { "transport.rdma.listen-path", "listen-path" }, .type = GF_OPTION_TYPE_ANY },
    { .key = { "transport.socket.lowlat" }, .type = GF_OPTION_TYPE_BOOL },
    { .key = { NULL } },
};

const char *rdma_option_text(rpc_transport_t *this, const char *key)
{
    data_t *value = this->options ? dict_get(this->options, (char *)key) : NULL;

    return value ? data_to_str(value) : NULL;
}

/* A number within bounds, 0 where there is none. One that is no number, or beyond the bounds, is told and as near as can be. */
static uint32_t number(rpc_transport_t *this, const char *key, uint32_t least, uint32_t most)
{
    const char *text = rdma_option_text(this, key);
    uint32_t value;

    if (!text)
        return 0;
    if (gf_string2uint32(text, &value)) {
        rdma_log(this, WARNING, 0, RDMA_MSG_OPTION, "option %s is no number: %s", key, text);
        return 0;
    }
    if (value >= least && value <= most)
        return value;
    rdma_log(this, INFO, 0, RDMA_MSG_OPTION, "option %s is %u, within %u to %u", key, value, least, most);
    return value < least ? least : most;
}

static uint32_t number_or(rpc_transport_t *this, const char *key, uint32_t least, uint32_t most, uint32_t standard)
{
    uint32_t value = number(this, key, least, most);

    return value ? value : standard;
}

int rdma_option_port(rpc_transport_t *this, const char *key, int standard)
{
    return (int)number_or(this, key, 0, UINT16_MAX, (uint32_t)standard);
}

void rdma_options_read(rpc_transport_t *this, struct rdma_options *out)
{
    const char *provider = rdma_option_text(this, "transport.rdma.provider");
    uint32_t send = number_or(this, "transport.rdma.work-request-send-count", 1, MAX_CREDITS, CREDITS);
    uint32_t receive = number_or(this, "transport.rdma.work-request-recv-count", 1, MAX_CREDITS, send);

    *out = (struct rdma_options){
        .provider = RCG_PROVIDER_AUTO,
        .credits = send < receive ? send : receive,
        .inline_size = number_or(this, "transport.rdma.inline-size", 1024, 65536, INLINE_SIZE),
        .channels = number_or(this, "transport.rdma.channels", 1, RDMA_MAX_CHANNELS, 2),
        .keepalive_ms = 1000 * number(this, "transport.rdma.keepalive-time", 1, 3600),
        .timeout_ms = 1000 * number(this, "transport.rdma.connect-timeout", 1, 600),
        .backlog = number_or(this, "transport.listen-backlog", 1, 65535, GLUSTERFS_SOCKET_LISTEN_BACKLOG),
    };
    if (provider && strcmp(provider, "verbs") == 0)
        out->provider = RCG_PROVIDER_VERBS;
    if (provider && strcmp(provider, "iwarp") == 0)
        out->provider = RCG_PROVIDER_IWARP;
}

/* Numeric, so that nothing is looked up here. */
static int address_of(const char *text, struct sockaddr_storage *out)
{
    struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM }, *found;

    if (getaddrinfo(text, NULL, &hints, &found))
        return -EINVAL;
    memcpy(out, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

int rdma_option_addresses(rpc_transport_t *this, struct rdma_addresses *out)
{
    const char *list = rdma_option_text(this, "transport.rdma.addresses");
    char *copy = list ? gf_strdup(list) : NULL, *rest = NULL, *text;
    int rc = list && !copy ? -ENOMEM : 0;

    for (text = copy ? strtok_r(copy, ",", &rest) : NULL; text && rc == 0; text = strtok_r(NULL, ",", &rest)) {
        rc = out->count < RDMA_MAX_ADDRESSES ? address_of(text, &out->address[out->count]) : -E2BIG;
        if (rc == 0)
            out->count++;
    }
    if (rc == 0 && list && out->count == 0)
        rc = -EINVAL;
    GF_FREE(copy);
    if (rc == 0)
        return 0;
    rdma_log(this, ERROR, 0, RDMA_MSG_OPTION, "option transport.rdma.addresses is not 1 to %d numeric addresses with commas: %s",
             RDMA_MAX_ADDRESSES, list);
    return -EINVAL;
}
