/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Remote memory by the slab: which slabs the node holds for us and where. The table is read without
 * a lock on every transfer; changes go through the node's lock together with the message that tells
 * the server, so that table and server see the same order. A tenant that walks upwards gets a few
 * slabs ahead in the same round trip; slabs asked ahead are given back before "full" is reported.
 */
#include "rdma/transport.h"
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static uint64_t slab_place(const struct rdma_node *node, uint64_t slab)
{
    return atomic_load_explicit(&node->slabs[slab].place, memory_order_acquire);
}

static void slabs_ahead_forget(struct rdma_node *node, uint64_t slab)
{
    for (uint32_t i = 0; i < node->ahead_count; i++) {
        if (node->ahead[i] == slab) {
            node->ahead[i] = node->ahead[--node->ahead_count];
            return;
        }
    }
}

static void slab_claim(struct rdma_node *node, uint64_t slab)
{
    uint64_t held = atomic_fetch_add(&node->slabs_held, 1) + 1;

    atomic_fetch_or(&node->slabs[slab].place, SLAB_CLAIMED);
    /* Under the lock, so plain maximum is right. */
    if (held > atomic_load(&node->slabs_peak))
        atomic_store(&node->slabs_peak, held);
}

/* Lock held: takes the slab out of the table and tells the server. */
static int slab_give_back(struct rdma_node *node, uint64_t slab)
{
    union wire_message release;

    wire_message_init(&release, WIRE_RELEASE);
    release.range.first_slab = slab;
    release.range.count = 1;
    atomic_store(&node->slabs[slab].place, 0);
    return rdma_control_send(node, &release);
}

/* Lock held. Returns how many were given back, or -errno. */
static int slabs_ahead_drop(struct rdma_node *node)
{
    int dropped = 0;

    while (node->ahead_count > 0) {
        int error = slab_give_back(node, node->ahead[--node->ahead_count]);

        if (error)
            return error;
        dropped++;
    }
    return dropped;
}

/* Lock held: how many slabs from `slab` on to ask for; `wanted` ends the caller's own range. */
static uint32_t slabs_run(const struct rdma_node *node, uint64_t slab, uint64_t wanted)
{
    uint64_t end = wanted;
    uint32_t run = 1;

    if (slab == node->last_reserved && node->ahead_count == 0)
        end = wanted + NODE_AHEAD_SLABS;
    if (end > node->slab_count)
        end = node->slab_count;
    while (slab + run < end && run < WIRE_SLABS_MAX && !slab_place(node, slab + run))
        run++;
    return run;
}

/* Lock held: one round trip for [slab, slab + run). Returns 0 (granted some), 1 (full), -errno. */
static int slabs_ask(struct rdma_node *node, uint64_t slab, uint32_t run)
{
    struct patience patience = rdma_patience(node);
    union wire_message reserve;
    int error;

    wire_message_init(&reserve, WIRE_RESERVE);
    reserve.range.first_slab = slab;
    reserve.range.count = run;
    node->reserving = true;
    node->reserve_answered = false;
    node->reserve_first = slab;
    node->reserve_count = run;
    error = rdma_control_send(node, &reserve);
    while (!error && !node->reserve_answered)
        error = rdma_control_wait(node, &patience);
    node->reserving = false;
    if (error == -ETIMEDOUT && node->reserve_answered)
        error = 0; /* it came late, but it came */
    if (error == -ETIMEDOUT)
        rdma_node_fail(node, error, "did not answer a request for memory within %.1f s",
                       (double)node->timeout_ns / 1e9);
    if (error)
        return error;
    for (uint32_t i = 0; i < node->reserve_answer.count; i++) {
        struct slab_entry *entry = &node->slabs[slab + i];

        atomic_store(&entry->key, node->reserve_answer.slabs[i].key);
        atomic_store_explicit(&entry->place, node->reserve_answer.slabs[i].remote | SLAB_GRANTED,
                              memory_order_release);
    }
    return node->reserve_answer.count == 0;
}

static int slabs_full(struct rdma_node *node)
{
    char quota[32];

    if (!node->full_told)
        message_error("memory node %s: full: %s (this tenant may hold %s)", node->address_text,
                      node->reserve_answer.full == 1 ? "the tenant's quota is used up"
                                                     : "its capacity is used up",
                      format_bytes(node->ready.quota_bytes, quota, sizeof(quota)));
    node->full_told = true;
    return -ENOSPC;
}

/* Lock held: slab is not granted yet; `wanted` as slabs_run. */
static int slabs_obtain(struct rdma_node *node, uint64_t slab, uint64_t wanted)
{
    uint32_t run = slabs_run(node, slab, wanted);
    int full = slabs_ask(node, slab, run);

    if (full > 0 && node->ahead_count > 0) {
        int dropped = slabs_ahead_drop(node);

        if (dropped < 0)
            return dropped;
        full = slabs_ask(node, slab, 1);
    }
    if (full < 0)
        return full;
    if (full > 0)
        return slabs_full(node);
    for (uint64_t at = wanted; at < slab + node->reserve_answer.count; at++)
        node->ahead[node->ahead_count++] = at;
    return 0;
}

/* Lock held: claims [first, end), asking where needed. */
static int slabs_claim(struct rdma_node *node, uint64_t first, uint64_t end)
{
    struct patience patience = rdma_patience(node);
    int error = 0;

    /* Another thread's round trip: slabs it gets may be ours. */
    while (node->claiming && !error)
        error = rdma_control_wait(node, &patience);
    if (error == -ETIMEDOUT && !node->claiming)
        error = 0;
    if (error)
        return error;
    node->claiming = true;
    for (uint64_t slab = first; slab < end && !error; slab++) {
        if (slab_place(node, slab) & SLAB_CLAIMED)
            continue;
        if (!slab_place(node, slab))
            error = slabs_obtain(node, slab, end);
        if (error)
            break;
        slabs_ahead_forget(node, slab);
        slab_claim(node, slab);
    }
    node->last_reserved = end;
    node->claiming = false;
    pthread_cond_broadcast(&node->changed);
    return error;
}

int rdma_reserve(struct rdma_node *node, uint64_t page, uint64_t pages)
{
    uint64_t first = page / RDMA_SLAB_PAGES;
    uint64_t last_page, slab;
    int error;

    if (pages == 0)
        return 0;
    if (__builtin_add_overflow(page, pages - 1, &last_page) || last_page >= node->span_pages)
        return -EINVAL;
    for (slab = first; slab <= last_page / RDMA_SLAB_PAGES; slab++) {
        if (!(slab_place(node, slab) & SLAB_CLAIMED))
            break;
    }
    error = rdma_node_error(node);
    if (error || slab > last_page / RDMA_SLAB_PAGES)
        return error;
    pthread_mutex_lock(&node->lock);
    error = slabs_claim(node, slab, last_page / RDMA_SLAB_PAGES + 1);
    pthread_mutex_unlock(&node->lock);
    return error;
}

int rdma_release_slab(struct rdma_node *node, uint64_t page)
{
    uint64_t slab = page / RDMA_SLAB_PAGES;
    int error = rdma_node_error(node);

    if (page % RDMA_SLAB_PAGES || page >= node->span_pages)
        return -EINVAL;
    if (error)
        return error;
    pthread_mutex_lock(&node->lock);
    if (slab_place(node, slab) & SLAB_CLAIMED) {
        atomic_fetch_sub(&node->slabs_held, 1);
        node->full_told = false;
        error = slab_give_back(node, slab);
    }
    pthread_mutex_unlock(&node->lock);
    return error;
}
