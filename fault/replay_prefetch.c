/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flights and markers, as lane.c has them, in the simulator's time: a read takes the latency it was
 * given. The prefetchers see the program's own page numbers.
 */
#include "fault/replay_internal.h"

#define AHEAD_MAX    (SIM_FLIGHTS_EACH * PREFETCH_RUN_PAGES) /* this and the rest as in lane.c */
#define AHEAD_SHARE  16u
#define SAMPLE_PAGES 8u

/* ---- landing ---- */

static void flight_land(struct sim *sim, struct sim_flight *flight)
{
    for (uint32_t i = flight->page; i < flight->page + flight->pages; i++) {
        bool tells = i % SAMPLE_PAGES == 0 || flight->pages < SAMPLE_PAGES;
        sim->flags[i] = SIM_UNUSED | (tells ? SIM_SAMPLED : SIM_ACCESSED);
        sim_arrive(sim, i, false);
        sim->words[i] |= EPT_PREFETCHED;
    }
    sim->threads[flight->thread].flights--;
    sim->in_flight--;
    flight->pages = 0;
}

void sim_land(struct sim *sim, uint64_t now_ns)
{
    for (unsigned i = 0, left = sim->in_flight; i < SIM_FLIGHTS && left; i++) {
        struct sim_flight *flight = &sim->flights[i];
        if (!flight->pages)
            continue;
        left--;
        if (flight->lands_ns <= now_ns)
            flight_land(sim, flight);
    }
}

uint64_t sim_lands_at(const struct sim *sim, uint32_t page)
{
    for (unsigned i = 0; i < SIM_FLIGHTS; i++) {
        const struct sim_flight *flight = &sim->flights[i];
        if (page >= flight->page && page < flight->page + flight->pages)
            return flight->lands_ns;
    }
    return 0;
}

/* ---- starting ---- */

/* Guessed pages leave a reserve for those that are demanded (frames.c). */
static uint64_t frames_optional(const struct sim *sim)
{
    uint64_t limit = sim->config.local_pages - sim->low_free / 2;
    return sim->resident < limit ? limit - sim->resident : 0;
}

static struct sim_flight *flight_get(struct sim *sim, unsigned thread)
{
    if (sim->threads[thread].flights == SIM_FLIGHTS_EACH || sim->in_flight == SIM_FLIGHTS)
        return NULL;
    struct sim_flight *flight = sim->flights;
    while (flight->pages)
        flight++;
    return flight;
}

/* A run of remote pages from `page` on, within its block. How many were started. */
static uint32_t flight_start(struct sim *sim, unsigned thread, uint32_t page, uint64_t most)
{
    struct sim_flight *flight = flight_get(sim, thread);
    uint64_t frames = frames_optional(sim), to_block_end = BLOCK_PAGES - page % BLOCK_PAGES;
    uint32_t got = 0;
    most = most < to_block_end ? most : to_block_end;
    most = most < frames ? most : frames;
    while (flight && got < most && ept_word_state(sim->words[page + got]) == EPT_REMOTE) {
        uint64_t word = sim->words[page + got];
        sim->words[page + got++] = (word & ~EPT_STATE_MASK) | EPT_FETCHING;
    }
    if (!got)
        return 0;
    flight->page = page;
    flight->pages = got;
    flight->thread = thread;
    flight->lands_ns = sim->threads[thread].now_ns + sim->config.latency_ns;
    sim->threads[thread].flights++;
    sim->in_flight++;
    sim->resident += got;
    sim->result.prefetched += got;
    return got;
}

/* As lane_fetch: pages passed, and the first page that can tell that it was touched. */
static uint32_t run_start(struct sim *sim, unsigned thread, uint64_t number, uint32_t pages,
                          uint32_t *marker)
{
    uint32_t at = 0;
    while (at < pages) {
        uint32_t page = replay_page_find(sim->input, number + at);
        if (page == NO_PAGE || ept_word_state(sim->words[page]) != EPT_REMOTE) {
            at++;
            continue;
        }
        uint32_t got = flight_start(sim, thread, page, pages - at);
        if (!got)
            break;
        if (*marker == NO_PAGE)
            *marker =
                got < SAMPLE_PAGES ? page : (page + SAMPLE_PAGES - 1) / SAMPLE_PAGES * SAMPLE_PAGES;
        at += got;
    }
    return at;
}

void sim_prefetch(struct sim *sim, unsigned thread, uint32_t page, enum prefetch_cause cause,
                  bool write)
{
    struct sim_thread *at = &sim->threads[thread];
    const struct prefetcher *prefetcher = sim->config.prefetcher;
    uint64_t most = sim->config.local_pages / AHEAD_SHARE;
    struct prefetch_touch touch = {
        .page = replay_page_number(sim->input, page),
        .cause = cause,
        .write = write,
        .max_pages = most < AHEAD_MAX ? (uint32_t)most : AHEAD_MAX,
        .accuracy_percent = sim->accuracy * 100 >> 16,
    };
    struct prefetch_plan plan;
    uint32_t done = 0, marker = NO_PAGE;
    prefetcher->plan(&at->state, &touch, &plan);
    if (!plan.count)
        return;
    sim_reclaim(sim);
    for (uint32_t i = 0; i < plan.count; i++) {
        uint32_t passed = run_start(sim, thread, plan.runs[i].page, plan.runs[i].pages, &marker);
        done += passed;
        if (passed < plan.runs[i].pages)
            break;
    }
    prefetcher->posted(&at->state, &plan, done);
    if (marker == NO_PAGE)
        return;
    at->marker_next = (at->marker_next + 1) % SIM_MARKERS;
    at->markers[at->marker_next] = marker;
}

bool sim_marker_reached(struct sim *sim, unsigned thread, uint32_t page)
{
    struct sim_thread *at = &sim->threads[thread];
    for (unsigned i = 0; i < SIM_MARKERS; i++) {
        if (at->markers[i] != page)
            continue;
        at->markers[i] = NO_PAGE;
        return true;
    }
    return false;
}
