/* Registered memory. GlusterFS's buffers are plain malloc up to 128 KiB, so they can't be registered beforehand. Registering
 * over TCP is an entry in a table, 0.1 us or a copy of 12 KiB, so long ones are used where they are; on a device it costs more
 * than a copy, so that octets go through buffers of ours, which stay registered.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

#include <stdlib.h>

/* Shorter ones are copied in any case. */
#define WRAP_FROM 16384

static const struct {
    size_t size, step;
} sizes[RDMA_SIZES] = { { 32 << 10, 16 }, { 128 << 10, 8 }, { 256 << 10, 4 }, { 1 << 20, 2 } };

struct rdma_pool rdma_shared_pool;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int arena_of(struct rdma_pool *pool, size_t size, rcg_arena **arena)
{
    rcg_arena_attr attr = { RCG_ARENA_ATTR_INIT, .buffer_size = sizes[size].size, .count = sizes[size].step,
                            .max_count = 2048, .access = RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE };
    rcg_engine *engine;
    int rc = 0;

    pthread_mutex_lock(&lock);
    if (!pool->arena[size] && (rc = rdma_engine(&engine)) == 0)
        rc = rcg_arena_create(engine, &attr, &pool->arena[size]);
    *arena = pool->arena[size];
    pthread_mutex_unlock(&lock);
    return rc;
}

void rdma_pool_end(struct rdma_pool *pool)
{
    for (size_t size = 0; size < RDMA_SIZES; size++)
        if (pool->arena[size] && rcg_arena_destroy(pool->arena[size]))
            gf_msg("rdma", GF_LOG_WARNING, 0, RDMA_MSG_NO_MEMORY, "buffers are still in use: %s", rdma_why());
}

int rdma_memory_wrap(struct rdma_memory *memory, void *base, size_t length, uint32_t access)
{
    rcg_engine *engine;
    rcg_mr *mr;
    int rc = rdma_engine(&engine);

    if (rc == 0)
        rc = rcg_mr_register(engine, base, length, access, &mr);
    if (rc == 0)
        *memory = (struct rdma_memory){ .sge = { base, length, mr } };
    return rc;
}

int rdma_memory_get(struct rdma_memory *memory, struct rdma_pool *pool, size_t length)
{
    size_t size = 0, page;
    rcg_buffer buffer;
    rcg_arena *arena;
    void *heap;
    int rc;

    while (size < RDMA_SIZES && sizes[size].size < length)
        size++;
    if (pool && size < RDMA_SIZES && arena_of(pool, size, &arena) == 0 && rcg_arena_get(arena, &buffer) == 0) {
        *memory = (struct rdma_memory){ .sge = { buffer.addr, length, buffer.mr }, .arena = arena };
        return 0;
    }
    /* Pages of its own: a child of fork(2) may lack registered ones. */
    page = (size_t)sysconf(_SC_PAGESIZE);
    heap = aligned_alloc(page, (length + page - 1) / page * page);
    if (!heap)
        return -ENOMEM;
    rc = rdma_memory_wrap(memory, heap, length, RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE);
    if (rc)
        free(heap);
    else
        memory->heap = heap;
    return rc;
}

bool rdma_memory_registers(uint32_t provider, size_t length)
{
    return provider == RCG_PROVIDER_IWARP && length >= WRAP_FROM;
}

int rdma_memory_of(struct rdma_memory *memory, struct rdma_pool *pool, const struct iovec *vector, int count,
                   uint32_t provider, bool *held)
{
    size_t length = iov_length(vector, count);
    int rc;

    *held = count == 1 && rdma_memory_registers(provider, length);
    if (*held)
        return rdma_memory_wrap(memory, vector->iov_base, length, RCG_LOCAL | RCG_REMOTE_READ);
    rc = rdma_memory_get(memory, pool, length);
    if (rc == 0)
        iov_unload(memory->sge.addr, vector, count);
    return rc;
}

void rdma_memory_put(struct rdma_memory *memory)
{
    if (memory->arena)
        rcg_arena_put(memory->arena, memory->sge.addr);
    else if (memory->sge.mr)
        rcg_mr_deregister(memory->sge.mr);
    free(memory->heap);
    *memory = (struct rdma_memory){ 0 };
}
