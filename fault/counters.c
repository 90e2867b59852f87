/* SPDX-License-Identifier: Apache-2.0 */
/* What the engine counts, and how it is added up. Read by any thread, while others count on. */
#include "fault/engine_internal.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>

static void histogram_merge(struct fault_histogram *to, const struct fault_histogram *from)
{
    uint64_t max_ns = __atomic_load_n(&from->max_ns, __ATOMIC_RELAXED);
    to->count += __atomic_load_n(&from->count, __ATOMIC_RELAXED);
    to->sum_ns += __atomic_load_n(&from->sum_ns, __ATOMIC_RELAXED);
    if (max_ns > to->max_ns)
        to->max_ns = max_ns;
    for (size_t i = 0; i < FAULT_HISTOGRAM_BUCKETS; i++)
        to->buckets[i] += __atomic_load_n(&from->buckets[i], __ATOMIC_RELAXED);
}

void tally_merge(struct tally *to, struct tally *from)
{
    tally_add(&to->faults, from->faults);
    tally_add(&to->spurious, from->spurious);
    tally_add(&to->zero_filled, from->zero_filled);
    tally_add(&to->file_filled, from->file_filled);
    tally_add(&to->demand_fetches, from->demand_fetches);
    tally_add(&to->late_hits, from->late_hits);
    tally_add(&to->discarded, from->discarded);
    tally_add(&to->frame_waits, from->frame_waits);
    histogram_merge(&to->fault_ns, &from->fault_ns);
    histogram_merge(&to->fetch_ns, &from->fetch_ns);
    histogram_merge(&to->install_ns, &from->install_ns);
}

void sample_take(struct fault_engine *engine, uint64_t page)
{
    uint64_t word = atomic_load(&engine->words[page]);
    bool used;
    do { /* A is that of the stay that the word is about: its stamp would be another one */
        if (!(word & EPT_PREFETCHED))
            return;
        used = ept_accessed(engine->ept, page);
    } while (!atomic_compare_exchange_weak(&engine->words[page], &word,
                                           (word & ~EPT_PREFETCHED) | (used ? EPT_USED : 0)));
    if (page % SAMPLE_PAGES)
        return;
    atomic_fetch_add_explicit(used ? &engine->samples_used : &engine->samples_wasted, 1,
                              memory_order_relaxed);
    /* Threads may overwrite each other's: it is an average, and only advice. */
    int accuracy = (int)atomic_load_explicit(&engine->accuracy, memory_order_relaxed);
    accuracy += ((used ? 65536 : 0) - accuracy) / SAMPLE_HISTORY;
    atomic_store_explicit(&engine->accuracy, (unsigned)accuracy, memory_order_relaxed);
}

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

/* One writer, as tally_add; the field itself is plain, because results are read as one likes. */
static void count_add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

void fault_histogram_add(struct fault_histogram *histogram, uint64_t ns)
{
    count_add(&histogram->count, 1);
    count_add(&histogram->sum_ns, ns);
    if (ns > histogram->max_ns)
        __atomic_store_n(&histogram->max_ns, ns, __ATOMIC_RELAXED);
    count_add(&histogram->buckets[histogram_bucket(ns)], 1);
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
    out->late_hits = sum->late_hits;
    out->discarded_pages = sum->discarded;
    out->frame_waits = sum->frame_waits;
    out->fault_ns = sum->fault_ns;
    out->fetch_ns = sum->fetch_ns;
    out->install_ns = sum->install_ns;
}

static void counters_from_engine(struct fault_counters *out, struct fault_engine *engine)
{
    out->prefetched_pages = engine->prefetched;
    out->samples_used = engine->samples_used;
    out->samples_wasted = engine->samples_wasted;
    out->refaulted_pages = engine->refaults;
    out->distrusted_pages = engine->distrusted;
    out->evicted_pages = engine->clock.evicted;
    out->evicted_clean_pages = engine->evicted_clean;
    out->evicted_zero_pages = engine->evicted_zero;
    out->evicted_dead_pages = engine->evicted_dead;
    out->unwritten_bytes = engine->unwritten_bytes;
    out->unread_bytes = engine->unread_bytes;
    out->rescued_pages = engine->rescued;
    out->active_pages = engine->clock.active_pages;
    out->resident_pages = engine->resident_pages;
    out->resident_peak_pages = engine->resident_peak;
    out->existing_pages = engine->existing_pages;
    out->existing_peak_pages = engine->existing_peak;
    for (unsigned i = 0; i < LANES; i++) {
        struct lane *lane = &engine->lanes[i];
        pthread_mutex_lock(&lane->lock);
        histogram_merge(&out->flight_ns, &lane->flight_ns);
        pthread_mutex_unlock(&lane->lock);
    }
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
    counters_from_engine(out, engine);
    if (engine->config.node) {
        struct rdma_counters wire;
        rdma_node_counters(engine->config.node, &wire);
        out->fetched_bytes = wire.read_bytes;
        out->written_bytes = wire.write_bytes;
    }
}
