/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathered sends, on real TCP connections: they leave in order and before anything that the program
 * does later, none is lost or doubled, and none waits for long.
 */
#include "tests/unit/unit.h"
#include "tests/unit/vmm/ahead_fixture.h"

#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int tick_fd;
static unsigned idle;

static void sends_setup(void)
{
    ahead_setup();
    tick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ck_assert_int_ge(tick_fd, 0);
    hostio_tick_by(io, tick_fd);
    atomic_store(&vm.vcpu_count, 2);
    idle = 0;
}

static void sends_teardown(void)
{
    ahead_teardown();
    close(tick_fd);
}

/* The word of a descriptor, or NULL. */
static uint64_t *word_of(int fd)
{
    for (unsigned i = 0; i < page.sends_count; i++) {
        uint64_t word = __atomic_load_n(&sends_area.grant[i], __ATOMIC_ACQUIRE);

        if (word && (int)(word >> FV_AHEAD_FD_SHIFT) - 1 == fd)
            return &sends_area.grant[i];
    }
    return NULL;
}

/* As the guest kernel does. */
static bool gather(int fd, const char *bytes, size_t n)
{
    uint64_t *at = word_of(fd), word = at ? __atomic_load_n(at, __ATOMIC_ACQUIRE) : 0;
    uint64_t offset = word >> FV_AHEAD_BYTES_SHIFT & FV_AHEAD_BYTES_MASK;
    uint64_t kept = word & FV_AHEAD_BYTES_MASK;
    uint32_t used = sends_area.used;

    if (!word || used + n > FV_SENDS_DATA || kept + n > FV_SENDS_MAX ||
        (kept && offset + kept != used))
        return false;
    memcpy(sends_area.data + used, bytes, n);
    if (!kept)
        offset = used;
    if (!__atomic_compare_exchange_n(at, &word,
                                     ((uint64_t)fd + 1) << FV_AHEAD_FD_SHIFT |
                                         offset << FV_AHEAD_BYTES_SHIFT | (kept + n),
                                     false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return false;
    sends_area.used = used + (uint32_t)n;
    return true;
}

static void must_gather(unsigned peer, const char *text)
{
    ck_assert(gather(served[peer], text, strlen(text)));
}

/* A request that sends; what was gathered before goes first. */
static void request_send(int fd, const char *bytes, size_t n)
{
    struct io_file *file = io_fds_get(&io->fds, fd);

    ck_assert_ptr_nonnull(file);
    while (n) {
        ssize_t sent = send(file->fd, bytes, n, MSG_NOSIGNAL);

        ck_assert_int_gt(sent, 0);
        bytes += sent;
        n -= (size_t)sent;
    }
    io_file_put(file);
}

/* What has arrived at a peer, after at most `ms`. */
static const char *heard(unsigned peer, int ms)
{
    static char text[256];
    struct pollfd ready = {.fd = clients[peer], .events = POLLIN};
    ssize_t n =
        poll(&ready, 1, ms) == 1 ? recv(clients[peer], text, sizeof(text) - 1, MSG_DONTWAIT) : 0;

    text[n > 0 ? n : 0] = '\0';
    return text;
}

/* Requests of these peers are read, as a server does that will answer. */
static void taken_by(unsigned peers)
{
    for (unsigned i = 0; i < peers; i++)
        say(i, "?");
    ck_assert_int_eq(wait_as(&reader, set), (int)peers);
    for (unsigned i = 0; i < peers; i++) /* taken */
        area.grant[i] |= 1;
}

static void asked_by(unsigned peers)
{
    taken_by(peers);
    ck_assert_uint_eq(page.sends_count, peers);
}

START_TEST(they_leave_with_the_next_request)
{
    asked_by(3);
    must_gather(0, "one");
    must_gather(2, "three");
    must_gather(2, ", whole");
    ck_assert(!gather(served[0], "!", 1)); /* not the last any more */
    ck_assert_str_eq(heard(0, 20), "");
    hostio_settle(&reader);
    ck_assert_str_eq(heard(0, 5000), "one");
    ck_assert_str_eq(heard(2, 5000), "three, whole");
    ck_assert_uint_eq(sends_area.used, 0);
    must_gather(1, "two"); /* it goes on until the next wait */
    must_gather(1, " and");
    ck_assert_int_eq(wait_as(&reader, set), 0);
    ck_assert_str_eq(heard(1, 5000), "two and");
    ck_assert(!gather(served[0], "late", 4));
    ck_assert_uint_eq(atomic_load(&aheads()->gathered), 3);
}
END_TEST

START_TEST(a_request_comes_after_what_was_gathered)
{
    asked_by(2);
    must_gather(0, "first, ");
    request_send(served[0], "second", 6);
    usleep(2000);
    ck_assert_str_eq(heard(0, 5000), "first, second");
    ck_assert(!gather(served[0], "x", 1)); /* its grant is over, the other's is not */
    must_gather(1, "bye");
    ck_assert_int_eq(call(SYS_shutdown, (uint64_t)served[1], SHUT_WR, 0, 0), 0);
    ck_assert_str_eq(heard(1, 5000), "bye");
    ck_assert_int_eq(recv(clients[1], (char[1]){0}, 1, 0), 0);
    say(1, "?");
    ck_assert_int_ge(wait_as(&reader, set), 1);
    ck_assert_ptr_null(word_of(served[1])); /* it sends no more: EPIPE is a request's */
}
END_TEST

START_TEST(closing_sends_first)
{
    asked_by(2);
    must_gather(0, "bye");
    ck_assert_int_eq(io_fds_close(&io->fds, served[0]), 0);
    ck_assert_str_eq(heard(0, 5000), "bye");
    ck_assert_int_eq(recv(clients[0], (char[1]){0}, 1, 0), 0);
    must_gather(1, "end");
    hostio_end_sight(io); /* of the run */
    ck_assert_str_eq(heard(1, 5000), "end");
}
END_TEST

START_TEST(only_what_has_room_for_certain_is_gathered)
{
    static char much[1 << 20];
    struct io_file *file = io_fds_get(&io->fds, served[1]);
    int small = 4096;

    /* Peer 0 reads nothing, so its queue is not empty. */
    struct io_file *first = io_fds_get(&io->fds, served[0]);
    while (send(first->fd, much, sizeof(much), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
        continue;
    io_file_put(first);
    ck_assert_int_eq(setsockopt(file->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    io_file_put(file);
    for (unsigned i = 0; i < 3; i++)
        say(i, "?");
    ck_assert_int_eq(wait_as(&reader, set), 3);
    ck_assert_ptr_null(word_of(served[0]));
    ck_assert_ptr_null(word_of(served[1]));
    must_gather(2, "fits");
    ck_assert(!gather(served[2], much, FV_SENDS_MAX));
    hostio_tick_by(io, -1); /* nobody would look after it */
    ck_assert_int_ge(wait_as(&reader, set), 1);
    ck_assert_uint_eq(page.sends_count, 0);
}
END_TEST

START_TEST(nothing_waits_for_more_than_two_ticks)
{
    uint64_t asked;

    asked_by(1);
    ck_assert_int_eq(read(tick_fd, &asked, sizeof(asked)), sizeof(asked));
    must_gather(0, "slow");
    ck_assert(hostio_sends_tick(io, &idle));
    ck_assert_str_eq(heard(0, 20), "");
    must_gather(0, "ly");
    ck_assert(hostio_sends_tick(io, &idle));
    ck_assert_str_eq(heard(0, 5000), "slowly");
    must_gather(0, "more"); /* behind it: the vCPU has made no request */
    ck_assert_uint_gt(sends_area.used, 6);
    hostio_settle(&reader);
    ck_assert_str_eq(heard(0, 5000), "more");
    ck_assert_uint_eq(atomic_load(&aheads()->late), 1);
    taken_by(1); /* such a socket goes without for an event */
    ck_assert_ptr_null(word_of(served[0]));
}
END_TEST

START_TEST(ticks_end_and_begin_again)
{
    unsigned ticks = 0;
    uint64_t asked;

    asked_by(1);
    ck_assert_int_eq(read(tick_fd, &asked, sizeof(asked)), sizeof(asked));
    while (hostio_sends_tick(io, &idle) && ticks < 1000)
        ticks++;
    ck_assert_uint_lt(ticks, 200);
    ck_assert(!gather(served[0], "x", 1)); /* so nothing may be gathered any more */
    taken_by(1);
    ck_assert_int_lt(read(tick_fd, &asked, sizeof(asked)), 0); /* a socket that did not send */
    while (!word_of(served[0]))
        taken_by(1);
    ck_assert_int_eq(read(tick_fd, &asked, sizeof(asked)), sizeof(asked));
}
END_TEST

START_TEST(an_error_is_told_by_the_next_transfer)
{
    const struct linger hard = {.l_onoff = 1};
    struct pollfd ready = {.events = POLLIN | POLLRDHUP};
    struct io_file *file = io_fds_look(&io->fds, served[0]);

    io_file_put(file);
    asked_by(1);
    ck_assert_int_eq(setsockopt(clients[0], SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
    close(clients[0]);
    ready.fd = file->fd;
    ck_assert_int_eq(poll(&ready, 1, 5000), 1);
    must_gather(0, "to nobody");
    hostio_settle(&reader);
    ck_assert_int_eq(call(SYS_write, (uint64_t)served[0], 0, 0, 0), -ECONNRESET);
    clients[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}
END_TEST

START_TEST(words_that_make_no_sense_send_nothing)
{
    static const uint64_t words[] = {
        FV_SENDS_MAX + 1, (uint64_t)FV_SENDS_DATA << FV_AHEAD_BYTES_SHIFT | 1, 0xffffffffffffffff,
        0xffff0001, ((uint64_t)FV_SENDS_DATA - 4) << FV_AHEAD_BYTES_SHIFT | 5};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        asked_by(1);
        uint64_t fd = (uint64_t)served[0] + 1 + (i == 3); /* another's, once */
        sends_area.grant[0] = fd << FV_AHEAD_FD_SHIFT | words[i];
        hostio_settle(&reader);
        must_gather(0, "fine");
        hostio_settle(&reader);
        ck_assert_str_eq(heard(0, 5000), "fine");
    }
}
END_TEST

/* ---- many at once ---- */

#define STREAM_BYTES 300000u

static atomic_bool stop;
static atomic_uint through; /* gathered by the server */

static char byte_at(unsigned peer, unsigned at)
{
    return (char)((at * 7 + peer * 31 + (at >> 8)) % 253);
}

/* Talks in pieces and hears every byte again, in order. */
static void *talk(void *argument)
{
    unsigned peer = (unsigned)(uintptr_t)argument, sent = 0, back = 0;
    uint32_t random = peer + 1;
    char bytes[3000];

    while (back < STREAM_BYTES) {
        unsigned n = 1 + (next_random(&random) >> 8) % sizeof(bytes);

        if (n > STREAM_BYTES - sent)
            n = STREAM_BYTES - sent;
        for (unsigned i = 0; i < n; i++)
            bytes[i] = byte_at(peer, sent + i);
        ck_assert_int_eq(send(clients[peer], bytes, n, MSG_NOSIGNAL), (ssize_t)n);
        for (sent += n; back < sent;) {
            ssize_t got = recv(clients[peer], bytes, sizeof(bytes), 0);

            ck_assert_int_gt(got, 0);
            for (ssize_t i = 0; i < got; i++)
                ck_assert_int_eq(bytes[i], byte_at(peer, back + (unsigned)i));
            back += (unsigned)got;
        }
    }
    return NULL;
}

static void *tick(void *argument)
{
    (void)argument;
    while (!atomic_load(&stop)) {
        (void)hostio_sends_tick(io, &idle);
        usleep(150);
    }
    return NULL;
}

/* Another thread of the program that looks at the same sockets. */
static void *disturb(void *argument)
{
    uint32_t random = 9;

    (void)argument;
    while (!atomic_load(&stop)) {
        struct io_file *file = io_fds_get(&io->fds, served[(next_random(&random) >> 8) % PEERS]);

        io_file_put(file);
        usleep(200);
    }
    return NULL;
}

/* Echoes what a peer said: read as shown or asked for, sent as gathered or asked for. */
static void echo(unsigned peer, uint32_t *random)
{
    char bytes[4096];
    ssize_t n = 0;

    for (unsigned i = 0; i < page.ahead_count && !n; i++) {
        uint64_t word = __atomic_load_n(&area.grant[i], __ATOMIC_ACQUIRE);
        uint64_t length = word >> FV_AHEAD_BYTES_SHIFT & FV_AHEAD_BYTES_MASK;

        if (word >> FV_AHEAD_FD_SHIFT != (uint64_t)served[peer] + 1 || word & FV_AHEAD_BYTES_MASK ||
            length > sizeof(bytes))
            continue;
        memcpy(bytes, area.data + area.offset[i], length);
        if (__atomic_compare_exchange_n(&area.grant[i], &word, word + length, false,
                                        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            n = (ssize_t)length;
    }
    if (!n) {
        struct io_file *asked = io_fds_get(&io->fds, served[peer]);

        n = recv(asked->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
        io_file_put(asked);
    }
    for (ssize_t done = 0; done < n;) {
        size_t piece = 1 + (next_random(random) >> 8) % (size_t)(n - done);

        if (gather(served[peer], bytes + done, piece)) {
            atomic_fetch_add(&through, 1);
        } else {
            hostio_settle(&reader);
            request_send(served[peer], bytes + done, piece);
        }
        done += (ssize_t)piece;
    }
}

START_TEST(every_byte_comes_back_in_order)
{
    pthread_t talkers[PEERS], ticker, disturber;
    uint32_t random = 3;
    unsigned left = PEERS;

    atomic_store(&stop, false);
    for (unsigned i = 0; i < PEERS; i++)
        ck_assert_int_eq(pthread_create(&talkers[i], NULL, talk, (void *)(uintptr_t)i), 0);
    ck_assert_int_eq(pthread_create(&ticker, NULL, tick, NULL), 0);
    ck_assert_int_eq(pthread_create(&disturber, NULL, disturb, NULL), 0);
    while (left) {
        if (wait_as(&reader, set) <= 0)
            usleep(20);
        for (unsigned i = 0; i < PEERS; i++)
            echo(i, &random);
        if (next_random(&random) >> 30 == 0)
            usleep(500); /* busy: what was gathered is a tick's */
        while (left && pthread_tryjoin_np(talkers[left - 1], NULL) == 0)
            left--;
    }
    atomic_store(&stop, true);
    pthread_join(ticker, NULL);
    pthread_join(disturber, NULL);
    ck_assert_uint_gt(atomic_load(&through), 100);
    ck_assert_uint_gt(atomic_load(&aheads()->late), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sends");
    TCase *tests = tcase_create("sends");

    tcase_add_checked_fixture(tests, sends_setup, sends_teardown);
    tcase_add_test(tests, they_leave_with_the_next_request);
    tcase_add_test(tests, a_request_comes_after_what_was_gathered);
    tcase_add_test(tests, closing_sends_first);
    tcase_add_test(tests, only_what_has_room_for_certain_is_gathered);
    tcase_add_test(tests, nothing_waits_for_more_than_two_ticks);
    tcase_add_test(tests, ticks_end_and_begin_again);
    tcase_add_test(tests, an_error_is_told_by_the_next_transfer);
    tcase_add_test(tests, words_that_make_no_sense_send_nothing);
    tcase_add_test(tests, every_byte_comes_back_in_order);
    tcase_set_timeout(tests, 60);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
