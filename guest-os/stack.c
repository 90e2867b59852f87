/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread's stack as a program expects it at its first instruction: argc, argv, envp and
 * the auxiliary vector, then the strings they point to (AMD64 ABI supplement, 3.4.1).
 */
#include "guest-os/kernel.h"

#define GUARD_BYTES   0x10000ULL /* never mapped: running over the end faults */
#define RESERVE_BYTES 0x20000ULL /* what arguments must leave free */
#define RANDOM_BYTES  16
#define AUXV_MAX      24

extern const char vdso_image[];

struct builder {
    gpa_t at; /* next byte to write */
    bool failed;
};

gpa_t stack_map(uint64_t bytes)
{
    bytes = (bytes + FV_PAGE_SIZE - 1) & ~(uint64_t)(FV_PAGE_SIZE - 1);
    int64_t base =
        vmm_call(LINUX_SYS_MMAP, 0, bytes + GUARD_BYTES, 0,
                 LINUX_MAP_PRIVATE | LINUX_MAP_ANON | LINUX_MAP_NORESERVE | LINUX_MAP_GROWSDOWN,
                 UINT64_MAX, 0);
    if (base < 0 || vmm_call3(LINUX_SYS_MPROTECT, (uint64_t)base + GUARD_BYTES, bytes,
                              LINUX_PROT_READ | LINUX_PROT_WRITE) != 0)
        boot_fail("stack", "not enough memory");
    return (gpa_t)base + GUARD_BYTES + bytes;
}

void stack_make_executable(gpa_t top, uint64_t bytes)
{
    bytes &= ~(uint64_t)(FV_PAGE_SIZE - 1);
    vmm_call3(LINUX_SYS_MPROTECT, top - bytes, bytes,
              LINUX_PROT_READ | LINUX_PROT_WRITE | LINUX_PROT_EXEC);
}

static size_t count_strings(const char *strings, size_t bytes)
{
    size_t count = 0;
    for (size_t at = 0; at < bytes; at += strlen(strings + at) + 1)
        count++;
    return count;
}

static void add(struct builder *builder, const void *data, size_t bytes)
{
    if (bytes > 0 && user_write(builder->at, data, bytes) != 0)
        builder->failed = true;
    builder->at += bytes;
}

static void add_word(struct builder *builder, uint64_t word)
{
    add(builder, &word, sizeof(word));
}

/* Pointers to each of the strings, which have been placed at `placed`, and the NULL behind. */
static void add_pointers(struct builder *builder, const char *strings, size_t bytes, gpa_t placed)
{
    for (size_t at = 0; at < bytes; at += strlen(strings + at) + 1)
        add_word(builder, placed + at);
    add_word(builder, 0);
}

struct strings {
    gpa_t random, platform, argv, envp, path;
};

static struct strings add_strings(struct builder *builder, const struct program *program)
{
    static const char platform[] = "x86_64";
    struct strings out;
    out.random = builder->at;
    add(builder, program->random, RANDOM_BYTES);
    out.platform = builder->at;
    add(builder, platform, sizeof(platform));
    out.argv = builder->at;
    add(builder, program->argv, program->argv_bytes);
    out.envp = builder->at;
    add(builder, program->envp, program->envp_bytes);
    out.path = builder->at;
    add(builder, program->path, strlen(program->path) + 1);
    return out;
}

static void add_auxv(struct builder *builder, const struct strings *strings,
                     const struct loaded *loaded, const struct loaded *interpreter)
{
    const uint64_t auxv[AUXV_MAX][2] = {
        {LINUX_AT_SYSINFO_EHDR, (uint64_t)vdso_image},
        {LINUX_AT_HWCAP, process.hwcap},
        {LINUX_AT_PAGESZ, FV_PAGE_SIZE},
        {LINUX_AT_CLKTCK, process.clock_ticks},
        {LINUX_AT_PHDR, loaded->phdr},
        {LINUX_AT_PHENT, 56},
        {LINUX_AT_PHNUM, loaded->phnum},
        {LINUX_AT_BASE, interpreter != NULL ? interpreter->base : 0},
        {LINUX_AT_FLAGS, 0},
        {LINUX_AT_ENTRY, loaded->entry},
        {LINUX_AT_UID, process.uid},
        {LINUX_AT_EUID, process.euid},
        {LINUX_AT_GID, process.gid},
        {LINUX_AT_EGID, process.egid},
        {LINUX_AT_SECURE, 0},
        {LINUX_AT_RANDOM, strings->random},
        {LINUX_AT_HWCAP2, process.hwcap2},
        {LINUX_AT_EXECFN, strings->path},
        {LINUX_AT_PLATFORM, strings->platform},
        {LINUX_AT_MINSIGSTKSZ, signal_frame_bytes()},
        {FV_AT_HINTS, FV_HINT_VERSION},
        {LINUX_AT_NULL, 0},
    };
    for (unsigned i = 0; i == 0 || auxv[i - 1][0] != LINUX_AT_NULL; i++)
        add(builder, auxv[i], sizeof(auxv[i]));
}

gpa_t stack_fill(const struct program *program, gpa_t top, const struct loaded *loaded,
                 const struct loaded *interpreter)
{
    size_t argc = count_strings(program->argv, program->argv_bytes);
    size_t envc = count_strings(program->envp, program->envp_bytes);
    uint64_t string_bytes =
        program->argv_bytes + program->envp_bytes + strlen(program->path) + RANDOM_BYTES + 64;
    uint64_t word_bytes = (argc + envc + 3) * 8 + AUXV_MAX * 16;
    if (string_bytes + word_bytes + RESERVE_BYTES > program->stack_bytes)
        boot_fail(program->path, "argument list too long for its stack");

    struct builder builder = {.at = (top - string_bytes) & ~15ULL};
    gpa_t sp = (builder.at - word_bytes) & ~15ULL;
    struct strings strings = add_strings(&builder, program);
    builder.at = sp;
    add_word(&builder, argc);
    add_pointers(&builder, program->argv, program->argv_bytes, strings.argv);
    add_pointers(&builder, program->envp, program->envp_bytes, strings.envp);
    add_auxv(&builder, &strings, loaded, interpreter);
    if (builder.failed)
        boot_fail("stack", "cannot be written");
    return sp;
}
