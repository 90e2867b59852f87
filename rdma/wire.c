/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Strict parser of the control protocol: the only place where a peer's bytes become a message, for
 * both ends. Whatever passes is within the bounds of wire.h, so the layers above check meaning
 * (is this slab mine?) but never form. Pure functions, any thread; fuzzed in tests/fuzz.
 */
#include "rdma/wire.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#define TO_SERVER (1u << WIRE_TO_SERVER)
#define TO_CLIENT (1u << WIRE_TO_CLIENT)

static const struct {
    uint32_t bytes;
    unsigned directions;
} wire_types[WIRE_TYPE_END] = {
    [WIRE_HELLO] = {sizeof(struct wire_hello), TO_SERVER},
    [WIRE_READY] = {sizeof(struct wire_ready), TO_CLIENT},
    [WIRE_PING] = {sizeof(struct wire_ping), TO_SERVER | TO_CLIENT},
    [WIRE_PONG] = {sizeof(struct wire_ping), TO_SERVER | TO_CLIENT},
    [WIRE_RESERVE] = {sizeof(struct wire_range), TO_SERVER},
    [WIRE_RESERVED] = {sizeof(struct wire_reserved), TO_CLIENT},
    [WIRE_RELEASE] = {sizeof(struct wire_range), TO_SERVER},
    [WIRE_RELEASED] = {sizeof(struct wire_range), TO_CLIENT},
    [WIRE_STATUS] = {sizeof(struct wire_status), TO_SERVER},
    [WIRE_STATUS_REPLY] = {sizeof(struct wire_status_reply), TO_CLIENT},
    [WIRE_BYE] = {sizeof(struct wire_bye), TO_SERVER},
    [WIRE_ERROR] = {sizeof(struct wire_error), TO_CLIENT},
};

uint32_t wire_type_bytes(uint16_t type)
{
    return type < WIRE_TYPE_END ? wire_types[type].bytes : 0;
}

void wire_message_init(union wire_message *message, enum wire_type type)
{
    memset(message, 0, sizeof(*message));
    message->header.magic = WIRE_MAGIC;
    message->header.version = WIRE_VERSION;
    message->header.type = (uint16_t)type;
    message->header.bytes = wire_type_bytes((uint16_t)type);
}

/* Printable ASCII, terminated, nothing after the terminator (no leaked memory of the sender). */
static bool wire_text_valid(const char *text, size_t room)
{
    size_t length = strnlen(text, room);

    if (length == room)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < ' ' || text[i] > '~')
            return false;
    }
    for (size_t i = length; i < room; i++) {
        if (text[i])
            return false;
    }
    return true;
}

static bool wire_transport_valid(uint32_t transport)
{
    return transport > 0 && transport < WIRE_TRANSPORT_END;
}

static bool wire_slabs_valid(uint64_t first_slab, uint32_t count)
{
    return count <= WIRE_SLABS_MAX &&
           first_slab < WIRE_SPAN_MAX_PAGES / (WIRE_SLAB_BYTES / 4096u) - WIRE_SLABS_MAX;
}

static bool wire_hello_valid(const struct wire_hello *hello)
{
    return wire_transport_valid(hello->transport) && hello->quota_bytes > 0 &&
           hello->quota_bytes % WIRE_SLAB_BYTES == 0 &&
           hello->quota_bytes <= WIRE_SPAN_MAX_PAGES * 4096u && hello->span_pages > 0 &&
           hello->span_pages <= WIRE_SPAN_MAX_PAGES && hello->timeout_ms > 0 &&
           wire_text_valid(hello->name, sizeof(hello->name));
}

static bool wire_ready_valid(const struct wire_ready *ready)
{
    bool loopback = ready->transport == WIRE_LOOPBACK;

    return wire_transport_valid(ready->transport) && ready->zero == 0 && ready->quota_bytes > 0 &&
           ready->quota_bytes % WIRE_SLAB_BYTES == 0 &&
           ready->quota_bytes <= WIRE_SPAN_MAX_PAGES * 4096u &&
           (loopback ? ready->map_bytes >= ready->quota_bytes &&
                           ready->map_bytes % WIRE_SLAB_BYTES == 0 &&
                           ready->map_bytes <= WIRE_SPAN_MAX_PAGES * 4096u
                     : ready->map_bytes == 0 && ready->fabric_port != 0);
}

static bool wire_reserved_valid(const struct wire_reserved *reserved)
{
    if (!wire_slabs_valid(reserved->first_slab, reserved->count) || reserved->full > 2)
        return false;
    for (uint32_t i = 0; i < reserved->count; i++) {
        if (reserved->slabs[i].remote % WIRE_SLAB_BYTES != 0)
            return false;
    }
    return true;
}

static bool wire_status_reply_valid(const struct wire_status_reply *reply)
{
    if (reply->rows > WIRE_STATUS_ROWS_MAX || reply->zero || reply->draining > 1 ||
        reply->hugepages > 1)
        return false;
    for (uint32_t i = 0; i < reply->rows; i++) {
        const struct wire_status_row *row = &reply->row[i];

        if (!wire_text_valid(row->name, sizeof(row->name)) || row->zero ||
            !wire_transport_valid(row->transport) || (i > 0 && row->tenant <= row[-1].tenant))
            return false;
    }
    return true;
}

static bool wire_error_valid(const struct wire_error *error)
{
    return error->code > 0 && error->code < WIRE_ERROR_CODE_END && !error->zero &&
           wire_text_valid(error->text, sizeof(error->text));
}

static bool wire_body_valid(const union wire_message *message)
{
    switch (message->header.type) {
    case WIRE_HELLO:
        return wire_hello_valid(&message->hello);
    case WIRE_READY:
        return wire_ready_valid(&message->ready);
    case WIRE_RESERVE:
    case WIRE_RELEASE:
    case WIRE_RELEASED:
        return message->range.count > 0 && !message->range.zero &&
               wire_slabs_valid(message->range.first_slab, message->range.count);
    case WIRE_RESERVED:
        return wire_reserved_valid(&message->reserved);
    case WIRE_STATUS_REPLY:
        return wire_status_reply_valid(&message->status_reply);
    case WIRE_ERROR:
        return wire_error_valid(&message->error);
    default:
        return true;
    }
}

int wire_message_parse(enum wire_direction direction, const void *from, size_t bytes,
                       union wire_message *out)
{
    struct wire_header header;

    /* The magic is judged as soon as it is there: garbage need not be 16 bytes long. */
    if (bytes >= sizeof(header.magic)) {
        memcpy(&header.magic, from, sizeof(header.magic));
        if (header.magic != WIRE_MAGIC)
            return -EPROTO;
    }
    if (bytes < sizeof(header))
        return 0;
    memcpy(&header, from, sizeof(header));
    if (header.version != WIRE_VERSION)
        return -EPROTONOSUPPORT;
    if (header.zero || header.bytes == 0 || header.bytes != wire_type_bytes(header.type) ||
        !(wire_types[header.type].directions & (1u << direction)))
        return -EPROTO;
    if (bytes < header.bytes)
        return 0;
    memset(out, 0, sizeof(*out));
    memcpy(out, from, header.bytes);
    return wire_body_valid(out) ? (int)header.bytes : -EPROTO;
}
