/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The paging engine: policy over ept/ (mechanism) and rdma/ (far memory). Demand fetch, prefetch,
 * residency bound, write-back and reclaim. Knows nothing of KVM or sockets.
 */
#ifndef FARVISOR_FAULT_H
#define FARVISOR_FAULT_H

#include "ept/ept.h"
#include "rdma/rdma.h"

#include <stdbool.h>
#include <stdint.h>

struct fault_engine;
struct fault_context; /* one a thread that faults: its queue and buffers */

/*
 * Where the first contents of a page come from. Called for ABSENT pages in FILLING, no locks held.
 */
struct fault_source {
    /* Bounds the run of pages [*first, *last) around `page` that share its origin and may be filled
     * together; sets *zero when they are zero pages. Returns 0, or -EFAULT if nothing is mapped. */
    int (*extent)(void *owner, uint64_t page, uint64_t *first, uint64_t *last, bool *zero);
    /* Reads the initial bytes of `pages` pages into `to`. 0 or -errno (-EIO: SIGBUS). */
    int (*read)(void *owner, uint64_t page, uint64_t pages, void *to);
    void *owner;
};

struct fault_config {
    struct ept *ept;
    struct rdma_node *node; /* NULL: nothing is remote, only file contents are filled */
    uint64_t memory_pages;  /* quota on pages that exist, here and remote */
    uint64_t local_pages;   /* hard bound on resident pages */
    uint64_t timeout_ns;    /* longest wait on the node or on another thread */
    struct fault_source source;
};

#endif
