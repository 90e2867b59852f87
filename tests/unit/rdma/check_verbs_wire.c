/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verbs transport makes of a peer's private data and of a device's failures. No device is
 * needed: with one, tests/lab goes on.
 */
#include "rdma/verbs_library.h"
#include "rdma/verbs_wire.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <string.h>

static const uint8_t token[WIRE_TOKEN_BYTES] = "0123456789abcde";

START_TEST(a_request_survives_the_way)
{
    struct verbs_request sent, got;
    uint8_t padded[VERBS_WIRE_MAX_BYTES] = {0};

    verbs_request_init(&sent, VERBS_ANCHOR, 16, token);
    memcpy(padded, &sent, sizeof(sent));
    ck_assert_int_eq(verbs_request_parse(padded, sizeof(padded), &got), VERBS_ACCEPTED);
    ck_assert_mem_eq(&sent, &got, sizeof(sent));
}
END_TEST

START_TEST(a_request_of_no_form_is_refused)
{
    struct verbs_request good, bad, got;

    verbs_request_init(&good, 0, 16, token);
    ck_assert_int_eq(verbs_request_parse(NULL, 0, &got), VERBS_REFUSED_FORM);
    for (size_t bytes = 0; bytes < sizeof(good); bytes++)
        ck_assert_int_eq(verbs_request_parse(&good, bytes, &got), VERBS_REFUSED_FORM);
    bad = good;
    bad.magic++;
    ck_assert_int_eq(verbs_request_parse(&bad, sizeof(bad), &got), VERBS_REFUSED_FORM);
    bad = good;
    bad.kind = VERBS_KIND_END;
    ck_assert_int_eq(verbs_request_parse(&bad, sizeof(bad), &got), VERBS_REFUSED_FORM);
    bad = good;
    bad.depth = 0;
    ck_assert_int_eq(verbs_request_parse(&bad, sizeof(bad), &got), VERBS_REFUSED_FORM);
    bad.depth = VERBS_WIRE_DEPTH_MAX + 1;
    ck_assert_int_eq(verbs_request_parse(&bad, sizeof(bad), &got), VERBS_REFUSED_FORM);
    bad = good;
    bad.zero = 1;
    ck_assert_int_eq(verbs_request_parse(&bad, sizeof(bad), &got), VERBS_REFUSED_FORM);
}
END_TEST

START_TEST(another_version_is_told_apart)
{
    struct verbs_request request, got;
    struct verbs_answer answer;

    verbs_request_init(&request, 0, 16, token);
    request.version++;
    ck_assert_int_eq(verbs_request_parse(&request, sizeof(request), &got), VERBS_REFUSED_VERSION);
    verbs_answer_init(&answer, VERBS_REFUSED_TOKEN);
    answer.version++;
    ck_assert_int_eq(verbs_answer_parse(&answer, sizeof(answer)), VERBS_REFUSED_VERSION);
}
END_TEST

START_TEST(an_answer_is_never_out_of_bounds)
{
    struct verbs_answer answer;

    for (int code = 0; code < VERBS_ANSWER_END; code++) {
        verbs_answer_init(&answer, (enum verbs_answer_code)code);
        ck_assert_int_eq(verbs_answer_parse(&answer, sizeof(answer)), code);
        ck_assert_ptr_nonnull(verbs_answer_text((enum verbs_answer_code)code));
    }
    answer.code = VERBS_ANSWER_END;
    ck_assert_int_eq(verbs_answer_parse(&answer, sizeof(answer)), VERBS_REFUSED_FORM);
    ck_assert_int_eq(verbs_answer_parse(&answer, sizeof(answer) - 1), VERBS_REFUSED_FORM);
    ck_assert_int_eq(verbs_answer_parse(NULL, 196), VERBS_REFUSED_FORM);
}
END_TEST

START_TEST(every_failed_completion_has_a_type_and_a_hint)
{
    for (int status = -1; status < 64; status++) {
        const struct verbs_fault *fault = verbs_fault_of((enum ibv_wc_status)status);

        ck_assert(fault->error == -ECONNRESET || fault->error == -ETIMEDOUT);
        ck_assert_ptr_nonnull(fault->hint);
    }
}
END_TEST

/* The text of each as the library says it, and what to do about it, are in the manual of messages.
 */
START_TEST(every_failed_completion_is_documented)
{
    static char text[1 << 17];
    FILE *file = fopen("docs/errors.md", "r");

    ck_assert_ptr_nonnull(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    ck_assert_int_eq(verbs_library_load(), 0);
    for (int status = IBV_WC_LOC_LEN_ERR; status <= IBV_WC_GENERAL_ERR; status++) {
        const char *said = verbs.ibv_wc_status_str((enum ibv_wc_status)status);

        ck_assert_msg(strstr(text, said) != NULL, "docs/errors.md lacks '%s'", said);
    }
}
END_TEST

static Suite *verbs_wire_suite(void)
{
    Suite *suite = suite_create("rdma verbs without a device");
    TCase *pure = tcase_create("pure");

    tcase_add_test(pure, a_request_survives_the_way);
    tcase_add_test(pure, a_request_of_no_form_is_refused);
    tcase_add_test(pure, another_version_is_told_apart);
    tcase_add_test(pure, an_answer_is_never_out_of_bounds);
    tcase_add_test(pure, every_failed_completion_has_a_type_and_a_hint);
    tcase_add_test(pure, every_failed_completion_is_documented);
    suite_add_tcase(suite, pure);
    return suite;
}

int main(void)
{
    return unit_run(verbs_wire_suite());
}
