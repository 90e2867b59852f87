/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Command lines from one table a program: parsing, --help and the completion script all read the
 * same rows, so they cannot drift apart (tests/system/cli.sh compares the man page too).
 * GNU long options, `--name VALUE` or `--name=VALUE`, single-letter forms on their own (`-q`); no
 * abbreviations, so that a new option can never change what an old script means.
 */
#include "support.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define OPTIONS_HELP_COLUMN 30

static int options_usage_error(const char *command)
{
    fprintf(stderr, "Try '%s --help' for the options.\n", command);
    return -EINVAL;
}

/* The row for "--name", "--name=value" or "-c"; *value is set to the text after '=' or NULL. */
static const struct option_spec *options_find(const struct option_spec *table, const char *word,
                                              const char **value)
{
    *value = NULL;
    if (word[1] != '-') {
        for (; table->name; table++) {
            if (table->short_name && word[1] == table->short_name && word[2] == '\0')
                return table;
        }
        return NULL;
    }
    const char *name = word + 2;
    const char *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);

    for (; table->name; table++) {
        if (strlen(table->name) != length || strncmp(table->name, name, length) != 0)
            continue;
        *value = equals ? equals + 1 : NULL;
        return table;
    }
    return NULL;
}

int options_parse(const struct option_spec *table, const char *command, void *config, int argc,
                  char **argv)
{
    int at = 0;

    for (; at < argc; at++) {
        const char *word = argv[at];
        const char *value;

        if (word[0] != '-' || word[1] == '\0')
            return at;
        if (strcmp(word, "--") == 0)
            return at + 1;
        const struct option_spec *option = options_find(table, word, &value);
        if (!option) {
            message_error("unknown option '%s'", word);
            return options_usage_error(command);
        }
        if (value && !option->argument) {
            message_error("option '--%s' takes no value, but got '%s'", option->name, value);
            return options_usage_error(command);
        }
        if (!value && option->argument) {
            if (++at == argc) {
                message_error("option '--%s' needs a value: %s", option->name, option->argument);
                return options_usage_error(command);
            }
            value = argv[at];
        }
        if (option->set(config, value) < 0)
            return options_usage_error(command);
    }
    return at;
}

void options_print_help(const struct option_spec *table, const char *usage, const char *about)
{
    printf("Usage: %s\n%s\n\nOptions:\n", usage, about);
    for (; table->name; table++) {
        char left[128];
        char letter[8] = "    ";

        if (table->short_name)
            snprintf(letter, sizeof(letter), "-%c, ", table->short_name);
        int length = snprintf(left, sizeof(left), "  %s--%s%s%s", letter, table->name,
                              table->argument ? " " : "", table->argument ? table->argument : "");
        if (length >= OPTIONS_HELP_COLUMN - 1)
            printf("%s\n%*s%s\n", left, OPTIONS_HELP_COLUMN, "", table->help);
        else
            printf("%-*s%s\n", OPTIONS_HELP_COLUMN, left, table->help);
    }
}
