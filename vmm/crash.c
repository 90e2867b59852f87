/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FV_CALL_CRASH: what a developer wants to see when the program dies of a signal: which one, why,
 * where, the registers, and the calls that led there (backtrace.c). On the dying thread's vCPU;
 * other threads of the guest may still run.
 */
#include "vmm/machine.h"

#include "support.h"

#include <string.h>

struct reason {
    int signal, code;
    const char *text;
};

/* si_code in words, for those that a fault of the program makes (sigaction(2)). */
static const struct reason reasons[] = {
    {SIGSEGV, SEGV_MAPERR, "no such address"},
    {SIGSEGV, SEGV_ACCERR, "access not permitted"},
    {SIGSEGV, SI_KERNEL, "general protection: bad address or instruction"},
    {SIGBUS, BUS_ADRALN, "misaligned access"},
    {SIGBUS, BUS_ADRERR, "beyond the end of a mapped file, or unreadable"},
    {SIGFPE, FPE_INTDIV, "integer division by zero"},
    {SIGFPE, FPE_FLTDIV, "floating-point division by zero"},
    {SIGFPE, FPE_FLTOVF, "floating-point overflow"},
    {SIGFPE, FPE_FLTUND, "floating-point underflow"},
    {SIGFPE, FPE_FLTINV, "invalid floating-point operation"},
    {SIGILL, ILL_ILLOPN, "illegal instruction"},
    {SIGTRAP, SI_KERNEL, "breakpoint instruction"},
};

static const char *reason_text(int signal, int code)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++) {
        if (reasons[i].signal == signal && reasons[i].code == code)
            return reasons[i].text;
    }
    return code <= 0 ? "sent by the program" : "fault";
}

static void registers_print(const struct fv_regs *regs)
{
    const struct {
        const char *name;
        uint64_t value;
    } table[] = {
        {"rax", regs->rax}, {"rbx", regs->rbx},    {"rcx", regs->rcx}, {"rdx", regs->rdx},
        {"rsi", regs->rsi}, {"rdi", regs->rdi},    {"rbp", regs->rbp}, {"rsp", regs->rsp},
        {"r8 ", regs->r8},  {"r9 ", regs->r9},     {"r10", regs->r10}, {"r11", regs->r11},
        {"r12", regs->r12}, {"r13", regs->r13},    {"r14", regs->r14}, {"r15", regs->r15},
        {"rip", regs->rip}, {"flg", regs->rflags},
    };
    char line[128];
    size_t used = 0;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        used += (size_t)snprintf(line + used, sizeof(line) - used, "  %s %016llx", table[i].name,
                                 (unsigned long long)table[i].value);
        if (i % 4 == 3 || i + 1 == sizeof(table) / sizeof(table[0])) {
            message_error("%s", line);
            used = 0;
        }
    }
}

void crash_report(struct vcpu *vcpu, int signal, int si_code, gpa_t address,
                  const struct fv_regs *regs)
{
    /* One report at a time: two threads may crash together. */
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const char *name = sigabbrev_np(signal);
    pthread_mutex_lock(&lock);
    message_error("guest: thread %d killed by SIG%s: %s, address 0x%llx, rip 0x%llx", vcpu->tid,
                  name ? name : "?", reason_text(signal, si_code), (unsigned long long)address,
                  (unsigned long long)regs->rip);
    registers_print(regs);
    backtrace_print(vcpu, regs);
    pthread_mutex_unlock(&lock);
}
