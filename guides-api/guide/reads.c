/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes of pages that stay remote: requests into the ring, answers out of its slots. Whatever
 * cannot be had that way (natively, page never written, channel switched off) is simply copied,
 * which touches the page.
 */
#include "guide/internal.h"

#include <errno.h>
#include <string.h>

#define SPIN_LOOKS  2000u /* some 50 us: about what going to sleep and being woken costs */
#define WAIT_NS     100000000u
#define GIVE_UP_MAX 50u /* slices without an answer from a channel that was switched off */

/* guide_read.reserved[0] */
enum { READ_WAITS, READ_POSTED, READ_FINISHED };

static int slots_take(struct guide_thread *thread, unsigned count)
{
    unsigned run = 0;
    for (unsigned i = 0; i < FV_READS; i++) {
        run = thread->slots[i / 64] >> (i % 64) & 1 ? 0 : run + 1;
        if (run < count)
            continue;
        for (unsigned j = i + 1 - count; j <= i; j++)
            thread->slots[j / 64] |= 1ULL << (j % 64);
        return (int)(i + 1 - count);
    }
    return -EAGAIN;
}

static void slots_give(struct guide_thread *thread, unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++) {
        __atomic_store_n(&thread->ring->reads[i].status, FV_READ_FREE, __ATOMIC_RELAXED);
        thread->slots[i / 64] &= ~(1ULL << (i % 64));
    }
}

static void slot_prepare(struct guide_thread *thread, unsigned slot)
{
    __atomic_store_n(&thread->ring->reads[slot].status, FV_READ_PENDING, __ATOMIC_RELAXED);
}

/* The answer's status; 0 when there will be none. */
static uint32_t slot_wait(struct guide_thread *thread, unsigned slot)
{
    struct fv_hint_ring *ring = thread->ring;
    unsigned given_up = 0;
    for (unsigned looks = 0;; looks++) {
        uint32_t status = __atomic_load_n(&ring->reads[slot].status, __ATOMIC_ACQUIRE);
        if (status >= FV_READ_DONE)
            return status;
        if (looks < SPIN_LOOKS) {
            __builtin_ia32_pause();
            continue;
        }
        long slept = guide_call(FV_GUIDE_WAIT, slot, WAIT_NS, 0);
        bool off = __atomic_load_n(&ring->state, __ATOMIC_RELAXED) != FV_HINT_ON;
        if (slept == -ETIMEDOUT && off && ++given_up == GIVE_UP_MAX)
            return 0;
        if (slept == -EINVAL)
            return 0;
    }
}

/* ---- single reads ---- */

static void read_copy(struct guide_read *read)
{
    memcpy(read->to, read->from, read->bytes);
    read->status = 0;
    read->reserved[0] = READ_FINISHED;
}

/* Posts it; false: no slot is free now. What cannot be posted at all is copied. */
static bool read_post(struct guide_thread *thread, struct guide_read *read)
{
    if (!thread || thread->posting || !guide_ring()) {
        read_copy(read);
        return true;
    }
    int slot = slots_take(thread, 1);
    if (slot < 0)
        return false;
    struct fv_hint hint = {.op = FV_HINT_READ,
                           .slot = (uint16_t)slot,
                           .address = (uintptr_t)read->from,
                           .bytes = read->bytes};
    slot_prepare(thread, (unsigned)slot);
    if (guide_post_wait(thread, &hint)) {
        slots_give(thread, (unsigned)slot, 1);
        read_copy(read);
        return true;
    }
    read->reserved[0] = READ_POSTED;
    read->reserved[1] = (uint32_t)slot;
    return true;
}

static void read_finish(struct guide_thread *thread, struct guide_read *read)
{
    unsigned slot = read->reserved[1];
    uint32_t status = slot_wait(thread, slot);
    if (status == FV_READ_DONE)
        memcpy(read->to, thread->ring->data[slot], read->bytes);
    read->status = status == FV_READ_FAULT ? -EFAULT : 0;
    read->reserved[0] = READ_FINISHED;
    if (status == FV_READ_TOUCH || status == 0)
        read_copy(read);
    if (status != 0) /* an answer that may still come keeps its slot */
        slots_give(thread, slot, 1);
}

/* In a handler of a fault nobody may be waited for: what is here now, or -EAGAIN. */
static int reads_here(struct guide_read *reads, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        bool valid = reads[i].bytes > 0 && reads[i].bytes <= GUIDE_READ_MAX;
        reads[i].status = valid ? (int32_t)guide_call(FV_GUIDE_COPY, (uintptr_t)reads[i].from,
                                                      (uintptr_t)reads[i].to, reads[i].bytes)
                                : -EINVAL;
        reads[i].reserved[0] = READ_FINISHED;
    }
    return 0;
}

/* Those that were begun in the handler are finished; the program's own have to wait for it. */
static int reads_here_result(const struct guide_read *reads, size_t count)
{
    int error = 0;
    for (size_t i = 0; i < count && !error; i++)
        error = reads[i].reserved[0] == READ_FINISHED ? reads[i].status : -EAGAIN;
    return error;
}

