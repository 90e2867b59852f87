/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the control protocol's parser in both directions: the first byte chooses the direction,
 * the rest is what arrived, read as the stream it is (message after message). Whatever passes must
 * keep the parser's promises. Linked with libFuzzer, or with replay.c for the corpus.
 */
#include "rdma/wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define PROMISE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition))                                                                          \
            abort();                                                                               \
    } while (0)

static void check_text(const char *text, size_t room)
{
    PROMISE(memchr(text, '\0', room));
    for (; *text; text++)
        PROMISE(*text >= ' ' && *text <= '~');
}

static void check_promises(const union wire_message *message)
{
    switch (message->header.type) {
    case WIRE_HELLO:
        check_text(message->hello.name, sizeof(message->hello.name));
        PROMISE(message->hello.quota_bytes % WIRE_SLAB_BYTES == 0);
        break;
    case WIRE_RESERVED:
        PROMISE(message->reserved.count <= WIRE_SLABS_MAX);
        break;
    case WIRE_RESERVE:
    case WIRE_RELEASE:
        PROMISE(message->range.count > 0 && message->range.count <= WIRE_SLABS_MAX);
        PROMISE(message->range.first_slab + message->range.count > message->range.first_slab);
        break;
    case WIRE_STATUS_REPLY:
        PROMISE(message->status_reply.rows <= WIRE_STATUS_ROWS_MAX);
        for (uint32_t i = 0; i < message->status_reply.rows; i++)
            check_text(message->status_reply.row[i].name, WIRE_NAME_BYTES);
        break;
    case WIRE_ERROR:
        check_text(message->error.text, sizeof(message->error.text));
        break;
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    enum wire_direction direction;
    union wire_message message;

    if (bytes == 0)
        return 0;
    direction = data[0] & 1 ? WIRE_TO_CLIENT : WIRE_TO_SERVER;
    data++;
    bytes--;
    for (;;) {
        int used = wire_message_parse(direction, data, bytes, &message);

        if (used <= 0)
            return 0;
        PROMISE((size_t)used <= bytes && (uint32_t)used == message.header.bytes);
        check_promises(&message);
        data += used;
        bytes -= (size_t)used;
    }
}
