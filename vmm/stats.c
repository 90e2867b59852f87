/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a run cost: --stats writes one JSON object when the program has ended, --progress one line a
 * second while it runs. Field names are stable and described in farvisor(1), section STATISTICS.
 * Counters of other threads are read without stopping them: a line may be a moment old.
 */
#include "fault/fault.h"
#include "rdma/rdma.h"
#include "support.h"
#include "vmm/guides/hints.h"
#include "vmm/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static int stats_fd = -1; /* open since before the sandbox closed the door */

static pthread_t progress_thread;
static bool progress_running;
static pthread_mutex_t progress_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t progress_stop;

int stats_open(const char *path)
{
    if (!path)
        return 0;
    stats_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (stats_fd >= 0)
        return 0;
    int error = -errno;
    message_error("--stats %s: cannot write: %s", path, strerror(errno));
    return error;
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

/* Median, tail and mean: what a reader needs to see whether waits have two modes. */
static json_t *histogram_object(const struct fault_histogram *histogram)
{
    json_t *object = json_object();
    uint64_t mean = histogram->count ? histogram->sum_ns / histogram->count : 0;

    json_object_set_new(object, "count", number(histogram->count));
    json_object_set_new(object, "mean_ns", number(mean));
    json_object_set_new(object, "p50_ns", number(fault_histogram_quantile(histogram, 0.5)));
    json_object_set_new(object, "p90_ns", number(fault_histogram_quantile(histogram, 0.9)));
    json_object_set_new(object, "p99_ns", number(fault_histogram_quantile(histogram, 0.99)));
    json_object_set_new(object, "p99_9_ns", number(fault_histogram_quantile(histogram, 0.999)));
    json_object_set_new(object, "max_ns", number(histogram->max_ns));
    return object;
}

/*
 * Accuracy: of the pages fetched unasked, the share that was used (of those looked at, one in 8).
 * Coverage: of the pages used, the share that had been fetched unasked. Timeliness: of these, the
 * share that was here before it was touched.
 */
static json_t *prefetch_object(const struct run_config *config,
                               const struct fault_counters *counters)
{
    uint64_t samples = counters->samples_used + counters->samples_wasted;
    double accuracy = samples ? (double)counters->samples_used / (double)samples : 1.0;
    double used = accuracy * (double)counters->prefetched_pages;
    double touched = used + (double)counters->demand_fetches;
    json_t *object = json_object();

    json_object_set_new(object, "prefetcher", json_string(config->prefetcher));
    json_object_set_new(object, "pages", number(counters->prefetched_pages));
    json_object_set_new(object, "late_pages", number(counters->late_hits));
    json_object_set_new(object, "sampled_used", number(counters->samples_used));
    json_object_set_new(object, "sampled_wasted", number(counters->samples_wasted));
    json_object_set_new(object, "accuracy", json_real(accuracy));
    json_object_set_new(object, "coverage", json_real(touched > 0 ? used / touched : 0.0));
    json_object_set_new(object, "timeliness",
                        json_real(used > 0 ? 1.0 - (double)counters->late_hits / used : 1.0));
    return object;
}

static json_t *paging_object(const struct fault_counters *counters)
{
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"faults", counters->faults},
        {"spurious_faults", counters->spurious},
        {"zero_filled_pages", counters->zero_filled_pages},
        {"file_filled_pages", counters->file_filled_pages},
        {"demand_fetched_pages", counters->demand_fetches},
        {"prefetched_pages", counters->prefetched_pages},
        {"refaulted_pages", counters->refaulted_pages},
        {"distrusted_pages", counters->distrusted_pages},
        {"fetched_bytes", counters->fetched_bytes},
        {"written_bytes", counters->written_bytes},
        {"evicted_pages", counters->evicted_pages},
        {"evicted_clean_pages", counters->evicted_clean_pages},
        {"evicted_zero_pages", counters->evicted_zero_pages},
        {"evicted_dead_pages", counters->evicted_dead_pages},
        {"unwritten_dead_bytes", counters->unwritten_bytes},
        {"unread_dead_bytes", counters->unread_bytes},
        {"rescued_pages", counters->rescued_pages},
        {"discarded_pages", counters->discarded_pages},
        {"frame_waits", counters->frame_waits},
        {"active_pages", counters->active_pages},
        {"resident_pages", counters->resident_pages},
        {"resident_peak_pages", counters->resident_peak_pages},
        {"existing_pages", counters->existing_pages},
        {"existing_peak_pages", counters->existing_peak_pages},
    };
    json_t *object = json_object();

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        json_object_set_new(object, rows[i].name, number(rows[i].value));
    json_object_set_new(object, "fault", histogram_object(&counters->fault_ns));
    json_object_set_new(object, "fetch", histogram_object(&counters->fetch_ns));
    json_object_set_new(object, "flight", histogram_object(&counters->flight_ns));
    json_object_set_new(object, "install", histogram_object(&counters->install_ns));
    return object;
}

