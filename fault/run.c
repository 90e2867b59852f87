/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs: consecutive pages that change state together, because a system call for many pages costs
 * little more than one for a single page. What every way into LOCAL has in common is here.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <string.h>

uint64_t run_claim(struct fault_engine *engine, uint64_t page, uint64_t want, enum ept_state from,
                   enum ept_state to, unsigned lane)
{
    uint64_t busy = (uint64_t)to | (uint64_t)lane << EPT_LANE_SHIFT, count = 0;
    for (; count < want; count++) {
        uint64_t word = atomic_load(&engine->words[page + count]);
        if (ept_word_state(word) != from ||
            !atomic_compare_exchange_strong(&engine->words[page + count], &word,
                                            (word & ~EPT_STATE_MASK) | busy))
            break;
    }
    return count;
}

void run_release(struct fault_engine *engine, uint64_t page, uint64_t pages, enum ept_state to)
{
    for (uint64_t i = page; i < page + pages; i++) {
        uint64_t word = atomic_load(&engine->words[i]);
        word_settle(&engine->words[i], (word & ~(EPT_STATE_MASK | EPT_PIN_MASK | EPT_DIRTY)) | to);
    }
}

/* How much of a run lies in the block it begins in. */
static uint64_t block_part(uint64_t page, uint64_t pages)
{
    uint64_t here = BLOCK_PAGES - page % BLOCK_PAGES;
    return here < pages ? here : pages;
}

/*
 * Counted before the claim, so that a discard that skips blocks without existing pages cannot miss
 * a page being filled.
 */
void run_existing(struct fault_engine *engine, uint64_t page, uint64_t pages, int sign)
{
    for (uint64_t here; pages; page += here, pages -= here) {
        here = block_part(page, pages);
        atomic_fetch_add(&block_of(engine, page)->existing, (unsigned)(sign * (int)here));
    }
}

void run_resident(struct fault_engine *engine, uint64_t page, uint64_t pages, unsigned active)
{
    for (uint64_t here; pages; page += here, pages -= here, active = 0) {
        here = block_part(page, pages);
        if (engine->paged)
            clock_arrived(&engine->clock, page, (unsigned)here, active);
        else
            atomic_fetch_add(&block_of(engine, page)->held, block_held((unsigned)here, 0));
    }
}

/*
 * Marks those pages of a claimed run whose D bit cannot be trusted (engine.c, "Epochs"). Must come
 * before the install: a vCPU that walked the guest's table before D was cleared could map the new
 * page, store to it and leave KVM_RUN, and would pass for quiet afterwards.
 */
void run_distrust(struct fault_engine *engine, uint64_t page, uint64_t pages)
{
    uint32_t judged = 0;
    bool trusted = false;
    uint64_t count = 0;
    for (uint64_t i = page; i < page + pages; i++) {
        uint32_t epoch = (uint32_t)(atomic_load(&engine->words[i]) >> EPT_STAMP_SHIFT);
        if (i == page || epoch != judged) /* neighbours were mostly evicted together */
            trusted = fault_epoch_passed(engine, epoch);
        judged = epoch;
        if (trusted)
            continue;
        atomic_fetch_or(&engine->words[i], EPT_DIRTY);
        count++;
    }
    if (count)
        atomic_fetch_add_explicit(&engine->distrusted, count, memory_order_relaxed);
}

int install_failed(struct fault_engine *engine, uint64_t page, int error)
{
    message_error("second stage: install page at 0x%llx: %s",
                  (unsigned long long)page << EPT_PAGE_SHIFT, strerror(-error));
    return fault_fail_told(engine, error);
}

/*
 * Under shadow paging KVM maps the neighbours of a touched page only where A is set. So a page
 * fetched unasked gets A, but for one in SAMPLE_PAGES, whose A then tells whether it was touched. A
 * short run has no neighbours to gain: all of it may tell.
 */
static void run_prime(struct fault_engine *engine, uint64_t page, uint64_t pages, bool write,
                      bool prefetched)
{
    if (!prefetched) {
        ept_prime(engine->ept, page, pages, true, write);
        return;
    }
    for (uint64_t at = page, end = page + pages, next; at < end; at = next) {
        bool tells = at % SAMPLE_PAGES == 0 || pages < SAMPLE_PAGES;
        next = tells ? at + 1 : (at / SAMPLE_PAGES + 1) * SAMPLE_PAGES;
        next = next < end ? next : end;
        if (tells)
            ept_accessed_clear(engine->ept, at);
        ept_prime(engine->ept, at, next - at, !tells, write);
    }
}

int run_land(struct fault_engine *engine, uint64_t page, uint64_t pages, const void *data,
             bool write, bool prefetched)
{
    uint64_t arrivals[FLIGHT_PAGES], kept = EPT_FILE | EPT_DIRTY | (prefetched ? 0 : EPT_USED);
    unsigned active = 0;
    probe_land(page, pages, prefetched);
    run_prime(engine, page, pages, write, prefetched);
    run_distrust(engine, page, pages);
    int error = ept_install(engine->ept, page, data, pages);
    if (error)
        return install_failed(engine, page, error);
    probe_install(page, pages);
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t word = atomic_load(&engine->words[page + i]);
        arrivals[i] = clock_arrival(&engine->clock, word, !prefetched);
        active += (arrivals[i] & EPT_ACTIVE) != 0;
    }
    clock_arrived(&engine->clock, page, (unsigned)pages, active);
    if (active)
        atomic_fetch_add_explicit(&engine->refaults, active, memory_order_relaxed);
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t word = atomic_load(&engine->words[page + i]) & kept;
        word_settle(&engine->words[page + i],
                    word | arrivals[i] | EPT_LOCAL | EPT_COPY | (prefetched ? EPT_PREFETCHED : 0));
    }
    return 0;
}
