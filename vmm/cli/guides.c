/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --guide and its limits, and --allocator. A guide is loaded by the program's own ld.so
 * (LD_PRELOAD), after the library that all guides share; so is the allocator. Their folders are
 * shown to the program, read-only, at names of their own, so that a guide may lie anywhere and
 * never changes what the program sees elsewhere.
 */
#include "vmm/cli/cli.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GUIDES_MAX  16u
#define ALLOCATOR   (GUIDES_MAX + 1) /* number of its folder */
#define GUEST_PLACE "/.farvisor/guides"

int cli_preload(struct cli *cli, const char *path, size_t number)
{
    char grant[PATH_MAX + 64], *longer;
    const char *slash = strrchr(path, '/');
    const char *before = cli->preload ? cli->preload : "LD_PRELOAD=";

    snprintf(grant, sizeof(grant), "%.*s:" GUEST_PLACE "/%zu:ro", (int)(slash - path), path,
             number);
    if (cli_set_dir(cli, grant))
        return -EINVAL;
    if (asprintf(&longer, "%s%s" GUEST_PLACE "/%zu/%s", before, cli->preload ? ":" : "", number,
                 slash + 1) < 0) {
        message_error("%s: cannot be preloaded: out of memory", path);
        return -ENOMEM;
    }
    free(cli->preload);
    cli->preload = longer;
    return 0;
}

/* The library itself comes first, so that guides find it loaded. */
static int library_place(struct cli *cli)
{
    char path[PATH_MAX], real[PATH_MAX];
    int error = install_find(INSTALL_GUIDE_VARIABLE, INSTALL_GUIDE_NAME, path, sizeof(path));

    if (!error && !realpath(path, real))
        error = -errno;
    if (error) {
        message_error("--guide: cannot find %s: %s", INSTALL_GUIDE_NAME, strerror(-error));
        return -EINVAL;
    }
    /* Its soname, not what a link stands for: ld.so compares names. */
    char *name = strrchr(real, '/') + 1;
    snprintf(name, sizeof(real) - (size_t)(name - real), "%s", INSTALL_GUIDE_NAME);
    return cli_preload(cli, real, 0);
}

int cli_set_guide(void *config, const char *value)
{
    struct cli *cli = config;
    char path[PATH_MAX];
    struct stat status;

    if (!realpath(value, path) || stat(path, &status)) {
        message_error("--guide %s: %s", value, strerror(errno));
        return -EINVAL;
    }
    if (!S_ISREG(status.st_mode) || strpbrk(path, ": ")) {
        message_error("--guide %s: not a file, or a name with a space or colon", value);
        return -EINVAL;
    }
    if (cli->config.guide_count == GUIDES_MAX) {
        message_error("--guide %s: more than %u guides", value, GUIDES_MAX);
        return -EINVAL;
    }
    if (cli->config.guide_count == 0 && library_place(cli))
        return -EINVAL;
    return cli_preload(cli, path, ++cli->config.guide_count) ? -EINVAL : 0;
}

int cli_set_allocator(void *config, const char *value)
{
    struct cli *cli = config;
    char path[PATH_MAX], real[PATH_MAX];
    bool whole = strcmp(value, "far,whole-pages") == 0;

    cli->config.allocator = value;
    cli->config.whole_pages = whole;
    if (strcmp(value, "own") == 0)
        return 0;
    if (!whole && strcmp(value, "far") != 0) {
        message_error("--allocator %s: not own, far or far,whole-pages", value);
        return -EINVAL;
    }
    int error = install_find(INSTALL_ALLOC_VARIABLE, INSTALL_ALLOC_NAME, path, sizeof(path));
    if (!error && !realpath(path, real))
        error = -errno;
    if (error) {
        message_error("--allocator: cannot find %s: %s", INSTALL_ALLOC_NAME, strerror(-error));
        return -EINVAL;
    }
    return cli_preload(cli, real, ALLOCATOR) ? -EINVAL : 0;
}

static int percent_set(const char *option, const char *value, uint32_t *percent)
{
    size_t length = strlen(value);
    char digits[4] = "";
    uint64_t number;

    if (length >= 2 && length <= sizeof(digits) && value[length - 1] == '%')
        memcpy(digits, value, length - 1);
    if (parse_u64(digits, &number) || number > 100) {
        message_error("%s %s: not a share from 0%% to 100%%", option, value);
        return -EINVAL;
    }
    *percent = (uint32_t)number;
    return 0;
}

int cli_set_guide_accuracy(void *cli, const char *value)
{
    return percent_set("--guide-accuracy", value,
                       &((struct cli *)cli)->config.guide_accuracy_percent);
}

int cli_set_guide_time(void *cli, const char *value)
{
    return percent_set("--guide-time", value, &((struct cli *)cli)->config.guide_time_percent);
}

int cli_guides_finish(struct cli *cli)
{
    const char *own = cli_env_get(cli, "LD_PRELOAD");
    char *both;

    if (!cli->preload)
        return 0;
    if (own && *own) {
        if (asprintf(&both, "%s:%s", cli->preload, own) < 0) {
            message_error("LD_PRELOAD: out of memory");
            return -EINVAL;
        }
        free(cli->preload);
        cli->preload = both;
    }
    if (cli_env_put(cli, cli->preload)) {
        message_error("LD_PRELOAD: out of memory");
        return -EINVAL;
    }
    return 0;
}
