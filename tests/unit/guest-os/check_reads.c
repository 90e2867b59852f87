/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest kernel's read and recv, on the host: what is answered from the bytes that were shown,
 * and what is made as a request (which is only noted here).
 */
#include "guest-os/kernel.h"
#include "tests/unit/unit.h"

#include <asm/prctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REQUEST (-1000) /* result of what was made as a request */

static struct fv_vcpu vcpu;
static struct fv_ahead *area;
static char to[64];

int64_t syscall_forward(struct frame *frame)
{
    (void)frame;
    return REQUEST;
}

int64_t signal_fd_read(struct frame *frame)
{
    (void)frame;
    return REQUEST;
}

static void setup(void)
{
    area = mmap((void *)FV_AHEAD_BASE, FV_AHEAD_STRIDE, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    ck_assert_ptr_eq(area, (void *)FV_AHEAD_BASE);
    memset(&vcpu, 0, sizeof(vcpu));
    vcpu.self = (gpa_t)&vcpu;
    ck_assert_int_eq(syscall(SYS_arch_prctl, ARCH_SET_GS, &vcpu), 0);
    memset(to, 0, sizeof(to));
}

static void show(uint32_t index, int fd, const char *bytes)
{
    uint64_t length = strlen(bytes);

    area->offset[index] = (uint16_t)(index * 64);
    memcpy(area->data + area->offset[index], bytes, length);
    area->grant[index] = ((uint64_t)fd + 1) << FV_AHEAD_FD_SHIFT | length << FV_AHEAD_BYTES_SHIFT;
    if (vcpu.ahead_count <= index)
        vcpu.ahead_count = index + 1;
}

static int64_t read_call(int fd, void *buffer, uint64_t bytes)
{
    struct frame frame = {.rdi = (uint64_t)(int64_t)fd, .rsi = (uint64_t)buffer, .rdx = bytes};

    return sys_read(&frame);
}

static int64_t recv_call(int fd, uint64_t flags, uint64_t address)
{
    struct frame frame = {
        .rdi = (uint64_t)fd, .rsi = (uint64_t)to, .rdx = sizeof(to), .r10 = flags, .r8 = address};

    return sys_recvfrom(&frame);
}

START_TEST(what_is_shown_is_read_piece_by_piece_and_then_asked_for)
{
    show(0, 5, "first");
    show(1, 0, "standard");
    show(2, 7, "third");
    ck_assert_int_eq(read_call(7, to, sizeof(to)), 5);
    ck_assert_str_eq(to, "third");
    ck_assert_int_eq(read_call(5, to, 2), 2);
    ck_assert_int_eq(read_call(5, to + 2, sizeof(to) - 2), 3);
    ck_assert_mem_eq(to, "first", 5);
    ck_assert_int_eq(read_call(5, to, sizeof(to)), REQUEST);
    ck_assert_int_eq(read_call(0, to, sizeof(to)), 8);
    ck_assert_mem_eq(to, "standard", 8);
    ck_assert_uint_eq(area->grant[1] & FV_AHEAD_BYTES_MASK, 8);
}
END_TEST

START_TEST(only_plain_receives_are_answered)
{
    show(0, 5, "bytes");
    ck_assert_int_eq(recv_call(5, 2, 0), REQUEST);     /* MSG_PEEK */
    ck_assert_int_eq(recv_call(5, 1, 0), REQUEST);     /* MSG_OOB */
    ck_assert_int_eq(recv_call(5, 0x100, 0), REQUEST); /* MSG_WAITALL */
    ck_assert_int_eq(recv_call(5, 0x20, 0), REQUEST);  /* MSG_TRUNC */
    ck_assert_int_eq(recv_call(5, 0, (uint64_t)to), REQUEST);
    ck_assert_int_eq(recv_call(5, 0x4040, 0), 5);
}
END_TEST

START_TEST(nothing_is_answered_that_is_not_there)
{
    ck_assert_int_eq(read_call(5, to, 8), REQUEST);
    show(0, 5, "bytes");
    ck_assert_int_eq(read_call(6, to, 8), REQUEST);
    ck_assert_int_eq(read_call(-1, to, 8), REQUEST);
    ck_assert_int_eq(read_call(5, to, 0), REQUEST);
    ck_assert_int_eq(read_call(5, (void *)FV_VCPU_BASE, 8), REQUEST);
    ck_assert_int_eq(read_call(5, to, UINT64_MAX), REQUEST);
    ck_assert_int_eq(read_call(5, NULL, 8), REQUEST);
    ck_assert_uint_eq(area->grant[0] & FV_AHEAD_BYTES_MASK, 0);
    area->grant[0] = 0; /* the VMM ended it */
    ck_assert_int_eq(read_call(-1, to, 8), REQUEST);
    ck_assert_int_eq(read_call(5, to, 8), REQUEST);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reads");
    TCase *tests = tcase_create("reads");

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, what_is_shown_is_read_piece_by_piece_and_then_asked_for);
    tcase_add_test(tests, only_plain_receives_are_answered);
    tcase_add_test(tests, nothing_is_answered_that_is_not_there);
    suite_add_tcase(suite, tests);
    unit_needs_guest_addresses();
    return unit_run(suite);
}
