/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Doctor: what demand paging needs of the kernel, that is userfaultfd on shared memory with faults
 * from kernel mode (KVM touches guest memory in kernel mode, so the user-mode-only kind that every
 * process may have is of no use).
 */
#include "vmm/cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

static const struct {
    uint64_t bit;
    const char *name;
} features[] = {
    {UFFD_FEATURE_MISSING_SHMEM, "MISSING_SHMEM"},
    {UFFD_FEATURE_SIGBUS, "SIGBUS"},
    {UFFD_FEATURE_PAGEFAULT_FLAG_WP, "PAGEFAULT_FLAG_WP"},
    {UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "WP_HUGETLBFS_SHMEM"},
};

static void check_kernel(void)
{
    struct utsname name;

    uname(&name);
    doctor_line(DOCTOR_OK, "kernel", NULL, "%s %s", name.sysname, name.release);
}

/* By the device (file permission) or the system call (CAP_SYS_PTRACE or the sysctl). fd or -1. */
static int userfaultfd_open(const char **way)
{
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

    if (device >= 0) {
        int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);

        close(device);
        *way = "/dev/userfaultfd";
        if (fd >= 0)
            return fd;
    }
    *way = "the system call";
    return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
}

static void report_no_userfaultfd(int error)
{
    if (error == ENOSYS)
        doctor_line(DOCTOR_FAIL, "userfaultfd", "install a kernel with CONFIG_USERFAULTFD=y",
                    "this kernel has none");
    else
        doctor_line(DOCTOR_FAIL, "userfaultfd", "sudo sysctl vm.unprivileged_userfaultfd=1",
                    "no right to use it: %s", strerror(error));
}

void doctor_check_paging(void)
{
    struct uffdio_api api = {.api = UFFD_API};
    const char *way;
    char missing[128] = "";
    size_t used = 0;

    check_kernel();
    int fd = userfaultfd_open(&way);
    if (fd < 0) {
        report_no_userfaultfd(errno);
        return;
    }
    /* With no feature asked for, the kernel answers with all it has. */
    if (ioctl(fd, UFFDIO_API, &api)) {
        doctor_line(DOCTOR_FAIL, "userfaultfd", "install a newer kernel", "wrong version: %s",
                    strerror(errno));
        goto close_fd;
    }
    for (size_t i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        if (!(api.features & features[i].bit))
            used +=
                (size_t)snprintf(missing + used, sizeof(missing) - used, " %s", features[i].name);
    }
    if (missing[0])
        doctor_line(DOCTOR_FAIL, "userfaultfd", "install kernel 5.19 or newer",
                    "features missing:%s", missing);
    else
        doctor_line(DOCTOR_OK, "userfaultfd", NULL, "can be used through %s", way);
close_fd:
    close(fd);
}
