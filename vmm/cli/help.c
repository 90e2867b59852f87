/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything of the command line that only prints: help, version, the completion script made from
 * the option tables, and --dump-config. Output asked for goes to standard output with status 0;
 * usage errors are two lines on standard error with status 125.
 */
#include "vmm/cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Ends what printed to standard output: a full disk or closed pipe is a failure, not a success. */
static int output_status(void)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return EXIT_SUCCESS;
    message_error("cannot write to standard output: %s", strerror(errno));
    return EXIT_FARVISOR;
}

int cli_help(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("Usage: %s\n"
           "       %s\n"
           "       farvisor doctor [--json]\n"
           "       farvisor completion bash\n"
           "       farvisor --help | --version\n"
           "\n"
           "Runs one unmodified Linux program in a small virtual machine whose memory lives on\n"
           "another machine. This host keeps a cache of it and fetches what is missing.\n"
           "\n"
           "  run         run a program ('farvisor run --help' lists the options)\n"
           "  replay      what if: a recorded run with another cache, policy or prefetcher\n"
           "  doctor      check whether this host is fit, and how to mend it\n"
           "  completion  print a completion script for the shell\n"
           "\n"
           "The manual: man farvisor.\n",
           cli_run_usage, cli_replay_usage);
    return output_status();
}

int cli_version(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    printf("farvisor %s\n", FV_VERSION);
    return output_status();
}

int cli_usage_error(const char *format, ...)
{
    char text[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    message_error("%s", text);
    fputs("Try 'farvisor --help' for the commands.\n", stderr);
    return EXIT_FARVISOR;
}

_Noreturn void cli_help_exit(const struct option_spec *table, const char *usage, const char *about)
{
    options_print_help(table, usage, about);
    exit(output_status());
}

static void completion_words(const struct option_spec *table)
{
    for (; table->name; table++)
        printf(" --%s", table->name);
}

/* Alternatives of a bash `case`: the options whose value is the next word. */
static void completion_with_value(const struct option_spec *table)
{
    const char *separator = "";

    for (; table->name; table++) {
        if (!table->argument)
            continue;
        printf("%s--%s", separator, table->name);
        if (table->short_name)
            printf("|-%c", table->short_name);
        separator = "|";
    }
}

int cli_completion(int argc, char **argv)
{
    if (argc != 1 || strcmp(argv[0], "bash") != 0)
        return cli_usage_error("completion: the shell must be: bash");
    fputs("# bash completion for farvisor: made by `farvisor completion bash`\n"
          "_farvisor() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} i word\n"
          "    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" = 1 ]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W 'run replay doctor completion --help "
          "--version'"
          " -- \"$cur\")\n"
          "        return\n"
          "    fi\n"
          "    case ${COMP_WORDS[1]} in\n"
          "    doctor) mapfile -t COMPREPLY < <(compgen -W '",
          stdout);
    completion_words(cli_doctor_options);
    fputs("' -- \"$cur\") ;;\n"
          "    replay)\n"
          "        case $prev in\n"
          "        --policy) word='clock fifo lru belady' ;;\n"
          "        --prefetch) word='none readahead trend auto' ;;\n"
          "        *) word='",
          stdout);
    completion_words(cli_replay_options);
    fputs("' ;;\n"
          "        esac\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$word\" -- \"$cur\"; compgen -f -- "
          "\"$cur\") ;;\n"
          "    completion) mapfile -t COMPREPLY < <(compgen -W bash -- \"$cur\") ;;\n"
          "    run)\n"
          "        case $prev in\n"
          "        --transport) word='auto loopback ofi verbs' ;;\n"
          "        --fault-mode) word='exit uffd uffd-spin' ;;\n"
          "        --prefetch) word='none readahead trend auto' ;;\n"
          "        --map-ahead) word='on off' ;;\n"
          "        --polling) word='auto on off' ;;\n"
          "        --net) word='none host' ;;\n"
          "        --allocator) word='own far far,whole-pages' ;;\n"
          "        --stats|--trace|--dir|-d|--workdir|-w|--guide)\n"
          "            mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
          "            return ;;\n"
          "        *) word='",
          stdout);
    completion_words(cli_run_options);
    fputs("' ;;\n"
          "        esac\n"
          "        for ((i = 2; i < COMP_CWORD; i++)); do\n"
          "            case ${COMP_WORDS[i]} in\n"
          "            ",
          stdout);
    completion_with_value(cli_run_options);
    fputs(") i=$((i + 1)) ;;\n"
          "            -*) ;;\n"
          "            *)\n"
          "                mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
          "                return ;;\n"
          "            esac\n"
          "        done\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$word\" -- \"$cur\")\n"
          "        case $cur$prev in\n"
          "        -*) ;;\n"
          "        *) mapfile -t -O \"${#COMPREPLY[@]}\" COMPREPLY < <(compgen -c -- \"$cur\") ;;\n"
          "        esac ;;\n"
          "    esac\n"
          "}\n"
          "complete -o default -F _farvisor farvisor\n",
          stdout);
    return output_status();
}

void cli_config_dump(const struct run_config *config)
{
    static const char *const polling[] = {"auto", "on", "off"};

    printf("memory_bytes=%llu\n", (unsigned long long)config->memory_bytes);
    printf("local_bytes=%llu\n", (unsigned long long)config->local_bytes);
    printf("memserver=%s\n", config->memserver ? config->memserver : "");
    printf("transport=%s\n", config->transport);
    printf("fault_mode=%s\n", fault_mode_name(config->fault_mode));
    printf("prefetch=%s\n", config->prefetcher);
    printf("map_ahead=%s\n", config->map_ahead ? "on" : "off");
    printf("polling=%s\n", polling[config->polling]);
    printf("timeout_ns=%llu\n", (unsigned long long)config->timeout_ns);
    printf("threads=%u\n", config->threads_max);
    printf("workdir=%s\n", config->workdir ? config->workdir : "");
    printf("stats=%s\n", config->stats_path ? config->stats_path : "");
    printf("trace=%s\n", config->trace_path ? config->trace_path : "");
    printf("allocator=%s\n", config->allocator);
    printf("guides=%zu\n", config->guide_count);
    printf("guide_accuracy_percent=%u\n", config->guide_accuracy_percent);
    printf("guide_time_percent=%u\n", config->guide_time_percent);
    printf("progress=%s\n", config->progress ? "yes" : "no");
    for (size_t i = 0; i < config->dir_count; i++)
        printf("dir=%s:%s:%s\n", config->dirs[i].host, config->dirs[i].guest,
               config->dirs[i].writable ? "rw" : "ro");
    cli_net_dump(config);
    for (char **entry = config->envp; *entry; entry++)
        printf("env=%s\n", *entry);
    for (char *const *word = config->argv; *word; word++)
        printf("argv=%s\n", *word);
}
