/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memserver's command line: one table, from which parsing, --help and the manual's synopsis come.
 */
#include "memserver/memserver.h"
#include "support.h"

#include <errno.h>
#include <string.h>

#define TENANTS_DEFAULT  256u
#define TENANTS_MAX      4096u
#define GRACE_DEFAULT_NS 60000000000ULL

static int set_listen(void *to, const char *value)
{
    struct server_config *config = to;

    if (config->listen_count == SERVER_LISTEN_MAX) {
        message_error("--listen: more than %d addresses", SERVER_LISTEN_MAX);
        return -EINVAL;
    }
    config->listen[config->listen_count++] = value;
    return 0;
}

static int set_slabs(const char *option, const char *value, uint64_t *bytes)
{
    if (parse_size(value, bytes) < 0 || *bytes > WIRE_SPAN_MAX_PAGES * 4096u) {
        message_error("--%s: '%s' is not a size (expected e.g. 512M, 64G)", option, value);
        return -EINVAL;
    }
    if (*bytes < WIRE_SLAB_BYTES) {
        message_error("--%s: '%s' is below the smallest unit, 2M", option, value);
        return -EINVAL;
    }
    *bytes -= *bytes % WIRE_SLAB_BYTES;
    return 0;
}

static int set_capacity(void *to, const char *value)
{
    return set_slabs("capacity", value, &((struct server_config *)to)->capacity_bytes);
}

static int set_quota(void *to, const char *value)
{
    return set_slabs("quota", value, &((struct server_config *)to)->quota_bytes);
}

static int set_grace(void *to, const char *value)
{
    if (parse_duration(value, &((struct server_config *)to)->grace_ns) < 0) {
        message_error("--grace: '%s' is not a duration (expected e.g. 30s, 500ms)", value);
        return -EINVAL;
    }
    return 0;
}

static int set_max_tenants(void *to, const char *value)
{
    uint64_t number;

    if (parse_u64(value, &number) < 0 || number == 0 || number > TENANTS_MAX) {
        message_error("--max-tenants: '%s' is not a number from 1 to %u", value, TENANTS_MAX);
        return -EINVAL;
    }
    ((struct server_config *)to)->tenants_max = (uint32_t)number;
    return 0;
}

static int set_ready_fd(void *to, const char *value)
{
    uint64_t number;

    if (parse_u64(value, &number) < 0 || number > 1000000) {
        message_error("--ready-fd: '%s' is not a file descriptor", value);
        return -EINVAL;
    }
    ((struct server_config *)to)->ready_fd = (int)number;
    return 0;
}

static int set_rdma(void *to, const char *value)
{
    struct verbs_selection *selection = &((struct server_config *)to)->rdma;
    char why[VERBS_WHY_BYTES];

    if (verbs_selection_parse(selection, value, why) == 0 &&
        verbs_selection_check(selection, why) == 0)
        return 0;
    message_error("--rdma: %s", why);
    return -EINVAL;
}

static int set_status(void *to, const char *value)
{
    ((struct server_config *)to)->status_address = value;
    return 0;
}

#define FLAG(member)                                                                               \
    static int set_##member(void *to, const char *value)                                           \
    {                                                                                              \
        (void)value;                                                                               \
        ((struct server_config *)to)->member = true;                                               \
        return 0;                                                                                  \
    }
FLAG(hugepages)
FLAG(exit_with_parent)
FLAG(json)
FLAG(quiet)
FLAG(verbose)
FLAG(help)
FLAG(version)

const struct option_spec server_options[] = {
    {"listen", 0, "ADDR", "serve on HOST:PORT, [IPV6]:PORT or unix:PATH (repeatable)", set_listen},
    {"capacity", 0, "SIZE", "memory for all tenants together (3/4 of what is available)",
     set_capacity},
    {"quota", 0, "SIZE", "most memory for one tenant (the capacity)", set_quota},
    {"max-tenants", 0, "N", "most tenants at a time (256)", set_max_tenants},
    {"hugepages", 0, NULL, "use the host's reserved 2 MiB pages where there are enough",
     set_hugepages},
    {"rdma", 0, "KEY=VALUE[,...]", "serve RDMA by this device=, port= and gid= only", set_rdma},
    {"grace", 0, "TIME", "on SIGTERM wait so long for tenants to leave (60s)", set_grace},
    {"ready-fd", 0, "FD", "write the bound addresses to this file descriptor", set_ready_fd},
    {"exit-with-parent", 0, NULL, "end when the process that started it ends",
     set_exit_with_parent},
    {"status", 0, "ADDR", "ask the server at ADDR for its tenants and memory", set_status},
    {"json", 0, NULL, "with --status: as JSON", set_json},
    {"quiet", 'q', NULL, "only errors", set_quiet},
    {"verbose", 'v', NULL, "also say who comes and goes", set_verbose},
    {"help", 'h', NULL, "this text", set_help},
    {"version", 0, NULL, "the version", set_version},
    {NULL, 0, NULL, NULL, NULL},
};

int server_config_parse(struct server_config *config, int argc, char **argv)
{
    int operand;

    memset(config, 0, sizeof(*config));
    config->ready_fd = -1;
    config->tenants_max = TENANTS_DEFAULT;
    config->grace_ns = GRACE_DEFAULT_NS;
    operand = options_parse(server_options, "memserver", config, argc - 1, argv + 1);
    if (operand < 0)
        return operand;
    if (operand < argc - 1) {
        message_error("unexpected argument '%s' (try 'memserver --help')", argv[operand + 1]);
        return -EINVAL;
    }
    if (config->json && !config->status_address) {
        message_error("--json: only together with --status");
        return -EINVAL;
    }
    if (config->listen_count == 0)
        config->listen[config->listen_count++] = SERVER_DEFAULT_ADDRESS;
    return 0;
}
