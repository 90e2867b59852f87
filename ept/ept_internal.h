/* SPDX-License-Identifier: Apache-2.0 */
/* Private to ept/: the second stage's own state. */
#ifndef FARVISOR_EPT_INTERNAL_H
#define FARVISOR_EPT_INTERNAL_H

#include "ept/ept.h"

#include <pthread.h>

/* One TiB of addresses: the state words of it all are 2 GiB of untouched, hence free, host memory.
 */
#ifdef __SANITIZE_THREAD__ /* it leaves 1.5 TiB to the program, split by the stack */
#define EPT_SPAN_BITS_MAX 39
#else
#define EPT_SPAN_BITS_MAX 40
#endif
#define EPT_SLOTS_MAX (1u << (EPT_SPAN_BITS_MAX - 30))

struct ept {
    struct ept_config config;
    gpa_t span_bytes;
    uint8_t *base;     /* host address of guest address 0 */
    int memory_fd;     /* memfd behind all pageable memory, offset = guest address */
    int uffd;          /* -1 where there is none */
    int statm_fd;      /* /proc/self/statm */
    ept_word_t *words; /* page table of states */
    atomic_bool maps_ahead;
    pthread_mutex_t slot_lock;
    atomic_bool slot_backed[EPT_SLOTS_MAX];

    pthread_mutex_t table_lock;
    uint64_t table_next; /* next free table in the pool */
};

/* ---- tables.c ---- */
int ept_tables_create(struct ept *ept);

/* ---- frames.c ---- */
int ept_frames_create(struct ept *ept);
int ept_frames_watch(struct ept *ept, gpa_t gpa, uint64_t bytes);

/* ---- ahead.c ---- */
void ept_ahead_create(struct ept *ept);

#endif
