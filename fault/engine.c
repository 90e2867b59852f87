/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of the paging engine, its contexts and its counters.
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

int fault_fail(struct fault_engine *engine, int error)
{
    int none = 0;
    if (atomic_compare_exchange_strong(&engine->error, &none, error))
        eventfd_write(engine->error_fd, 1);
    return error;
}

int fault_engine_event_fd(const struct fault_engine *engine)
{
    return engine->error_fd;
}

static void engine_watermarks(struct fault_engine *engine)
{
    uint64_t local = engine->config.local_pages;
    engine->low_free_pages = local / 16 < 2048 ? local / 16 : 2048;
    engine->high_free_pages = engine->low_free_pages * 2;
}

static int engine_locks_create(struct fault_engine *engine)
{
    pthread_mutex_init(&engine->context_lock, NULL);
    for (size_t i = 0; i < BLOCK_LOCKS; i++)
        pthread_mutex_init(&engine->block_locks[i], NULL);
    for (size_t i = 0; i < LANES_MAX; i++)
        pthread_mutex_init(&engine->lanes[i].lock, NULL);
    return 0;
}

int fault_engine_create(struct fault_engine **out, const struct fault_config *config)
{
    struct fault_engine *engine = calloc(1, sizeof(*engine));
    if (!engine)
        return -ENOMEM;
    engine->config = *config;
    engine->ept = config->ept;
    engine->words = ept_words(config->ept);
    engine->span_pages = ept_span(config->ept) >> EPT_PAGE_SHIFT;
    engine->paged = config->node != NULL;
    engine_locks_create(engine);
    engine_watermarks(engine);
    engine->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    size_t bytes = (engine->span_pages >> BLOCK_SHIFT) * sizeof(struct block);
    engine->blocks = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (engine->blocks == MAP_FAILED) {
        engine->blocks = NULL;
        fault_engine_destroy(engine);
        return -ENOMEM;
    }
    int error = engine->paged ? reclaimer_start(engine) : 0;
    if (error) {
        fault_engine_destroy(engine);
        return error;
    }
    *out = engine;
    return 0;
}

