/* SPDX-License-Identifier: Apache-2.0 */
/* Touching a file mapping past the end of its file is SIGBUS with the address touched. */
#include "guest.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

static sigjmp_buf after_fault;
static void *volatile fault_address;
static volatile int fault_code;

static void on_fault(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)context;
    fault_address = info->si_addr;
    fault_code = info->si_code;
    siglongjmp(after_fault, 1);
}

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    EXPECT(sigaction(SIGBUS, &action, NULL) == 0);
    int fd = open("sigbus.tmp", O_RDWR | O_CREAT | O_TRUNC, 0600);
    EXPECT(fd >= 0);
    EXPECT(write(fd, "short", 5) == 5);
    char *map = mmap(NULL, 4 * 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    EXPECT(map != MAP_FAILED);
    EXPECT(memcmp(map, "short\0\0", 7) == 0);
    EXPECT(map[4095] == 0);
    if (sigsetjmp(after_fault, 1) == 0) {
        (void)((volatile char *)map)[2 * 4096 + 5];
        EXPECT(!"SIGBUS");
    }
    EXPECT(fault_address == map + 2 * 4096 + 5);
    EXPECT(fault_code == BUS_ADRERR);
    EXPECT(unlink("sigbus.tmp") == 0);
    return guest_passed("file_sigbus");
}
