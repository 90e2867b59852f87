/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The symbolised backtrace of a guest thread: libdwfl unwinds with the program's own call frame
 * information (or by frame pointers where there is none), reading the guest's memory through
 * guestmem_read and its files through the host paths behind the guest's. The program is broken when
 * this runs: frames are bounded, and whatever cannot be read ends the walk.
 *
 * The library maps these files, and whoever may write to one can cut it short meanwhile: a SIGBUS
 * here, where the bytes were. It ends the walk, too (file_guard): what the library holds is then
 * left as it is, never to be used again. The run is ending.
 */
#include "vmm/machine.h"

#include "support.h"

#include <elfutils/libdwfl.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FRAMES_MAX 48u

struct walk {
    struct vcpu *vcpu;
    const struct fv_regs *regs;
    Dwfl *dwfl;
    unsigned frames;
};

/* libdwfl's callback has no argument of ours: crash_report runs one at a time. */
static struct vcpu *reported;

/* Modules are named by guest paths, from the guest's own list of mappings. */
static int find_elf(Dwfl_Module *module, void **data, const char *name, Dwarf_Addr base,
                    char **file_name, Elf **elf)
{
    (void)module;
    (void)data;
    (void)base;
    (void)elf;
    char host[PATH_MAX];
    if (name[0] != '/' || hostio_host_path(reported->vm->io, name, host, sizeof(host)))
        return -1;
    /* The program may have put a FIFO there since: nobody would ever open its other end. */
    int fd = open(host, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd >= 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))) {
        close(fd);
        return -1;
    }
    if (fd >= 0)
        *file_name = strdup(host);
    return fd;
}

static char *debug_path;
static const Dwfl_Callbacks file_callbacks = {
    .find_elf = find_elf,
    .find_debuginfo = dwfl_standard_find_debuginfo,
    .debuginfo_path = &debug_path,
};

static int modules_report(Dwfl *dwfl, struct mm *mm)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return -ENOMEM;
    mm_print_maps(mm, out);
    fclose(out);
    FILE *in = bytes ? fmemopen(text, bytes, "r") : NULL;
    int error = in ? dwfl_linux_proc_maps_report(dwfl, in) : -ENOENT;
    if (in)
        fclose(in);
    free(text);
    dwfl_report_end(dwfl, NULL, NULL);
    return error;
}

/* ---- one thread with known registers, as libdwfl wants to see it ---- */

static pid_t next_thread(Dwfl *dwfl, void *argument, void **thread_argument)
{
    (void)dwfl;
    struct walk *walk = argument;
    if (*thread_argument)
        return 0;
    *thread_argument = walk;
    return walk->vcpu->tid;
}

static bool memory_read(Dwfl *dwfl, Dwarf_Addr address, Dwarf_Word *result, void *argument)
{
    (void)dwfl;
    struct walk *walk = argument;
    return guestmem_read(walk->vcpu->vm, result, address, sizeof(*result)) == 0;
}

/* In DWARF's order (System V ABI, AMD64 supplement, figure 3.36). */
static bool registers_set(Dwfl_Thread *thread, void *argument)
{
    const struct fv_regs *regs = ((struct walk *)argument)->regs;
    const Dwarf_Word values[17] = {regs->rax, regs->rdx, regs->rcx, regs->rbx, regs->rsi, regs->rdi,
                                   regs->rbp, regs->rsp, regs->r8,  regs->r9,  regs->r10, regs->r11,
                                   regs->r12, regs->r13, regs->r14, regs->r15, regs->rip};
    return dwfl_thread_state_registers(thread, 0, 17, values);
}

static const Dwfl_Thread_Callbacks thread_callbacks = {
    .next_thread = next_thread,
    .memory_read = memory_read,
    .set_initial_registers = registers_set,
};

/* ---- output ---- */

static void frame_print(struct walk *walk, uint64_t pc, bool after_call)
{
    /* A return address may belong to the next function or line: the call is before it. */
    Dwarf_Addr look = after_call ? pc - 1 : pc;
    Dwfl_Module *module = walk->dwfl ? dwfl_addrmodule(walk->dwfl, look) : NULL;
    char where[160] = "", source[160] = "";
    if (module) {
        GElf_Off offset = 0;
        GElf_Sym symbol;
        const char *name = dwfl_module_addrinfo(module, look, &offset, &symbol, NULL, NULL, NULL);
        const char *file = dwfl_module_info(module, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
        Dwfl_Line *line = dwfl_module_getsrc(module, look);
        int number = 0;
        const char *text = line ? dwfl_lineinfo(line, NULL, &number, NULL, NULL, NULL) : NULL;
        if (text)
            snprintf(source, sizeof(source), " at %s:%d", text, number);
        if (name)
            snprintf(where, sizeof(where), " %s+0x%llx (%s)", name,
                     (unsigned long long)offset + (after_call ? 1 : 0), file);
        else
            snprintf(where, sizeof(where), " (%s)", file);
    }
    message_error("  #%-2u 0x%llx%s%s", walk->frames, (unsigned long long)pc, where, source);
    walk->frames++;
}

static int frame_visit(Dwfl_Frame *frame, void *argument)
{
    struct walk *walk = argument;
    Dwarf_Addr pc;
    bool activation;
    if (!dwfl_frame_pc(frame, &pc, &activation))
        return DWARF_CB_ABORT;
    frame_print(walk, pc, !activation);
    return walk->frames < FRAMES_MAX ? DWARF_CB_OK : DWARF_CB_ABORT;
}

/* Without any call frame information: saved frame pointers must lead up the stack. */
static void frame_pointers_walk(struct walk *walk)
{
    uint64_t at = walk->regs->rbp, link[2];
    frame_print(walk, walk->regs->rip, false);
    while (walk->frames < FRAMES_MAX && !(at & 7) &&
           guestmem_read(walk->vcpu->vm, link, at, sizeof(link)) == 0 && link[1]) {
        frame_print(walk, link[1], true);
        if (link[0] <= at)
            return;
        at = link[0];
    }
}

static void frames_walk(void *argument)
{
    struct walk *walk = argument;
    struct vcpu *vcpu = walk->vcpu;
    walk->dwfl = dwfl_begin(&file_callbacks);
    if (walk->dwfl && modules_report(walk->dwfl, vcpu->vm->mm) == 0 &&
        dwfl_attach_state(walk->dwfl, NULL, vcpu->tid, &thread_callbacks, walk))
        (void)dwfl_getthread_frames(walk->dwfl, vcpu->tid, frame_visit, walk);
    if (walk->dwfl)
        dwfl_end(walk->dwfl);
    walk->dwfl = NULL;
}

void backtrace_print(struct vcpu *vcpu, const struct fv_regs *regs)
{
    struct walk walk = {.vcpu = vcpu, .regs = regs};
    reported = vcpu;
    unsetenv("DEBUGINFOD_URLS"); /* a crash report does not go looking on the network */
    if (file_guard(frames_walk, &walk)) {
        walk.dwfl = NULL;
        message_error("  (a file of the program was cut short: no more of it can be told)");
    }
    if (walk.frames < 2) {
        walk.frames = 0;
        frame_pointers_walk(&walk);
    }
}