GUIDE_PUBLIC int guide_reads_start(struct guide_read *reads, size_t count)
{
    if (guide_fault_self())
        return reads_here(reads, count);
    struct guide_thread *thread = guide_thread_self();
    bool room = true;
    for (size_t i = 0; i < count; i++) {
        bool valid = reads[i].bytes > 0 && reads[i].bytes <= GUIDE_READ_MAX;
        reads[i].status = valid ? 0 : -EINVAL;
        reads[i].reserved[0] = valid ? READ_WAITS : READ_FINISHED;
        if (valid && room)
            room = read_post(thread, &reads[i]);
    }
    return 0;
}

GUIDE_PUBLIC int guide_reads_wait(struct guide_read *reads, size_t count)
{
    if (guide_fault_self())
        return reads_here_result(reads, count);
    struct guide_thread *thread = guide_thread_self();
    size_t next = 0; /* the first that may not be posted yet */
    int error = 0;
    for (size_t i = 0; i < count; i++) {
        /* Slots that came free go to those still waiting, before this thread sleeps. */
        if (next < i)
            next = i;
        while (next < count &&
               (reads[next].reserved[0] != READ_WAITS || read_post(thread, &reads[next])))
            next++;
        if (reads[i].reserved[0] == READ_WAITS)
            read_copy(&reads[i]); /* every slot is taken by reads not waited for here */
        if (reads[i].reserved[0] == READ_POSTED)
            read_finish(thread, &reads[i]);
        if (!error)
            error = reads[i].status;
    }
    return error;
}

GUIDE_PUBLIC int guide_read(const void *from, void *to, size_t bytes)
{
    struct guide_read read = {.from = from, .to = to, .bytes = (uint32_t)bytes};
    if (bytes == 0 || bytes > GUIDE_READ_MAX)
        return -EINVAL;
    guide_reads_start(&read, 1);
    return guide_reads_wait(&read, 1);
}

/* ---- chains ---- */

static const void *next_of(const uint8_t *node, size_t next_offset)
{
    const void *next;
    memcpy(&next, node + next_offset, sizeof(next));
    return next;
}

/*
 * A part of a chain through the ring, from *at on. Returns the nodes read, with *at the next one or
 * NULL at the end, or -EAGAIN: the node at *at is to be touched instead; or -EFAULT.
 */
static long chain_part(struct guide_thread *thread, const void **at, size_t node_bytes,
                       size_t next_offset, uint8_t *to, size_t nodes)
{
    unsigned hops = nodes < FV_READS / 2 ? (unsigned)nodes : FV_READS / 2;
    int first = !thread || thread->posting || !guide_ring() ? -EAGAIN : slots_take(thread, hops);
    if (first < 0)
        return -EAGAIN;
    struct fv_hint hint = {.op = FV_HINT_CHAIN,
                           .slot = (uint16_t)first,
                           .hops = (uint16_t)hops,
                           .address = (uintptr_t)*at,
                           .bytes = node_bytes,
                           .next_bytes = next_offset};
    for (unsigned i = 0; i < hops; i++)
        slot_prepare(thread, (unsigned)first + i);
    bool posted = guide_post_wait(thread, &hint) == 0;
    uint32_t status = posted ? FV_READ_DONE : FV_READ_TOUCH;
    long got = 0;
    for (; status == FV_READ_DONE && got < hops; got++) {
        unsigned slot = (unsigned)first + (unsigned)got;
        status = slot_wait(thread, slot);
        if (status != FV_READ_DONE)
            break;
        memcpy(to + (size_t)got * node_bytes, thread->ring->data[slot], node_bytes);
        *at = next_of(to + (size_t)got * node_bytes, next_offset);
    }
    /* The last slot is answered last: only then is none of them written to any more. */
    if (posted && status && got < hops)
        status = slot_wait(thread, (unsigned)first + hops - 1) ? status : 0;
    if (status)
        slots_give(thread, (unsigned)first, hops);
    if (got > 0)
        return got;
    return status == FV_READ_FAULT ? -EFAULT : -EAGAIN;
}

GUIDE_PUBLIC long guide_read_chain(const void *first, size_t node_bytes, size_t next_offset,
                                   void *to, size_t nodes)
{
    if (guide_fault_self())
        return -EAGAIN;
    struct guide_thread *thread = guide_thread_self();
    const void *at = first;
    size_t done = 0;
    if (node_bytes < sizeof(void *) || node_bytes > GUIDE_READ_MAX ||
        next_offset > node_bytes - sizeof(void *))
        return -EINVAL;
    while (at && done < nodes) {
        uint8_t *here = (uint8_t *)to + done * node_bytes;
        long got = chain_part(thread, &at, node_bytes, next_offset, here, nodes - done);
        if (got == -EFAULT)
            return done ? (long)done : -EFAULT;
        if (got == -EAGAIN) {
            memcpy(here, at, node_bytes);
            at = next_of(here, next_offset);
            got = 1;
        }
        done += (size_t)got;
    }
    return (long)done;
}
