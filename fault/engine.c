/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of the paging engine and its contexts.
 *
 * Epochs. A page is known to be clean by the D bit of its guest page-table entry. Under shadow
 * paging KVM sets D when its fault handler walks the guest's tables and maps the page writable a
 * little later; a thread preempted in between can map a page that was evicted and fetched again
 * meanwhile, and then a store leaves D clear: a lost write. So an eviction clears D, then takes the
 * next epoch and leaves it in the page's word; when the page comes back its D bit is trusted only
 * if every vCPU has left KVM_RUN since that epoch. Otherwise the page counts as dirty, which costs
 * one write too many. tests/model/page.pml shows both.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

int fault_engine_error(const struct fault_engine *engine)
{
    int error = atomic_load_explicit(&engine->error, memory_order_relaxed);
    return error || !engine->config.node ? error : rdma_node_error(engine->config.node);
}

int fault_fail_told(struct fault_engine *engine, int error)
{
    int none = 0;
    if (atomic_compare_exchange_strong(&engine->error, &none, error))
        eventfd_write(engine->error_fd, 1);
    return error;
}

int fault_fail(struct fault_engine *engine, int error)
{
    int none = 0;
    if (!atomic_compare_exchange_strong(&engine->error, &none, error))
        return error;
    /* A lost node and a full one have said so; whoever runs the guest tells what no memory means.
     */
    const struct rdma_node *node = engine->config.node;
    if (error != -ENOSPC && error != -ENOMEM && !(node && rdma_node_error(node)))
        message_error("far memory: %s", strerror(-error));
    eventfd_write(engine->error_fd, 1);
    return error;
}

int fault_engine_event_fd(const struct fault_engine *engine)
{
    return engine->error_fd;
}

bool fault_prefetcher_known(const char *name)
{
    return prefetch_find(name) != NULL;
}

static void engine_watermarks(struct fault_engine *engine)
{
    uint64_t local = engine->config.local_pages;
    engine->low_free_pages = local / 16 < 4096 ? local / 16 : 4096;
    engine->high_free_pages = engine->low_free_pages * 2;
}

static int engine_locks_create(struct fault_engine *engine)
{
    pthread_mutex_init(&engine->context_lock, NULL);
    for (size_t i = 0; i < BLOCK_LOCKS; i++)
        pthread_mutex_init(&engine->block_locks[i], NULL);
    return lanes_create(engine);
}

/* ---- what the replacement policy asks ---- */

static bool clock_accessed(void *owner, uint64_t page)
{
    bool accessed = ept_accessed(owner, page);
    if (accessed)
        probe_touched(TRACE_NOBODY, TRACE_ACCESSED, page);
    return accessed;
}

static void clock_accessed_clear(void *owner, uint64_t page)
{
    ept_accessed_clear(owner, page);
}

static void clock_age(void *owner, uint64_t page, uint64_t pages)
{
    ept_unmap(owner, page, pages);
}

static const struct clock_ops clock_ops = {
    .accessed = clock_accessed, .accessed_clear = clock_accessed_clear, .age = clock_age};

/* All zero, and resident only where it was touched. */
static void *table_map(size_t bytes)
{
    void *table = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (table == MAP_FAILED)
        return NULL;
    madvise(table, bytes, MADV_NOHUGEPAGE);
    return table;
}

static void table_unmap(void *table, size_t bytes)
{
    if (table)
        munmap(table, bytes);
}

static size_t blocks_bytes(const struct fault_engine *engine)
{
    return (engine->span_pages >> BLOCK_SHIFT) * sizeof(struct block);
}

static int engine_tables_create(struct fault_engine *engine)
{
    engine->blocks = table_map(blocks_bytes(engine));
    engine->host_pins = table_map(engine->span_pages * sizeof(*engine->host_pins));
    if (!engine->blocks || !engine->host_pins)
        return -ENOMEM;
    engine->clock.words = engine->words;
    engine->clock.blocks = engine->blocks;
    engine->clock.local_pages = engine->config.local_pages;
    engine->clock.ops = &clock_ops;
    engine->clock.owner = engine->ept;
    return clock_create(&engine->clock, engine->span_pages);
}

