/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking ahead, on real TCP connections: what is shown is what a read would give, whoever else
 * uses the socket finds it as the program has left it, and no byte is read twice or lost.
 */
#include "tests/unit/unit.h"
#include "tests/unit/vmm/ahead_fixture.h"

#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define count page.ahead_count

/* Index of the grant of a descriptor, or -1. */
static int grant_of(const struct fv_ahead *in, int fd)
{
    for (int i = 0; i < FV_AHEAD_GRANTS; i++) {
        uint64_t word = __atomic_load_n(&in->grant[i], __ATOMIC_ACQUIRE);

        if (word && (int)(word >> FV_AHEAD_FD_SHIFT) - 1 == fd)
            return i;
    }
    return -1;
}

static unsigned grant_bytes(int index)
{
    return area.grant[index] >> FV_AHEAD_BYTES_SHIFT & FV_AHEAD_BYTES_MASK;
}

/* As the guest kernel does. */
static size_t take(int fd, char *to, size_t most)
{
    int index = grant_of(&area, fd);

    if (index < 0)
        return 0;
    uint64_t word = __atomic_load_n(&area.grant[index], __ATOMIC_ACQUIRE);
    uint64_t length = word >> FV_AHEAD_BYTES_SHIFT & FV_AHEAD_BYTES_MASK;
    uint64_t taken = word & FV_AHEAD_BYTES_MASK;
    if (!word || taken >= length)
        return 0;
    if (most > length - taken)
        most = length - taken;
    memcpy(to, area.data + area.offset[index] + taken, most);
    return __atomic_compare_exchange_n(&area.grant[index], &word, word + most, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)
               ? most
               : 0;
}

/* What a request reads, of any thread. */
static ssize_t request_read(int fd, char *to, size_t most)
{
    struct io_file *file = io_fds_get(&io->fds, fd);
    ssize_t n = file ? recv(file->fd, to, most, MSG_DONTWAIT) : -1;

    if (file)
        io_file_put(file);
    return n;
}

START_TEST(what_is_shown_stays_until_it_is_taken)
{
    char bytes[16];

    say(0, "hello");
    ck_assert_int_eq(wait_as(&reader, set), 1);
    ck_assert_uint_eq(count, 1);
    ck_assert_int_eq(grant_of(&area, served[0]), 0);
    ck_assert_uint_eq(grant_bytes(0), 5);
    ck_assert_mem_eq(area.data + area.offset[0], "hello", 5);
    ck_assert_int_eq(request_read(served[0], bytes, sizeof(bytes)), 5);
    ck_assert_uint_eq(area.grant[0], 0);
    ck_assert_uint_eq(take(served[0], bytes, 5), 0);
}
END_TEST

START_TEST(what_was_taken_is_gone_for_everybody)
{
    char bytes[16];

    say(0, "hello");
    say(2, "you");
    ck_assert_int_eq(wait_as(&reader, set), 2);
    ck_assert_uint_eq(take(served[0], bytes, 3), 3);
    ck_assert_uint_eq(take(served[2], bytes, 16), 3);
    ck_assert_mem_eq(bytes, "you", 3);
    ck_assert_uint_eq(take(served[2], bytes, 16), 0);
    ck_assert_int_eq(wait_as(&other, set), 1); /* of 2 nothing is left */
    ck_assert_int_eq(grant_of(&area, served[0]), -1);
    ck_assert_int_eq(grant_of(&other_area, served[0]), 0);
    ck_assert_int_eq(request_read(served[0], bytes, sizeof(bytes)), 2);
    ck_assert_mem_eq(bytes, "lo", 2);
    ck_assert_int_eq(wait_as(&reader, set), 0);
}
END_TEST

START_TEST(before_the_vcpu_waits_the_window_is_open_again)
{
    char bytes[16];

    say(0, "hello");
    ck_assert_int_eq(wait_as(&reader, set), 1);
    ck_assert_uint_eq(take(served[0], bytes, 4), 4);
    hostio_settle(&reader);
    struct io_file *file = io_fds_look(&io->fds, served[0]);
    ck_assert_int_eq(recv(file->fd, bytes, 16, MSG_PEEK | MSG_DONTWAIT), 1);
    io_file_put(file);
    ck_assert_uint_eq(take(served[0], bytes, 4), 1); /* it is still shown */
    ck_assert_int_eq(bytes[0], 'o');
    ck_assert_int_eq(request_read(served[0], bytes, 16), -1);
}
END_TEST

