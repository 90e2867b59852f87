/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protections really fault: PROT_NONE, read-only, no-execute and unmapped pages raise SIGSEGV with
 * the right address and code, and a handler can step over the access or mend it.
 */
#include "guest.h"

#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE 4096u

static sigjmp_buf after_fault;
static volatile uintptr_t fault_address;
static volatile int fault_code;
static volatile int mend;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)context;
    EXPECT(number == SIGSEGV);
    fault_address = (uintptr_t)info->si_addr;
    fault_code = info->si_code;
    if (mend) {
        mend = 0;
        EXPECT(mprotect((void *)(fault_address & ~(uintptr_t)(PAGE - 1)), PAGE,
                        PROT_READ | PROT_WRITE) == 0);
        return;
    }
    siglongjmp(after_fault, 1);
}

static void expect_fault(volatile char *at, char how, int code)
{
    fault_address = 0;
    if (sigsetjmp(after_fault, 1) == 0) {
        if (how == 'w')
            *at = 1;
        else if (how == 'r')
            (void)*at;
        else
            ((void (*)(void))(uintptr_t)at)();
        EXPECT(!"the access to fault");
    }
    EXPECT(fault_address == (uintptr_t)at);
    EXPECT(fault_code == code);
}

/* One instruction that misses a page and touches the last byte of all addresses, which has no end.
 */
static void copy_to_the_last_byte(const char *fresh)
{
    void *to = (void *)UINTPTR_MAX;
    fault_address = 0;
    if (sigsetjmp(after_fault, 1) == 0) {
        __asm__ volatile("movsb" : "+S"(fresh), "+D"(to) : : "memory");
        EXPECT(!"the access to fault");
    }
    EXPECT(fault_address != 0);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    EXPECT(sigaction(SIGSEGV, &action, NULL) == 0);

    volatile char *area =
        mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    memset((char *)area, 7, 16 * PAGE);
    EXPECT(mprotect((char *)area + 2 * PAGE, PAGE, PROT_NONE) == 0);
    EXPECT(mprotect((char *)area + 4 * PAGE, PAGE, PROT_READ) == 0);
    EXPECT(munmap((char *)area + 6 * PAGE, PAGE) == 0);

    for (int round = 0; round < 3; round++) {
        expect_fault(area + 2 * PAGE + 123, 'r', SEGV_ACCERR);
        expect_fault(area + 2 * PAGE, 'w', SEGV_ACCERR);
        expect_fault(area + 4 * PAGE + 4095, 'w', SEGV_ACCERR);
        expect_fault(area + 6 * PAGE + 8, 'r', SEGV_MAPERR);
        expect_fault(area + 6 * PAGE + 8, 'w', SEGV_MAPERR);
        expect_fault(area + 8 * PAGE, 'x', SEGV_ACCERR);
        expect_fault((char *)NULL + 16, 'r', SEGV_MAPERR);
    }
    EXPECT(area[4 * PAGE + 4095] == 7);
    EXPECT(area[3 * PAGE] == 7 && area[5 * PAGE] == 7);

    mend = 1;
    area[4 * PAGE + 10] = 9; /* the handler mends it and the store runs again */
    EXPECT(mend == 0 && area[4 * PAGE + 10] == 9);
    mend = 1;
    EXPECT(area[2 * PAGE + 10] == 7); /* what was there before PROT_NONE is there still */

    char *fresh = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(fresh != MAP_FAILED);
    copy_to_the_last_byte(fresh);
    return guest_passed("guard_pages");
}
