/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Early checks on the program, so that a wrong one is refused in one clear line before a machine is
 * built for it: found, readable, a 64-bit x86 ELF, its interpreter present. A script's "#!" line is
 * followed as Linux does. The guest's loader checks the rest again: these bytes may change.
 */
#include "vmm/machine.h"

#include "support.h"

#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SCRIPT_DEPTH_MAX 4u

const char *program_check_header(const void *header, size_t bytes)
{
    const Elf64_Ehdr *elf = header;
    if (bytes < SELFMAG || memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0)
        return "not an ELF program";
    if (bytes < sizeof(*elf))
        return "truncated ELF header";
    if (elf->e_ident[EI_CLASS] == ELFCLASS32)
        return "a 32-bit program: only 64-bit x86 programs run";
    if (elf->e_ident[EI_CLASS] != ELFCLASS64 || elf->e_ident[EI_DATA] != ELFDATA2LSB)
        return "damaged ELF header";
    if (elf->e_machine != EM_X86_64)
        return "a program for another kind of CPU: only x86-64 programs run";
    if (elf->e_type != ET_EXEC && elf->e_type != ET_DYN)
        return "an ELF file, but not a program";
    if (elf->e_phentsize != sizeof(Elf64_Phdr) || !elf->e_phnum || elf->e_phnum > 512)
        return "damaged ELF program headers";
    return NULL;
}

/* Copies the path in PT_INTERP: 0 with "" when there is none, or -ENOEXEC. */
static int interpreter_read(int fd, const Elf64_Ehdr *elf, char path[PATH_MAX])
{
    path[0] = '\0';
    for (size_t i = 0; i < elf->e_phnum; i++) {
        Elf64_Phdr header;
        off_t at = (off_t)(elf->e_phoff + i * sizeof(header));
        if (at < 0 || pread(fd, &header, sizeof(header), at) != (ssize_t)sizeof(header))
            return -ENOEXEC;
        if (header.p_type != PT_INTERP)
            continue;
        if (header.p_filesz < 2 || header.p_filesz > PATH_MAX ||
            pread(fd, path, header.p_filesz, (off_t)header.p_offset) != (ssize_t)header.p_filesz ||
            path[header.p_filesz - 1])
            return -ENOEXEC;
        return 0;
    }
    return 0;
}

static int elf_check(struct vm *vm, int fd, const char *name)
{
    Elf64_Ehdr elf = {0};
    char interpreter[PATH_MAX], host[PATH_MAX];
    ssize_t bytes = pread(fd, &elf, sizeof(elf), 0);
    const char *wrong = bytes < 0 ? strerror(errno) : program_check_header(&elf, (size_t)bytes);
    if (!wrong && interpreter_read(fd, &elf, interpreter))
        wrong = "damaged ELF program headers";
    if (wrong) {
        message_error("%s: cannot run: %s", name, wrong);
        return EXIT_NOT_RUNNABLE;
    }
    if (!interpreter[0] && vm->config->guide_count) {
        message_error(
            "%s: cannot run with --guide: a static program, and guides are loaded by ld.so", name);
        return EXIT_NOT_RUNNABLE;
    }
    if (!interpreter[0] && strcmp(vm->config->allocator, "own") != 0) {
        message_error("%s: cannot run with --allocator %s: a static program, and the allocator is "
                      "loaded by ld.so",
                      name, vm->config->allocator);
        return EXIT_NOT_RUNNABLE;
    }
    int error = interpreter[0] ? hostio_host_path(vm->io, interpreter, host, sizeof(host)) : 0;
    if (error) {
        message_error("%s: cannot run: its interpreter %s: %s", name, interpreter,
                      strerror(-error));
        return EXIT_NOT_RUNNABLE;
    }
    return 0;
}

static int open_failed(const char *name, int error)
{
    if (error == -ENOENT || error == -ENOTDIR) {
        message_error("%s: not found%s", name,
                      strchr(name, '/') ? " (directories are granted by --dir)" : " in PATH");
        return EXIT_NOT_FOUND;
    }
    message_error("%s: cannot run: %s", name,
                  error == -EISDIR ? "is a directory" : strerror(-error));
    return EXIT_NOT_RUNNABLE;
}

static int arguments_copy(struct program *program, char *const *argv)
{
    size_t count = 0;
    while (argv[count])
        count++;
    program->argv = calloc(count + 1, sizeof(*program->argv));
    for (size_t i = 0; program->argv && i < count; i++) {
        program->argv[i] = strdup(argv[i]);
        if (!program->argv[i])
            return -ENOMEM;
    }
    return program->argv ? 0 : -ENOMEM;
}

void program_arguments_free(struct program *program)
{
    for (size_t i = 0; program->argv && program->argv[i]; i++)
        free(program->argv[i]);
    free(program->argv);
    program->argv = NULL;
}

void program_close(struct program *program)
{
    program_arguments_free(program);
    free(program->path);
    program->path = NULL;
}

/* The script itself is not what will run: its descriptor is not the program's to see. */
static void forget_opened(struct vm *vm, struct program *program)
{
    struct vcpu caller = {.vm = vm};
    uint64_t args[6] = {(uint64_t)program->guest_fd};
    (void)hostio_call(&caller, SYS_close, args);
    free(program->path);
    program->path = NULL;
}

/* Opens `file`: 0 and *next NULL: it is the program; *next set: it is a script for that one. */
static int open_one(struct vm *vm, const char *file, struct program *out, char **next)
{
    *next = NULL;
    out->guest_fd = hostio_open_program(vm->io, file, &out->path);
    if (out->guest_fd < 0)
        return open_failed(file, out->guest_fd);
    int fd = hostio_host_fd(vm->io, out->guest_fd);
    /* Found in PATH: the interpreter is told where, as a shell's execve would have. */
    int script = script_follow(fd, strchr(file, '/') ? file : out->path, out, next);
    if (script == 0)
        return elf_check(vm, fd, file);
    if (script < 0) {
        message_error("%s: cannot run: its #! line: %s", file, strerror(-script));
        return EXIT_NOT_RUNNABLE;
    }
    forget_opened(vm, out);
    return 0;
}

int program_open(struct vm *vm, struct program *out)
{
    char *file = strdup(vm->config->argv[0]), *next = NULL;
    int status = !file || arguments_copy(out, vm->config->argv) ? EXIT_FARVISOR : 0;
    for (unsigned depth = 0; !status; depth++) {
        status = open_one(vm, file, out, &next);
        if (status || !next)
            break;
        free(file);
        file = next;
        if (depth == SCRIPT_DEPTH_MAX) {
            message_error("%s: cannot run: scripts nested too deep", vm->config->argv[0]);
            status = EXIT_NOT_RUNNABLE;
        }
    }
    free(file);
    return status;
}
