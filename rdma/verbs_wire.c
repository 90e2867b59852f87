/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict parser of rdma_cm private data, for both ends. Pure functions, any thread.
 */
#include "rdma/verbs_wire.h"

#include <string.h>

void verbs_request_init(struct verbs_request *request, uint16_t kind, uint32_t depth,
                        const uint8_t *token)
{
    memset(request, 0, sizeof(*request));
    request->magic = VERBS_WIRE_MAGIC;
    request->version = VERBS_WIRE_VERSION;
    request->kind = kind;
    request->depth = depth;
    memcpy(request->token, token, sizeof(request->token));
}

void verbs_answer_init(struct verbs_answer *answer, enum verbs_answer_code code)
{
    memset(answer, 0, sizeof(*answer));
    answer->magic = VERBS_WIRE_MAGIC;
    answer->version = VERBS_WIRE_VERSION;
    answer->code = (uint16_t)code;
}

enum verbs_answer_code verbs_request_parse(const void *data, size_t bytes,
                                           struct verbs_request *out)
{
    if (!data || bytes < sizeof(*out))
        return VERBS_REFUSED_FORM;
    memcpy(out, data, sizeof(*out));
    if (out->magic != VERBS_WIRE_MAGIC)
        return VERBS_REFUSED_FORM;
    if (out->version != VERBS_WIRE_VERSION)
        return VERBS_REFUSED_VERSION;
    if (out->kind >= VERBS_KIND_END || out->depth == 0 || out->depth > VERBS_WIRE_DEPTH_MAX ||
        out->zero)
        return VERBS_REFUSED_FORM;
    return VERBS_ACCEPTED;
}

enum verbs_answer_code verbs_answer_parse(const void *data, size_t bytes)
{
    struct verbs_answer answer;

    if (!data || bytes < sizeof(answer))
        return VERBS_REFUSED_FORM;
    memcpy(&answer, data, sizeof(answer));
    if (answer.magic != VERBS_WIRE_MAGIC || answer.code >= VERBS_ANSWER_END)
        return VERBS_REFUSED_FORM;
    return answer.version == VERBS_WIRE_VERSION ? (enum verbs_answer_code)answer.code
                                                : VERBS_REFUSED_VERSION;
}

const char *verbs_answer_text(enum verbs_answer_code code)
{
    static const char *const texts[VERBS_ANSWER_END] = {
        [VERBS_ACCEPTED] = "accepted",
        [VERBS_REFUSED_FORM] = "refused by something that is no memory server",
        [VERBS_REFUSED_VERSION] = "refused: memory server of another version",
        [VERBS_REFUSED_TOKEN] = "refused: not this tenant's",
        [VERBS_REFUSED_FULL] = "refused: too many connections",
    };

    return code < VERBS_ANSWER_END ? texts[code] : texts[VERBS_REFUSED_FORM];
}
