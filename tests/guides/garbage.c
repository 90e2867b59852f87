/* SPDX-License-Identifier: Apache-2.0 */
/* A guide that posts nonsense, by the public functions and by hand into the ring. */
#include <farvisor/guide.h>
#include <farvisor/hints.h>
#include <sys/auxv.h>

typedef uint64_t total_fn(const void *table, const uint32_t *numbers, size_t count);
static total_fn *original;
static uint64_t state = 88172645463325252u;

static uint64_t any(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Valid and invalid operations, slots, addresses: whatever the bits say. */
static void garbage_post(void)
{
    uint32_t index;
    __asm__ volatile("movl %%gs:8, %0" : "=r"(index));
    struct fv_hint_ring *ring =
        (struct fv_hint_ring *)(FV_HINT_BASE + (uint64_t)index * FV_HINT_STRIDE);
    struct fv_hint *hint = &ring->hints[ring->head % FV_HINTS];
    uint64_t bits = any();
    hint->op = bits & 7;
    hint->slot = (uint16_t)(bits >> 8);
    hint->hops = (uint16_t)(bits >> 24);
    hint->address = any();
    hint->bytes = any() >> (bits >> 58);
    hint->next_bytes = any() >> 56;
    if (ring->head - ring->tail < FV_HINTS)
        ring->head++;
}

static uint64_t guided_total(const void *table, const uint32_t *numbers, size_t count)
{
    for (int i = 0; i < 3000; i++) {
        guide_prefetch((void *)any(), 4096);
        guide_will_not_need((void *)any(), any() & 0xffffffff);
        if (getauxval(FV_AT_HINTS) && guide_is_far())
            garbage_post();
    }
    return original(table, numbers, count);
}

static int start(void)
{
    return guide_hook("orders_total", (void *)guided_total, (void **)&original);
}

GUIDE("garbage", start)
