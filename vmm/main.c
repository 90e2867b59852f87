/* SPDX-License-Identifier: Apache-2.0 */
/*
 * farvisor: a table of subcommands and nothing else. What each one does starts in the file named
 * beside it.
 */
#include "vmm/cli/cli.h"

#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv); /* gets the words after its own name */
} commands[] = {
    {"run", cli_run},               /* cli/cli.c */
    {"replay", cli_replay},         /* cli/replay.c */
    {"doctor", cli_doctor},         /* doctor/doctor.c */
    {"completion", cli_completion}, /* cli/help.c */
    {"--help", cli_help},           /* cli/help.c */
    {"--version", cli_version},     /* cli/help.c */
};

int main(int argc, char **argv)
{
    hostio_keep_stdio();
    message_init("farvisor", MESSAGE_NORMAL);
    if (argc < 2)
        return cli_usage_error("no command given");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 2, argv + 2);
    }
    return cli_usage_error("unknown command '%s'", argv[1]);
}
