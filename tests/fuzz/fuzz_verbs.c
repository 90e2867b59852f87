/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes what the verbs transport takes from others: the private data of a connection request and
 * of an answer, and the user's device=, port=, gid=. The first byte chooses. Whatever passes must
 * keep the parser's promises; what is made of it must pass again, unchanged. Linked with libFuzzer,
 * or with replay.c for the corpus.
 */
#include "rdma/verbs_select.h"
#include "rdma/verbs_wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define PROMISE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

/* The private data goes on behind our struct: padding, which must not matter. */
static void check_request(const uint8_t *data, size_t bytes)
{
    struct verbs_request request, again, made;
    enum verbs_answer_code code = verbs_request_parse(data, bytes, &request);

    PROMISE(code < VERBS_ANSWER_END && verbs_answer_text(code));
    if (code != VERBS_ACCEPTED)
        return;
    PROMISE(bytes >= sizeof(request));
    PROMISE(request.kind < VERBS_KIND_END);
    PROMISE(request.depth > 0 && request.depth <= VERBS_WIRE_DEPTH_MAX);
    PROMISE(verbs_request_parse(data, sizeof(request), &again) == VERBS_ACCEPTED);
    PROMISE(memcmp(&request, &again, sizeof(request)) == 0);
    verbs_request_init(&made, request.kind, request.depth, request.token);
    PROMISE(memcmp(&request, &made, sizeof(request)) == 0);
}

static void check_answer(const uint8_t *data, size_t bytes)
{
    struct verbs_answer made;
    enum verbs_answer_code code = verbs_answer_parse(data, bytes);

    PROMISE(code < VERBS_ANSWER_END && verbs_answer_text(code));
    verbs_answer_init(&made, code);
    PROMISE(verbs_answer_parse(&made, sizeof(made)) == code);
}

static void check_selection(const uint8_t *data, size_t bytes)
{
    struct verbs_selection selection = {0};
    char why[VERBS_WHY_BYTES] = "";
    char *text = malloc(bytes + 1);

    PROMISE(text);
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    if (verbs_selection_parse(&selection, text, why))
        PROMISE(why[0] && memchr(why, '\0', sizeof(why)));
    else
        PROMISE(selection.device[0] || selection.port || selection.gid_given);
    PROMISE(memchr(selection.device, '\0', sizeof(selection.device)));
    PROMISE(!strchr(selection.device, '/') && selection.device[0] != '.');
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0)
        return 0;
    switch (data[0] % 3) {
    case 0:
        check_request(data + 1, bytes - 1);
        break;
    case 1:
        check_answer(data + 1, bytes - 1);
        break;
    default:
        check_selection(data + 1, bytes - 1);
    }
    return 0;
}
