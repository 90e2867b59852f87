/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last step from options to struct run_config: sizes, which are checked against each other and
 * against what this host's CPU can address.
 */
#include "fault/fault.h"
#include "vmm/cli/cli.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/sysinfo.h>

#define LOCAL_MIN_BYTES ((uint64_t)FAULT_LOCAL_MIN_PAGES * EPT_PAGE_BYTES)

/* Half: the program then fits this host together with everything else that runs on it. */
static uint64_t memory_default_bytes(void)
{
    struct sysinfo info;

    if (sysinfo(&info))
        return 1ULL << 30;
    uint64_t half = (uint64_t)info.totalram * info.mem_unit / 2;
    return half & ~(uint64_t)(EPT_PAGE_BYTES - 1);
}

/* Guest-physical memory cannot be larger than what the CPU addresses (CPUID 0x80000008 EAX 7:0). */
static uint64_t memory_max_bytes(void)
{
    unsigned eax, ebx, ecx, edx;

    if (!__get_cpuid(0x80000008, &eax, &ebx, &ecx, &edx))
        return 1ULL << 36;
    unsigned bits = eax & 0xff;
    return 1ULL << (bits > 46 ? 46 : bits);
}

/* A size option; a message names the option and the limits. */
static int size_check(const char *option, const char *text, uint64_t max_bytes, uint64_t *bytes)
{
    char limit[32];
    int error = parse_size(text, bytes);

    if (error == -EINVAL) {
        message_error("%s %s: not a size (4096, 64K, 512M, 2G)", option, text);
        return -EINVAL;
    }
    if (error == -ERANGE || *bytes > max_bytes) {
        message_error("%s %s: too large: this host can address %s", option, text,
                      format_bytes(max_bytes, limit, sizeof(limit)));
        return -EINVAL;
    }
    if (*bytes < LOCAL_MIN_BYTES) {
        message_error("%s %s: too small to run a program (at least %s)", option, text,
                      format_bytes(LOCAL_MIN_BYTES, limit, sizeof(limit)));
        return -EINVAL;
    }
    if (*bytes % EPT_PAGE_BYTES) {
        message_error("%s %s: not a multiple of 4096 bytes", option, text);
        return -EINVAL;
    }
    return 0;
}

/* "N%" of --memory; 0 with *bytes set, or -EINVAL after the message. */
static int local_percent(const char *text, uint64_t memory_bytes, uint64_t *bytes)
{
    char digits[8];
    uint64_t percent;
    size_t length = 0;

    for (; text[length] && text[length] != '%' && length < sizeof(digits) - 1; length++)
        digits[length] = text[length];
    digits[length] = '\0';
    if (text[length] != '%' || text[length + 1] || parse_u64(digits, &percent) || percent < 1 ||
        percent > 100) {
        message_error("--local %s: not a share of --memory from 1%% to 100%%", text);
        return -EINVAL;
    }
    *bytes = memory_bytes / 100 * percent + memory_bytes % 100 * percent / 100;
    *bytes -= *bytes % EPT_PAGE_BYTES;
    if (*bytes < LOCAL_MIN_BYTES) {
        char share[32], limit[32];

        message_error("--local %s: %s is too small to run a program (at least %s)", text,
                      format_bytes(*bytes, share, sizeof(share)),
                      format_bytes(LOCAL_MIN_BYTES, limit, sizeof(limit)));
        return -EINVAL;
    }
    return 0;
}

static bool ends_with_percent(const char *text)
{
    while (*text && *text != '%')
        text++;
    return *text == '%';
}

static int sizes_finish(struct cli *cli)
{
    struct run_config *config = &cli->config;
    const char *local = cli->local_text;

    config->memory_bytes = memory_default_bytes();
    if (cli->memory_text &&
        size_check("--memory", cli->memory_text, memory_max_bytes(), &config->memory_bytes))
        return -EINVAL;
    config->local_bytes = config->memory_bytes;
    if (!local)
        return 0;
    if (ends_with_percent(local))
        return local_percent(local, config->memory_bytes, &config->local_bytes);
    if (size_check("--local", local, memory_max_bytes(), &config->local_bytes))
        return -EINVAL;
    if (config->local_bytes > config->memory_bytes) {
        char memory[32];

        message_error("--local %s: larger than --memory, which is %s", local,
                      format_bytes(config->memory_bytes, memory, sizeof(memory)));
        return -EINVAL;
    }
    return 0;
}

int cli_config_finish(struct cli *cli)
{
    int error = sizes_finish(cli);

    return error ? error : cli_guides_finish(cli);
}

void cli_config_free(struct cli *cli)
{
    for (size_t i = 0; i < cli->config.dir_count; i++) {
        free((char *)cli->config.dirs[i].host);
        free((char *)cli->config.dirs[i].guest);
    }
    free(cli->config.dirs);
    free(cli->config.publish);
    free(cli->config.connect);
    free(cli->config.envp);
    free(cli->preload);
}
