/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ioctl: a closed list. A request is passed only if its argument's kind and size are known here,
 * since the host would otherwise write through a guest's number taken for a pointer.
 */
#include "vmm/io/hostio_internal.h"

#include <asm/termbits.h>
#include <linux/fs.h>
#include <sys/syscall.h>

/* Not in headers that agree with <asm/termbits.h>. */
#define IOCTL_TIOCGWINSZ 0x5413
#define IOCTL_TIOCSWINSZ 0x5414
#define IOCTL_TIOCGPGRP  0x540f
#define IOCTL_TIOCGSID   0x5429
#define IOCTL_TIOCOUTQ   0x5411
#define IOCTL_FIONREAD   0x541b
#define IOCTL_FIONBIO    0x5421
#define IOCTL_FIOCLEX    0x5451
#define IOCTL_FIONCLEX   0x5450
#define IOCTL_TCGETS     0x5401
#define IOCTL_TCSETS     0x5402
#define IOCTL_TCSETSW    0x5403
#define IOCTL_TCSETSF    0x5404
#define IOCTL_TCSBRK     0x5409
#define IOCTL_TCXONC     0x540a
#define IOCTL_TCFLSH     0x540b
#define IOCTL_TCSBRKP    0x5425
#define WINSIZE_BYTES    8
#define ARGUMENT_MAX     64

enum argument { ARGUMENT_IN, ARGUMENT_OUT, ARGUMENT_VALUE };

static const struct {
    uint32_t request;
    enum argument argument;
    uint32_t bytes;
} requests[] = {
    {IOCTL_TCGETS, ARGUMENT_OUT, sizeof(struct termios)},
    {IOCTL_TCSETS, ARGUMENT_IN, sizeof(struct termios)},
    {IOCTL_TCSETSW, ARGUMENT_IN, sizeof(struct termios)},
    {IOCTL_TCSETSF, ARGUMENT_IN, sizeof(struct termios)},
    {IOCTL_TIOCGWINSZ, ARGUMENT_OUT, WINSIZE_BYTES},
    {IOCTL_TIOCSWINSZ, ARGUMENT_IN, WINSIZE_BYTES},
    {IOCTL_TIOCGPGRP, ARGUMENT_OUT, sizeof(int)},
    {IOCTL_TIOCGSID, ARGUMENT_OUT, sizeof(int)},
    {IOCTL_TIOCOUTQ, ARGUMENT_OUT, sizeof(int)},
    {IOCTL_FIONREAD, ARGUMENT_OUT, sizeof(int)},
    {IOCTL_FIONBIO, ARGUMENT_IN, sizeof(int)},
    {IOCTL_TCSBRK, ARGUMENT_VALUE, 0},
    {IOCTL_TCSBRKP, ARGUMENT_VALUE, 0},
    {IOCTL_TCXONC, ARGUMENT_VALUE, 0},
    {IOCTL_TCFLSH, ARGUMENT_VALUE, 0},
    {FIGETBSZ, ARGUMENT_OUT, sizeof(int)},
    {FS_IOC_GETFLAGS, ARGUMENT_OUT, sizeof(int)},
};

static int64_t ioctl_run(const struct io_call *call, const struct io_file *file, size_t index)
{
    uint8_t argument[ARGUMENT_MAX] = {0};
    uint32_t bytes = requests[index].bytes;
    int64_t result = 0;

    if (requests[index].argument == ARGUMENT_VALUE)
        return io_restart(vcpu_syscall(call->vcpu, SYS_ioctl, file->fd,
                                       (long)requests[index].request, (long)call->args[2], 0, 0,
                                       0));
    if (requests[index].argument == ARGUMENT_IN)
        result = guestmem_read(call->vm, argument, call->args[2], bytes);
    /* Terminal settings may wait for output to drain. */
    if (!result)
        result = io_restart(vcpu_syscall(call->vcpu, SYS_ioctl, file->fd,
                                         (long)requests[index].request, (long)argument, 0, 0, 0));
    if (result >= 0 && requests[index].argument == ARGUMENT_OUT) {
        int error = guestmem_write(call->vm, call->args[2], argument, bytes);

        result = error ? error : result;
    }
    return result;
}

int64_t io_ioctl(const struct io_call *call)
{
    uint32_t request = io_arg_u32(call, 1);
    const bool cloexec = request == IOCTL_FIOCLEX;
    struct io_file *file;
    int64_t result = -ENOTTY;

    if (request == IOCTL_FIOCLEX || request == IOCTL_FIONCLEX) {
        int now = io_fds_cloexec(&call->io->fds, io_arg_int(call, 0), &cloexec);

        return now < 0 ? now : 0;
    }
    file = io_fds_get(&call->io->fds, io_arg_int(call, 0));
    if (!file)
        return -EBADF;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        if (requests[i].request == request)
            result = ioctl_run(call, file, i);
    }
    if (file->signals && result == -EINVAL)
        result = -ENOTTY; /* what lies under it, a set, has requests of its own */
    if (request == FICLONE)
        result = -EOPNOTSUPP; /* what cp --reflink=auto takes for "copy instead" */
    io_file_put(file);
    return result;
}
