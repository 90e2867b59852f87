/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Storm pages: checksums, stamps, locks, and the comparison with the truth. The checksum is a sum
 * of one term a word, so that a small write updates it without reading the whole page.
 */
#include "storm.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#define REPORTS_MAX 20u

uint64_t storm_random(uint64_t *state)
{
    /* splitmix64 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t storm_term(uint64_t index, uint64_t word)
{
    if (word == 0)
        return 0;
    uint64_t z = (word ^ (index * 0x9e3779b97f4a7c15u)) * 0xff51afd7ed558ccdu;
    return z ^ (z >> 29);
}

uint64_t storm_sum(const uint64_t *page)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < STORM_PAGE_WORDS; i++)
        if (i < STORM_HEADER_WORD || i >= STORM_HEADER_WORD + 3)
            sum += storm_term(i, page[i]);
    return sum;
}

uint64_t *storm_page(const struct storm *storm, uint64_t page)
{
    return (uint64_t *)(void *)(storm->region + page * STORM_PAGE_BYTES);
}

void storm_lock(struct storm *storm, uint64_t page, uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++)
        for (unsigned spins = 0; atomic_exchange(&storm->truth[page + i].lock, 1); spins++)
            if (spins > 64)
                sched_yield();
}

void storm_unlock(struct storm *storm, uint64_t page, uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++)
        atomic_store(&storm->truth[page + i].lock, 0);
}

void storm_report(struct storm *storm, const char *what, uint64_t page, uint64_t want,
                  uint64_t found)
{
    if (atomic_fetch_add(&storm->mismatches, 1) < REPORTS_MAX)
        fprintf(stderr, "storm: page %llu (%p): %s: want %#llx, found %#llx\n",
                (unsigned long long)page, (void *)storm_page(storm, page), what,
                (unsigned long long)want, (unsigned long long)found);
}

void storm_check(struct storm *storm, uint64_t page, bool whole)
{
    const struct storm_truth *truth = &storm->truth[page];
    const volatile uint64_t *header = storm_page(storm, page) + STORM_HEADER_WORD;
    uint64_t owner = header[0];
    uint64_t version = header[1];
    uint64_t sum = header[2];

    if (owner != (truth->version ? page + 1 : 0))
        storm_report(storm, owner ? "foreign page" : "zeroes for a written page", page,
                     truth->version ? page + 1 : 0, owner);
    else if (version != truth->version)
        storm_report(storm, version < truth->version ? "stale version" : "version from the future",
                     page, truth->version, version);
    else if (sum != truth->sum)
        storm_report(storm, "header checksum", page, truth->sum, sum);
    else if (whole && storm_sum(storm_page(storm, page)) != truth->sum)
        storm_report(storm, "payload differs from its checksum", page, truth->sum,
                     storm_sum(storm_page(storm, page)));
}

void storm_stamp(struct storm *storm, uint64_t page, uint64_t sum)
{
    struct storm_truth *truth = &storm->truth[page];
    uint64_t *header = storm_page(storm, page) + STORM_HEADER_WORD;

    truth->version++;
    truth->sum = sum;
    header[0] = page + 1;
    header[1] = truth->version;
    header[2] = sum;
}

void storm_forget(struct storm *storm, uint64_t page, uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++) {
        storm->truth[page + i].version = 0;
        storm->truth[page + i].sum = 0;
    }
}
