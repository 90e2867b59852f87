/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Posted requests: the answers of a well-behaved guest, and that nothing a hostile one writes into
 * the shared memory does more than give it wrong answers.
 */
#include "ept/ept_internal.h"
#include "tests/unit/unit.h"
#include "tests/unit/vmm/hostio_fixture.h"

#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_NS 5000000000ull
#define WAIT_MS   1 /* of epoll_wait */

static struct fv_vcpu page;
static struct fv_shared shared;
static struct vcpu posting;
static struct run_config polling_config;
static struct ept ept = {.span_bytes = 1ULL << 39};

static void poller_setup(void)
{
    hostio_setup();
    polling_config = *vm.config;
    polling_config.polling = POLLING_ON;
    memset(&page, 0, sizeof(page));
    memset(&shared, 0, sizeof(shared));
    posting = (struct vcpu){.vm = &vm, .page = &page};
    vm.config = &polling_config;
    vm.shared = &shared;
    vm.ept = &ept;
    ck_assert_int_eq(mm_create(&vm.mm, &vm), 0); /* nothing is mapped */
    vm.vcpus[0] = &posting;
    atomic_store(&vm.vcpu_count, 1);
    ck_assert_int_eq(poller_start(&vm), 0);
}

static void poller_teardown(void)
{
    ck_assert(poller_stop(&vm, ANSWER_NS));
    atomic_store(&vm.vcpu_count, 0);
    mm_destroy(vm.mm);
    hostio_teardown();
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

static void post(uint32_t number, uint64_t a, uint64_t b, uint64_t c)
{
    page.post.call = (struct fv_call){.number = number, .args = {a, b, c, WAIT_MS}};
    __atomic_store_n(&page.post.state, FV_POST_POSTED, __ATOMIC_RELEASE);
    __atomic_fetch_or(&shared.posted[0], 1, __ATOMIC_RELEASE);
}

/* What became of it: FV_POST_DONE or FV_POST_BACK. */
static uint32_t answer(void)
{
    uint64_t until_ns = now_ns() + ANSWER_NS;
    uint32_t state;

    do {
        state = __atomic_load_n(&page.post.state, __ATOMIC_ACQUIRE);
    } while (state != FV_POST_DONE && state != FV_POST_BACK && now_ns() < until_ns);
    return state;
}

static int pipe_reader(void)
{
    int ends[2];

    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_ge(io_install(io, ends[1], NULL, false), 0);
    return io_install(io, ends[0], NULL, false);
}

START_TEST(a_call_that_need_not_wait_is_answered)
{
    int fd = io_install(io, open("/dev/zero", O_RDWR | O_CLOEXEC), NULL, false);

    post(SYS_lseek, (uint64_t)fd, 0, SEEK_CUR);
    ck_assert_uint_eq(answer(), FV_POST_DONE);
    ck_assert_int_eq(page.post.call.result, 0);
    post(SYS_lseek, 77, 0, SEEK_CUR);
    ck_assert_uint_eq(answer(), FV_POST_DONE);
    ck_assert_int_eq(page.post.call.result, -EBADF);
}
END_TEST

START_TEST(a_call_that_would_wait_is_handed_back_and_finished_by_its_thread)
{
    uint64_t start_ns = now_ns();

    post(SYS_poll, 0, 0, 30);
    ck_assert_uint_eq(answer(), FV_POST_BACK);
    ck_assert_uint_lt(now_ns() - start_ns, ANSWER_NS);
    start_ns = now_ns();
    ck_assert_int_eq(poller_finish(&posting), 0);
    ck_assert_uint_ge(now_ns() - start_ns, 25000000);
    ck_assert_uint_eq(atomic_load(&posting.post.state), POST_FREE);
}
END_TEST

START_TEST(a_file_that_is_written_through_is_not_for_the_poller)
{
    int synchronous =
        io_install(io, open("made", O_RDWR | O_CREAT | O_DSYNC | O_CLOEXEC, 0600), NULL, false);
    int plain = io_install(io, open("file", O_RDWR | O_CLOEXEC), NULL, false);

    post(SYS_lseek, (uint64_t)plain, 0, SEEK_DATA);
    ck_assert_uint_eq(answer(), FV_POST_BACK);
    ck_assert_int_eq(poller_finish(&posting), 0);
    post(SYS_lseek, (uint64_t)synchronous, 0, SEEK_SET);
    ck_assert_uint_eq(answer(), FV_POST_BACK);
    ck_assert_int_eq(poller_finish(&posting), 0);
    post(SYS_fstat, (uint64_t)synchronous, 0, 0);
    ck_assert_uint_eq(answer(), FV_POST_BACK);
}
END_TEST

static bool poller_seeks(int fd)
{
    post(SYS_lseek, (uint64_t)fd, 0, SEEK_SET);
    if (answer() == FV_POST_DONE)
        return true;
    ck_assert_int_eq(poller_finish(&posting), 0);
    return false;
}

/* It is the open file that has the flag: a duplicate is written through, too. */
START_TEST(a_file_is_not_for_the_poller_from_when_it_is_written_through)
{
    int plain = io_install(io, open("file", O_RDWR | O_CLOEXEC), NULL, false);
    int duplicate = (int)call(SYS_dup, (uint64_t)plain, 0, 0, 0);

    ck_assert(poller_seeks(plain) && poller_seeks(duplicate));
    if (call(SYS_fcntl, (uint64_t)plain, F_SETFL, O_DIRECT, 0) == -EINVAL)
        return; /* not on this file system */
    ck_assert(!poller_seeks(plain) && !poller_seeks(duplicate));
    ck_assert_int_eq(call(SYS_fcntl, (uint64_t)duplicate, F_SETFL, 0, 0), 0);
    ck_assert(poller_seeks(duplicate));
    ck_assert_int_eq(call(SYS_fcntl, (uint64_t)plain, F_SETFL, 0, 0), 0);
    ck_assert(poller_seeks(plain));
}
END_TEST

/* What another thread of the guest does meanwhile. */
static void reopen(int fd, const char *name)
{
    struct io_file *file;

    ck_assert_int_eq(io_fds_close(&io->fds, fd), 0);
    file = io_file_create(open(name, O_RDWR | O_CLOEXEC), NULL);
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(io_fds_replace(&io->fds, file, fd, 64, false), fd);
}

START_TEST(what_is_finished_goes_on_with_the_file_it_began_with)
{
    int set = io_install(io, epoll_create1(EPOLL_CLOEXEC), NULL, false);
    int longer = open("longer", O_RDWR | O_CREAT | O_DSYNC | O_CLOEXEC, 0600);
    int fd = io_install(io, longer, NULL, false);

    ck_assert_int_eq(ftruncate(longer, 1000), 0);
    post(SYS_epoll_wait, (uint64_t)set, 0x10000, 8);
    ck_assert_uint_eq(answer(), FV_POST_BACK);
    reopen(set, "/dev/null");
    ck_assert_int_eq(poller_finish(&posting), 0);

    post(SYS_lseek, (uint64_t)fd, 0, SEEK_END);
    ck_assert_uint_eq(answer(), FV_POST_BACK);
    reopen(fd, "file");
    ck_assert_int_eq(poller_finish(&posting), 1000);
    /* It was the last to use it. */
    ck_assert_int_eq(fcntl(longer, F_GETFD), -1);
    post(SYS_lseek, (uint64_t)fd, 0, SEEK_END);
    ck_assert_uint_eq(answer(), FV_POST_DONE);
    ck_assert_int_eq(page.post.call.result, (int)strlen("base/file"));
}
END_TEST

START_TEST(what_will_not_be_finished_keeps_no_file)
{
    int host = open("made", O_RDWR | O_CREAT | O_DSYNC | O_CLOEXEC, 0600);
    int fd = io_install(io, host, NULL, false);

    post(SYS_lseek, (uint64_t)fd, 0, SEEK_END);
    ck_assert_uint_eq(answer(), FV_POST_BACK);
    ck_assert_int_eq(io_fds_close(&io->fds, fd), 0);
    ck_assert_int_ge(fcntl(host, F_GETFD), 0);
    poller_forget(&posting);
    ck_assert_int_eq(fcntl(host, F_GETFD), -1);
    ck_assert_uint_eq(atomic_load(&posting.post.state), POST_FREE);
}
END_TEST

START_TEST(what_may_not_be_posted_is_refused)
{
    static const uint32_t numbers[] = {SYS_openat, SYS_futex,  SYS_mmap,   SYS_exit_group,
                                       SYS_ioctl,  0x1000,     0x1002,     0x1009,
                                       0xffff,     0x7fffffff, 0xffffffff, SYS_restart_syscall};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        post(numbers[i], UINT64_MAX, UINT64_MAX, UINT64_MAX);
        ck_assert_uint_eq(answer(), FV_POST_DONE);
        ck_assert_int_eq(page.post.call.result, -ENOSYS);
    }
}
END_TEST

