/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control protocol's parser: every message of wire.h passes, and every way to be malformed that
 * its comments name is refused. The fuzzer (tests/fuzz/fuzz_wire.c) looks for the ways they do not.
 */
#include "rdma/wire.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static union wire_message out;

/* A valid message of each type, to be spoilt by the tests. */
static union wire_message sample(uint16_t type)
{
    union wire_message message;

    wire_message_init(&message, (enum wire_type)type);
    switch (type) {
    case WIRE_HELLO:
        message.hello.quota_bytes = 4 * WIRE_SLAB_BYTES;
        message.hello.span_pages = 100;
        message.hello.transport = WIRE_LOOPBACK;
        message.hello.timeout_ms = 1;
        strcpy(message.hello.name, "me");
        break;
    case WIRE_READY:
        message.ready.quota_bytes = message.ready.map_bytes = WIRE_SLAB_BYTES;
        message.ready.transport = WIRE_LOOPBACK;
        break;
    case WIRE_RESERVE:
    case WIRE_RELEASE:
    case WIRE_RELEASED:
        message.range.count = 1;
        break;
    case WIRE_STATUS_REPLY:
        message.status_reply.rows = 2;
        message.status_reply.row[0].tenant = 1;
        message.status_reply.row[0].transport = WIRE_LOOPBACK;
        message.status_reply.row[1].tenant = 2;
        message.status_reply.row[1].transport = WIRE_OFI_TCP;
        break;
    case WIRE_ERROR:
        message.error.code = WIRE_ERROR_FULL;
        strcpy(message.error.text, "full");
        break;
    default:
        break;
    }
    return message;
}

static int parse(enum wire_direction direction, const union wire_message *message)
{
    return wire_message_parse(direction, message, message->header.bytes, &out);
}

static enum wire_direction direction_of(uint16_t type)
{
    union wire_message message = sample(type);

    return parse(WIRE_TO_SERVER, &message) > 0 ? WIRE_TO_SERVER : WIRE_TO_CLIENT;
}

START_TEST(every_message_passes_whole_and_waits_while_partial)
{
    union wire_message message = sample((uint16_t)_i);
    enum wire_direction direction = direction_of((uint16_t)_i);

    for (uint32_t bytes = 0; bytes < message.header.bytes; bytes++)
        ck_assert_int_eq(wire_message_parse(direction, &message, bytes, &out), 0);
    ck_assert_int_eq(parse(direction, &message), (int)message.header.bytes);
    ck_assert_mem_eq(&out, &message, message.header.bytes);
    ck_assert_uint_le(message.header.bytes, WIRE_MESSAGE_MAX_BYTES);
}
END_TEST

START_TEST(only_pings_go_both_ways)
{
    union wire_message message = sample((uint16_t)_i);
    bool both = parse(WIRE_TO_SERVER, &message) > 0 && parse(WIRE_TO_CLIENT, &message) > 0;

    ck_assert_int_eq(both, _i == WIRE_PING || _i == WIRE_PONG);
}
END_TEST

START_TEST(a_spoilt_header_is_refused)
{
    union wire_message message = sample((uint16_t)_i);
    enum wire_direction direction = direction_of((uint16_t)_i);

    message.header.zero = 1;
    ck_assert_int_eq(parse(direction, &message), -EPROTO);
    message = sample((uint16_t)_i);
    message.header.bytes++;
    ck_assert_int_eq(wire_message_parse(direction, &message, sizeof(message), &out), -EPROTO);
    message.header.bytes = 0;
    ck_assert_int_eq(wire_message_parse(direction, &message, sizeof(message), &out), -EPROTO);
    message = sample((uint16_t)_i);
    message.header.type = WIRE_TYPE_END;
    ck_assert_int_eq(parse(direction, &message), -EPROTO);
    message = sample((uint16_t)_i);
    message.header.version++;
    ck_assert_int_eq(parse(direction, &message), -EPROTONOSUPPORT);
    message = sample((uint16_t)_i);
    message.header.magic++;
    ck_assert_int_eq(wire_message_parse(direction, &message, 4, &out), -EPROTO);
}
END_TEST

#define SPOILT(name, type, direction, change)                                                      \
    START_TEST(name)                                                                               \
    {                                                                                              \
        union wire_message message = sample(type);                                                 \
        change;                                                                                    \
        ck_assert_int_eq(parse(direction, &message), -EPROTO);                                     \
    }                                                                                              \
    END_TEST

SPOILT(hello_without_quota, WIRE_HELLO, WIRE_TO_SERVER, message.hello.quota_bytes = 0)
SPOILT(hello_with_a_part_of_a_slab, WIRE_HELLO, WIRE_TO_SERVER, message.hello.quota_bytes = 4096)
SPOILT(hello_with_absurd_quota, WIRE_HELLO, WIRE_TO_SERVER,
       message.hello.quota_bytes = UINT64_MAX - WIRE_SLAB_BYTES + 1)
