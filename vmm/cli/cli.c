/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `farvisor run`: the option table, and from the command line to a checked struct run_config.
 * Nothing of the guest exists yet; everything that can be refused by looking at the words alone is
 * refused here, with exit status 125.
 */
#include "vmm/cli/cli.h"

#include <errno.h>
#include <stdlib.h>

const char cli_run_usage[] = "farvisor run [OPTIONS] [--] PROGRAM [ARG...]";

static int set_help(void *config, const char *value)
{
    (void)config;
    (void)value;
    cli_help_exit(
        cli_run_options, cli_run_usage,
        "Runs one Linux program in a guest of its own, with its memory on a memory node.");
}

static int set_version(void *config, const char *value)
{
    (void)config;
    (void)value;
    exit(cli_version(0, NULL));
}

const struct option_spec cli_run_options[] = {
    {"memory", 'm', "SIZE", "most memory the program may have (default: half of this host's)",
     cli_set_memory},
    {"local", 'l', "SIZE|N%", "most of it that may be on this host (default: all of it)",
     cli_set_local},
    {"memserver", 0, "ADDR", "memory node: HOST:PORT, [V6]:PORT or unix:PATH (default: our own)",
     cli_set_memserver},
    {"transport", 0, "NAME", "auto, loopback, ofi or verbs[,KEY=VALUE...] (default: auto)",
     cli_set_transport},
    {"fault-mode", 0, "MODE", "exit, uffd or uffd-spin: who solves a miss (default: exit)",
     cli_set_fault_mode},
    {"prefetch", 0, "NAME", "none, readahead, trend or auto: what to fetch ahead (default: auto)",
     cli_set_prefetch},
    {"map-ahead", 0, "MODE",
     "on or off: map what came along with a missing page at once, where KVM can (default: on)",
     cli_set_map_ahead},
    {"polling", 0, "MODE",
     "auto, on or off: system calls without leaving the guest (default: auto)", cli_set_polling},
    {"timeout", 0, "DURATION", "longest wait for the memory node (default: 5s)", cli_set_timeout},
    {"threads", 0, "N", "most threads the program may have (default: 1024)", cli_set_threads},
    {"env", 'e', "NAME=VALUE", "set an environment variable (repeatable)", cli_set_env},
    {"dir", 'd', "HOST[:GUEST][:ro|rw]", "let the program see a host directory (repeatable)",
     cli_set_dir},
    {"net", 0, "MODE", "none or host: may the program use the network? (default: none)",
     cli_set_net},
    {"publish", 'p', "[ADDR:]PORT[/udp]",
     "let the program listen on a port of this host (repeatable)", cli_set_publish},
    {"allow-connect", 0, "[HOST][:PORT]", "let the program connect there (repeatable)",
     cli_set_allow_connect},
    {"workdir", 'w', "DIR", "the program's working directory (default: the current one)",
     cli_set_workdir},
    {"allocator", 0, "NAME", "own, far or far,whole-pages: the program's malloc (default: own)",
     cli_set_allocator},
    {"guide", 0, "FILE.so", "load a guide beside the program (repeatable)", cli_set_guide},
    {"guide-accuracy", 0, "N%", "switch hints off that are used less (default: 10%)",
     cli_set_guide_accuracy},
    {"guide-time", 0, "N%", "switch guides off that take more of the time (default: 20%)",
     cli_set_guide_time},
    {"stats", 0, "FILE", "write counters as JSON when the program has ended", cli_set_stats},
    {"trace", 0, "FILE", "record faults, fetches and evictions for 'farvisor replay'",
     cli_set_trace},
    {"progress", 0, NULL, "one line a second on standard error", cli_set_progress},
    {"quiet", 'q', NULL, "errors only, no warnings", cli_set_quiet},
    {"verbose", 'v', NULL, "say what is being done", cli_set_verbose},
    {"dump-config", 0, NULL, "print the resulting configuration and exit", cli_set_dump_config},
    {"help", 'h', NULL, "this text", set_help},
    {"version", 0, NULL, "print the version", set_version},
    {NULL, 0, NULL, NULL, NULL},
};

/* Fills `cli` from the words; 0 or -EINVAL after the message. */
static int cli_read(struct cli *cli, int argc, char **argv)
{
    int error = cli_env_defaults(cli);

    if (error) {
        message_error("cannot copy the environment: out of memory");
        return error;
    }
    int operands = options_parse(cli_run_options, "farvisor run", cli, argc, argv);
    if (operands < 0)
        return operands;
    if (operands == argc) {
        cli_usage_error("run: no program given");
        return -EINVAL;
    }
    cli->config.argv = argv + operands;
    if (cli_net_finish(cli))
        return -EINVAL;
    return cli_config_finish(cli);
}

int cli_run(int argc, char **argv)
{
    struct cli cli = {
        .config =
            {
                .transport = "auto",
                .fault_mode = FAULT_MODE_EXIT,
                .map_ahead = true,
                .prefetcher = "auto",
                .allocator = "own",
                .threads_max = FV_VCPU_MAX,
                .timeout_ns = 5000000000ULL,
                .guide_accuracy_percent = 10,
                .guide_time_percent = 20,
            },
        .level = MESSAGE_NORMAL,
    };
    int status = EXIT_FARVISOR;

    if (cli_read(&cli, argc, argv))
        goto free_config;
    if (cli.dump_config) {
        cli_config_dump(&cli.config);
        status = EXIT_SUCCESS;
        goto free_config;
    }
    message_init("farvisor", cli.level);
    if (stats_open(cli.config.stats_path) || record_open(&cli.config))
        goto free_config;
    status = vm_run(&cli.config);
free_config:
    cli_config_free(&cli);
    return status;
}
