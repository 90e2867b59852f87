/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the host the program gets by option: environment variables and directories. Our own
 * environment is not passed on whole, since it may hold secrets the program needs no more than the
 * files it was not given: only the variables listed here are, plus --env.
 */
#include "vmm/cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where to look, who one is, how to print. A trailing * stands for any ending. In farvisor(1). */
static const char *const env_passed[] = {
    "PATH", "HOME", "USER",     "LOGNAME", "SHELL",   "TERM",  "COLORTERM",
    "LANG", "LC_*", "LANGUAGE", "TZ",      "COLUMNS", "LINES",
};

static bool env_is_passed(const char *entry)
{
    for (size_t i = 0; i < sizeof(env_passed) / sizeof(env_passed[0]); i++) {
        size_t length = strlen(env_passed[i]);

        if (env_passed[i][length - 1] == '*') {
            if (strncmp(entry, env_passed[i], length - 1) == 0)
                return true;
        } else if (strncmp(entry, env_passed[i], length) == 0 && entry[length] == '=') {
            return true;
        }
    }
    return false;
}

/* Adds the entry, or replaces the one of the same name. */
int cli_env_put(struct cli *cli, const char *entry)
{
    size_t name_bytes = (size_t)(strchr(entry, '=') - entry) + 1;
    char **list = cli->config.envp;

    for (size_t i = 0; i < cli->env_count; i++) {
        if (strncmp(list[i], entry, name_bytes) == 0) {
            list[i] = (char *)entry;
            return 0;
        }
    }
    char **longer = realloc(list, (cli->env_count + 2) * sizeof(*list));
    if (!longer)
        return -ENOMEM;
    longer[cli->env_count++] = (char *)entry;
    longer[cli->env_count] = NULL;
    cli->config.envp = longer;
    return 0;
}

const char *cli_env_get(const struct cli *cli, const char *name)
{
    size_t bytes = strlen(name);

    for (size_t i = 0; i < cli->env_count; i++) {
        if (strncmp(cli->config.envp[i], name, bytes) == 0 && cli->config.envp[i][bytes] == '=')
            return cli->config.envp[i] + bytes + 1;
    }
    return NULL;
}

int cli_env_defaults(struct cli *cli)
{
    cli->config.envp = calloc(1, sizeof(*cli->config.envp));
    if (!cli->config.envp)
        return -ENOMEM;
    for (char **entry = environ; *entry; entry++) {
        if (env_is_passed(*entry) && cli_env_put(cli, *entry))
            return -ENOMEM;
    }
    return 0;
}

int cli_set_env(void *cli, const char *value)
{
    const char *equals = strchr(value, '=');

    if (!equals || equals == value) {
        message_error("--env %s: not of the form NAME=VALUE", value);
        return -EINVAL;
    }
    if (cli_env_put(cli, value)) {
        message_error("--env %s: out of memory", value);
        return -EINVAL;
    }
    return 0;
}

/* Cuts "HOST[:GUEST][:ro|rw]" into its parts in place; *guest NULL when not given. */
static int dir_split(char *text, const char **guest, bool *writable)
{
    char *colon = strrchr(text, ':');

    *guest = NULL;
    *writable = false;
    if (colon && (strcmp(colon, ":ro") == 0 || strcmp(colon, ":rw") == 0)) {
        *writable = strcmp(colon, ":rw") == 0;
        *colon = '\0';
    }
    colon = strchr(text, ':');
    if (!colon)
        return text[0] ? 0 : -EINVAL;
    *colon = '\0';
    *guest = colon + 1;
    return text[0] && (*guest)[0] == '/' && !strchr(*guest, ':') ? 0 : -EINVAL;
}

/* Fills a grant of `text`, which is cut up; says what is wrong with `value`, the uncut original. */
static int dir_grant_fill(struct dir_grant *grant, char *text, const char *value)
{
    const char *guest;
    struct stat status;

    if (dir_split(text, &guest, &grant->writable)) {
        message_error("--dir %s: not of the form HOST[:/GUEST][:ro|rw]", value);
        return -EINVAL;
    }
    char *host = realpath(text, NULL);
    if (!host || stat(host, &status)) {
        message_error("--dir %s: %s: %s", value, text, strerror(errno));
        free(host);
        return -EINVAL;
    }
    if (!S_ISDIR(status.st_mode)) {
        message_error("--dir %s: %s: not a directory", value, text);
        free(host);
        return -EINVAL;
    }
    grant->host = host;
    grant->guest = strdup(guest ? guest : host);
    return grant->guest ? 0 : -ENOMEM;
}

int cli_set_dir(void *cli, const char *value)
{
    struct run_config *config = &((struct cli *)cli)->config;
    struct dir_grant *grants =
        realloc(config->dirs, (config->dir_count + 1) * sizeof(*config->dirs));

    if (!grants)
        return -ENOMEM;
    config->dirs = grants;
    char *text = strdup(value);
    if (!text)
        return -ENOMEM;
    int error = dir_grant_fill(&grants[config->dir_count], text, value);
    free(text);
    if (!error)
        config->dir_count++;
    return error;
}
