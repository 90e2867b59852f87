/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the engine can be watched: each call below is a static probe (docs/trace.md; a no-op
 * instruction until a tracer attaches) and, with --trace, a record. Private to fault/.
 */
#ifndef FARVISOR_FAULT_PROBES_H
#define FARVISOR_FAULT_PROBES_H

#include "fault/trace.h"

#include <stdatomic.h>

#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#else /* built without systemtap's header: no probes */
#define DTRACE_PROBE2(provider, name, a, b)       ((void)(a), (void)(b))
#define DTRACE_PROBE3(provider, name, a, b, c)    ((void)(a), (void)(b), (void)(c))
#define DTRACE_PROBE4(provider, name, a, b, c, d) ((void)(a), (void)(b), (void)(c), (void)(d))
#endif

extern atomic_bool trace_on;

static inline bool trace_wanted(void)
{
    return __builtin_expect(atomic_load_explicit(&trace_on, memory_order_relaxed), 0);
}

/* ---- trace.c: only called while recording ---- */
/* seen: the page's word when the fault began; now: after it. */
void trace_fault(unsigned thread, uint64_t page, bool write, uint64_t seen, uint64_t now,
                 uint64_t start_ns);
void trace_run(enum trace_type type, unsigned detail, unsigned thread, uint64_t page,
               uint64_t pages);
void trace_pinned(unsigned thread, uint64_t page);
void trace_pages(enum trace_type type, unsigned thread, const uint64_t pages[], uint64_t count);
/* fates[i]: 0 not evicted, else 1 + enum trace_fate, of page first + i. */
void trace_evicted(uint64_t first, const uint64_t set[], const uint8_t fates[], unsigned count);

/* ---- the probes ---- */

static inline void probe_fault_begin(unsigned thread, uint64_t page, bool write)
{
    DTRACE_PROBE3(farvisor, fault_begin, page, write, thread);
}

/* result: 0, or why the fault could not be solved. */
static inline void probe_fault_end(unsigned thread, uint64_t page, bool write, uint64_t seen,
                                   uint64_t now, uint64_t start_ns, int result)
{
    DTRACE_PROBE3(farvisor, fault_end, page, result, thread);
    if (trace_wanted() && !result)
        trace_fault(thread, page, write, seen, now, start_ns);
}

static inline void probe_fetch_demand(uint64_t page)
{
    DTRACE_PROBE3(farvisor, fetch, page, 1, 0);
}

static inline void probe_fetch_ahead(unsigned thread, uint64_t page, uint64_t pages)
{
    DTRACE_PROBE3(farvisor, fetch, page, pages, 1);
    if (trace_wanted())
        trace_run(TRACE_PREFETCH, 0, thread, page, pages);
}

/* The bytes are here. */
static inline void probe_land(uint64_t page, uint64_t pages, bool prefetched)
{
    DTRACE_PROBE3(farvisor, land, page, pages, prefetched);
    if (trace_wanted() && prefetched)
        trace_run(TRACE_LAND, 0, TRACE_NOBODY, page, pages);
}

/* The guest can touch the pages without a miss. */
static inline void probe_install(uint64_t page, uint64_t pages)
{
    DTRACE_PROBE2(farvisor, install, page, pages);
}

static inline void probe_filled(unsigned thread, uint64_t page, uint64_t pages, bool zero)
{
    probe_install(page, pages);
    if (trace_wanted())
        trace_run(TRACE_FILL, !zero, thread, page, pages);
}

static inline void probe_touched(unsigned thread, enum trace_seen how, uint64_t page)
{
    if (trace_wanted())
        trace_run(TRACE_TOUCH, how, thread, page, 1);
}

static inline void probe_pinned(unsigned thread, uint64_t page)
{
    if (trace_wanted())
        trace_pinned(thread, page);
}

static inline void probe_evicted(uint64_t first, const uint64_t set[], const uint8_t fates[],
                                 unsigned count, unsigned freed)
{
    DTRACE_PROBE2(farvisor, evict, first, freed);
    if (trace_wanted())
        trace_evicted(first, set, fates, count);
}

static inline void probe_discarded(unsigned thread, const uint64_t pages[], uint64_t count)
{
    if (trace_wanted())
        trace_pages(TRACE_DISCARD, thread, pages, count);
}

#endif
