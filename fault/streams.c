/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells a thread's interleaved sequences apart. A touch belongs to the stream whose expected page
 * is the nearest one at or before it, within that stream's window: a scan may skip pages that were
 * resident. Otherwise it starts a stream in place of the one unused for longest.
 */
#include "fault/engine_internal.h"

unsigned streams_find(struct streams *streams, uint64_t page, uint32_t first, uint32_t max,
                      bool skips)
{
    unsigned best = STREAMS, oldest = 0;
    streams->turn++;
    for (unsigned i = 0; i < STREAMS; i++) {
        uint64_t ahead = page - streams->of[i].next; /* wraps to huge when page is before */
        if (streams->of[i].window && ahead <= (skips ? streams->of[i].window : 0) &&
            (best == STREAMS || streams->of[i].next > streams->of[best].next))
            best = i;
        if (streams->turn - streams->of[i].used > streams->turn - streams->of[oldest].used)
            oldest = i;
    }
    if (best == STREAMS) {
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