static json_t *node_object(struct rdma_node *node)
{
    struct rdma_counters counters;
    json_t *object = json_object();

    rdma_node_counters(node, &counters);
    json_object_set_new(object, "transport", json_string(rdma_node_describe(node)));
    json_object_set_new(object, "reads", number(counters.reads));
    json_object_set_new(object, "read_bytes", number(counters.read_bytes));
    json_object_set_new(object, "writes", number(counters.writes));
    json_object_set_new(object, "write_bytes", number(counters.write_bytes));
    json_object_set_new(object, "slabs_held", number(counters.slabs_held));
    json_object_set_new(object, "slabs_peak", number(counters.slabs_peak));
    return object;
}

static uint64_t timeval_ns(struct timeval time)
{
    return (uint64_t)time.tv_sec * 1000000000ULL + (uint64_t)time.tv_usec * 1000ULL;
}

/* What the vCPUs counted, and KVM for them, all together. */
struct vcpu_sum {
    unsigned count;
    uint64_t exits, calls, traps, ahead_calls, ahead_pages, second_stage;
    bool kvm_counts; /* KVM has the counter behind second_stage */
};

static void vcpus_add_up(const struct vm *vm, struct vcpu_sum *sum)
{
    *sum = (struct vcpu_sum){.count = atomic_load(&vm->vcpu_count), .kvm_counts = true};
    for (unsigned i = 0; i < sum->count; i++) {
        const struct vcpu *vcpu = vm->vcpus[i];
        uint64_t faults = 0;

        if (!vcpu)
            continue;
        sum->exits += atomic_load_explicit(&vcpu->exits, memory_order_relaxed);
        sum->calls += atomic_load_explicit(&vcpu->calls, memory_order_relaxed);
        sum->traps += atomic_load_explicit(&vcpu->traps, memory_order_relaxed);
        sum->ahead_calls += atomic_load_explicit(&vcpu->ahead_calls, memory_order_relaxed);
        sum->ahead_pages += atomic_load_explicit(&vcpu->ahead_pages, memory_order_relaxed);
        sum->kvm_counts = sum->kvm_counts && kvm_counter_read(vcpu, "pf_taken", &faults);
        sum->second_stage += faults;
    }
}

static json_t *vcpus_object(struct vm *vm)
{
    struct poller_counters poller;
    struct vcpu_sum sum;
    struct sight_counters sight;
    json_t *object = json_object();

    vcpus_add_up(vm, &sum);
    json_object_set_new(object, "peak", number(sum.count));
    pthread_mutex_lock(&vm->vcpu_lock);
    json_object_set_new(object, "host_threads", number(vm->hosts_made));
    pthread_mutex_unlock(&vm->vcpu_lock);
    json_object_set_new(object, "exits", number(sum.exits));
    json_object_set_new(object, "hypercalls", number(sum.calls));
    json_object_set_new(object, "traps", number(sum.traps));
    json_object_set_new(object, "second_stage_faults",
                        sum.kvm_counts ? number(sum.second_stage) : json_null());
    json_object_set_new(object, "mapped_ahead_calls", number(sum.ahead_calls));
    json_object_set_new(object, "mapped_ahead_pages", number(sum.ahead_pages));
    poller_counters(vm, &poller);
    json_object_set_new(object, "posted_calls", number(poller.answered));
    json_object_set_new(object, "handed_back_calls", number(poller.handed_back));
    json_object_set_new(object, "poller_wakes", number(poller.wakes));
    hostio_sight_counters(vm->io, &sight);
    json_object_set_new(object, "reads_ahead", number(sight.shown));
    json_object_set_new(object, "reads_ahead_used", number(sight.used));
    json_object_set_new(object, "sends_gathered", number(sight.gathered));
    json_object_set_new(object, "sends_late", number(sight.late));
    return object;
}

static json_t *hints_object(struct hints *hints)
{
    const struct {
        const char *name;
        const _Atomic uint64_t *value;
    } rows[] = {
        {"taken", &hints->counters.taken},
        {"malformed", &hints->counters.malformed},
        {"prefetch_pages", &hints->counters.prefetch_pages},
        {"started_pages", &hints->counters.started_pages},
        {"left_out_pages", &hints->counters.left_out_pages},
        {"wasted_pages", &hints->counters.wasted_pages},
        {"cold_pages", &hints->counters.cold_pages},
        {"sampled_used", &hints->counters.sampled_used},
        {"sampled_unused", &hints->counters.sampled_unused},
        {"reads", &hints->counters.reads},
        {"read_bytes", &hints->counters.read_bytes},
        {"chains", &hints->counters.chains},
        {"chain_nodes", &hints->counters.chain_nodes},
        {"chain_stale_nodes", &hints->counters.chain_stale_nodes},
        {"upcalls", &hints->counters.upcalls},
        {"upcall_pages", &hints->counters.upcall_pages},
        {"sleeps", &hints->counters.sleeps},
    };
    json_t *object = json_object();

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        json_object_set_new(object, rows[i].name, number(atomic_load(rows[i].value)));
    json_object_set_new(object, "switched_off", json_boolean(atomic_load(&hints->off)));
    return object;
}