SPOILT(hello_without_span, WIRE_HELLO, WIRE_TO_SERVER, message.hello.span_pages = 0)
SPOILT(hello_with_absurd_span, WIRE_HELLO, WIRE_TO_SERVER, message.hello.span_pages = UINT64_MAX)
SPOILT(hello_with_unknown_transport, WIRE_HELLO, WIRE_TO_SERVER, message.hello.transport = 77)
SPOILT(hello_without_timeout, WIRE_HELLO, WIRE_TO_SERVER, message.hello.timeout_ms = 0)
SPOILT(hello_with_endless_name, WIRE_HELLO, WIRE_TO_SERVER,
       memset(message.hello.name, 'x', WIRE_NAME_BYTES))
SPOILT(hello_with_escape_in_name, WIRE_HELLO, WIRE_TO_SERVER, message.hello.name[0] = '\x1b')
SPOILT(hello_with_bytes_after_name, WIRE_HELLO, WIRE_TO_SERVER, message.hello.name[10] = 'x')
SPOILT(range_of_nothing, WIRE_RESERVE, WIRE_TO_SERVER, message.range.count = 0)
SPOILT(range_too_long, WIRE_RELEASE, WIRE_TO_SERVER, message.range.count = WIRE_SLABS_MAX + 1)
SPOILT(range_beyond_every_span, WIRE_RESERVE, WIRE_TO_SERVER, message.range.first_slab = UINT64_MAX)
SPOILT(ready_with_small_map, WIRE_READY, WIRE_TO_CLIENT, message.ready.map_bytes = 0)
SPOILT(ready_with_part_of_a_slab, WIRE_READY, WIRE_TO_CLIENT, message.ready.map_bytes += 4096)
SPOILT(ready_without_port, WIRE_READY, WIRE_TO_CLIENT, message.ready.transport = WIRE_OFI_TCP;
       message.ready.map_bytes = 0)
SPOILT(reserved_too_many, WIRE_RESERVED, WIRE_TO_CLIENT,
       message.reserved.count = WIRE_SLABS_MAX + 1)
SPOILT(reserved_unaligned, WIRE_RESERVED, WIRE_TO_CLIENT, message.reserved.count = 1;
       message.reserved.slabs[0].remote = 1)
SPOILT(status_with_too_many_rows, WIRE_STATUS_REPLY, WIRE_TO_CLIENT,
       message.status_reply.rows = WIRE_STATUS_ROWS_MAX + 1)
SPOILT(status_out_of_order, WIRE_STATUS_REPLY, WIRE_TO_CLIENT,
       message.status_reply.row[1].tenant = 1)
SPOILT(error_without_code, WIRE_ERROR, WIRE_TO_CLIENT, message.error.code = 0)
SPOILT(error_with_endless_text, WIRE_ERROR, WIRE_TO_CLIENT,
       memset(message.error.text, 'x', WIRE_TEXT_BYTES))
SPOILT(error_with_newline, WIRE_ERROR, WIRE_TO_CLIENT, message.error.text[0] = '\n')

static Suite *wire_suite(void)
{
    const TTest *const spoilt[] = {hello_without_quota,       hello_with_a_part_of_a_slab,
                                   hello_with_absurd_quota,   hello_without_span,
                                   hello_with_absurd_span,    hello_with_unknown_transport,
                                   hello_without_timeout,     hello_with_endless_name,
                                   hello_with_escape_in_name, hello_with_bytes_after_name,
                                   range_of_nothing,          range_too_long,
                                   range_beyond_every_span,   ready_with_small_map,
                                   ready_with_part_of_a_slab, ready_without_port,
                                   reserved_too_many,         reserved_unaligned,
                                   status_with_too_many_rows, status_out_of_order,
                                   error_without_code,        error_with_endless_text,
                                   error_with_newline};
    Suite *suite = suite_create("rdma wire");
    TCase *types = tcase_create("each type");
    TCase *fields = tcase_create("fields");

    tcase_add_loop_test(types, every_message_passes_whole_and_waits_while_partial, 1,
                        WIRE_TYPE_END);
    tcase_add_loop_test(types, only_pings_go_both_ways, 1, WIRE_TYPE_END);
    tcase_add_loop_test(types, a_spoilt_header_is_refused, 1, WIRE_TYPE_END);
    for (size_t i = 0; i < sizeof(spoilt) / sizeof(spoilt[0]); i++)
        tcase_add_test(fields, spoilt[i]);
    suite_add_tcase(suite, types);
    suite_add_tcase(suite, fields);
    return suite;
}

int main(void)
{
    return unit_run(wire_suite());
}
