/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One setter an option of `farvisor run`: strict text to value, one message when it will not do.
 * Sizes only become numbers in cli/config.c, because --local may be a share of --memory and may
 * come first.
 */
#include "vmm/cli/cli.h"

#include "fault/fault.h"
#include "support.h"

#include <errno.h>
#include <string.h>

#define TIMEOUT_MIN_NS 100000000ULL     /* below this, a busy but healthy node looks dead */
#define TIMEOUT_MAX_NS 3600000000000ULL /* an hour: more is a typing mistake */

int cli_set_memory(void *cli, const char *value)
{
    ((struct cli *)cli)->memory_text = value;
    return 0;
}

int cli_set_local(void *cli, const char *value)
{
    ((struct cli *)cli)->local_text = value;
    return 0;
}

int cli_set_memserver(void *cli, const char *value)
{
    if (!strchr(value, ':')) {
        message_error("--memserver %s: not an address (HOST:PORT, [V6]:PORT or unix:PATH)", value);
        return -EINVAL;
    }
    ((struct cli *)cli)->config.memserver = value;
    return 0;
}

int cli_set_transport(void *cli, const char *value)
{
    static const char *const names[] = {"auto", "loopback", "ofi", "verbs"};
    size_t length = strcspn(value, ",");

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strlen(names[i]) == length && strncmp(names[i], value, length) == 0) {
            ((struct cli *)cli)->config.transport = value;
            return 0;
        }
    }
    message_error("--transport %s: unknown transport (auto, loopback, ofi or verbs)", value);
    return -EINVAL;
}

static const char *const fault_modes[] = {
    [FAULT_MODE_EXIT] = "exit", [FAULT_MODE_UFFD] = "uffd", [FAULT_MODE_UFFD_SPIN] = "uffd-spin"};

const char *fault_mode_name(enum fault_mode mode)
{
    return fault_modes[mode];
}

int cli_set_fault_mode(void *cli, const char *value)
{
    struct run_config *config = &((struct cli *)cli)->config;

    for (unsigned mode = FAULT_MODE_EXIT; mode <= FAULT_MODE_UFFD_SPIN; mode++) {
        if (strcmp(value, fault_modes[mode]) == 0) {
            config->fault_mode = (enum fault_mode)mode;
            return 0;
        }
    }
    message_error("--fault-mode %s: unknown mode (exit, uffd or uffd-spin)", value);
    return -EINVAL;
}

int cli_set_prefetch(void *cli, const char *value)
{
    struct run_config *config = &((struct cli *)cli)->config;

    if (!fault_prefetcher_known(value)) {
        message_error("--prefetch %s: unknown prefetcher (none, readahead, trend or auto)", value);
        return -EINVAL;
    }
    config->prefetcher = value;
    return 0;
}

int cli_set_map_ahead(void *cli, const char *value)
{
    bool on = strcmp(value, "on") == 0;

    if (!on && strcmp(value, "off") != 0) {
        message_error("--map-ahead %s: not on or off", value);
        return -EINVAL;
    }
    ((struct cli *)cli)->config.map_ahead = on;
    return 0;
}

int cli_set_polling(void *cli, const char *value)
{
    struct run_config *config = &((struct cli *)cli)->config;

    if (strcmp(value, "auto") == 0) {
        config->polling = POLLING_AUTO;
    } else if (strcmp(value, "on") == 0) {
        config->polling = POLLING_ON;
    } else if (strcmp(value, "off") == 0) {
        config->polling = POLLING_OFF;
    } else {
        message_error("--polling %s: unknown mode (auto, on or off)", value);
        return -EINVAL;
    }
    return 0;
}

int cli_set_threads(void *cli, const char *value)
{
    uint64_t threads;

    if (parse_u64(value, &threads) || threads < 1 || threads > FV_VCPU_MAX) {
        message_error("--threads %s: not a number from 1 to %d", value, FV_VCPU_MAX);
        return -EINVAL;
    }
    ((struct cli *)cli)->config.threads_max = (uint32_t)threads;
    return 0;
}

int cli_set_workdir(void *cli, const char *value)
{
    if (value[0] != '/') {
        message_error("--workdir %s: not an absolute path", value);
        return -EINVAL;
    }
    ((struct cli *)cli)->config.workdir = value;
    return 0;
}

int cli_set_timeout(void *cli, const char *value)
{
    uint64_t ns;

    if (parse_duration(value, &ns) || ns < TIMEOUT_MIN_NS || ns > TIMEOUT_MAX_NS) {
        message_error("--timeout %s: not a duration from 100ms to 3600s (5s, 500ms)", value);
        return -EINVAL;
    }
    ((struct cli *)cli)->config.timeout_ns = ns;
    return 0;
}

int cli_set_stats(void *cli, const char *value)
{
    if (value[0] == '\0') {
        message_error("--stats: the file name is empty");
        return -EINVAL;
    }
    ((struct cli *)cli)->config.stats_path = value;
    return 0;
}

int cli_set_trace(void *cli, const char *value)
{
    if (value[0] == '\0') {
        message_error("--trace: the file name is empty");
        return -EINVAL;
    }
    ((struct cli *)cli)->config.trace_path = value;
    return 0;
}

int cli_set_progress(void *cli, const char *value)
{
    (void)value;
    ((struct cli *)cli)->config.progress = true;
    return 0;
}

int cli_set_quiet(void *cli, const char *value)
{
    (void)value;
    ((struct cli *)cli)->level = MESSAGE_QUIET;
    return 0;
}

int cli_set_verbose(void *cli, const char *value)
{
    (void)value;
    ((struct cli *)cli)->level = MESSAGE_VERBOSE;
    return 0;
}

int cli_set_dump_config(void *cli, const char *value)
{
    (void)value;
    ((struct cli *)cli)->dump_config = true;
    return 0;
}
