/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memserver: lends this host's memory to farvisor guests. Serves, or asks a server for its status.
 */
#include "memserver/memserver.h"
#include "support.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct server_config config;
    int error;

    message_init("memserver", MESSAGE_NORMAL);
    if (argc == 2 && strcmp(argv[1], WORKER_ARGUMENT) == 0)
        return worker_process_main() < 0 ? SERVER_FAILURE_STATUS : 0;
    if (server_config_parse(&config, argc, argv) < 0)
        return SERVER_FAILURE_STATUS;
    if (config.help) {
        options_print_help(server_options, "memserver [OPTIONS]",
                           "Lends this host's memory to farvisor guests.");
        return 0;
    }
    if (config.version) {
        printf("memserver %s\n", FV_VERSION);
        return 0;
    }
    message_init("memserver", config.quiet     ? MESSAGE_QUIET
                              : config.verbose ? MESSAGE_VERBOSE
                                               : MESSAGE_NORMAL);
    if (config.status_address)
        error = status_print(config.status_address, config.json);
    else
        error = server_run(&config);
    return error < 0 ? SERVER_FAILURE_STATUS : 0;
}
