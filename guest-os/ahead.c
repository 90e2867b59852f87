/* SPDX-License-Identifier: Apache-2.0 */
/*
 * read and recv on sockets whose bytes the VMM showed after an epoll_wait (abi.h, fv_ahead):
 * answered here, without a request. What is anyhow out of the ordinary is made as a request, whose
 * outcome is the same: the bytes are still in the socket.
 */
#include "guest-os/kernel.h"

#define GUEST_WORD 2 /* fv_vcpu.guest[]: the grant after the one that served last */

#define MSG_DONTWAIT 0x40
#define MSG_NOSIGNAL 0x4000

static inline uint32_t word_fd(uint64_t word)
{
    return (uint32_t)(word >> FV_AHEAD_FD_SHIFT) - 1;
}

/* Bytes given to the program; 0: as if there were no grant. */
static uint64_t grant_take(struct fv_ahead *area, uint32_t index, uint64_t word, gpa_t to,
                           uint64_t bytes)
{
    uint64_t length = word >> FV_AHEAD_BYTES_SHIFT & FV_AHEAD_BYTES_MASK;
    uint64_t taken = word & FV_AHEAD_BYTES_MASK;
    if (taken >= length)
        return 0;
    if (bytes > length - taken)
        bytes = length - taken;
    /*
     * Copied first and claimed then: while the copy waits for far memory, another thread may read
     * or close the socket. If it did, the claim fails, and the request says what is right now.
     */
    if (user_write(to, area->data + area->offset[index] + taken, bytes) != 0)
        return 0;
    return __atomic_compare_exchange_n(&area->grant[index], &word, word + bytes, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)
               ? bytes
               : 0;
}

/* As above. A negative descriptor matches no word: 0 is none, and fd + 1 is at most 2^31. */
static uint64_t ahead_read(int32_t fd, gpa_t to, uint64_t bytes)
{
    struct fv_vcpu *vcpu = vcpu_current();
    uint32_t count = __atomic_load_n(&vcpu->ahead_count, __ATOMIC_RELAXED);
    if (count == 0 || fd < 0 || bytes == 0 || !user_range(to, bytes))
        return 0;
    struct fv_ahead *area =
        (struct fv_ahead *)(FV_AHEAD_BASE + (gpa_t)vcpu->index * FV_AHEAD_STRIDE);
    uint32_t index = (uint32_t)vcpu->guest[GUEST_WORD];
    /* Programs read in the order they were told. */
    for (uint32_t i = 0; i < count; i++, index++) {
        if (index >= count)
            index = 0;
        uint64_t word = __atomic_load_n(&area->grant[index], __ATOMIC_ACQUIRE);
        if (word != 0 && word_fd(word) == (uint32_t)fd) {
            vcpu->guest[GUEST_WORD] = index + 1;
            return grant_take(area, index, word, to, bytes);
        }
    }
    return 0;
}

int64_t sys_read(struct frame *frame)
{
    uint64_t bytes = ahead_read((int32_t)frame->rdi, frame->rsi, frame->rdx);
    int64_t result = bytes != 0 ? (int64_t)bytes : syscall_forward(frame);
    return result == -FV_ESIGNALFD ? signal_fd_read(frame) : result;
}

int64_t sys_recvfrom(struct frame *frame)
{
    uint64_t bytes = 0;
    if (((uint32_t)frame->r10 & ~(uint32_t)(MSG_DONTWAIT | MSG_NOSIGNAL)) == 0 && frame->r8 == 0)
        bytes = ahead_read((int32_t)frame->rdi, frame->rsi, frame->rdx);
    return bytes != 0 ? (int64_t)bytes : syscall_forward(frame);
}
