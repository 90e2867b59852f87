/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest kernel's write, writev and send, on the host: what is kept for the VMM to send, and
 * what is made as a request (which is only noted here).
 */
#include "guest-os/kernel.h"
#include "tests/unit/unit.h"

#include <asm/prctl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REQUEST (-1000) /* result of what was made as a request */

static struct fv_vcpu vcpu;
static struct fv_sends *area;

int64_t syscall_forward(struct frame *frame)
{
    (void)frame;
    return REQUEST;
}

int64_t sys_write_signalling(struct frame *frame)
{
    (void)frame;
    return REQUEST;
}

static void *map_at(gpa_t at, size_t bytes)
{
    void *there = mmap((void *)at, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

    ck_assert_ptr_eq(there, (void *)at);
    return there;
}

static void setup(void)
{
    area = map_at(FV_SENDS_BASE, FV_SENDS_STRIDE);
    map_at(FV_SHARED_BASE, FV_PAGE_SIZE);
    FV_SHARED->exit_ticks = 1u << 30;
    memset(&vcpu, 0, sizeof(vcpu));
    vcpu.self = (gpa_t)&vcpu;
    ck_assert_int_eq(syscall(SYS_arch_prctl, ARCH_SET_GS, &vcpu), 0);
}

static void grant(uint32_t index, int fd)
{
    /* As the VMM does it: others may be ending grants. */
    __atomic_store_n(&area->grant[index], ((uint64_t)fd + 1) << FV_AHEAD_FD_SHIFT,
                     __ATOMIC_RELEASE);
    if (vcpu.sends_count <= index)
        vcpu.sends_count = index + 1;
}

static int64_t write_call(int fd, const void *bytes, uint64_t n)
{
    struct frame frame = {.rdi = (uint64_t)(int64_t)fd, .rsi = (uint64_t)bytes, .rdx = n};

    return sys_write(&frame);
}

static int64_t send_call(int fd, uint64_t flags, uint64_t address)
{
    struct frame frame = {
        .rdi = (uint64_t)fd, .rsi = (uint64_t) "bytes", .rdx = 5, .r10 = flags, .r8 = address};

    return sys_sendto(&frame);
}

static int64_t writev_call(int fd, const struct iovec *pieces, uint64_t count)
{
    struct frame frame = {.rdi = (uint64_t)fd, .rsi = (uint64_t)pieces, .rdx = count};

    return sys_writev(&frame);
}

/* What is kept for a grant. */
static void expect_kept(uint32_t index, const char *text)
{
    uint64_t word = area->grant[index], offset = word >> FV_AHEAD_BYTES_SHIFT & FV_AHEAD_BYTES_MASK;

    ck_assert_uint_eq(word & FV_AHEAD_BYTES_MASK, strlen(text));
    ck_assert_mem_eq(area->data + offset, text, strlen(text));
}

START_TEST(what_is_sent_is_kept_in_order)
{
    grant(0, 5);
    grant(1, 0);
    ck_assert_int_eq(write_call(0, "first", 5), 5);
    ck_assert_int_eq(write_call(0, ", more", 6), 6);
    ck_assert_int_eq(write_call(5, "second", 6), 6);
    ck_assert_int_eq(write_call(0, "not the last", 12), REQUEST);
    expect_kept(0, "second");
    expect_kept(1, "first, more");
    ck_assert_uint_eq(area->used, 17);
    area->grant[1] = 0; /* the VMM ended it */
    ck_assert_int_eq(write_call(0, "x", 1), REQUEST);
}
END_TEST

START_TEST(pieces_are_one_send)
{
    struct iovec pieces[17] = {{"one ", 4}, {NULL, 0}, {"two", 3}};

    grant(0, 5);
    ck_assert_int_eq(writev_call(5, pieces, 3), 7);
    expect_kept(0, "one two");
    ck_assert_int_eq(writev_call(5, pieces, 17), REQUEST);
    ck_assert_int_eq(writev_call(5, pieces, 0), REQUEST);
    pieces[1] = (struct iovec){NULL, 8};
    ck_assert_int_eq(writev_call(5, pieces, 3), REQUEST);
    pieces[1] = (struct iovec){pieces, UINT64_MAX};
    ck_assert_int_eq(writev_call(5, pieces, 3), REQUEST);
    ck_assert_int_eq(writev_call(5, (void *)FV_SENDS_BASE, 1), REQUEST);
    expect_kept(0, "one two");
}
END_TEST

START_TEST(only_plain_sends_are_kept)
{
    grant(0, 5);
    ck_assert_int_eq(send_call(5, 1, 0), REQUEST);      /* MSG_OOB */
    ck_assert_int_eq(send_call(5, 0x8000, 0), REQUEST); /* MSG_MORE */
    ck_assert_int_eq(send_call(5, 0, 4096), REQUEST);
    ck_assert_int_eq(send_call(5, 0x4040, 0), 5);
    ck_assert_int_eq(send_call(5, 0, 0), 5);
    expect_kept(0, "bytesbytes");
}
END_TEST

START_TEST(nothing_is_kept_that_could_not_be)
{
    static char much[FV_SENDS_MAX + 1];

    ck_assert_int_eq(write_call(5, "x", 1), REQUEST);
    grant(0, 5);
    ck_assert_int_eq(write_call(6, "x", 1), REQUEST);
    ck_assert_int_eq(write_call(-1, "x", 1), REQUEST);
    ck_assert_int_eq(write_call(5, "x", 0), REQUEST);
    ck_assert_int_eq(write_call(5, much, sizeof(much)), REQUEST);
    ck_assert_int_eq(write_call(5, (void *)FV_SENDS_BASE, 8), REQUEST);
    ck_assert_int_eq(write_call(5, "x", UINT64_MAX), REQUEST);
    ck_assert_uint_eq(area->used, 0);
    ck_assert_int_eq(write_call(5, much, FV_SENDS_MAX), FV_SENDS_MAX);
    ck_assert_int_eq(write_call(5, "x", 1), REQUEST); /* the grant is full */
    for (int fd = 6; fd < 8; fd++) {
        grant((uint32_t)fd, fd);
        ck_assert_int_eq(write_call(fd, much, FV_SENDS_MAX), FV_SENDS_MAX);
    }
    grant(3, 9);
    ck_assert_int_eq(write_call(9, much, FV_SENDS_MAX), REQUEST); /* data[] is */
    vcpu.sends_count = UINT32_MAX;                                /* no word beyond the area */
    ck_assert_int_eq(write_call(9, "x", 1), REQUEST);
}
END_TEST

START_TEST(what_has_waited_takes_no_more)
{
    grant(0, 5);
    FV_SHARED->exit_ticks = 1;
    ck_assert_int_eq(write_call(5, "x", 1), 1);
    usleep(1000);
    ck_assert_int_eq(write_call(5, "x", 1), REQUEST);
    area->used = 0; /* the VMM sent it */
    area->grant[0] &= ~0xffffffffull;
    ck_assert_int_eq(write_call(5, "x", 1), 1);
}
END_TEST

/* ---- the VMM ends grants meanwhile ---- */

static atomic_bool stop;
static _Atomic uint64_t flushed;

static void flush(uint64_t then)
{
    uint64_t word = __atomic_exchange_n(&area->grant[0], then, __ATOMIC_ACQ_REL);

    atomic_fetch_add(&flushed, word & FV_AHEAD_BYTES_MASK);
}

static void *end_grants(void *argument)
{
    (void)argument;
    while (!atomic_load(&stop))
        flush(0);
    return NULL;
}

START_TEST(what_is_told_is_what_is_kept)
{
    static const char bytes[64];
    uint64_t told = 0, asked = 0;
    pthread_t other;

    atomic_store(&stop, false);
    ck_assert_int_eq(pthread_create(&other, NULL, end_grants, NULL), 0);
    for (unsigned i = 0; i < 300000 || (i < 3000000 && (!told || !asked)); i++) {
        int64_t n;

        area->used = 0; /* as after a request of this vCPU */
        grant(0, 5);
        n = write_call(5, bytes, 1 + i % sizeof(bytes));
        if (n == REQUEST)
            asked++;
        else
            told += (uint64_t)n;
        flush(0);
    }
    atomic_store(&stop, true);
    pthread_join(other, NULL);
    ck_assert_uint_gt(told, 0);
    ck_assert_uint_gt(asked, 0);
    ck_assert_uint_eq(told, atomic_load(&flushed));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sends");
    TCase *tests = tcase_create("sends");

    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, what_is_sent_is_kept_in_order);
    tcase_add_test(tests, pieces_are_one_send);
    tcase_add_test(tests, only_plain_sends_are_kept);
    tcase_add_test(tests, nothing_is_kept_that_could_not_be);
    tcase_add_test(tests, what_has_waited_takes_no_more);
    tcase_add_test(tests, what_is_told_is_what_is_kept);
    suite_add_tcase(suite, tests);
    unit_needs_guest_addresses();
    return unit_run(suite);
}
