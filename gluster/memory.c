/* Registered memory. GlusterFS's buffers are plain malloc up to 128 KiB, so they can't be registered beforehand. Registering
 * costs nothing over TCP, so long ones are used where they are; on a device it costs more than a copy, so that octets go
 * through buffers of ours, which stay registered.
 *
 * SPDX-License-Identifier: GPL-2.0-only OR LGPL-3.0-or-later */
#include "rdma.h"

#include <stdlib.h>

/* Shorter ones are copied in any case. */
#define WRAP_FROM 16384

static struct {
    size_t size, step;
    rcg_arena *arena;
} classes[] = { { 32 << 10, 32, NULL }, { 128 << 10, 16, NULL }, { 256 << 10, 8, NULL }, { 1 << 20, 4, NULL } };

#define CLASSES (sizeof classes / sizeof *classes)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int arena_of(size_t class, rcg_arena **arena)
{
    rcg_arena_attr attr = { RCG_ARENA_ATTR_INIT, .buffer_size = classes[class].size, .count = classes[class].step,
                            .max_count = 2048, .access = RCG_LOCAL | RCG_REMOTE_READ | RCG_REMOTE_WRITE };
    rcg_engine *engine;
    int rc = 0;

    pthread_mutex_lock(&lock);
    if (!classes[class].arena && (rc = rdma_engine(&engine)) == 0)
        rc = rcg_arena_create(engine, &attr, &classes[class].arena);
    *arena = classes[class].arena;
    pthread_mutex_unlock(&lock);
    return rc;
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

int rdma_memory_get(struct rdma_memory *memory, size_t length)
{
    size_t class = 0;
    rcg_buffer buffer;
    rcg_arena *arena;
    void *heap;
    int rc;

    while (class < CLASSES && classes[class].size < length)
        class++;
    if (class < CLASSES && arena_of(class, &arena) == 0 && rcg_arena_get(arena, &buffer) == 0) {
        *memory = (struct rdma_memory){ .sge = { buffer.addr, length, buffer.mr }, .arena = arena };
        return 0;
    }
    heap = malloc(length);
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

int rdma_memory_of(struct rdma_memory *memory, const struct iovec *vector, int count, uint32_t provider, bool *held)
{
    size_t length = iov_length(vector, count);
    int rc;

    *held = count == 1 && rdma_memory_registers(provider, length);
    if (*held)
        return rdma_memory_wrap(memory, vector->iov_base, length, RCG_LOCAL | RCG_REMOTE_READ);
    rc = rdma_memory_get(memory, length);
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
