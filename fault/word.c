/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sleeping on a page word. A word in a busy state (FILLING, FETCHING, EVICTING, DROPPING,
 * DISCARDING) has one owner, who alone leaves the state; others may only set WAITERS (and RESCUE)
 * in it. The futex is the low half of the word, which holds state, flags and pins.
 */
#include "fault/engine_internal.h"
#include "support.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long futex(void *address, int operation, uint32_t value, const struct timespec *timeout)
{
    return syscall(SYS_futex, address, operation | FUTEX_PRIVATE_FLAG, value, timeout, NULL, 0);
}

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
                             .tv_nsec = (long)(ns % 1000000000u)};
}

void word_wake(ept_word_t *word)
{
    /* x86-64 is little endian: the low half is at the word's own address. */
    futex(word, FUTEX_WAKE, INT_MAX, NULL);
}

void word_settle(ept_word_t *word, uint64_t value)
{
    uint64_t old = atomic_exchange(word, value & ~EPT_WAITERS);
    if (old & EPT_WAITERS)
        word_wake(word);
}

struct patience patience_begin(const struct fault_engine *engine)
{
    return patience_of(2 * engine->config.timeout_ns, PATIENCE_SLICE_NS);
}

int word_wait(ept_word_t *word, uint64_t seen, struct patience *patience)
{
    uint64_t marked = seen | EPT_WAITERS;
    if (marked != seen && !atomic_compare_exchange_strong(word, &seen, marked))
        return 0;
    struct timespec timeout = timespec_of(PATIENCE_SLICE_NS);
    futex(word, FUTEX_WAIT, (uint32_t)marked, &timeout);
    return patience_spend(patience);
}

int page_wait(struct fault_engine *engine, uint64_t page, uint64_t seen, struct patience *patience)
{
    unsigned lane = word_lane(seen);
    /* Nobody may be about to land it: the thread that asked for it runs its program, or a guide. */
    if (lane > LANES)
        return lane_open_help(engine, &engine->lanes[lane - LANES - 1], page, seen, patience);
    if (lane)
        return lane_help(engine, &engine->lanes[lane - 1], page, patience);
    return word_wait(&engine->words[page], seen, patience);
}

void counter_wake(atomic_uint *counter)
{
    atomic_fetch_add(counter, 1);
    futex(counter, FUTEX_WAKE, INT_MAX, NULL);
}

int counter_wait(atomic_uint *counter, unsigned seen, uint64_t timeout_ns)
{
    struct timespec timeout = timespec_of(timeout_ns);
    if (futex(counter, FUTEX_WAIT, seen, &timeout) < 0 && errno == ETIMEDOUT)
        return -ETIMEDOUT;
    return 0;
}
