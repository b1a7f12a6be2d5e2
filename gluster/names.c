/* Addresses and identifiers of both ends, as the socket transport has them: rules like auth.addr and the lists of clients look
 * at them.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

#include <netdb.h>

/* An IPv4 peer of a listener for both is an IPv4 peer. */
static void unmap(struct sockaddr_storage *address)
{
    struct sockaddr_in6 six = *(struct sockaddr_in6 *)address;
    struct sockaddr_in four = { .sin_family = AF_INET, .sin_port = six.sin6_port };

    if (address->ss_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&six.sin6_addr))
        return;
    memcpy(&four.sin_addr, &six.sin6_addr.s6_addr[12], sizeof four.sin_addr);
    memset(address, 0, sizeof *address);
    memcpy(address, &four, sizeof four);
}

static void fill(peer_info_t *info, const struct sockaddr_storage *address)
{
    char host[NI_MAXHOST], service[NI_MAXSERV];

    if (address->ss_family != AF_INET && address->ss_family != AF_INET6)
        return;
    info->sockaddr = *address;
    unmap(&info->sockaddr);
    info->sockaddr_len = info->sockaddr.ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (getnameinfo((struct sockaddr *)&info->sockaddr, info->sockaddr_len, host, sizeof host, service, sizeof service,
                    NI_NUMERICHOST | NI_NUMERICSERV) ||
        (size_t)snprintf(info->identifier, sizeof info->identifier, "%s:%s", host, service) >= sizeof info->identifier)
        info->identifier[0] = '\0';
}

void names_of_conn(rpc_transport_t *this, rcg_conn *conn)
{
    rcg_conn_info info = { RCG_CONN_INFO_INIT };

    if (rcg_conn_query(conn, &info))
        return;
    fill(&this->peerinfo, &info.peer);
    fill(&this->myinfo, &info.local);
}

void names_of_listener(rpc_transport_t *this, const struct sockaddr_storage *local)
{
    fill(&this->myinfo, local);
}

static int32_t name(const peer_info_t *info, char *out, int length)
{
    if (length < (int)strlen(info->identifier) + 1)
        return -1;
    strcpy(out, info->identifier);
    return 0;
}

static int32_t address(const peer_info_t *info, char *out, int length, struct sockaddr_storage *sa, socklen_t size)
{
    memcpy(sa, &info->sockaddr, size < sizeof *sa ? size : sizeof *sa);
    return out ? name(info, out, length) : 0;
}

int32_t rdma_peername(rpc_transport_t *this, char *out, int length)
{
    return name(&this->peerinfo, out, length);
}

int32_t rdma_peeraddr(rpc_transport_t *this, char *out, int length, struct sockaddr_storage *sa, socklen_t size)
{
    return address(&this->peerinfo, out, length, sa, size);
}

int32_t rdma_myname(rpc_transport_t *this, char *out, int length)
{
    return name(&this->myinfo, out, length);
}

int32_t rdma_myaddr(rpc_transport_t *this, char *out, int length, struct sockaddr_storage *sa, socklen_t size)
{
    return address(&this->myinfo, out, length, sa, size);
}
