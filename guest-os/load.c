/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads the program and, if it names one, its interpreter: static, static-PIE and dynamic ELF
 * files. Segments are mapped from the file as Linux does, so their pages come in on demand.
 * Whatever is wrong with a file ends the guest with one line and exit status 126.
 */
#include "guest-os/elf_check.h"
#include "guest-os/kernel.h"

#define PAGE         ((uint64_t)FV_PAGE_SIZE)
#define HEADER_BYTES PAGE /* read in one go: nearly always covers the program headers, too */

/* Position-independent programs go here, so that their break has room above it. */
#define PIE_BASE 0x1555554000ULL

#define RESERVE_FLAGS (LINUX_MAP_PRIVATE | LINUX_MAP_ANON | LINUX_MAP_NORESERVE)

struct file {
    const char *name; /* for messages */
    gpa_t hint;       /* where a position-independent one should go; 0: anywhere */
    uint32_t fd;
    gpa_t scratch; /* program memory for reading: the VMM writes nowhere else */
};

static struct elf_plan plan;
static uint8_t headers[ELF_PHDRS_MAX * ELF_PHDR_BYTES];

/* A signal that comes this early waits: boot.c puts fv_vcpu.pending back. */
static int64_t call_uninterrupted(uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    int64_t result;
    do {
        result = vmm_call(number, a, b, c, d, 0, 0);
        if (result == -LINUX_ERESTARTSYS || result == -LINUX_EINTR)
            boot_defer_pending();
    } while (result == -LINUX_ERESTARTSYS || result == -LINUX_EINTR);
    return result;
}

static size_t file_read(const struct file *file, void *to, uint64_t offset, size_t bytes)
{
    size_t done = 0;
    while (done < bytes) {
        int64_t got = call_uninterrupted(LINUX_SYS_PREAD64, file->fd, file->scratch, bytes - done,
                                         offset + done);
        if (got < 0)
            boot_fail(file->name, "cannot read it");
        if (got == 0)
            break;
        if (user_read((char *)to + done, file->scratch, (size_t)got) != 0 ||
            user_clear(file->scratch, (size_t)got) != 0)
            boot_fail(file->name, "cannot read it");
        done += (size_t)got;
    }
    return done;
}

#define STAT_BYTES       144 /* struct stat, and where st_size is in it */
#define STAT_SIZE_OFFSET 48

/* Length of the file, so that a cut-off one is refused and not found out by a fault. */
static uint64_t file_bytes(const struct file *file)
{
    uint64_t bytes;
    if (call_uninterrupted(LINUX_SYS_FSTAT, file->fd, file->scratch, 0, 0) != 0 ||
        user_get64(&bytes, file->scratch + STAT_SIZE_OFFSET) != 0 ||
        user_clear(file->scratch, STAT_BYTES) != 0)
        boot_fail(file->name, "cannot read it");
    return bytes;
}

static void file_check(const struct file *file, struct elf_header *header)
{
    size_t got = file_read(file, headers, 0, HEADER_BYTES);
    const char *wrong = elf_header_check(headers, got, header);
    if (wrong != NULL)
        boot_fail(file->name, wrong);
    size_t bytes = (size_t)header->phdr_count * ELF_PHDR_BYTES;
    if (header->phdrs_offset <= got && bytes <= got - header->phdrs_offset)
        memmove(headers, headers + header->phdrs_offset, bytes);
    else if (file_read(file, headers, header->phdrs_offset, bytes) != bytes)
        boot_fail(file->name, "program headers outside the file");
    wrong = elf_segments_check(header, headers, file_bytes(file), &plan);
    if (wrong != NULL)
        boot_fail(file->name, wrong);
}

static gpa_t map(const struct file *file, gpa_t at, uint64_t bytes, unsigned protection,
                 unsigned flags, int64_t fd, uint64_t offset)
{
    int64_t result = vmm_call(LINUX_SYS_MMAP, at, bytes, protection, flags, (uint64_t)fd, offset);
    if (result < 0)
        boot_fail(file->name, result == -LINUX_ENOMEM ? "not enough memory to load it"
                                                      : "its memory cannot be mapped");
    return (gpa_t)result;
}

