/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gathered sends, on real TCP connections: they leave in order and before anything that the program
 * does later, none is lost or doubled, and none waits for long.
 */
#include "tests/unit/unit.h"
#include "tests/unit/vmm/ahead_fixture.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
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
    ck_assert(!gather(served[0], "x", 1)); /* once */
    must_gather(1, "two");                 /* which had nothing then */
    ck_assert_int_eq(wait_as(&reader, set), 0);
    ck_assert_str_eq(heard(1, 5000), "two");
    ck_assert(!gather(served[1], "x", 1));
    asked_by(2);
    must_gather(0, "again");
    hostio_settle(&reader);
    ck_assert_str_eq(heard(0, 5000), "again");
    ck_assert_uint_eq(atomic_load(&aheads()->gathered), 4);
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
    const int small = 4096, enough = 100000;

    /* Peer 0 reads nothing, so its queue is full. */
    struct io_file *first = io_fds_get(&io->fds, served[0]);
    ck_assert_int_eq(setsockopt(clients[0], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    ck_assert_int_eq(setsockopt(first->fd, SOL_SOCKET, SO_SNDBUF, &enough, sizeof(enough)), 0);
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
    for (unsigned i = 0; i < 3; i++)
        area.grant[i] |= 1;
    hostio_tick_by(io, -1); /* nobody would look after it */
    say(2, "?");
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
    ck_assert(!gather(served[0], "x", 1));
    ck_assert_uint_eq(sends_area.used, 6); /* the vCPU has made no request */
    hostio_settle(&reader);
    ck_assert_uint_eq(sends_area.used, 0);
    ck_assert_uint_eq(atomic_load(&aheads()->late), 1);
    taken_by(2); /* this turn is without */
    asked_by(2);
    must_gather(0, "in time");
    ck_assert_int_eq(wait_as(&reader, set), 0);
    ck_assert_str_eq(heard(0, 5000), "in time");
}
END_TEST

START_TEST(a_server_that_is_late_goes_without_for_some_turns)
{
    unsigned without = 0;

    asked_by(1);
    for (unsigned i = 0; i < 2; i++) {
        must_gather(0, "slow");
        (void)hostio_sends_tick(io, &idle);
        (void)hostio_sends_tick(io, &idle);
        for (taken_by(2); !page.sends_count; taken_by(2))
            without++;
    }
    ck_assert_uint_eq(without, 1 + 3);
}
END_TEST

START_TEST(what_a_thread_leaves_behind_is_forgotten_at_its_next_request)
{
    asked_by(1);
    must_gather(0, "one");
    io_file_put(io_fds_get(&io->fds, served[0])); /* by another thread */
    ck_assert_str_eq(heard(0, 5000), "one");
    ck_assert_uint_eq(sends_area.used, 3);
    hostio_settle(&reader);
    ck_assert_uint_eq(sends_area.used, 0);
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
    ck_assert(!gather(served[0], "more", 4)); /* a request, then */
    file = io_fds_look(&io->fds, served[0]);
    ck_assert_int_eq(atomic_load(&file->sight.late_error), ECONNRESET);
    io_file_put(file);
    ck_assert_int_eq(call(SYS_write, (uint64_t)served[0], 0, 0, 0), -ECONNRESET);
    clients[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}
END_TEST

START_TEST(what_came_before_the_end_is_read_before_the_error)
{
    const struct linger hard = {.l_onoff = 1};
    struct pollfd ready = {.events = POLLRDHUP};
    struct io_file *file = io_fds_look(&io->fds, served[0]);
    char text[8];

    io_file_put(file);
    ready.fd = file->fd;
    asked_by(1);
    ck_assert_int_eq(setsockopt(clients[0], SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
    say(0, "last");
    close(clients[0]);
    ck_assert_int_eq(poll(&ready, 1, 5000), 1);
    must_gather(0, "to nobody");
    hostio_settle(&reader);
    ck_assert_int_eq(call(SYS_recvfrom, (uint64_t)served[0], 0, 0, 0), 0);
    ck_assert_int_eq(recv(file->fd, text, sizeof(text), 0), 4);
    ck_assert_int_eq(call(SYS_recvfrom, (uint64_t)served[0], 0, 0, 0), -ECONNRESET);
    clients[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}
END_TEST

START_TEST(words_that_make_no_sense_send_nothing)
{
    static const uint64_t words[] = {FV_SENDS_MAX + 1,
                                     (uint64_t)FV_SENDS_DATA << FV_AHEAD_BYTES_SHIFT | 1,
                                     0xffffffff, 5, /* another's */
                                     ((uint64_t)FV_SENDS_DATA - 4) << FV_AHEAD_BYTES_SHIFT | 5};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        uint64_t fd = (uint64_t)served[0] + 1 + (i == 3);

        do
            taken_by(1);
        while (!word_of(served[0])); /* a socket that sent nothing goes without now and then */
        memset(sends_area.data, 'x', 16);
        sends_area.grant[0] = fd << FV_AHEAD_FD_SHIFT | words[i];
        hostio_settle(&reader);
        ck_assert_str_eq(heard(0, 20), "");
        request_send(served[0], "fine", 4);
        ck_assert_str_eq(heard(0, 5000), "fine");
    }
}
END_TEST

START_TEST(a_connection_with_a_hole_in_it_is_reset)
{
    static char much[FV_SENDS_MAX];
    const int one = 1;
    int client, fd = connection_to(&client, 2048);
    struct io_file *file = io_fds_get(&io->fds, fd);
    ssize_t n;

    /* What keeps a socket from having a grant, unless it is done behind our back: the host takes a
     * part only, though the queue is empty. */
    ck_assert_int_eq(setsockopt(file->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &one, sizeof(one)), 0);
    io_file_put(file);
    watch_in(set, fd);
    ck_assert_int_eq(send(client, "?", 1, MSG_NOSIGNAL), 1);
    while (wait_as(&reader, set) != 1)
        usleep(100);
    ck_assert(gather(fd, much, sizeof(much)));
    hostio_settle(&reader);
    ck_assert(!atomic_load(&aheads()->gathers)); /* such a host is not trusted again */
    ck_assert_int_eq(call(SYS_write, (uint64_t)fd, 0, 0, 0), -ECONNABORTED);
    do
        n = recv(client, much, sizeof(much), 0);
    while (n > 0);
    ck_assert_int_eq(n < 0 ? errno : 0, ECONNRESET);
    close(client);
    say(1, "?");
    ck_assert_int_ge(wait_as(&reader, set), 1);
    ck_assert_uint_eq(page.sends_count, 0);
}
END_TEST

/* As the program's own call, whose value is not even readable: it may change what others inherit.
 */
static bool is_odd_after(int level, int name)
{
    struct io_file *file;
    bool odd;

    (void)call(SYS_setsockopt, (uint64_t)served[3], (uint64_t)level, (uint64_t)name, 0);
    file = io_fds_look(&io->fds, served[3]);
    odd = atomic_exchange(&file->sight.odd, false);
    io_file_put(file);
    return odd;
}

START_TEST(where_a_send_can_be_short_none_is_gathered)
{
    ck_assert(is_odd_after(IPPROTO_TCP, TCP_NOTSENT_LOWAT));
    ck_assert(is_odd_after(IPPROTO_IP, IP_RECVERR));
    ck_assert(is_odd_after(IPPROTO_IPV6, IPV6_RECVERR));
    ck_assert(!is_odd_after(IPPROTO_TCP, TCP_NODELAY));
    struct io_file *file = io_fds_get(&io->fds, served[0]);
    atomic_store(&file->sight.late_error, EHOSTUNREACH); /* the next transfer has to tell it */
    io_file_put(file);
    taken_by(2);
    ck_assert_ptr_null(word_of(served[0]));
    ck_assert_ptr_nonnull(word_of(served[1]));
}
END_TEST

/* ---- many at once ---- */

#define STREAM_BYTES 300000u
#define SLOW         3u /* this peer */

static atomic_bool stop;
static atomic_uint through; /* gathered by the server */

static char byte_at(unsigned peer, unsigned at)
{
    return (char)((at * 7 + peer * 31 + (at >> 8)) % 253);
}

static void hear(unsigned peer, unsigned *back, unsigned most)
{
    char bytes[3000];
    ssize_t got = recv(clients[peer], bytes, most < sizeof(bytes) ? most : sizeof(bytes), 0);

    ck_assert_int_gt(got, 0);
    for (ssize_t i = 0; i < got; i++)
        ck_assert_int_eq(bytes[i], byte_at(peer, *back + (unsigned)i));
    *back += (unsigned)got;
}

/* One that reads little at a time: the server's queue for it is full. */
static void *hear_slowly(void *argument)
{
    unsigned peer = (unsigned)(uintptr_t)argument, back = 0;

    while (back < STREAM_BYTES) {
        hear(peer, &back, 1500);
        if (back % 7 == 0)
            usleep(300);
    }
    return NULL;
}

/* Talks in pieces and hears every byte again, in order. */
static void *talk(void *argument)
{
    unsigned peer = (unsigned)(uintptr_t)argument, sent = 0, back = 0;
    uint32_t random = peer + 1;
    char bytes[3000];

    while (sent < STREAM_BYTES) {
        unsigned n = 1 + (next_random(&random) >> 8) % sizeof(bytes);

        if (n > STREAM_BYTES - sent)
            n = STREAM_BYTES - sent;
        for (unsigned i = 0; i < n; i++)
            bytes[i] = byte_at(peer, sent + i);
        ck_assert_int_eq(send(clients[peer], bytes, n, MSG_NOSIGNAL), (ssize_t)n);
        for (sent += n; peer != SLOW && back < sent;)
            hear(peer, &back, sizeof(bytes));
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
    pthread_t talkers[PEERS + 1], ticker, disturber;
    const int small = 40000, tiny = 4096; /* doubled by Linux: just enough to be gathered for */
    struct io_file *slow = io_fds_get(&io->fds, served[SLOW]);
    uint32_t random = 3;
    unsigned left = PEERS + 1;

    ck_assert_int_eq(setsockopt(slow->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    ck_assert_int_eq(setsockopt(clients[SLOW], SOL_SOCKET, SO_RCVBUF, &tiny, sizeof(tiny)), 0);
    io_file_put(slow);

    atomic_store(&stop, false);
    for (unsigned i = 0; i < PEERS; i++)
        ck_assert_int_eq(pthread_create(&talkers[i], NULL, talk, (void *)(uintptr_t)i), 0);
    ck_assert_int_eq(pthread_create(&talkers[PEERS], NULL, hear_slowly, (void *)(uintptr_t)SLOW),
                     0);
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
    tcase_add_test(tests, what_came_before_the_end_is_read_before_the_error);
    tcase_add_test(tests, words_that_make_no_sense_send_nothing);
    tcase_add_test(tests, a_server_that_is_late_goes_without_for_some_turns);
    tcase_add_test(tests, what_a_thread_leaves_behind_is_forgotten_at_its_next_request);
    tcase_add_test(tests, a_connection_with_a_hole_in_it_is_reset);
    tcase_add_test(tests, where_a_send_can_be_short_none_is_gathered);
    tcase_add_test(tests, every_byte_comes_back_in_order);
    tcase_set_timeout(tests, 60);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
