/* SPDX-License-Identifier: Apache-2.0 */
/*
 * write, writev, send and sendmsg on sockets whose queue the VMM knows to have room (abi.h,
 * fv_sends): the bytes are kept here, and leave at the next request. What is out of the ordinary is
 * made as a request, before which the VMM sends what is kept.
 */
#include "guest-os/kernel.h"

#define GUEST_WORD 3 /* fv_vcpu.guest[]: the grant after the one that served last */
#define LATE_EXITS 8 /* what has waited for longer than so many exits take goes out, by one */
#define PIECES_MAX 16

#define MSG_DONTWAIT 0x40
#define MSG_NOSIGNAL 0x4000

struct piece { /* struct iovec of the program */
    gpa_t at;
    uint64_t bytes;
};

struct message { /* struct msghdr of the program */
    gpa_t name;
    uint64_t name_bytes; /* the lower half of it */
    gpa_t pieces;
    uint64_t count;
    gpa_t control;
    uint64_t control_bytes;
    uint64_t flags;
};

static struct fv_sends *sends_area(const struct fv_vcpu *vcpu)
{
    return (struct fv_sends *)(FV_SENDS_BASE + (gpa_t)vcpu->index * FV_SENDS_STRIDE);
}

bool sends_wait(void)
{
    const struct fv_vcpu *vcpu = vcpu_current();
    return vcpu->sends_count != 0 && sends_area(vcpu)->used != 0;
}

/* The word of a descriptor, or NULL. Programs send in the order they were told. */
static uint64_t *word_find(struct fv_vcpu *vcpu, struct fv_sends *area, uint32_t count, int32_t fd)
{
    uint32_t index = (uint32_t)vcpu->guest[GUEST_WORD];
    for (uint32_t i = 0; i < count; i++, index++) {
        if (index >= count)
            index = 0;
        uint64_t word = __atomic_load_n(&area->grant[index], __ATOMIC_ACQUIRE);
        if (word >> FV_AHEAD_FD_SHIFT == (uint64_t)(uint32_t)fd + 1) {
            vcpu->guest[GUEST_WORD] = index + 1;
            return &area->grant[index];
        }
    }
    return NULL;
}

/* What is there must not wait for long, should the program be busy between its sends. */
static bool is_late(struct fv_sends *area, uint32_t used)
{
    uint64_t now = ticks_now();
    if (used == 0)
        area->since = now;
    return now - area->since > (uint64_t)FV_SHARED->exit_ticks * LATE_EXITS;
}

static bool pieces_copy(uint8_t *to, const struct piece *pieces, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (pieces[i].bytes != 0 && user_read(to, pieces[i].at, pieces[i].bytes) != 0)
            return false;
        to += pieces[i].bytes;
    }
    return true;
}

/* Bytes kept: all of them, or 0: as if there were no grant. */
static uint64_t gather(int32_t fd, const struct piece *pieces, uint32_t count, uint64_t bytes)
{
    struct fv_vcpu *vcpu = vcpu_current();
    uint32_t words = __atomic_load_n(&vcpu->sends_count, __ATOMIC_RELAXED);
    if (words == 0 || words > FV_AHEAD_GRANTS || fd < 0 || bytes == 0 || bytes > FV_SENDS_MAX)
        return 0;
    struct fv_sends *area = sends_area(vcpu);
    uint64_t *at = word_find(vcpu, area, words, fd);
    if (at == NULL)
        return 0;
    uint64_t word = __atomic_load_n(at, __ATOMIC_ACQUIRE);
    uint64_t offset = word >> FV_AHEAD_BYTES_SHIFT & FV_AHEAD_BYTES_MASK;
    uint64_t kept = word & FV_AHEAD_BYTES_MASK;
    uint32_t used = area->used;
    if (word == 0 || used > FV_SENDS_DATA - bytes || kept + bytes > FV_SENDS_MAX ||
        (kept != 0 && offset + kept != used) || is_late(area, used))
        return 0;
    if (kept == 0)
        offset = used;
    /* Copied first: while the copy waits for far memory another thread may use or close the socket.
     * If it did, the exchange fails, and the request says what is right now. */
    if (!pieces_copy(area->data + used, pieces, count))
        return 0;
    uint64_t more = ((uint64_t)(uint32_t)fd + 1) << FV_AHEAD_FD_SHIFT |
                    offset << FV_AHEAD_BYTES_SHIFT | (kept + bytes);
    if (!__atomic_compare_exchange_n(at, &word, more, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return 0;
    area->used = used + (uint32_t)bytes;
    return bytes;
}

static uint64_t gather_plain(int32_t fd, gpa_t from, uint64_t bytes)
{
    const struct piece piece = {from, bytes};
    return user_range(from, bytes) ? gather(fd, &piece, 1, bytes) : 0;
}

static uint64_t gather_vector(int32_t fd, gpa_t from, uint64_t count)
{
    struct piece pieces[PIECES_MAX];
    uint64_t bytes = 0;
    if (vcpu_current()->sends_count == 0 || count == 0 || count > PIECES_MAX ||
        !user_range(from, count * sizeof(pieces[0])) ||
        user_read(pieces, from, count * sizeof(pieces[0])) != 0)
        return 0;
    for (uint64_t i = 0; i < count; i++) {
        if (pieces[i].bytes > FV_SENDS_MAX ||
            (pieces[i].bytes != 0 && !user_range(pieces[i].at, pieces[i].bytes)))
            return 0;
        bytes += pieces[i].bytes;
    }
    return gather(fd, pieces, (uint32_t)count, bytes);
}

int64_t sys_write(struct frame *frame)
{
    uint64_t bytes = gather_plain((int32_t)frame->rdi, frame->rsi, frame->rdx);
    return bytes != 0 ? (int64_t)bytes : sys_write_signalling(frame);
}

int64_t sys_writev(struct frame *frame)
{
    uint64_t bytes = gather_vector((int32_t)frame->rdi, frame->rsi, frame->rdx);
    return bytes != 0 ? (int64_t)bytes : sys_write_signalling(frame);
}

int64_t sys_sendto(struct frame *frame)
{
    uint64_t bytes = 0;
    if (((uint32_t)frame->r10 & ~(uint32_t)(MSG_DONTWAIT | MSG_NOSIGNAL)) == 0 && frame->r8 == 0)
        bytes = gather_plain((int32_t)frame->rdi, frame->rsi, frame->rdx);
    if (bytes != 0)
        return (int64_t)bytes;
    return (frame->r10 & MSG_NOSIGNAL) != 0 ? syscall_forward(frame) : sys_write_signalling(frame);
}

/* Bytes kept of a message that names nobody and carries nothing beside its bytes. */
static uint64_t gather_message(int32_t fd, gpa_t from)
{
    struct message message;
    if (vcpu_current()->sends_count == 0 || !user_range(from, sizeof(message)) ||
        user_read(&message, from, sizeof(message)) != 0 || message.name != 0 ||
        message.control_bytes != 0)
        return 0;
    return gather_vector(fd, message.pieces, message.count);
}

int64_t sys_sendmsg(struct frame *frame)
{
    uint64_t bytes = 0;
    if (((uint32_t)frame->rdx & ~(uint32_t)(MSG_DONTWAIT | MSG_NOSIGNAL)) == 0)
        bytes = gather_message((int32_t)frame->rdi, frame->rsi);
    if (bytes != 0)
        return (int64_t)bytes;
    return (frame->rdx & MSG_NOSIGNAL) != 0 ? syscall_forward(frame) : sys_write_signalling(frame);
}