/* Reserves the whole range first, so that segments cannot meet anything else. Returns the bias. */
static gpa_t reserve(const struct file *file, bool dynamic)
{
    if (!dynamic) {
        uint64_t bytes = plan.end - plan.begin;
        if (!user_range(plan.begin, bytes))
            boot_fail(file->name, "linked to an address that the guest does not have");
        map(file, plan.begin, bytes, 0, RESERVE_FLAGS | LINUX_MAP_FIXED_NOREPLACE, -1, 0);
        return 0;
    }
    uint64_t mask = plan.align_bytes - 1, first = plan.begin & ~mask;
    gpa_t base = map(file, file->hint, plan.end - first + mask + 1 - PAGE, 0, RESERVE_FLAGS, -1, 0);
    return ((base + mask) & ~mask) - first;
}

static void map_segment(const struct file *file, const struct elf_segment *segment, gpa_t bias)
{
    gpa_t begin = bias + segment->address, file_end = begin + segment->file_bytes;
    gpa_t end = (begin + segment->memory_bytes + PAGE - 1) & ~(PAGE - 1);
    gpa_t mapped_end = begin & ~(PAGE - 1);
    if (segment->file_bytes > 0) {
        uint64_t within = begin % PAGE;
        map(file, begin - within, segment->file_bytes + within, segment->protection,
            LINUX_MAP_PRIVATE | LINUX_MAP_FIXED, file->fd, segment->file_offset - within);
        mapped_end = (file_end + PAGE - 1) & ~(PAGE - 1);
        /* The rest of the last page is the file's next bytes until it is cleared. */
        if (segment->memory_bytes > segment->file_bytes &&
            (segment->protection & LINUX_PROT_WRITE) != 0 &&
            user_clear(file_end, mapped_end - file_end) != 0)
            boot_fail(file->name, "cannot clear its data");
    }
    if (end > mapped_end)
        map(file, mapped_end, end - mapped_end, segment->protection,
            LINUX_MAP_PRIVATE | LINUX_MAP_ANON | LINUX_MAP_FIXED, -1, 0);
}

static void load_file(const struct file *file, struct loaded *out)
{
    struct elf_header header;
    file_check(file, &header);
    out->interpreter[0] = '\0';
    if (plan.interpreter_bytes > 0) {
        size_t bytes = plan.interpreter_bytes;
        if (file_read(file, out->interpreter, plan.interpreter_offset, bytes) != bytes ||
            out->interpreter[bytes - 1] != '\0')
            boot_fail(file->name, "impossible interpreter path");
    }
    out->base = reserve(file, header.dynamic);
    for (unsigned i = 0; i < plan.segment_count; i++)
        map_segment(file, &plan.segments[i], out->base);
    out->entry = out->base + header.entry;
    out->phdr = plan.phdr_address != 0 ? out->base + plan.phdr_address : 0;
    out->phnum = header.phdr_count;
    out->end = out->base + plan.end;
    out->executable_stack = plan.executable_stack;
    vmm_call1(LINUX_SYS_CLOSE, file->fd);
}

static uint32_t open_interpreter(const char *path, gpa_t scratch)
{
    size_t bytes = strlen(path) + 1;
    if (user_write(scratch, path, bytes) != 0)
        boot_fail(path, "cannot open it");
    int64_t fd = call_uninterrupted(LINUX_SYS_OPEN, scratch, 0, 0, 0);
    if (fd < 0)
        boot_fail(path, fd == -LINUX_ENOENT
                            ? "the program's interpreter does not exist in the guest"
                            : "the program's interpreter cannot be opened");
    user_clear(scratch, bytes);
    return (uint32_t)fd;
}

void load_program(const struct program *program, gpa_t scratch, struct loaded *out,
                  struct loaded *interpreter)
{
    struct file file = {
        .name = program->path, .hint = PIE_BASE, .fd = program->fd, .scratch = scratch};
    load_file(&file, out);
    vmm_call1(FV_CALL_BRK_BASE, out->end);
    if (out->interpreter[0] == '\0')
        return;
    struct file second = {.name = out->interpreter,
                          .fd = open_interpreter(out->interpreter, scratch),
                          .scratch = scratch};
    load_file(&second, interpreter);
    if (interpreter->interpreter[0] != '\0')
        boot_fail(second.name, "an interpreter that needs an interpreter");
}