START_TEST(bits_of_vcpus_that_do_not_exist_are_ignored)
{
    for (unsigned i = 0; i < FV_VCPU_MAX / 64; i++)
        __atomic_store_n(&shared.posted[i], UINT64_MAX, __ATOMIC_RELEASE);
    post(SYS_lseek, 77, 0, 0);
    ck_assert_uint_eq(answer(), FV_POST_DONE);
}
END_TEST

START_TEST(a_request_handed_back_is_not_taken_again_before_it_is_finished)
{
    post(SYS_poll, 0, 0, 1);
    ck_assert_uint_eq(answer(), FV_POST_BACK);
    post(SYS_lseek, 77, 0, 0);
    usleep(20000);
    ck_assert_uint_eq(__atomic_load_n(&page.post.state, __ATOMIC_ACQUIRE), FV_POST_POSTED);
    ck_assert_int_eq(poller_finish(&posting), 0); /* the poll, from the VMM's copy */
    __atomic_fetch_or(&shared.posted[0], 1, __ATOMIC_RELEASE);
    ck_assert_uint_eq(answer(), FV_POST_DONE);
}
END_TEST

START_TEST(finishing_what_was_never_posted_returns)
{
    page.post.call.result = 5;
    ck_assert_int_eq(poller_finish(&posting), 5);
}
END_TEST