void fault_engine_destroy(struct fault_engine *engine)
{
    if (!engine)
        return;
    fault_events_stop(engine);
    reclaimer_stop(engine);
    for (size_t i = 0; i < LANES_MAX; i++) {
        struct lane *lane = &engine->lanes[i];
        rdma_queue_destroy(lane->queue);
        if (lane->buffer)
            rdma_buffer_free(engine->config.node, lane->buffer,
                             (size_t)WINDOW_MAX_PAGES * EPT_PAGE_BYTES);
        pthread_mutex_destroy(&lane->lock);
    }
    for (size_t i = 0; i < BLOCK_LOCKS; i++)
        pthread_mutex_destroy(&engine->block_locks[i]);
    pthread_mutex_destroy(&engine->context_lock);
    if (engine->blocks)
        munmap(engine->blocks, (engine->span_pages >> BLOCK_SHIFT) * sizeof(struct block));
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
    int error = -ENOMEM;
    pthread_mutex_lock(&engine->context_lock);
    for (uint32_t i = 0; i < CONTEXTS_MAX; i++) {
        if (engine->contexts[i])
            continue;
        context->index = i;
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

static void histogram_merge(struct fault_histogram *to, const struct fault_histogram *from)
{
    to->count += from->count;
    to->sum_ns += from->sum_ns;
    if (from->max_ns > to->max_ns)
        to->max_ns = from->max_ns;
    for (size_t i = 0; i < FAULT_HISTOGRAM_BUCKETS; i++)
        to->buckets[i] += from->buckets[i];
}

static void tally_merge(struct tally *to, struct tally *from)
{
    tally_add(&to->faults, from->faults);
    tally_add(&to->spurious, from->spurious);
    tally_add(&to->zero_filled, from->zero_filled);
    tally_add(&to->file_filled, from->file_filled);
    tally_add(&to->demand_fetches, from->demand_fetches);
    tally_add(&to->prefetched, from->prefetched);
    tally_add(&to->discarded, from->discarded);
    tally_add(&to->frame_waits, from->frame_waits);
    histogram_merge(&to->fault_ns, &from->fault_ns);
    histogram_merge(&to->fetch_ns, &from->fetch_ns);
    histogram_merge(&to->install_ns, &from->install_ns);
}

void fault_context_destroy(struct fault_context *context)
{
    if (!context)
        return;
    struct fault_engine *engine = context->engine;
    pthread_mutex_lock(&engine->context_lock);
    engine->contexts[context->index] = NULL;
    tally_merge(&engine->retired, &context->tally);
    pthread_mutex_unlock(&engine->context_lock);
    free(context);
}

void fault_context_enter(struct fault_context *context)
{
    /* Epoch before flag before KVM_RUN: who sees the flag sees an epoch not newer than the entry.
     */
    atomic_store(&context->entered, atomic_load(&context->engine->epoch));
    atomic_store(&context->inside, true);
}

void fault_context_leave(struct fault_context *context)
{
    atomic_store_explicit(&context->inside, false, memory_order_release);
}

bool fault_epoch_passed(struct fault_engine *engine, uint32_t epoch)
{
    bool passed = true;
    /* Contexts come and go under the lock; a fetch is far longer than this scan. */
    pthread_mutex_lock(&engine->context_lock);
    unsigned count = atomic_load(&engine->context_count);
    for (unsigned i = 0; i < count && passed; i++) {
        struct fault_context *context = engine->contexts[i];
        if (context && atomic_load(&context->inside))
            passed = (int32_t)(atomic_load(&context->entered) - epoch) >= 0;
    }
    pthread_mutex_unlock(&engine->context_lock);
    return passed;
}

/* ---- counters ---- */

static unsigned histogram_bucket(uint64_t ns)
{
    if (ns < 4)
        return (unsigned)ns;
    unsigned log = 63u - (unsigned)__builtin_clzll(ns);
    unsigned bucket = (log - 1) * 4 + (unsigned)(ns >> (log - 2) & 3);
    return bucket < FAULT_HISTOGRAM_BUCKETS ? bucket : FAULT_HISTOGRAM_BUCKETS - 1;
}

static uint64_t histogram_bucket_end(unsigned bucket)
{
    if (bucket < 4)
        return bucket + 1;
    return (uint64_t)(4 + bucket % 4 + 1) << (bucket / 4 - 1);
}

void fault_histogram_add(struct fault_histogram *histogram, uint64_t ns)
{
    histogram->count++;
    histogram->sum_ns += ns;
    if (ns > histogram->max_ns)
        histogram->max_ns = ns;
    histogram->buckets[histogram_bucket(ns)]++;
}

uint64_t fault_histogram_quantile(const struct fault_histogram *histogram, double fraction)
{
    uint64_t below = 0, want = (uint64_t)((double)histogram->count * fraction);
    if (!histogram->count)
        return 0;
    for (unsigned i = 0; i < FAULT_HISTOGRAM_BUCKETS; i++) {
        below += histogram->buckets[i];
        if (below > want)
            return histogram_bucket_end(i) < histogram->max_ns ? histogram_bucket_end(i)
                                                               : histogram->max_ns;
    }
    return histogram->max_ns;
}

static void counters_from_tally(struct fault_counters *out, const struct tally *sum)
{
    out->faults = sum->faults;
    out->spurious = sum->spurious;
    out->zero_filled_pages = sum->zero_filled;
    out->file_filled_pages = sum->file_filled;
    out->demand_fetches = sum->demand_fetches;
    out->prefetched_pages = sum->prefetched;
    out->discarded_pages = sum->discarded;
    out->frame_waits = sum->frame_waits;
    out->fault_ns = sum->fault_ns;
    out->fetch_ns = sum->fetch_ns;
    out->install_ns = sum->install_ns;
}

void fault_engine_counters(struct fault_engine *engine, struct fault_counters *out)
{
    memset(out, 0, sizeof(*out));
    struct tally *sum = calloc(1, sizeof(*sum));
    if (!sum)
        return;
    pthread_mutex_lock(&engine->context_lock);
    tally_merge(sum, &engine->retired);
    for (unsigned i = 0; i < atomic_load(&engine->context_count); i++)
        if (engine->contexts[i])
            tally_merge(sum, &engine->contexts[i]->tally);
    pthread_mutex_unlock(&engine->context_lock);
    counters_from_tally(out, sum);
    free(sum);
    out->evicted_pages = engine->evicted;
    out->evicted_clean_pages = engine->evicted_clean;
    out->evicted_zero_pages = engine->evicted_zero;
    out->rescued_pages = engine->rescued;
    out->resident_pages = engine->resident_pages;
    out->resident_peak_pages = engine->resident_peak;
    out->existing_pages = engine->existing_pages;
    out->existing_peak_pages = engine->existing_peak;
    if (engine->config.node) {
        struct rdma_counters wire;
        rdma_node_counters(engine->config.node, &wire);
        out->fetched_bytes = wire.read_bytes;
        out->written_bytes = wire.write_bytes;
    }
}