/* How a connection ends for its peer: 0, or an errno. */
static int end_of(int client)
{
    char byte;
    struct timeval limit = {.tv_sec = 5};

    ck_assert_int_eq(setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)), 0);
    return recv(client, &byte, 1, 0) == 0 ? 0 : errno;
}

START_TEST(closing_is_orderly_only_if_all_was_read)
{
    char bytes[16];

    for (unsigned i = 0; i < 3; i++)
        say(i, "hello");
    ck_assert_int_eq(wait_as(&reader, set), 3);
    ck_assert_uint_eq(take(served[0], bytes, 5), 5);
    ck_assert_uint_eq(take(served[1], bytes, 4), 4);
    ck_assert_uint_eq(take(served[2], bytes, 5), 5);
    ck_assert_int_eq(io_fds_close(&io->fds, served[0]), 0);
    ck_assert_int_eq(end_of(clients[0]), 0);
    ck_assert_int_eq(io_fds_close(&io->fds, served[1]), 0);
    ck_assert_int_eq(end_of(clients[1]), ECONNRESET);
    hostio_end_sight(io); /* the end of the run */
    ck_assert_int_eq(io_fds_close(&io->fds, served[2]), 0);
    ck_assert_int_eq(end_of(clients[2]), 0);
}
END_TEST

START_TEST(a_number_that_means_another_file_shows_nothing)
{
    char bytes[16];

    say(0, "hello");
    say(1, "hello");
    ck_assert_int_eq(wait_as(&reader, set), 2);
    ck_assert_int_eq(io_fds_close(&io->fds, served[0]), 0);
    ck_assert_int_eq(grant_of(&area, served[0]), -1);
    struct io_file *file = io_file_create(open("file", O_RDONLY | O_CLOEXEC), NULL);
    ck_assert_int_eq(io_fds_replace(&io->fds, file, served[1], 64, false), served[1]);
    ck_assert_int_eq(grant_of(&area, served[1]), -1);
    ck_assert_uint_eq(take(served[1], bytes, 5), 0);
    ck_assert_uint_eq(take(-1, bytes, 5), 0);
}
END_TEST

START_TEST(what_others_can_use_is_not_shown)
{
    struct io_file *file, *copy;
    int second = io_install(io, epoll_create1(EPOLL_CLOEXEC), NULL, false);

    for (unsigned i = 0; i < PEERS; i++)
        say(i, "hello");
    file = io_fds_get(&io->fds, served[0]);
    ck_assert_int_eq(io_file_dup(file, &copy), 0);
    io_file_put(file);
    watch_in(second, served[1]);
    file = io_fds_get(&io->fds, served[2]); /* somebody is in a call */
    ck_assert_int_eq(wait_as(&reader, set), PEERS);
    ck_assert_uint_eq(count, 1);
    ck_assert_int_eq(grant_of(&area, served[3]), 0);
    io_file_put(file);
    file = io_fds_get(&io->fds, set); /* or waits with the same set */
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(wait_as(&reader, set), PEERS);
    ck_assert_uint_eq(count, 0);
    io_file_put(file);
    watch_in(second, set); /* or can be told of it by another */
    ck_assert_int_eq(wait_as(&reader, set), PEERS);
    ck_assert_uint_eq(count, 0);
    io_file_put(copy);
}
END_TEST

START_TEST(options_that_change_reading_keep_it_away)
{
    struct io_file *file;

    say(0, "hello");
    say(1, "hello");
    file = io_fds_get(&io->fds, served[0]);
    atomic_store(&file->sight.odd, true);
    int from = io_install_socket(io, socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), file, false);
    io_file_put(file);
    file = io_fds_get(&io->fds, from);
    ck_assert(atomic_load(&file->sight.odd)); /* accepted sockets inherit it */
    io_file_put(file);
    file = io_fds_get(&io->fds, served[1]);
    atomic_store(&file->patient, true);
    io_file_put(file);
    ck_assert_int_eq(wait_as(&reader, set), 2);
    ck_assert_uint_eq(count, 0);
}
END_TEST

