/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `farvisor replay`: what if a recorded run had had another cache, policy or prefetcher? Reads the
 * options and the trace, says what stands in the way of a fair answer, and leaves the rest to
 * fault/replay.c and replay_report.c. No guest, no KVM.
 */
#include "vmm/cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LATENCY_MAX_NS 10000000000ULL
#define PAGE_BYTES     4096u
#define FILTER_SHARE   2u /* sizes below so many times the recording's are looked at askance */

const char cli_replay_usage[] = "farvisor replay [OPTIONS] FILE";

/* Options as read; sizes become pages when the trace is known. */
struct replay_options {
    struct replay_question question;
    const char *sizes[REPLAY_LIST_MAX]; /* words of size_list */
    char *size_list;
    const char *range; /* as given, or NULL */
};

/* Cuts a list at its commas, in place, and hands each word to `add`. */
static int list_read(const char *option, char *list, void *to,
                     int (*add)(void *to, const char *word))
{
    char *word;
    int error = 0;
    unsigned count = 0;
    while (!error && (word = strsep(&list, ","))) {
        if (++count > REPLAY_LIST_MAX) {
            message_error("%s: more than %u words", option, REPLAY_LIST_MAX);
            return -EINVAL;
        }
        error = add(to, word);
    }
    return error;
}

/* list_read of a copy that does not outlive the call. */
static int names_read(const char *option, const char *value, void *to,
                      int (*add)(void *to, const char *word))
{
    char *list = strdup(value);
    int error = list ? list_read(option, list, to, add) : -ENOMEM;
    free(list);
    return error;
}

static int policy_add(void *options, const char *word)
{
    struct replay_question *question = &((struct replay_options *)options)->question;
    for (unsigned i = 0; i < REPLAY_POLICIES; i++) {
        if (strcmp(word, replay_policy_name((enum replay_policy)i)) != 0)
            continue;
        if (question->policy_count == REPLAY_POLICIES)
            break;
        question->policies[question->policy_count++] = (enum replay_policy)i;
        return 0;
    }
    message_error("--policy %s: not a list of clock, fifo, lru and belady", word);
    return -EINVAL;
}

static int set_policy(void *options, const char *value)
{
    ((struct replay_options *)options)->question.policy_count = 0;
    return names_read("--policy", value, options, policy_add);
}

static int prefetcher_add(void *options, const char *word)
{
    struct replay_question *question = &((struct replay_options *)options)->question;
    const struct prefetcher *found = prefetch_find(word);
    if (!found) {
        message_error("--prefetch %s: unknown prefetcher (none, readahead, trend or auto)", word);
        return -EINVAL;
    }
    question->prefetchers[question->prefetcher_count++] = found;
    return 0;
}

static int set_prefetch(void *options, const char *value)
{
    ((struct replay_options *)options)->question.prefetcher_count = 0;
    return names_read("--prefetch", value, options, prefetcher_add);
}

static int size_add(void *options, const char *word)
{
    struct replay_options *to = options;
    to->sizes[to->question.size_count++] = word;
    return 0;
}

static int set_local(void *options, const char *value)
{
    struct replay_options *to = options;
    free(to->size_list);
    to->question.size_count = 0;
    to->size_list = strdup(value);
    return to->size_list ? list_read("--local", to->size_list, to, size_add) : -ENOMEM;
}

static int set_latency(void *options, const char *value)
{
    struct replay_question *question = &((struct replay_options *)options)->question;
    if (parse_duration(value, &question->latency_ns) || question->latency_ns > LATENCY_MAX_NS) {
        message_error("--latency %s: not a duration up to 10s (5us, 1ms)", value);
        return -EINVAL;
    }
    return 0;
}