static json_t *report_object(struct vm *vm)
{
    const struct run_config *config = vm->config;
    json_t *report = json_object();
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    json_object_set_new(report, "version", json_string(FV_VERSION));
    json_object_set_new(report, "program", json_string(config->argv[0]));
    json_object_set_new(report, "exit_status", json_integer(vm->exit_status));
    json_object_set_new(report, "wall_ns", number(clock_now_ns() - vm->started_ns));
    json_object_set_new(report, "user_ns", number(timeval_ns(usage.ru_utime)));
    json_object_set_new(report, "system_ns", number(timeval_ns(usage.ru_stime)));
    json_object_set_new(report, "memory_bytes", number(config->memory_bytes));
    json_object_set_new(report, "local_bytes", number(config->local_bytes));
    json_object_set_new(report, "fault_mode", json_string(fault_mode_name(config->fault_mode)));
    json_object_set_new(report, "vcpus", vcpus_object(vm));
    json_object_set_new(report, "table_bytes", number(ept_table_bytes(vm->ept)));
    if (vm->engine) {
        struct fault_counters counters;

        fault_engine_counters(vm->engine, &counters);
        json_object_set_new(report, "paging", paging_object(&counters));
        json_object_set_new(report, "prefetch", prefetch_object(config, &counters));
    }
    json_object_set_new(report, "hints", hints_object(vm->hints));
    if (vm->node)
        json_object_set_new(report, "memory_node", node_object(vm->node));
    return report;
}

int stats_write(struct vm *vm, const char *path)
{
    json_t *report;
    int error = 0;

    if (stats_fd < 0)
        return 0;
    report = report_object(vm);
    /* One report a run: what an earlier run left in the file was cut off when it was opened. */
    if (json_dumpfd(report, stats_fd, JSON_INDENT(2)) || write(stats_fd, "\n", 1) != 1) {
        error = errno ? -errno : -EIO;
        message_error("--stats %s: cannot write: %s", path, strerror(-error));
    }
    json_decref(report);
    close(stats_fd);
    stats_fd = -1;
    return error;
}

static void progress_line(struct vm *vm)
{
    char resident[32], existing[32], fetched[32], written[32];
    double seconds = (double)(clock_now_ns() - vm->started_ns) / 1e9;
    struct fault_counters counters;
    char line[256];

    if (!vm->node) { /* the engine fills file mappings then, and knows of nothing else */
        uint64_t bytes = ept_resident_bytes(vm->ept);

        snprintf(line, sizeof(line), "farvisor: %.0f s: %s here, nothing is remote\n", seconds,
                 format_bytes(bytes, resident, sizeof(resident)));
    } else {
        fault_engine_counters(vm->engine, &counters);
        snprintf(line, sizeof(line),
                 "farvisor: %.0f s: %s here of %s; %llu faults; %s fetched, %s written back\n",
                 seconds,
                 format_bytes(counters.resident_pages * EPT_PAGE_BYTES, resident, sizeof(resident)),
                 format_bytes(counters.existing_pages * EPT_PAGE_BYTES, existing, sizeof(existing)),
                 (unsigned long long)counters.faults,
                 format_bytes(counters.fetched_bytes, fetched, sizeof(fetched)),
                 format_bytes(counters.written_bytes, written, sizeof(written)));
    }
    /* One write, so that it never lands inside a line of the program's; a lost line is no harm. */
    if (write(STDERR_FILENO, line, strlen(line)) < 0)
        return;
}

static void *progress_main(void *argument)
{
    struct vm *vm = argument;
    struct timespec next;

    clock_gettime(CLOCK_MONOTONIC, &next);
    pthread_mutex_lock(&progress_lock);
    while (progress_running) {
        next.tv_sec++;
        int woken = 0;
        while (progress_running && woken != ETIMEDOUT)
            woken = pthread_cond_timedwait(&progress_stop, &progress_lock, &next);
        if (progress_running)
            progress_line(vm);
    }
    pthread_mutex_unlock(&progress_lock);
    return NULL;
}

void stats_progress_start(struct vm *vm)
{
    pthread_condattr_t attributes;

    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&progress_stop, &attributes);
    pthread_condattr_destroy(&attributes);
    progress_running = true;
    int error = pthread_create(&progress_thread, NULL, progress_main, vm);
    if (error) {
        progress_running = false;
        message_warning("--progress: cannot start its thread: %s", strerror(error));
    }
}

void stats_progress_stop(struct vm *vm)
{
    (void)vm;
    pthread_mutex_lock(&progress_lock);
    bool running = progress_running;
    progress_running = false;
    if (running)
        pthread_cond_signal(&progress_stop);
    pthread_mutex_unlock(&progress_lock);
    if (running)
        pthread_join(progress_thread, NULL);
}