START_TEST(a_message_that_does_not_fit_is_not_shown_in_part)
{
    static char much[20000];

    memset(much, 'x', sizeof(much) - 1);
    say(0, much);
    usleep(20000);
    say(1, "hello");
    ck_assert_int_eq(wait_as(&reader, set), 2);
    ck_assert_int_eq(grant_of(&area, served[0]), -1);
    ck_assert_int_eq(grant_of(&area, served[1]), 0);
}
END_TEST

START_TEST(who_does_not_read_what_is_shown_is_shown_less)
{
    unsigned shown = 0;

    say(0, "hello");
    for (unsigned i = 0; i < 200; i++) {
        ck_assert_int_eq(wait_as(&reader, set), 1);
        shown += count;
    }
    ck_assert_uint_gt(shown, 2);
    ck_assert_uint_lt(shown, 12);
    char bytes[8];
    while (!count)
        ck_assert_int_eq(wait_as(&reader, set), 1);
    ck_assert_uint_eq(take(served[0], bytes, 1), 1);
    ck_assert_int_eq(wait_as(&reader, set), 1);
    ck_assert_uint_eq(count, 1); /* it is of use now */
}
END_TEST

START_TEST(an_error_that_a_look_met_is_told_once)
{
    const struct linger hard = {.l_onoff = 1};
    struct io_file *in = io_fds_get(&io->fds, set), *file;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1000u + (unsigned)served[0]};
    struct pollfd ready = {.events = POLLIN};

    ck_assert_int_eq(setsockopt(clients[0], SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
    close(clients[0]);
    file = io_fds_look(&io->fds, served[0]);
    ready.fd = file->fd;
    ck_assert_int_eq(poll(&ready, 1, 5000), 1);
    io_file_put(file);
    io_ahead_grant(aheads(), &reader, in, &event, 1); /* it came between event and look */
    io_file_put(in);
    ck_assert_uint_eq(count, 0);
    ck_assert_int_eq(call(SYS_write, (uint64_t)served[0], 0, 0, 0), -ECONNRESET);
    file = io_fds_look(&io->fds, served[0]);
    ck_assert_int_eq(io_ahead_error(file), 0);
    io_file_put(file);
    clients[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}
END_TEST

/* ---- many at once ---- */

#define STREAM_BYTES 400000u

struct tally {
    uint64_t bytes, of_value[256];
};
static atomic_bool stop;
static atomic_uint unread[PEERS];

static void tally_add(struct tally *tally, unsigned peer, const char *bytes, size_t n)
{
    atomic_fetch_sub(&unread[peer], (unsigned)n);
    for (size_t i = 0; i < n; i++)
        tally->of_value[(uint8_t)bytes[i]]++;
    tally->bytes += n;
}

/*
 * Mostly little is unread: more than a grant holds is not shown, and where one processor does it
 * all, a sender that did not wait would never leave less.
 */
static void *send_stream(void *argument)
{
    unsigned peer = (unsigned)(uintptr_t)argument;
    uint32_t random = peer + 1;
    char bytes[3000];

    for (unsigned sent = 0; sent < STREAM_BYTES;) {
        unsigned n = 1 + (next_random(&random) >> 8) % sizeof(bytes);
        unsigned left = next_random(&random) >> 28 ? (next_random(&random) >> 8) % 1000 : 20000;

        if (n > STREAM_BYTES - sent)
            n = STREAM_BYTES - sent;
        while (atomic_load(&unread[peer]) > left)
            usleep(20);
        atomic_fetch_add(&unread[peer], n);
        for (unsigned i = 0; i < n; i++)
            bytes[i] = (char)((sent + i) % 251);
        for (unsigned done = 0; done < n;) {
            ssize_t result = send(clients[peer], bytes + done, n - done, MSG_NOSIGNAL);
            if (result <= 0)
                return NULL;
            done += (unsigned)result;
        }
        sent += n;
    }
    return NULL;
}

/* Another thread of the program that reads the same sockets, by requests. */
static void *read_too(void *argument)
{
    struct tally *tally = argument;
    uint32_t random = 77;
    char bytes[2000];

    while (!atomic_load(&stop)) {
        unsigned peer = (next_random(&random) >> 8) % PEERS;
        size_t most = 1 + (next_random(&random) >> 8) % sizeof(bytes);
        ssize_t n = request_read(served[peer], bytes, most);

        if (n > 0)
            tally_add(tally, peer, bytes, (size_t)n);
        if (n < 0 || next_random(&random) >> 30)
            usleep(100);
    }
    return NULL;
}

/* The vCPU's thread: waits, takes what is shown, or asks. */
static void read_turn(struct tally *tally, uint32_t *random)
{
    char bytes[4096];

    if (wait_as(&reader, set) <= 0)
        usleep(50);
    for (unsigned i = 0; i < PEERS; i++) {
        size_t most = 1 + (next_random(random) >> 8) % sizeof(bytes),
               n = take(served[i], bytes, most);
        ssize_t asked = 0;

        if (!n && next_random(random) >> 31)
            asked = request_read(served[i], bytes, most);
        tally_add(tally, i, bytes, asked > 0 ? (size_t)asked : n);
        if (next_random(random) >> 29 == 0)
            hostio_settle(&reader);
    }
}

START_TEST(no_byte_is_read_twice_or_lost)
{
    pthread_t senders[PEERS], too;
    struct tally own = {0}, others = {0};
    uint32_t random = 1;

    atomic_store(&stop, false);
    for (unsigned i = 0; i < PEERS; i++)
        ck_assert_int_eq(pthread_create(&senders[i], NULL, send_stream, (void *)(uintptr_t)i), 0);
    /* On a busy machine the other may be first at every socket. */
    for (unsigned turn = 0; turn < 100000 && !atomic_load(&aheads()->used); turn++)
        read_turn(&own, &random);
    ck_assert_uint_gt(atomic_load(&aheads()->used), 0);
    ck_assert_int_eq(pthread_create(&too, NULL, read_too, &others), 0);
    for (unsigned turn = 0; turn < 400000; turn++) {
        read_turn(&own, &random);
        if (turn % 64 == 0 && own.bytes >= PEERS * STREAM_BYTES / 2 && turn > 3000)
            break;
    }
    for (unsigned i = 0; i < PEERS; i++) /* what is left, the other reads */
        pthread_join(senders[i], NULL);
    io_file_put(io_fds_get(&io->fds, set));
    usleep(300000);
    atomic_store(&stop, true);
    pthread_join(too, NULL);
    for (unsigned i = 0; i < PEERS; i++) {
        char bytes[4096];
        for (ssize_t n; (n = request_read(served[i], bytes, sizeof(bytes))) > 0;)
            tally_add(&others, i, bytes, (size_t)n);
    }
    ck_assert_uint_eq(own.bytes + others.bytes, PEERS * STREAM_BYTES);
    for (unsigned value = 0; value < 251; value++) {
        uint64_t want = PEERS * (STREAM_BYTES / 251 + (value < STREAM_BYTES % 251));
        ck_assert_uint_eq(own.of_value[value] + others.of_value[value], want);
    }
}
END_TEST

START_TEST(what_somebody_else_closes_meanwhile_is_not_shown)
{
    struct io_file *file = io_fds_get(&io->fds, served[0]), *in = io_fds_get(&io->fds, set);
    struct io_file *again = io_fds_get(&io->fds, set); /* of two threads that wait */
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = 1000u + (unsigned)served[1]};

    say(0, "hello");
    say(1, "hello");
    ck_assert_int_eq(io_fds_close(&io->fds, served[0]), 0);
    ck_assert_int_eq(io_fds_close(&io->fds, set), 0);
    ck_assert_uint_eq(atomic_load(&in->references), 2);
    io_ahead_grant(aheads(), &reader, in, &event, 1);
    ck_assert_uint_eq(count, 0);
    ck_assert_ptr_null(atomic_load(&in->sight.ahead));
    io_file_put(file);
    io_file_put(again);
    io_file_put(in);
}
END_TEST

static int lasting; /* a set that stays */

/* Connections come and go, under numbers that are used again at once. */
static void *come_and_go(void *argument)
{
    unsigned *turns = argument;

    while (!atomic_load(&stop)) {
        int client, fd = connection(&client);

        watch_in(lasting, fd);
        for (unsigned i = 0; i < 3; i++) {
            if (send(client, "hello", 5, MSG_NOSIGNAL) == 5)
                usleep(30);
        }
        ck_assert_int_eq(io_fds_close(&io->fds, fd), 0);
        close(client);
        ++*turns;
    }
    return NULL;
}

START_TEST(numbers_that_are_used_again_mix_nothing_up)
{
    pthread_t threads[2];
    unsigned turns[2] = {0}, taken = 0;
    char bytes[16];

    lasting = io_install(io, epoll_create1(EPOLL_CLOEXEC), NULL, false);
    atomic_store(&stop, false);
    for (unsigned i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, come_and_go, &turns[i]), 0);
    for (unsigned i = 0; i < 20000 || (taken < 20 && i < 500000); i++) {
        (void)wait_as(&reader, lasting);
        for (int fd = 0; fd < 32; fd++) {
            size_t n = take(fd, bytes, 4);

            for (size_t k = 0; k < n; k++)
                ck_assert_ptr_nonnull(memchr("helo", bytes[k], 4));
            taken += n > 0;
        }
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_gt(taken, 0);
    ck_assert_uint_gt(turns[0], 0);
}
END_TEST

/* Races with everything, as it means to. */
__attribute__((no_sanitize_thread)) static void *scribble(void *argument)
{
    uint32_t random = 5;

    (void)argument;
    while (!atomic_load(&stop)) {
        uint64_t word = (uint64_t)next_random(&random) << 32 | next_random(&random);
        unsigned at = (next_random(&random) >> 8) % FV_AHEAD_GRANTS;

        if (word & 1)
            word = ((uint64_t)served[word >> 8 & 3] + 1) << FV_AHEAD_FD_SHIFT | (uint32_t)word;
        __atomic_store_n(&area.grant[at % 8], word, __ATOMIC_RELAXED);
        area.offset[at] = (uint16_t)word;
        area.data[at] = (uint8_t)word;
        count = (uint32_t)word;
    }
    return NULL;
}

/* It loses its own bytes, no more. */
START_TEST(a_hostile_guest_hurts_only_itself)
{
    pthread_t hostile;

    atomic_store(&stop, false);
    ck_assert_int_eq(pthread_create(&hostile, NULL, scribble, NULL), 0);
    for (unsigned i = 0; i < 3000; i++) {
        ck_assert_int_eq(send(clients[i % PEERS], "hello", 5, MSG_NOSIGNAL), 5);
        (void)wait_as(i % 3 ? &reader : &other, set);
        hostio_settle(&reader);
    }
    atomic_store(&stop, true);
    pthread_join(hostile, NULL);
    for (unsigned i = 0; i < PEERS; i++)
        ck_assert_int_eq(io_fds_close(&io->fds, served[i]), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ahead");
    TCase *tests = tcase_create("sights");

    tcase_add_checked_fixture(tests, ahead_setup, ahead_teardown);
    tcase_add_test(tests, what_is_shown_stays_until_it_is_taken);
    tcase_add_test(tests, what_was_taken_is_gone_for_everybody);
    tcase_add_test(tests, before_the_vcpu_waits_the_window_is_open_again);
    tcase_add_test(tests, closing_is_orderly_only_if_all_was_read);
    tcase_add_test(tests, a_number_that_means_another_file_shows_nothing);
    tcase_add_test(tests, what_others_can_use_is_not_shown);
    tcase_add_test(tests, options_that_change_reading_keep_it_away);
    tcase_add_test(tests, a_message_that_does_not_fit_is_not_shown_in_part);
    tcase_add_test(tests, who_does_not_read_what_is_shown_is_shown_less);
    tcase_add_test(tests, an_error_that_a_look_met_is_told_once);
    tcase_add_test(tests, no_byte_is_read_twice_or_lost);
    tcase_add_test(tests, what_somebody_else_closes_meanwhile_is_not_shown);
    tcase_add_test(tests, numbers_that_are_used_again_mix_nothing_up);
    tcase_add_test(tests, a_hostile_guest_hurts_only_itself);
    tcase_set_timeout(tests, 60);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