/* "0x7f0012340000" or a decimal number, up to `end`. */
static bool address_read(const char *text, const char *end, uint64_t *address)
{
    bool hex = text[0] == '0' && text[1] == 'x';
    const char *digits = hex ? text + 2 : text;
    if (digits == end ||
        strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789") != (size_t)(end - digits))
        return false;
    errno = 0;
    *address = strtoull(digits, NULL, hex ? 16 : 10);
    return errno == 0;
}

static int set_range(void *options, const char *value)
{
    struct replay_options *to = options;
    const char *colon = strchr(value, ':');
    uint64_t start, end;
    if (!colon || !address_read(value, colon, &start) ||
        !address_read(colon + 1, value + strlen(value), &end) || start >= end) {
        message_error("--range %s: not START:END, two addresses (0x7f0000000000:0x7f0000400000)",
                      value);
        return -EINVAL;
    }
    to->range = value;
    to->question.range.first_page = start / PAGE_BYTES;
    to->question.range.pages = (end - 1) / PAGE_BYTES - start / PAGE_BYTES + 1;
    return 0;
}

static int set_csv(void *options, const char *value)
{
    ((struct replay_options *)options)->question.csv_path = value;
    return 0;
}

static int set_help(void *options, const char *value)
{
    (void)options;
    (void)value;
    cli_help_exit(cli_replay_options, cli_replay_usage,
                  "Plays a trace of 'farvisor run --trace' against other caches and policies.");
}

const struct option_spec cli_replay_options[] = {
    {"policy", 0, "LIST", "clock (farvisor's own), fifo, lru, belady (default: all)", set_policy},
    {"prefetch", 0, "LIST", "none, readahead, trend, auto (default: none)", set_prefetch},
    {"local", 'l', "LIST", "sizes, or N% of the trace's footprint (default: 10%,25%,50%,75%,90%)",
     set_local},
    {"latency", 0, "DURATION", "how long a read takes (default: 10us)", set_latency},
    {"range", 0, "START:END", "count only touches of these addresses (default: all)", set_range},
    {"csv", 0, "FILE", "write every figure as comma-separated values", set_csv},
    {"help", 'h', NULL, "this text", set_help},
    {NULL, 0, NULL, NULL, NULL},
};

/* "N%" or a size, in pages, and what part of the footprint that was asked for. */
static int size_resolve(const char *text, uint64_t footprint, struct replay_size *out)
{
    size_t length = strlen(text);
    uint64_t value;
    out->percent = 0;
    if (length && length < 5 && text[length - 1] == '%') {
        char digits[5] = "";
        memcpy(digits, text, length - 1);
        if (parse_u64(digits, &value) || !value || value > 100) {
            message_error("--local %s: not a share from 1%% to 100%%", text);
            return -EINVAL;
        }
        out->percent = (uint32_t)value;
        out->pages = footprint * value / 100;
    } else if (parse_size(text, &value) || value % PAGE_BYTES) {
        message_error("--local %s: not a list of sizes (64M,1G) or shares (50%%)", text);
        return -EINVAL;
    } else {
        out->pages = value / PAGE_BYTES;
    }
    if (out->pages >= REPLAY_LOCAL_MIN_PAGES)
        return 0;
    message_error("--local %s: less than %u pages", text, REPLAY_LOCAL_MIN_PAGES);
    return -EINVAL;
}

static int sizes_resolve(struct replay_options *options, uint64_t footprint)
{
    struct replay_question *question = &options->question;
    for (unsigned i = 0; i < question->size_count; i++) {
        int error = size_resolve(options->sizes[i], footprint, &question->sizes[i]);
        if (error)
            return error;
    }
    return 0;
}

/* What makes the answer less than the truth. */
static void warn_bias(const char *path, const struct trace *trace,
                      const struct replay_question *question)
{
    const struct trace_header *header = &trace->header;
    char recorded[32];
    bool small = false;
    format_bytes(header->local_pages * PAGE_BYTES, recorded, sizeof(recorded));
    for (unsigned i = 0; i < question->size_count; i++)
        small |= question->sizes[i].pages < FILTER_SHARE * header->local_pages;
    if (strcmp(header->prefetcher, "none") != 0)
        message_warning("%s: recorded with --prefetch %s: touches of pages fetched ahead are "
                        "missing (record with --prefetch none)",
                        path, header->prefetcher);
    if (small)
        message_warning("%s: recorded with %s here: smaller caches, and those not much larger, "
                        "look better than they are (record with a small --local)",
                        path, recorded);
    if (trace->dropped)
        message_warning("%s: %llu events were dropped while it was recorded", path,
                        (unsigned long long)trace->dropped);
    if (!trace->ended)
        message_warning("%s: the recording did not come to its end", path);
}

/* A whole file, which may be a pipe. *bytes long, or NULL with errno. */
static void *file_read(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "re");
    size_t room = 1 << 20, got = 0;
    char *data = file ? malloc(room) : NULL;
    while (data && !ferror(file)) {
        size_t part = fread(data + got, 1, room - got, file);
        got += part;
        if (got < room)
            break;
        room *= 2;
        char *bigger = realloc(data, room);
        if (!bigger)
            free(data);
        data = bigger;
    }
    int error = !data || ferror(file) ? errno : 0;
    if (file)
        fclose(file);
    if (error) {
        free(data);
        errno = error;
        return NULL;
    }
    *bytes = got;
    return data;
}

static int trace_read(const char *path, struct trace *trace)
{
    const char *wrong;
    size_t bytes, at;
    void *data = file_read(path, &bytes);
    if (!data) {
        message_error("%s: cannot read: %s", path, strerror(errno));
        return -EINVAL;
    }
    int error = trace_parse(data, bytes, trace, &wrong, &at);
    free(data);
    if (error)
        message_error("%s: not usable: %s (at byte %zu)", path, wrong, at);
    return error;
}

static int replay_file(struct replay_options *options, const char *path)
{
    struct replay_input *input = NULL;
    struct trace trace;
    const char *wrong;
    int error = trace_read(path, &trace);
    if (error)
        return error;
    error = replay_input_create(&input, &trace, &wrong);
    if (error)
        message_error("%s: not usable: %s", path, wrong);
    if (!error)
        error = sizes_resolve(options, replay_footprint(input));
    if (!error && options->range && !replay_touches(input, options->question.range)) {
        message_error("--range %s: no touch of the trace is there", options->range);
        error = -EINVAL;
    }
    if (!error) {
        warn_bias(path, &trace, &options->question);
        error = replay_report(&options->question, input, &trace.header);
    }
    replay_input_destroy(input);
    trace_free(&trace);
    return error;
}

int cli_replay(int argc, char **argv)
{
    struct replay_options options = {
        .question = {.policies = {REPLAY_CLOCK, REPLAY_FIFO, REPLAY_LRU, REPLAY_BELADY},
                     .policy_count = REPLAY_POLICIES,
                     .prefetchers = {&prefetch_none},
                     .prefetcher_count = 1,
                     .size_count = 5,
                     .latency_ns = 10000},
        .sizes = {"10%", "25%", "50%", "75%", "90%"},
    };
    int operands = options_parse(cli_replay_options, "farvisor replay", &options, argc, argv);
    int status = EXIT_FARVISOR;
    if (operands >= 0 && operands != argc - 1)
        status = cli_usage_error("replay: one trace is needed");
    else if (operands >= 0)
        status = replay_file(&options, argv[operands]) ? EXIT_FARVISOR : EXIT_SUCCESS;
    free(options.size_list);
    return status;
}
