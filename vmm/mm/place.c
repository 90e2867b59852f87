/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a mapping without a wished address goes: the highest gap that fits, like Linux. With
 * `room`, a place that can grow: moving a mapping copies it here, since guest addresses are
 * physical.
 */
#include "vmm/mm/internal.h"

/* Highest gap of `bytes` within [first, end), or 0. Read lock. */
static gpa_t place_within(const struct mm *mm, gpa_t first, gpa_t end, uint64_t bytes)
{
    size_t i = mm_index(mm, end - 1);
    gpa_t top = end;
    if (i < mm->count && mm->maps[i].start < top)
        top = mm->maps[i].start;
    for (;;) {
        gpa_t bottom = i > 0 && mm->maps[i - 1].end > first ? mm->maps[i - 1].end : first;
        if (top > bottom && top - bottom >= bytes)
            return top - bytes;
        if (i == 0 || mm->maps[i - 1].start <= first)
            return 0;
        top = mm->maps[--i].start;
    }
}

gpa_t mm_place(const struct mm *mm, uint64_t bytes, uint64_t room, bool low)
{
    uint64_t wanted;
    if (low)
        return place_within(mm, FV_USER_MIN, 0x80000000u, bytes);
    if (!__builtin_add_overflow(bytes, room, &wanted)) {
        gpa_t roomy = place_within(mm, mm->high_first, mm->high_end, wanted);
        if (roomy)
            return roomy;
    }
    gpa_t at = place_within(mm, mm->high_first, mm->high_end, bytes);
    /* Below 4 GiB stays free for programs linked at fixed addresses and their heap. */
    return at ? at : place_within(mm, 1ULL << 32, FV_KERNEL_BASE, bytes);
}
