/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulation: steps through the touches of a trace and moves pages between the states that the
 * engine knows (ept.h), in no time but for the reads. Frames are freed between the engine's own
 * watermarks, whatever the policy, so that policies differ in what they evict and in nothing else.
 */
#include "fault/replay_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SAMPLE_HISTORY 64 /* as the engine's */

static void *table_make(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

static void table_free(void *table, size_t bytes)
{
    if (table)
        munmap(table, bytes);
}

static void sim_destroy(struct sim *sim)
{
    sim_policy_destroy(sim);
    table_free(sim->words, sim->pages * sizeof(*sim->words));
    table_free(sim->blocks, sim->input->blocks * sizeof(*sim->blocks));
    table_free(sim->flags, sim->pages);
    table_free(sim->next, sim->pages * sizeof(*sim->next));
    table_free(sim->left_at, sim->pages * sizeof(*sim->left_at));
    free(sim);
}

static struct sim *sim_create(const struct replay_input *input, const struct replay_config *config)
{
    struct sim *sim = calloc(1, sizeof(*sim));
    if (!sim)
        return NULL;
    sim->input = input;
    sim->config = *config;
    sim->pages = (uint64_t)input->blocks << BLOCK_SHIFT;
    sim->low_free = config->local_pages / 16 < 4096 ? config->local_pages / 16 : 4096;
    sim->high_free = sim->low_free * 2;
    sim->accuracy = 65536;
    sim->words = table_make(sim->pages * sizeof(*sim->words));
    sim->blocks = table_make(input->blocks * sizeof(*sim->blocks));
    sim->flags = table_make(sim->pages);
    sim->next = table_make(sim->pages * sizeof(*sim->next));
    sim->left_at = table_make(sim->pages * sizeof(*sim->left_at));
    for (unsigned i = 0; i < TRACE_THREADS; i++)
        memset(sim->threads[i].markers, 0xff, sizeof(sim->threads[i].markers)); /* NO_PAGE */
    if (!sim->words || !sim->blocks || !sim->flags || !sim->next || !sim->left_at ||
        sim_policy_create(sim)) {
        sim_destroy(sim);
        return NULL;
    }
    memcpy(sim->next, input->first, sim->pages * sizeof(*sim->next));
    return sim;
}

/* ---- pages come and go ---- */

void sim_sample(struct sim *sim, uint32_t page)
{
    if (!(sim->flags[page] & SIM_SAMPLED))
        return;
    bool used = !(sim->flags[page] & SIM_UNUSED);
    sim->flags[page] &= (uint8_t)~SIM_SAMPLED;
    int accuracy = (int)sim->accuracy;
    sim->accuracy = (uint32_t)(accuracy + ((used ? 65536 : 0) - accuracy) / SAMPLE_HISTORY);
}

void sim_arrive(struct sim *sim, uint32_t page, bool demanded)
{
    uint64_t word = sim->words[page];
    uint64_t stamp =
        sim->config.policy == REPLAY_CLOCK ? clock_arrival(&sim->clock, word, demanded) : 0;
    sim->words[page] = stamp | (word & EPT_COPY) | EPT_LOCAL;
    if (demanded)
        sim->flags[page] = SIM_ACCESSED;
    sim_policy_arrived(sim, page);
}

void sim_page_left(struct sim *sim, uint32_t page, uint64_t stamp)
{
    sim_sample(sim, page);
    sim->result.wasted += sim->flags[page] & SIM_UNUSED ? 1 : 0;
    sim->flags[page] = 0;
    sim->words[page] = stamp << EPT_STAMP_SHIFT | EPT_COPY | EPT_REMOTE;
    sim->left_at[page] = ++sim->result.evicted;
    sim->resident--;
}

void sim_reclaim(struct sim *sim)
{
    if (sim_free(sim) >= sim->low_free)
        return;
    while (sim_free(sim) < sim->high_free && sim_policy_evict(sim))
        ;
}

static void frame_take(struct sim *sim)
{
    sim_reclaim(sim);
    if (!sim_free(sim)) { /* everything is in flight */
        sim_land(sim, UINT64_MAX);
        sim_reclaim(sim);
    }
    sim->resident++;
}

/* ---- what the trace says ---- */

static void page_used(struct sim *sim, uint32_t page)
{
    sim->result.used += sim->flags[page] & SIM_UNUSED ? 1 : 0;
    sim->flags[page] = (uint8_t)((sim->flags[page] & ~SIM_UNUSED) | SIM_ACCESSED);
    sim_policy_touched(sim, page);
}

static void touch_hit(struct sim *sim, const struct replay_event *event)
{
    bool sampled = sim->flags[event->page] & SIM_SAMPLED;
    page_used(sim, event->page);
    if (!sampled || event->thread >= TRACE_THREADS ||
        !sim_marker_reached(sim, event->thread, event->page))
        return;
    sim_sample(sim, event->page);
    sim_prefetch(sim, event->thread, event->page, PREFETCH_REACHED, event->write);
}

static void wait_until(struct sim *sim, struct sim_thread *thread, uint64_t ns)
{
    if (ns <= thread->now_ns)
        return;
    sim->result.stall_ns += ns - thread->now_ns;
    thread->now_ns = ns;
}

/* Where a touch of this page is counted. */
static struct replay_result *counts_of(struct sim *sim, uint32_t page)
{
    return replay_in_range(sim->input, page, sim->config.range) ? &sim->result : &sim->elsewhere;
}

static void touch_late(struct sim *sim, const struct replay_event *event, unsigned thread)
{
    wait_until(sim, &sim->threads[thread], sim_lands_at(sim, event->page));
    sim_land(sim, sim->threads[thread].now_ns);
    counts_of(sim, event->page)->late++;
    page_used(sim, event->page);
    if (event->thread < TRACE_THREADS)
        sim_prefetch(sim, thread, event->page, PREFETCH_LATE, event->write);
}

static void touch_miss(struct sim *sim, const struct replay_event *event, unsigned thread)
{
    struct sim_thread *at = &sim->threads[thread];
    uint64_t distance = sim->result.evicted - sim->left_at[event->page];
    struct replay_result *counts = counts_of(sim, event->page);
    counts->misses++;
    counts->refaults += distance < sim->config.local_pages;
    frame_take(sim);
    sim->words[event->page] = (sim->words[event->page] & ~EPT_STATE_MASK) | EPT_FETCHING;
    if (event->thread < TRACE_THREADS)
        sim_prefetch(sim, thread, event->page, PREFETCH_MISS, event->write);
    wait_until(sim, at, at->now_ns + sim->config.latency_ns);
    sim_arrive(sim, event->page, true);
}

/* Of one page; event number `next` touches it next. */
static void page_touch(struct sim *sim, const struct replay_event *event, uint32_t next)
{
    unsigned thread = event->thread % TRACE_THREADS;
    sim->threads[thread].now_ns += (uint64_t)event->ticks << TRACE_TICK_SHIFT;
    if (sim->in_flight)
        sim_land(sim, sim->threads[thread].now_ns);
    sim->next[event->page] = next;
    counts_of(sim, event->page)->touches++;
    switch (ept_word_state(sim->words[event->page])) {
    case EPT_LOCAL:
        touch_hit(sim, event);
        break;
    case EPT_FETCHING:
        touch_late(sim, event, thread);
        break;
    case EPT_REMOTE:
        touch_miss(sim, event, thread);
        break;
    default:
        counts_of(sim, event->page)->first++;
        frame_take(sim);
        sim_arrive(sim, event->page, true);
    }
}

/* One page after the other; the thread computed before the first. */
static void event_touch(struct sim *sim, const struct replay_event *event)
{
    const struct replay_stretch *stretch = &sim->input->stretches[event->stretch];
    struct replay_event one = *event;
    for (uint32_t left = event->pages; left; left -= stretch++->pages) {
        for (uint32_t i = 0; i < stretch->pages; i++, one.page++, one.ticks = 0)
            page_touch(sim, &one, stretch->next);
    }
}

/* First contents came for these too, when a neighbour was touched. */
static void event_fill(struct sim *sim, const struct replay_event *event)
{
    for (uint32_t i = event->page; i < event->page + event->pages; i++) {
        if (ept_word_state(sim->words[i]) != EPT_ABSENT)
            continue;
        frame_take(sim);
        sim_arrive(sim, i, false);
        sim->flags[i] = SIM_ACCESSED; /* as the engine primes it */
    }
}

static void page_discard(struct sim *sim, uint32_t page, uint32_t next)
{
    if (ept_word_state(sim->words[page]) == EPT_FETCHING)
        sim_land(sim, sim_lands_at(sim, page));
    uint64_t word = sim->words[page];
    if (ept_word_state(word) == EPT_LOCAL) {
        sim->result.wasted += sim->flags[page] & SIM_UNUSED ? 1 : 0;
        sim_policy_discarded(sim, page, word & EPT_ACTIVE);
        sim->resident--;
    }
    sim->flags[page] = 0;
    sim->words[page] = EPT_ABSENT;
    sim->next[page] = next;
}

static void event_discard(struct sim *sim, const struct replay_event *event)
{
    const struct replay_stretch *stretch = &sim->input->stretches[event->stretch];
    uint32_t page = event->page;
    for (uint32_t left = event->pages; left; left -= stretch++->pages) {
        for (uint32_t i = 0; i < stretch->pages; i++)
            page_discard(sim, page++, stretch->next);
    }
}

const char *replay_policy_name(enum replay_policy policy)
{
    static const char *const names[REPLAY_POLICIES] = {"clock", "fifo", "lru", "belady"};
    return names[policy];
}

int replay_run(const struct replay_input *input, const struct replay_config *config,
               struct replay_result *out)
{
    struct sim *sim = sim_create(input, config);
    if (!sim)
        return -ENOMEM;
    for (size_t i = 0; i < input->count; i++) {
        const struct replay_event *event = &input->events[i];
        if (event->kind == EVENT_TOUCH)
            event_touch(sim, event);
        else if (event->kind == EVENT_FILL)
            event_fill(sim, event);
        else
            event_discard(sim, event);
    }
    sim_land(sim, UINT64_MAX);
    for (uint64_t i = 0; i < sim->pages; i++)
        sim->result.wasted += sim->flags[i] & SIM_UNUSED ? 1 : 0;
    *out = sim->result;
    sim_destroy(sim);
    return 0;
}
