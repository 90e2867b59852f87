/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which addresses the program may bind and connect to, in whatever notation it names them.
 */
#include "tests/unit/unit.h"
#include "vmm/vmm.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

static struct net_rule rules[4];
static struct run_config config;

/* A rule of text, "" for any address. */
static struct net_rule rule(const char *host, uint16_t port, bool udp)
{
    struct net_rule made = {.port = port, .udp = udp};

    if (*host) {
        made.family = strchr(host, ':') ? AF_INET6 : AF_INET;
        ck_assert_int_eq(inet_pton(made.family, host, made.address), 1);
    }
    return made;
}

static struct sockaddr_storage address(const char *host, uint16_t port)
{
    struct sockaddr_storage made = {.ss_family = strchr(host, ':') ? AF_INET6 : AF_INET};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&made;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&made;

    if (made.ss_family == AF_INET)
        v4->sin_port = htons(port);
    else
        v6->sin6_port = htons(port);
    ck_assert_int_eq(
        inet_pton(made.ss_family, host,
                  made.ss_family == AF_INET ? (void *)&v4->sin_addr : (void *)&v6->sin6_addr),
        1);
    return made;
}

static int binds(const char *host, uint16_t port, bool udp, const char *becomes)
{
    struct sockaddr_storage made = address(host, port);
    char text[NET_TEXT_BYTES];
    int error = net_bind_check(&config, &made, udp);

    if (!error && becomes)
        ck_assert_str_eq(net_text(&made, text), becomes);
    return error;
}

static int connects(const char *host, uint16_t port)
{
    struct sockaddr_storage made = address(host, port);

    return net_connect_check(&config, &made);
}

START_TEST(nothing_is_granted_by_default)
{
    config = (struct run_config){0};
    ck_assert_int_eq(binds("127.0.0.1", 80, false, NULL), -EACCES);
    ck_assert_int_eq(binds("::", 80, false, NULL), -EACCES);
    ck_assert_int_eq(connects("127.0.0.1", 80), -EACCES);
    ck_assert_int_eq(connects("::1", 80), -EACCES);
}
END_TEST

START_TEST(published_ports_can_be_bound)
{
    rules[0] = rule("", 80, false);
    rules[1] = rule("10.0.0.1", 81, false);
    rules[2] = rule("::1", 82, false);
    rules[3] = rule("", 83, true);
    config = (struct run_config){.publish = rules, .publish_count = 4};
    ck_assert_int_eq(binds("127.0.0.1", 80, false, "127.0.0.1:80"), 0);
    ck_assert_int_eq(binds("::", 80, false, "[::]:80"), 0);
    ck_assert_int_eq(binds("0.0.0.0", 81, false, "10.0.0.1:81"), 0);
    ck_assert_int_eq(binds("::", 81, false, "10.0.0.1:81"), 0);
    ck_assert_int_eq(binds("::ffff:10.0.0.1", 81, false, NULL), 0);
    ck_assert_int_eq(binds("127.0.0.1", 81, false, NULL), -EACCES);
    ck_assert_int_eq(binds("::", 82, false, "[::1]:82"), 0);
    ck_assert_int_eq(binds("0.0.0.0", 82, false, NULL), -EADDRNOTAVAIL);
    ck_assert_int_eq(binds("0.0.0.0", 80, true, NULL), -EACCES);
    ck_assert_int_eq(binds("0.0.0.0", 83, true, NULL), 0);
    ck_assert_int_eq(binds("0.0.0.0", 83, false, NULL), -EACCES);
    ck_assert_int_eq(binds("0.0.0.0", 84, false, NULL), -EACCES);
    ck_assert_int_eq(binds("0.0.0.0", 0, false, NULL), 0); /* to connect from */
}
END_TEST

START_TEST(a_port_of_the_hosts_choice_is_not_for_listening)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    rules[0] = rule("", 80, false);
    config = (struct run_config){.publish = rules, .publish_count = 1};
    ck_assert_int_eq(net_listen_check(&config, fd, false), -EACCES);
    close(fd);
}
END_TEST

