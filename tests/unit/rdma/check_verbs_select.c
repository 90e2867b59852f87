/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The user's choice of RDMA device, port and GID: the text, and what is made of it on a host whose
 * devices are files of the test (the layout is sysfs's). A real device: tests/lab.
 */
#include "rdma/verbs_select.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <ftw.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GID_V4    "0000:0000:0000:0000:0000:ffff:0a37:0002"
#define GID_V6    "fd00:0000:0000:0000:0000:0000:0000:0007"
#define GID_LOCAL "fe80:0000:0000:0000:0000:0000:0000:0001"
#define GID_NONE  "0000:0000:0000:0000:0000:0000:0000:0000"

static char root[64];

/* No shell: with a sanitizer, starting programs takes longer than a test may. */
static void put(const char *name, const char *text)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", root, name);
    for (char *at = strchr(path + strlen(root) + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = '\0';
        ck_assert(mkdir(path, 0700) == 0 || errno == EEXIST);
        *at = '/';
    }
    file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file, "%s\n", text);
    fclose(file);
}

static int take_away(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status;
    (void)kind;
    (void)place;
    return remove(path);
}

/* One RoCE device with two ports, the second without addresses, and one InfiniBand device. */
static void set_up(void)
{
    strcpy(root, "/tmp/farvisor-unit-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
    put("roce/ports/1/state", "4: ACTIVE");
    put("roce/ports/1/link_layer", "Ethernet");
    put("roce/ports/1/gids/0", GID_LOCAL);
    put("roce/ports/1/gids/1", GID_V4);
    put("roce/ports/1/gids/2", GID_V6);
    put("roce/ports/1/gids/3", GID_NONE);
    put("roce/ports/2/state", "4: ACTIVE");
    put("roce/ports/2/link_layer", "Ethernet");
    put("ib/ports/1/state", "4: ACTIVE");
    put("ib/ports/1/link_layer", "InfiniBand");
    put("ib/ports/1/gids/0", GID_LOCAL);
}

static void tear_down(void)
{
    ck_assert_int_eq(nftw(root, take_away, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static const struct {
    const char *text;
    const char *why; /* part of it; NULL: good */
} texts[] = {
    {"device=rxe0", NULL},
    {"device=mlx5_1,port=2,gid=65535", NULL},
    {"gid=3,port=1,device=a", NULL},
    {"", "unknown (expected device=, port= or gid=)"},
    {"device", "not a device's name"},
    {"device=", "not a device's name"},
    {"device=../x", "not a device's name"},
    {"device=.", "not a device's name"},
    {"device=0123456789012345678901234567890123456789012345678901234567890123", "not a device's"},
    {"device=a,port=0", "not a number from 1 to 255"},
    {"port=256", "not a number from 1 to 255"},
    {"port=1x", "not a number from 1 to 255"},
    {"gid=-1", "not an index from 0 to 65535"},
    {"gid=65536", "not an index from 0 to 65535"},
    {"device=a,", "unknown"},
    {"speed=10G", "'speed': unknown"},
};

START_TEST(a_text_is_taken_or_refused_with_a_reason)
{
    struct verbs_selection selection = {0};
    char why[VERBS_WHY_BYTES] = "";
    int error = verbs_selection_parse(&selection, texts[_i].text, why);

    ck_assert_int_eq(error, texts[_i].why ? -EINVAL : 0);
    if (texts[_i].why)
        ck_assert_msg(strstr(why, texts[_i].why) != NULL, "'%s'", why);
}
END_TEST

static const struct {
    const char *text;
    int error;
    const char *why;
} hosts[] = {
    {"device=roce", 0, NULL},
    {"device=roce,port=2", 0, NULL},
    {"device=roce,gid=2", 0, NULL},
    {"port=1", -EINVAL, "port: of which device?"},
    {"gid=1", -EINVAL, "gid: of which device?"},
    {"device=none", -ENODEV, "no such RDMA device (this host has:"},
    {"device=roce,port=3", -ENODEV, "port 3: device roce has no such port"},
    {"device=roce,gid=3", -ENODEV, "gid 3: roce port 1 has none at that index"},
    {"device=roce,port=2,gid=1", -ENODEV, "gid 1: roce port 2 has none"},
    {"device=ib,gid=0", -EINVAL, "cannot be chosen on InfiniBand"},
};

START_TEST(a_choice_is_checked_against_the_host)
{
    struct verbs_selection selection = {.sysfs = root};
    char why[VERBS_WHY_BYTES] = "";

    ck_assert_int_eq(verbs_selection_parse(&selection, hosts[_i].text, why), 0);
    ck_assert_int_eq(verbs_selection_check(&selection, why), hosts[_i].error);
    if (hosts[_i].why)
        ck_assert_msg(strstr(why, hosts[_i].why) != NULL, "'%s'", why);
}
END_TEST

static const struct {
    const char *text;
    sa_family_t family;
    int result;
    uint8_t last; /* byte of the address */
} sources[] = {
    {"device=roce", AF_INET, 0, 2},
    {"device=roce", AF_INET6, 0, 7}, /* not the link-local one */
    {"device=roce,gid=0", AF_INET6, 0, 1},
    {"device=roce,gid=1", AF_INET, 0, 2},
    {"device=roce,gid=1", AF_INET6, -EADDRNOTAVAIL, 0},
    {"device=roce,gid=2", AF_INET, -EADDRNOTAVAIL, 0},
    {"device=roce,port=2", AF_INET, -EADDRNOTAVAIL, 0},
    {"device=ib", AF_INET, -EADDRNOTAVAIL, 0}, /* it has no interface */
};

START_TEST(a_choice_leads_to_an_address)
{
    struct verbs_selection selection = {.sysfs = root};
    struct sockaddr_storage source;
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&source;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&source;
    char why[VERBS_WHY_BYTES] = "";

    ck_assert_int_eq(verbs_selection_parse(&selection, sources[_i].text, why), 0);
    ck_assert_int_eq(verbs_selection_source(&selection, sources[_i].family, &source, why),
                     sources[_i].result);
    if (sources[_i].result) {
        ck_assert(why[0]);
        return;
    }
    ck_assert_int_eq(source.ss_family, sources[_i].family);
    if (sources[_i].family == AF_INET)
        ck_assert_uint_eq(ntohl(v4->sin_addr.s_addr) & 0xff, sources[_i].last);
    else
        ck_assert_uint_eq(v6->sin6_addr.s6_addr[15], sources[_i].last);
}
END_TEST

START_TEST(without_a_wish_the_route_decides)
{
    const struct verbs_selection selection = {0};
    const struct verbs_path path = {.device = "any", .port = 3};
    struct sockaddr_storage source;
    char why[VERBS_WHY_BYTES];

    ck_assert_int_eq(verbs_selection_check(&selection, why), 0);
    ck_assert_int_eq(verbs_selection_source(&selection, AF_INET, &source, why), 1);
    ck_assert_int_eq(verbs_selection_matches(&selection, &path, why), 0);
}
END_TEST

START_TEST(another_path_than_the_wish_is_told)
{
    static const uint8_t v4[VERBS_GID_BYTES] = {0, 0, 0,    0,    0,  0,  0, 0,
                                                0, 0, 0xff, 0xff, 10, 55, 0, 2};
    static const uint8_t other[VERBS_GID_BYTES] = {1};
    struct verbs_selection selection = {.sysfs = root};
    struct verbs_path path = {.device = "roce", .port = 1, .gid = v4};
    char why[VERBS_WHY_BYTES] = "";

    ck_assert_int_eq(verbs_selection_parse(&selection, "device=roce,port=1,gid=1", why), 0);
    ck_assert_int_eq(verbs_selection_matches(&selection, &path, why), 0);
    path.gid = other;
    ck_assert_int_eq(verbs_selection_matches(&selection, &path, why), -EXDEV);
    path.gid = v4;
    path.port = 2;
    ck_assert_int_eq(verbs_selection_matches(&selection, &path, why), -EXDEV);
    path.port = 1;
    path.device = "ib";
    ck_assert_int_eq(verbs_selection_matches(&selection, &path, why), -EXDEV);
    ck_assert_ptr_nonnull(strstr(why, "the address is on ib port 1, not on roce port 1"));
}
END_TEST

static Suite *select_suite(void)
{
    Suite *suite = suite_create("rdma verbs selection");
    TCase *choice = tcase_create("choice");

    tcase_add_checked_fixture(choice, set_up, tear_down);
    tcase_add_loop_test(choice, a_text_is_taken_or_refused_with_a_reason, 0,
                        (int)(sizeof(texts) / sizeof(texts[0])));
    tcase_add_loop_test(choice, a_choice_is_checked_against_the_host, 0,
                        (int)(sizeof(hosts) / sizeof(hosts[0])));
    tcase_add_loop_test(choice, a_choice_leads_to_an_address, 0,
                        (int)(sizeof(sources) / sizeof(sources[0])));
    tcase_add_test(choice, without_a_wish_the_route_decides);
    tcase_add_test(choice, another_path_than_the_wish_is_told);
    suite_add_tcase(suite, choice);
    return suite;
}

int main(void)
{
    return unit_run(select_suite());
}
