/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Remote memory by block. A block's slab is reserved when a page of it is first written back and
 * released with its last copy. The race is a write-back that starts while the last copy goes: a
 * write-back counts as a copy from copies_begin on, under the block's lock, so the slab stays.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>

int copies_begin(struct fault_engine *engine, uint64_t page)
{
    struct block *block = block_of(engine, page);
    uint64_t first = page & ~(uint64_t)(BLOCK_PAGES - 1);
    int error = 0;
    pthread_mutex_lock(block_lock(engine, page));
    if (!atomic_load(&block->reserved)) {
        error = rdma_reserve(engine->config.node, first, BLOCK_PAGES);
        if (!error)
            atomic_store(&block->reserved, 1);
    }
    if (!error)
        atomic_fetch_add(&block->copies, 1);
    pthread_mutex_unlock(block_lock(engine, page));
    return error;
}

void copies_settle(struct fault_engine *engine, uint64_t page, int change, bool began)
{
    struct block *block = block_of(engine, page);
    uint64_t first = page & ~(uint64_t)(BLOCK_PAGES - 1);
    pthread_mutex_lock(block_lock(engine, page));
    int copies = atomic_load(&block->copies) + change - (began ? 1 : 0);
    /*
     * More than there are pages for a moment is normal: a page given up counts until its batch is
     * settled. Fewer than none never is: a copy is counted before its word says so.
     */
    FV_ASSERT(copies >= 0 && copies <= UINT16_MAX);
    atomic_store(&block->copies, (unsigned short)copies);
    if (copies == 0 && atomic_load(&block->reserved)) {
        /* A node that cannot take it back is lost, and says so on the next transfer. */
        rdma_release_slab(engine->config.node, first);
        atomic_store(&block->reserved, 0);
    }
    pthread_mutex_unlock(block_lock(engine, page));
}