int fault_engine_create(struct fault_engine **out, const struct fault_config *config)
{
    struct fault_engine *engine = aligned_alloc(_Alignof(struct fault_engine), sizeof(*engine));
    if (!engine)
        return -ENOMEM;
    memset(engine, 0, sizeof(*engine));
    engine->config = *config;
    engine->ept = config->ept;
    engine->words = ept_words(config->ept);
    engine->span_pages = ept_span(config->ept) >> EPT_PAGE_SHIFT;
    engine->paged = config->node != NULL;
    engine_locks_create(engine);
    engine_watermarks(engine);
    engine->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    engine->accuracy = 65536;
    engine->prefetcher = prefetch_find(config->prefetcher ? config->prefetcher : "auto");
    int error = engine->prefetcher ? engine_tables_create(engine) : -EINVAL;
    if (!error && engine->paged)
        error = reclaimer_start(engine);
    if (!error && engine->paged)
        error = lander_start(engine);
    if (error) {
        fault_engine_destroy(engine);
        return error;
    }
    *out = engine;
    return 0;
}

void fault_engine_stop(struct fault_engine *engine)
{
    if (!engine)
        return;
    fault_events_stop(engine);
    lander_stop(engine);
    reclaimer_stop(engine);
}

void fault_engine_destroy(struct fault_engine *engine)
{
    if (!engine)
        return;
    fault_engine_stop(engine);
    lanes_destroy(engine);
    clock_destroy(&engine->clock);
    for (size_t i = 0; i < BLOCK_LOCKS; i++)
        pthread_mutex_destroy(&engine->block_locks[i]);
    pthread_mutex_destroy(&engine->context_lock);
    table_unmap(engine->blocks, blocks_bytes(engine));
    table_unmap(engine->host_pins, engine->span_pages * sizeof(*engine->host_pins));
    close(engine->error_fd);
    free(engine);
}

/* ---- contexts ---- */

int fault_context_create(struct fault_engine *engine, struct fault_context **out)
{
    struct fault_context *context = calloc(1, sizeof(*context));
    if (!context)
        return -ENOMEM;
    context->engine = engine;
    context->open.page = PAGE_NONE;
    int error = -ENOMEM;
    pthread_mutex_lock(&engine->context_lock);
    for (uint32_t i = 0; i < CONTEXTS_MAX; i++) {
        if (engine->contexts[i])
            continue;
        context->index = i;
        fault_context_adopt(context);
        context->lane = i % LANES;
        engine->contexts[i] = context;
        if (i >= atomic_load(&engine->context_count))
            atomic_store(&engine->context_count, i + 1);
        error = 0;
        break;
    }
    pthread_mutex_unlock(&engine->context_lock);
    if (error)
        free(context);
    else
        *out = context;
    return error;
}

void fault_context_destroy(struct fault_context *context)
{
    if (!context)
        return;
    struct fault_engine *engine = context->engine;
    looker_destroy(context);
    pthread_mutex_lock(&engine->context_lock);
    engine->contexts[context->index] = NULL;
    tally_merge(&engine->retired, &context->tally);
    pthread_mutex_unlock(&engine->context_lock);
    free(context);
}

void fault_context_adopt(struct fault_context *context)
{
    atomic_store(&context->engine->whereabouts[context->index].tid, gettid());
}

void fault_context_enter(struct fault_context *context)
{
    struct whereabouts *at = &context->engine->whereabouts[context->index];
    /* Epoch before flag before KVM_RUN: who sees the flag sees an epoch not newer than the entry.
     */
    atomic_store(&at->entered, atomic_load(&context->engine->clock.epoch));
    atomic_store(&at->inside, true);
}

void fault_context_leave(struct fault_context *context)
{
    atomic_store_explicit(&context->engine->whereabouts[context->index].inside, false,
                          memory_order_release);
}

bool fault_epoch_passed(struct fault_engine *engine, uint32_t epoch)
{
    unsigned count = atomic_load(&engine->context_count);
    for (unsigned i = 0; i < count; i++) {
        struct whereabouts *at = &engine->whereabouts[i];
        if (atomic_load(&at->inside) && (int32_t)(atomic_load(&at->entered) - epoch) < 0)
            return false;
    }
    return true;
}
