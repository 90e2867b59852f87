/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FV_CALL_CRASH: what a developer wants to see when the program dies of a signal: which one, where,
 * the registers, and the calls that led there.
 */
#include "vmm/machine.h"

#include "support.h"

#include <string.h>

void crash_report(struct vcpu *vcpu, int signal, int si_code, gpa_t address,
                  const struct fv_regs *regs)
{
    (void)vcpu;
    message_error("guest: killed by signal %d (code %d), address 0x%llx, rip 0x%llx", signal,
                  si_code, (unsigned long long)address, (unsigned long long)regs->rip);
}
