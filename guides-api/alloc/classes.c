/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Size classes: multiples of 16 bytes up to 128, then four a power of two up to 1024. At most a
 * fifth of a block is lost to rounding beyond 128 bytes.
 */
#include "alloc/internal.h"

unsigned class_of(size_t bytes)
{
    unsigned units = (unsigned)((bytes + UNIT_BYTES - 1) / UNIT_BYTES);
    if (units <= 8)
        return units ? units - 1 : 0;
    unsigned shift = 29 - (unsigned)__builtin_clz(units - 1); /* 1 up to 16 units, 2 up to 32 .. */
    return 8 + (shift - 1) * 4 + (((units - 1) >> shift) - 4);
}

unsigned class_units(unsigned class)
{
    if (class < 8)
        return class + 1;
    unsigned shift = 1 + (class - 8) / 4;
    return (5 + (class - 8) % 4) << shift;
}

void classes_fill(uint64_t starts[CLASSES][SPAN_WORDS])
{
    for (unsigned class = 0; class < CLASSES; class ++) {
        unsigned units = class_units(class);
        for (unsigned at = 0; at + units <= SPAN_WORDS * 64; at += units)
            starts[class][at / 64] |= 1ULL << (at % 64);
    }
}
