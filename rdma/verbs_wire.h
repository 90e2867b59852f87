/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two ends of a verbs connection tell each other while rdma_cm makes it, in its private
 * data: who connects (the tenant's token from READY) and what the queue pair is for. The rest was
 * said on the control connection (wire.h). Freestanding, little-endian, versioned apart from the
 * control protocol. InfiniBand leaves 56 bytes of a request to us, and delivers all of them padded
 * with zeros, so lengths are a minimum.
 */
#ifndef FARVISOR_RDMA_VERBS_WIRE_H
#define FARVISOR_RDMA_VERBS_WIRE_H

#include "rdma/wire.h"

#define VERBS_WIRE_MAGIC     0x31515646u /* "FVQ1" */
#define VERBS_WIRE_VERSION   1u
#define VERBS_WIRE_MAX_BYTES 56u
#define VERBS_WIRE_DEPTH_MAX 4096u

struct verbs_request {
    uint32_t magic;
    uint16_t version;
    uint16_t kind; /* enum rdma_queue_kind, or VERBS_ANCHOR */
    /* IN */
    uint32_t depth; /* transfers in flight, 1..VERBS_WIRE_DEPTH_MAX */
    uint32_t zero;
    uint8_t token[WIRE_TOKEN_BYTES];
};
_Static_assert(sizeof(struct verbs_request) == 32, "wire format");
_Static_assert(sizeof(struct verbs_request) <= VERBS_WIRE_MAX_BYTES, "fits a request");

#define VERBS_ANCHOR   15u /* the connection that carries nothing: verbs.c */
#define VERBS_KIND_END 16u

enum verbs_answer_code {
    VERBS_ACCEPTED = 0,
    VERBS_REFUSED_FORM = 1, /* not a request of ours */
    VERBS_REFUSED_VERSION = 2,
    VERBS_REFUSED_TOKEN = 3,
    VERBS_REFUSED_FULL = 4, /* the tenant has too many connections, or the device has no more */
    VERBS_ANSWER_END
};

/* With the acceptance, or with the refusal. */
struct verbs_answer {
    uint32_t magic;
    uint16_t version;
    uint16_t code; /* enum verbs_answer_code */
};
_Static_assert(sizeof(struct verbs_answer) == 8, "wire format");

void verbs_request_init(struct verbs_request *request, uint16_t kind, uint32_t depth,
                        const uint8_t *token);
void verbs_answer_init(struct verbs_answer *answer, enum verbs_answer_code code);

/*
 * A peer's bytes to a checked message; never reads past `bytes`, and `data` may be NULL.
 * Returns VERBS_ACCEPTED with every field in its bounds, or the code to refuse with.
 */
enum verbs_answer_code verbs_request_parse(const void *data, size_t bytes,
                                           struct verbs_request *out);
/* The peer's code, or VERBS_REFUSED_FORM for what is no answer of ours. */
enum verbs_answer_code verbs_answer_parse(const void *data, size_t bytes);
/* In words, for a message. */
const char *verbs_answer_text(enum verbs_answer_code code);

#endif