START_TEST(connections_go_where_allowed_in_any_notation)
{
    rules[0] = rule("10.0.0.1", 443, false);
    rules[1] = rule("127.0.0.1", 0, false);
    rules[2] = rule("", 53, false);
    rules[3] = rule("fd00::1", 1, false);
    config = (struct run_config){.connect = rules, .connect_count = 4};
    ck_assert_int_eq(connects("10.0.0.1", 443), 0);
    ck_assert_int_eq(connects("::ffff:10.0.0.1", 443), 0);
    ck_assert_int_eq(connects("10.0.0.1", 444), -EACCES);
    ck_assert_int_eq(connects("10.0.0.2", 443), -EACCES);
    ck_assert_int_eq(connects("::ffff:10.0.0.2", 443), -EACCES);
    ck_assert_int_eq(connects("127.0.0.1", 9), 0);
    ck_assert_int_eq(connects("0.0.0.0", 9), 0); /* Linux takes it for this host */
    ck_assert_int_eq(connects("::ffff:0.0.0.0", 9), 0);
    ck_assert_int_eq(connects("::", 9), -EACCES); /* which is ::1 */
    ck_assert_int_eq(connects("8.8.8.8", 53), 0);
    ck_assert_int_eq(connects("fd00::1", 1), 0);
    ck_assert_int_eq(connects("fd00::2", 1), -EACCES);
}
END_TEST

START_TEST(a_wildcard_is_not_a_way_to_this_host)
{
    rules[0] = rule("10.0.0.1", 0, false);
    config = (struct run_config){.connect = rules, .connect_count = 1};
    ck_assert_int_eq(connects("0.0.0.0", 22), -EACCES);
    ck_assert_int_eq(connects("::", 22), -EACCES);
    ck_assert_int_eq(connects("::ffff:0.0.0.0", 22), -EACCES);
}
END_TEST

/* Linux would connect a bound socket to the address it is bound to. */
START_TEST(a_wildcard_becomes_the_address_that_was_judged)
{
    static const char *const cases[][2] = {
        {"0.0.0.0", "127.0.0.1:22"}, {"::ffff:0.0.0.0", "127.0.0.1:22"}, {"::", "[::1]:22"}};
    char text[NET_TEXT_BYTES];

    rules[0] = rule("", 22, false);
    config = (struct run_config){.connect = rules, .connect_count = 1};
    for (size_t i = 0; i < 3; i++) {
        struct sockaddr_storage made = address(cases[i][0], 22);

        ck_assert_int_eq(net_connect_check(&config, &made), 0);
        ck_assert_str_eq(net_text(&made, text), cases[i][1]);
    }
}
END_TEST

START_TEST(congestion_control_is_one_that_the_host_has)
{
    static const char *const refused[] = {"nosuch", "ren", "reno2", "reno cubic", "renoreno",
                                          " ",      "",    "/",     "../x"};

    ck_assert_int_eq(net_congestion_check("reno", 4), 0); /* every Linux has it */
    ck_assert_int_eq(net_congestion_check("reno", 5), 0);
    ck_assert_int_eq(net_congestion_check("reno\0garbage", 12), 0);
    ck_assert_int_eq(net_congestion_check("reno", 3), -ENOENT);
    ck_assert_int_eq(net_congestion_check("reno", 0), -EINVAL);
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        ck_assert_int_eq(net_congestion_check(refused[i], strlen(refused[i]) + 1), -ENOENT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("net_rules");
    TCase *tests = tcase_create("rules");

    tcase_add_test(tests, nothing_is_granted_by_default);
    tcase_add_test(tests, published_ports_can_be_bound);
    tcase_add_test(tests, a_port_of_the_hosts_choice_is_not_for_listening);
    tcase_add_test(tests, connections_go_where_allowed_in_any_notation);
    tcase_add_test(tests, a_wildcard_is_not_a_way_to_this_host);
    tcase_add_test(tests, a_wildcard_becomes_the_address_that_was_judged);
    tcase_add_test(tests, congestion_control_is_one_that_the_host_has);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
