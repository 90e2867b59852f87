/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --trace: the file of a recording and what is said about it. The recorder itself is the paging
 * engine's (fault/trace.c).
 */
#include "fault/fault.h"
#include "fault/trace.h"
#include "rdma/rdma.h"
#include "support.h"
#include "vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static int record_fd = -1; /* open since before the sandbox closed the door */

int record_open(const struct run_config *config)
{
    if (!config->trace_path)
        return 0;
    if (config->local_bytes == config->memory_bytes)
        message_warning("--trace %s: nothing is remote, so there is next to nothing to record "
                        "(see --local)",
                        config->trace_path);
    record_fd = open(config->trace_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (record_fd >= 0)
        return 0;
    int error = -errno;
    message_error("--trace %s: cannot write: %s", config->trace_path, strerror(errno));
    return error;
}

/* Text of a header is plain ASCII; the program's name may hold anything. */
static void text_copy(char *to, size_t room, const char *from)
{
    for (; *from && room > 1; from++, room--)
        *to++ = *from >= ' ' && *from <= '~' ? *from : '?';
    *to = '\0';
}

int record_start(struct vm *vm)
{
    const struct run_config *config = vm->config;
    struct trace_header header = {
        .memory_pages = config->memory_bytes / EPT_PAGE_BYTES,
        .local_pages = config->local_bytes / EPT_PAGE_BYTES,
    };
    if (record_fd < 0)
        return 0;
    text_copy(header.prefetcher, sizeof(header.prefetcher), config->prefetcher);
    text_copy(header.fault_mode, sizeof(header.fault_mode), fault_mode_name(config->fault_mode));
    text_copy(header.transport, sizeof(header.transport),
              vm->node ? rdma_node_describe(vm->node) : "none");
    text_copy(header.program, sizeof(header.program), config->argv[0]);
    int error = trace_start(record_fd, &header);
    if (error)
        message_error("--trace %s: cannot write: %s", config->trace_path, strerror(-error));
    return error;
}

int record_stop(struct vm *vm)
{
    const char *path = vm->config->trace_path;
    struct trace_totals totals;
    if (record_fd < 0)
        return 0;
    trace_stop(&totals);
    if (close(record_fd) && !totals.error)
        totals.error = -errno;
    record_fd = -1;
    if (totals.error)
        message_error("--trace %s: cannot write: %s", path, strerror(-totals.error));
    if (totals.dropped)
        message_warning("--trace %s: %llu events were dropped, %llu recorded", path,
                        (unsigned long long)totals.dropped, (unsigned long long)totals.records);
    else
        message_info("--trace %s: %llu events recorded", path, (unsigned long long)totals.records);
    return totals.error;
}
