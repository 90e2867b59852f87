/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Host system calls on the poller, which serves all vCPUs and so may wait for none: each is made in
 * the form that does not wait. Whether "not now" is the program's answer, because it asked for a
 * descriptor that does not wait either, or means that its own thread has to wait, is decided here.
 */
#include "vmm/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define POSITION (-1L) /* preadv2: at the file position, or where there is none */

static long hand_back(struct vcpu *vcpu)
{
    vcpu->handed_back = true;
    return -EINTR;
}

/* Regular files never say "not now" to the program: there it means a disk. */
static bool fd_waits(long fd)
{
    struct stat status;
    int flags = fcntl((int)fd, F_GETFL);
    return flags < 0 || !(flags & O_NONBLOCK) || fstat((int)fd, &status) < 0 ||
           S_ISREG(status.st_mode) || S_ISBLK(status.st_mode);
}

/* A result of 0 or EAGAIN, for a program that was ready to wait or not. */
static long not_now(struct vcpu *vcpu, long result, bool waits)
{
    return waits ? hand_back(vcpu) : result;
}

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    long result = syscall(number, a, b, c, d, e, f);
    return result < 0 ? -errno : result;
}

static long transfer(struct vcpu *vcpu, bool write, const long args[6])
{
    long result = call(write ? SYS_pwritev2 : SYS_preadv2, args[0], args[1], args[2], args[3], 0,
                       args[5] | RWF_NOWAIT);
    if (result == -EAGAIN)
        return not_now(vcpu, result, fd_waits(args[0]));
    /* Not every kind of descriptor can be asked, and a page may have to come from a disk. */
    return result == -EOPNOTSUPP || result == -EINTR ? hand_back(vcpu) : result;
}

static long message(struct vcpu *vcpu, long number, const long args[6])
{
    if (args[2] & MSG_WAITALL)
        return hand_back(vcpu);
    long result = call(number, args[0], args[1], args[2] | MSG_DONTWAIT, 0, 0, 0);
    if (result == -EAGAIN)
        return not_now(vcpu, result, !(args[2] & MSG_DONTWAIT) && fd_waits(args[0]));
    return result;
}

static long look(struct vcpu *vcpu, const long args[6], bool waits)
{
    struct timespec at_once = {0, 0};
    long result = call(SYS_ppoll, args[0], args[1], (long)&at_once, 0, 0, 0);
    return result ? result : not_now(vcpu, 0, waits);
}

long at_once_syscall(struct vcpu *vcpu, long number, long a, long b, long c, long d, long e, long f)
{
    const struct timespec *timeout = (const struct timespec *)c; /* of ppoll */
    long result;
    switch (number) {
    case SYS_readv:
    case SYS_writev:
        return transfer(vcpu, number == SYS_writev, (const long[6]){a, b, c, POSITION, 0, 0});
    case SYS_preadv2:
    case SYS_pwritev2:
        return transfer(vcpu, number == SYS_pwritev2, (const long[6]){a, b, c, d, e, f});
    case SYS_sendmsg:
    case SYS_recvmsg:
        return message(vcpu, number, (const long[6]){a, b, c});
    case SYS_poll:
        return look(vcpu, (const long[6]){a, b}, c != 0);
    case SYS_ppoll:
        return look(vcpu, (const long[6]){a, b},
                    !timeout || timeout->tv_sec > 0 || timeout->tv_nsec > 0);
    case SYS_epoll_pwait:
        result = call(number, a, b, c, 0, 0, 0);
        return result ? result : not_now(vcpu, 0, d != 0);
    default:
        return hand_back(vcpu);
    }
}
