/* Identifiers of what is logged, in the range that GlusterFS keeps for this transport. New ones go to the end.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#ifndef RDMA_MESSAGES_H
#define RDMA_MESSAGES_H

#include "compat.h"

GLFS_MSGID(RPC_TRANS_RDMA, RDMA_MSG_ENGINE, RDMA_MSG_LIBRARY, RDMA_MSG_OPTION, RDMA_MSG_LISTEN_FAILED, RDMA_MSG_LISTENING,
           RDMA_MSG_CONNECT_FAILED, RDMA_MSG_CONNECTED, RDMA_MSG_DISCONNECTED, RDMA_MSG_NO_MEMORY, RDMA_MSG_CALL_FAILED,
           RDMA_MSG_REPLY_FAILED, RDMA_MSG_BAD_CALL, RDMA_MSG_NO_PROVIDER);

#define rdma_log(trans, level, errnum, id, ...) gf_msg((trans)->name, GF_LOG_##level, (errnum), (id), __VA_ARGS__)

#endif
