/* SPDX-License-Identifier: Apache-2.0 */
/* What `farvisor replay` prints: miss-ratio curves as tables, every figure as CSV. */
#include "vmm/cli/cli.h"

#include <errno.h>
#include <string.h>

#define PAGE_BYTES 4096u

static const char csv_heading[] =
    "policy,prefetch,local_pages,touches,first,misses,late,refaults,prefetched,used,wasted,"
    "evicted,stall_ns\n";

static void csv_line(FILE *csv, const struct replay_config *config,
                     const struct replay_result *result)
{
    const uint64_t values[] = {result->touches,  result->first,      result->misses, result->late,
                               result->refaults, result->prefetched, result->used,   result->wasted,
                               result->evicted,  result->stall_ns};
    if (!csv)
        return;
    fprintf(csv, "%s,%s,%llu", replay_policy_name(config->policy), config->prefetcher->name,
            (unsigned long long)config->local_pages);
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        fprintf(csv, ",%llu", (unsigned long long)values[i]);
    fputc('\n', csv);
}

static void size_print(const struct replay_size *size)
{
    char bytes[32], share[16] = "";
    if (size->percent)
        snprintf(share, sizeof(share), "%u%%", size->percent);
    printf("%5s %10s", share, format_bytes(size->pages * PAGE_BYTES, bytes, sizeof(bytes)));
}

/* Of the touches of pages that had contents, those that had to wait for a read of their own. */
static double miss_percent(const struct replay_result *result)
{
    uint64_t again = result->touches - result->first;
    return again ? 100.0 * (double)result->misses / (double)again : 0.0;
}

static void table_head(const struct replay_question *question, const char *prefetcher)
{
    bool ahead = strcmp(prefetcher, "none") != 0;
    printf("\nprefetch %s: misses of 100 touches%s\n%16s", prefetcher,
           ahead ? " / used of 100 pages fetched ahead" : "", "local");
    for (unsigned i = 0; i < question->policy_count; i++)
        printf(" %*s", ahead ? 17 : 9, replay_policy_name(question->policies[i]));
    putchar('\n');
}

static void cell_print(const struct replay_result *result, bool ahead)
{
    double used =
        result->prefetched ? 100.0 * (double)result->used / (double)result->prefetched : 100.0;
    printf(" %9.3f", miss_percent(result));
    if (ahead)
        printf(" /%6.1f", used);
}

static int row_print(const struct replay_question *question, const struct replay_input *input,
                     struct replay_config *config, const struct replay_size *size, FILE *csv)
{
    config->local_pages = size->pages;
    size_print(size);
    for (unsigned i = 0; i < question->policy_count; i++) {
        struct replay_result result;
        config->policy = question->policies[i];
        int error = replay_run(input, config, &result);
        if (error) {
            putchar('\n');
            message_error("replay: %s", strerror(-error));
            return error;
        }
        cell_print(&result, config->prefetcher != &prefetch_none);
        csv_line(csv, config, &result);
    }
    putchar('\n');
    return 0;
}

static int tables_print(const struct replay_question *question, const struct replay_input *input,
                        FILE *csv)
{
    int error = 0;
    for (unsigned i = 0; i < question->prefetcher_count && !error; i++) {
        struct replay_config config = {.prefetcher = question->prefetchers[i],
                                       .latency_ns = question->latency_ns,
                                       .range = question->range};
        table_head(question, config.prefetcher->name);
        for (unsigned j = 0; j < question->size_count && !error; j++)
            error = row_print(question, input, &config, &question->sizes[j], csv);
    }
    return error;
}

static void range_print(struct replay_range range, const struct replay_input *input)
{
    char bytes[32];
    printf("counted: the %llu touches of %s from 0x%llx\n",
           (unsigned long long)replay_touches(input, range),
           format_bytes(range.pages * PAGE_BYTES, bytes, sizeof(bytes)),
           (unsigned long long)range.first_page * PAGE_BYTES);
}

static int csv_end(FILE *csv, const char *path)
{
    int error = ferror(csv) ? -EIO : 0;
    if (fclose(csv) && !error)
        error = -errno;
    if (error)
        message_error("--csv %s: cannot write: %s", path, strerror(-error));
    return error;
}

int replay_report(const struct replay_question *question, const struct replay_input *input,
                  const struct trace_header *header)
{
    char recorded[32], footprint[32];
    FILE *csv = NULL;
    if (question->csv_path) {
        csv = fopen(question->csv_path, "we");
        if (!csv) {
            int error = -errno;
            message_error("--csv %s: cannot write: %s", question->csv_path, strerror(errno));
            return error;
        }
        fputs(csv_heading, csv);
    }
    printf("%s: %llu touches of %s, recorded with %s here, prefetch %s, %s, %s\n", header->program,
           (unsigned long long)replay_touches(input, (struct replay_range){0}),
           format_bytes(replay_footprint(input) * PAGE_BYTES, footprint, sizeof(footprint)),
           format_bytes(header->local_pages * PAGE_BYTES, recorded, sizeof(recorded)),
           header->prefetcher, header->fault_mode, header->transport);
    if (question->range.pages)
        range_print(question->range, input);
    int error = tables_print(question, input, csv);
    if (csv) {
        int failed = csv_end(csv, question->csv_path);
        error = error ? error : failed;
    }
    if (!error && (fflush(stdout) || ferror(stdout))) {
        error = -EIO;
        message_error("cannot write to standard output: %s", strerror(errno));
    }
    return error;
}
