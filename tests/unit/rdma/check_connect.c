/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a user can write after --memserver and --transport: addresses and transport names, good and
 * bad. No server is needed: bad input is refused before anybody is asked.
 */
#include "rdma/address.h"
#include "rdma/rdma.h"
#include "rdma/spin.h"
#include "rdma/verbs_library.h"
#include "support.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <string.h>

static const char *const good[] = {"127.0.0.1:7470", "[::1]:80", "unix:/run/x"};
static const char *const bad[] = {
    "",       "host",    ":80",   "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:70000",
    "::1:80", "[::1:80", "[]:80", "unix:",    "[::1]80",   "1.2.3.4:-1"};

START_TEST(good_addresses_survive_a_round_trip)
{
    struct address address;
    char text[ADDRESS_TEXT_BYTES];
    const char *why;

    ck_assert_int_eq(address_parse(good[_i], &address, &why), 0);
    ck_assert_str_eq(address_format(&address, text, sizeof(text)), good[_i]);
    ck_assert_int_eq(address_is_unix(&address), good[_i][0] == 'u');
}
END_TEST

START_TEST(bad_addresses_are_refused_with_a_reason)
{
    struct address address;
    const char *why = NULL;

    ck_assert_int_eq(address_parse(bad[_i], &address, &why), -EINVAL);
    ck_assert_ptr_nonnull(why);
}
END_TEST

START_TEST(a_unix_path_that_does_not_fit_is_refused)
{
    struct address address;
    char text[200];
    const char *why;

    memset(text, 'x', sizeof(text));
    memcpy(text, "unix:/", 6);
    text[sizeof(text) - 1] = '\0';
    ck_assert_int_eq(address_parse(text, &address, &why), -EINVAL);
}
END_TEST

static const struct {
    const char *transport, *address;
    int error;
} refused[] = {
    {"carrier-pigeon", "unix:/nowhere", -EINVAL},
    {"verbs", "unix:/nowhere", -EINVAL},
    {"verbs,delay=20us", "127.0.0.1:1", -EINVAL},
    {"loopback", "127.0.0.1:1", -EINVAL},
    {"loopback,delay", "unix:/nowhere", -EINVAL},
    {"loopback,delay=", "unix:/nowhere", -EINVAL},
    {"loopback,delay=20", "unix:/nowhere", -EINVAL},
    {"loopback,delay=20s", "unix:/nowhere", -EINVAL},
    {"loopback,speed=1G", "unix:/nowhere", -EINVAL},
    {"loopback,bandwidth=fast", "unix:/nowhere", -EINVAL},
    {"loopback,", "unix:/nowhere", -EINVAL},
    {"ofi,delay=20", "127.0.0.1:1", -EINVAL},
    {"ofi,jitter=20us", "127.0.0.1:1", -EINVAL},
    {"ofi,delay=20us", "127.0.0.1:1", -ECONNREFUSED},
    {"", "unix:/nowhere", -EINVAL},
    {"auto", "nowhere", -EINVAL},
    {"auto", "unix:/nowhere", -ECONNREFUSED},
    {"auto", "127.0.0.1:1", -ECONNREFUSED},
};

START_TEST(a_bad_transport_or_address_is_refused)
{
    struct rdma_config config = {.transport = refused[_i].transport,
                                 .address = refused[_i].address,
                                 .quota_bytes = 1 << 21,
                                 .span_pages = 1024,
                                 .timeout_ns = 1000000000};
    struct rdma_node *node;

    message_init("check_connect", MESSAGE_NORMAL);
    ck_assert_int_eq(rdma_node_connect(&node, &config), refused[_i].error);
    ck_assert_ptr_null(node);
}
END_TEST

START_TEST(verbs_needs_a_device)
{
    struct rdma_config config = {.transport = "verbs",
                                 .address = "127.0.0.1:1",
                                 .quota_bytes = 1 << 21,
                                 .span_pages = 1024,
                                 .timeout_ns = 1000000000};
    struct rdma_node *node;

    message_init("check_connect", MESSAGE_NORMAL);
    ck_assert_int_eq(rdma_node_connect(&node, &config),
                     verbs_device_exists() ? -ECONNREFUSED : -ENODEV);
}
END_TEST

START_TEST(spinning_in_vain_is_given_up_and_tried_again)
{
    struct spin spin = {0};
    unsigned tried = 0;

    for (int i = 0; i < 1000; i++) {
        if (spin_wanted(&spin)) {
            tried++;
            spin_ended(&spin, false);
        }
    }
    ck_assert_uint_lt(tried, 30);
    while (!spin_wanted(&spin))
        continue;
    spin_ended(&spin, true);
    ck_assert(spin_wanted(&spin));
}
END_TEST

static Suite *connect_suite(void)
{
    Suite *suite = suite_create("rdma connect");
    TCase *texts = tcase_create("texts");

    tcase_add_loop_test(texts, good_addresses_survive_a_round_trip, 0,
                        (int)(sizeof(good) / sizeof(good[0])));
    tcase_add_loop_test(texts, bad_addresses_are_refused_with_a_reason, 0,
                        (int)(sizeof(bad) / sizeof(bad[0])));
    tcase_add_test(texts, a_unix_path_that_does_not_fit_is_refused);
    tcase_add_loop_test(texts, a_bad_transport_or_address_is_refused, 0,
                        (int)(sizeof(refused) / sizeof(refused[0])));
    tcase_add_test(texts, verbs_needs_a_device);
    tcase_add_test(texts, spinning_in_vain_is_given_up_and_tried_again);
    suite_add_tcase(suite, texts);
    return suite;
}

int main(void)
{
    return unit_run(connect_suite());
}
