/* SPDX-License-Identifier: Apache-2.0 */
/* Who and where am I: ids, uname, limits, affinity, auxiliary vector, randomness, names. */
#include "guest.h"

#include <cpuid.h>
#include <sched.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>

static char stack[4096];

/* Arguments that no C library passes. */
static void odd_calls(void)
{
    const unsigned long flags = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD | CLONE_SETTLS;
    long result = (long)(0xdeadbeefUL << 32 | SYS_getpid); /* only eax counts */
    __asm__ volatile("syscall" : "+a"(result) : : "rcx", "r11", "memory");
    EXPECT(result == getpid());
    /* No processor takes this for a thread pointer. */
    EXPECT(syscall(SYS_clone, flags, stack + sizeof(stack), 0, 0, 1UL << 63) == -1);
    EXPECT(errno == EPERM);
}

int main(void)
{
    struct utsname name;
    struct rlimit limit;
    struct sysinfo info;
    cpu_set_t cpus;
    char comm[16];
    uint64_t random[2] = {0, 0};

    EXPECT(getpid() > 0 && getpid() == (pid_t)syscall(SYS_gettid));
    EXPECT(getppid() >= 0);
    EXPECT(uname(&name) == 0 && strcmp(name.sysname, "Linux") == 0);
    EXPECT(strcmp(name.machine, "x86_64") == 0);
    EXPECT(getrlimit(RLIMIT_STACK, &limit) == 0 && limit.rlim_cur >= 1 << 20);
    EXPECT(sysinfo(&info) == 0 && info.totalram * info.mem_unit >= 16u << 20);
    EXPECT(sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) >= 1);
    EXPECT(sysconf(_SC_NPROCESSORS_ONLN) >= 1 && sysconf(_SC_PAGESIZE) == 4096);
    EXPECT(getauxval(AT_PAGESZ) == 4096 && getauxval(AT_RANDOM) != 0);
    unsigned eax, ebx, ecx, edx;
    /* The kernel's value, which glibc hides from getauxval: the word behind the environment. */
    const unsigned long *word = (const unsigned long *)environ;
    while (*word++ != 0)
        ;
    while (word[0] != AT_NULL && word[0] != AT_HWCAP)
        word += 2;
    EXPECT(__get_cpuid(1, &eax, &ebx, &ecx, &edx) && word[0] == AT_HWCAP && word[1] == edx);
    EXPECT(getauxval(AT_PHDR) != 0 && getauxval(AT_EXECFN) != 0);
    EXPECT(getrandom(random, sizeof random, 0) == sizeof random && random[0] != random[1]);
    EXPECT(prctl(PR_SET_NAME, "renamed") == 0);
    EXPECT(prctl(PR_GET_NAME, comm) == 0 && strcmp(comm, "renamed") == 0);
    EXPECT(getuid() == geteuid() && getgid() == getegid());
    EXPECT(sched_yield() == 0);
    struct rusage usage;
    EXPECT(getrusage(RUSAGE_SELF, &usage) == 0);
    odd_calls();
    return guest_passed("identity");
}
