/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the reader of traces, and the simulator with what passes: whatever a file holds, it is
 * refused or played, and the figures add up. Linked with libFuzzer, or with replay.c for the
 * corpus.
 */
#include "fault/replay.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define PROMISE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static void check_records(const struct trace *trace)
{
    for (size_t i = 0; i < trace->count; i++) {
        const struct trace_record *record = &trace->records[i];
        PROMISE(trace_type(record) >= TRACE_FAULT && trace_type(record) <= TRACE_DISCARD);
        PROMISE(trace_type(record) == TRACE_FAULT ||
                trace_page(record) % TRACE_RUN_MAX + trace_value(record) <= TRACE_RUN_MAX);
        PROMISE(!i || trace_ticks(record - 1) <= trace_ticks(record));
    }
}

static void play(const struct replay_input *input)
{
    static const struct prefetcher *const prefetchers[] = {&prefetch_none, &prefetch_readahead,
                                                           &prefetch_trend, &prefetch_auto};
    for (unsigned i = 0; i < 2 * REPLAY_POLICIES; i++) {
        struct replay_config config = {.policy = (enum replay_policy)(i % REPLAY_POLICIES),
                                       .prefetcher = prefetchers[i % 4 ^ i / 4],
                                       .local_pages = REPLAY_LOCAL_MIN_PAGES,
                                       .latency_ns = 10000,
                                       .range = {.pages = i % 3 ? 0 : 0x60000}};
        struct replay_result result;
        if (replay_run(input, &config, &result))
            return; /* no memory */
        PROMISE(result.touches == replay_touches(input, config.range));
        PROMISE(result.first + result.misses + result.late <= result.touches);
        PROMISE(result.used + result.wasted == result.prefetched);
        PROMISE(result.refaults <= result.misses);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct trace trace;
    struct replay_input *input;
    const char *wrong = NULL;
    size_t at;
    int error = trace_parse(data, bytes, &trace, &wrong, &at);

    if (error) {
        PROMISE(wrong && at <= bytes);
        return 0;
    }
    check_records(&trace);
    if (trace.count < 4096 && !replay_input_create(&input, &trace, &wrong)) {
        play(input);
        replay_input_destroy(input);
    }
    trace_free(&trace);
    return 0;
}
