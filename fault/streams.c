/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells a thread's interleaved sequences of first touches apart. A touch belongs to the stream that
 * expects just this page; otherwise it starts one in place of the one unused for longest.
 */
#include "fault/engine_internal.h"

unsigned streams_find(struct streams *streams, uint64_t page, uint32_t first, uint32_t max)
{
    unsigned best = FILL_STREAMS, oldest = 0;
    streams->turn++;
    for (unsigned i = 0; i < FILL_STREAMS; i++) {
        if (streams->of[i].window && page == streams->of[i].next)
            best = i;
        if (streams->turn - streams->of[i].used > streams->turn - streams->of[oldest].used)
            oldest = i;
    }
    if (best == FILL_STREAMS) {
        best = oldest;
        streams->of[best].window = first;
    } else if (streams->of[best].window < max) {
        streams->of[best].window =
            streams->of[best].window * 2 < max ? streams->of[best].window * 2 : max;
    }
    streams->of[best].used = streams->turn;
    streams->of[best].next = page + 1;
    return best;
}