static void *scribble(void *argument)
{
    static const uint32_t numbers[8] = {SYS_lseek, SYS_lseek, SYS_lseek, SYS_close,
                                        SYS_mmap,  0x1002,    0x1009,    UINT32_MAX};
    atomic_bool *stop = argument;
    uint64_t state = 88172645463325252ull;

    while (!atomic_load(stop)) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        __atomic_store_n(&page.post.state, (uint32_t)state % 6, __ATOMIC_RELAXED);
        __atomic_store_n(&page.post.call.number, numbers[state >> 8 & 7], __ATOMIC_RELAXED);
        __atomic_store_n(&page.post.call.args[state >> 20 & 3], (state >> 32) & 15,
                         __ATOMIC_RELAXED);
        __atomic_store_n(&shared.posted[0], state, __ATOMIC_RELAXED);
        __atomic_store_n(&shared.exit_ticks, (uint32_t)state, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* Descriptors only: there is no guest memory behind pointers here. */
START_TEST(a_guest_that_scribbles_gets_nonsense_and_nothing_else)
{
    atomic_bool stop = false;
    pthread_t thread;
    uint64_t until_ns = now_ns() + 300000000;

    (void)pipe_reader();
    polling_config.argv = vm.config->argv;
    ck_assert_int_eq(pthread_create(&thread, NULL, scribble, &stop), 0);
    while (now_ns() < until_ns) {
        unsigned state = atomic_load(&posting.post.state);

        ck_assert_uint_le(state, POST_BACK);
        poller_forget(&posting); /* as a new thread's start does */
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    __atomic_store_n(&page.post.state, FV_POST_IDLE, __ATOMIC_SEQ_CST);
    for (unsigned state; (state = atomic_load(&posting.post.state)) != POST_FREE;) {
        poller_forget(&posting);
        ck_assert_uint_lt(now_ns(), until_ns + ANSWER_NS);
    }
    post(SYS_lseek, 77, 0, 0);
    ck_assert_uint_eq(answer(), FV_POST_DONE);
    ck_assert_int_eq(page.post.call.result, -EBADF);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("poller");
    TCase *tests = tcase_create("posts");

    tcase_add_checked_fixture(tests, poller_setup, poller_teardown);
    tcase_add_test(tests, a_file_that_is_written_through_is_not_for_the_poller);
    tcase_add_test(tests, a_file_is_not_for_the_poller_from_when_it_is_written_through);
    tcase_add_test(tests, a_call_that_need_not_wait_is_answered);
    tcase_add_test(tests, a_call_that_would_wait_is_handed_back_and_finished_by_its_thread);
    tcase_add_test(tests, what_is_finished_goes_on_with_the_file_it_began_with);
    tcase_add_test(tests, what_will_not_be_finished_keeps_no_file);
    tcase_add_test(tests, what_may_not_be_posted_is_refused);
    tcase_add_test(tests, bits_of_vcpus_that_do_not_exist_are_ignored);
    tcase_add_test(tests, a_request_handed_back_is_not_taken_again_before_it_is_finished);
    tcase_add_test(tests, finishing_what_was_never_posted_returns);
    tcase_add_test(tests, a_guest_that_scribbles_gets_nonsense_and_nothing_else);
    tcase_set_timeout(tests, 30);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
