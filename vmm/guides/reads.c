/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of the hint channel: bytes of pages that stay where they are, one node at a time or along
 * a chain of `next` pointers. Runs on the hint thread. A node is read into private memory, which
 * the guest cannot change while its `next` is looked at, and then shown in the answer slot.
 *
 * Where the memory node can follow a chain by itself it is asked to, from each node on that is
 * remote; what it brings is taken up to the first node that it cannot have known, and that one is
 * looked at like any other.
 */
#include "vmm/guides/hints.h"

#include "support.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CHAIN_LEAST 2u /* an answer with fewer good nodes was not worth more than a look ... */
#define CHAIN_REST  4u /* ... and so many nodes are looked at before the next one */

/* Writes one answer; wakes who sleeps on it. */
static void slot_answer(struct hint_ring *ring, uint16_t slot, uint32_t status, gpa_t address,
                        const uint8_t *data, uint32_t bytes)
{
    struct fv_read *answer = &ring->shared->reads[slot];
    answer->bytes = bytes;
    answer->address = address;
    if (bytes)
        memcpy(ring->shared->data[slot], data, bytes);
    if (__atomic_exchange_n(&answer->status, status, __ATOMIC_SEQ_CST) == FV_READ_WAITED)
        syscall(SYS_futex, &answer->status, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* The rest of a chain that is over before its last node. */
static void chain_end(struct hint_read *read)
{
    for (; read->hops > 0; read->hops--)
        slot_answer(read->ring, read->slot++, FV_READ_END, 0, NULL, 0);
    read->active = false;
    read->ring->reading--;
}

static void part_done(struct fault_peek *peek);

/* Describes the node at read->address as one or two looks. false: the program may not read it. */
static bool node_prepare(struct hint_read *read)
{
    struct vm *vm = read->ring->hints->vm;
    uint32_t here = (uint32_t)(EPT_PAGE_BYTES - read->address % EPT_PAGE_BYTES);
    gpa_t end;
    if (__builtin_add_overflow(read->address, read->bytes, &end) || end > ept_span(vm->ept) ||
        !mm_allows(vm->mm, read->address, read->bytes, EPT_READ))
        return false;
    if (here > read->bytes)
        here = read->bytes;
    read->parts = here < read->bytes ? 2 : 1;
    read->part[0] = (struct fault_peek){.gpa = read->address, .bytes = here, .to = read->data};
    read->part[1] = (struct fault_peek){
        .gpa = read->address + here, .bytes = read->bytes - here, .to = read->data + here};
    for (unsigned i = 0; i < read->parts; i++) {
        read->part[i].done = part_done;
        read->part[i].owner = read;
    }
    read->next_part = read->open_parts = 0;
    read->failed = 0;
    return true;
}

/* The node was read, or cannot be: shows it and steps on to the next one. true: there is one. */
static bool node_finish(struct hint_read *read)
{
    uint32_t status = read->failed == 0          ? FV_READ_DONE
                      : read->failed == -ENODATA ? FV_READ_TOUCH
                                                 : FV_READ_FAULT;
    uint32_t bytes = status == FV_READ_DONE ? read->bytes : 0;
    gpa_t next = 0;
    if (bytes)
        hint_count(&read->ring->hints->counters.read_bytes, bytes);
    slot_answer(read->ring, read->slot++, status, read->address, read->data, bytes);
    read->hops--;
    read->plain -= read->plain > 0;
    if (read->hops > 0 && bytes) /* next_bytes was checked against the node's size */
        memcpy(&next, read->data + read->next_bytes, sizeof(next));
    if (next == 0) {
        chain_end(read);
        return false;
    }
    read->address = next;
    if (node_prepare(read))
        return true;
    slot_answer(read->ring, read->slot++, FV_READ_FAULT, next, NULL, 0);
    read->hops--;
    chain_end(read);
    return false;
}

static void read_go_on(struct hint_read *read);

/* Takes what the memory node brought as far as it is known to be good. */
static void chain_done(struct fault_chain *chain)
{
    struct hint_read *read = chain->owner;
    struct hints *hints = read->ring->hints;
    bool more = true;
    uint32_t good = 0;
    while (more && good < chain->got &&
           fault_chain_valid(hints->vm->engine, chain, read->address)) {
        memcpy(read->data, chain->data + (size_t)good++ * read->bytes, read->bytes);
        more = node_finish(read);
    }
    hint_count(&hints->counters.chain_nodes, good);
    hint_count(&hints->counters.chain_stale_nodes, more ? chain->got - good : 0);
    chain->owner = NULL;
    read->chained = false;
    /* The next one may be here; whatever it is, only a look tells. */
    read->plain = good < CHAIN_LEAST ? CHAIN_REST : good < chain->got ? 1 : 0;
    /* Where much is out of date, asking for all of it is a waste. */
    read->reach = good == chain->got ? read->reach * 2 : good * 2;
    if (read->reach < CHAIN_REST)
        read->reach = CHAIN_REST;
    if (read->reach > FAULT_CHAIN_NODES)
        read->reach = FAULT_CHAIN_NODES;
    if (more)
        read_go_on(read);
}

static struct fault_chain *chain_free(struct hints *hints)
{
    if (!hints->chains)
        hints->chains = calloc(HINT_CHAINS, sizeof(*hints->chains));
    for (unsigned i = 0; hints->chains && i < HINT_CHAINS; i++)
        if (!hints->chains[i].owner)
            return &hints->chains[i];
    return NULL;
}

/* Has the memory node follow the chain from here on; false: this node is looked at. */
static bool chain_begin(struct hint_read *read)
{
    struct hints *hints = read->ring->hints;
    struct fault_chain *chain;
    if (read->hops < CHAIN_LEAST || read->plain || !(chain = chain_free(hints)))
        return false;
    chain->gpa = read->address;
    chain->node_bytes = read->bytes;
    chain->next_bytes = (uint32_t)read->next_bytes;
    chain->nodes = read->hops < read->reach ? read->hops : read->reach;
    chain->done = chain_done;
    if (fault_chain_start(hints->fault, chain) != 1)
        return false;
    hint_count(&hints->counters.chains, 1);
    chain->owner = read;
    read->chained = true;
    return true;
}

/* Starts what can be started; goes on through nodes that are here already. */
static void read_go_on(struct hint_read *read)
{
    struct fault_context *fault = read->ring->hints->fault;
    bool more = true;
    while (more) {
        if (read->next_part == 0 && chain_begin(read))
            return; /* chain_done goes on */
        while (read->next_part < read->parts) {
            struct fault_peek *peek = &read->part[read->next_part];
            int started = fault_peek_start(fault, peek);
            if (started == -EAGAIN)
                return; /* hint_reads_retry comes by */
            read->next_part++;
            if (started == 1)
                read->open_parts++;
            else if (peek->status && !read->failed)
                read->failed = peek->status;
        }
        if (read->open_parts)
            return; /* part_done goes on */
        more = node_finish(read);
    }
}

static void part_done(struct fault_peek *peek)
{
    struct hint_read *read = peek->owner;
    if (peek->status && !read->failed)
        read->failed = peek->status;
    read->open_parts--;
    if (read->open_parts == 0 && read->next_part == read->parts)
        read_go_on(read);
}

static bool read_is_sane(const struct fv_hint *hint)
{
    if (hint->slot >= FV_READS || hint->bytes == 0 || hint->bytes > FV_READ_BYTES)
        return false;
    return hint->op == FV_HINT_READ ||
           (hint->hops > 0 && hint->hops <= FV_READS - hint->slot && hint->bytes >= sizeof(gpa_t) &&
            hint->next_bytes <= hint->bytes - sizeof(gpa_t));
}

static int reads_make(struct hint_ring *ring)
{
    if (!ring->reads)
        ring->reads = calloc(FV_READS, sizeof(*ring->reads));
    return ring->reads ? 0 : -ENOMEM;
}

void hint_read_begin(struct hint_ring *ring, const struct fv_hint *hint)
{
    struct hint_read *read;
    if (!read_is_sane(hint)) {
        hint_count(&ring->hints->counters.malformed, 1);
        return;
    }
    if (reads_make(ring)) {
        slot_answer(ring, hint->slot, FV_READ_TOUCH, hint->address, NULL, 0);
        return;
    }
    read = &ring->reads[hint->slot];
    if (read->active) {
        hint_count(&ring->hints->counters.malformed, 1);
        return;
    }
    hint_count(&ring->hints->counters.reads, 1);
    read->ring = ring;
    read->active = true;
    ring->reading++;
    read->slot = hint->slot;
    read->plain = 0;
    read->reach = FAULT_CHAIN_NODES;
    read->chained = false;
    read->hops = hint->op == FV_HINT_CHAIN ? hint->hops : 1;
    read->bytes = (uint32_t)hint->bytes;
    read->next_bytes = hint->next_bytes;
    read->address = hint->address;
    if (node_prepare(read)) {
        read_go_on(read);
        return;
    }
    slot_answer(ring, read->slot++, FV_READ_FAULT, hint->address, NULL, 0);
    read->hops--;
    chain_end(read);
}

void hint_reads_retry(struct hint_ring *ring)
{
    for (unsigned i = 0, seen = ring->reading; i < FV_READS && seen > 0; i++) {
        struct hint_read *read = &ring->reads[i];
        if (!read->active)
            continue;
        seen--;
        if (!read->chained && read->next_part < read->parts)
            read_go_on(read);
    }
}
