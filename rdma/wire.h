/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control protocol between a guest's VMM and a memory node: one stream (TCP or unix socket) a
 * tenant. Pages never travel here; they move by one-sided operations of the transport that HELLO
 * chose. Freestanding; all integers little-endian; every message is a header and one fixed struct,
 * so a parser needs no state besides the bytes it has. Its version is apart from the release's.
 *
 *   client                                   server
 *   HELLO  ------------------------------->
 *          <-------------------------------  READY (loopback: the memory's file descriptor with it)
 *   RESERVE(first, count) ---------------->
 *          <-------------------------------  RESERVED(first, count granted, where they are)
 *   RELEASE(first, count) ---------------->
 *          <-------------------------------  RELEASED(first, count)
 *          <-------------------------------  PING, while READY takes long: no answer expected
 *   PING / PONG                             either way, any time after READY
 *   BYE    ------------------------------->  the tenant's memory is freed
 *   STATUS instead of HELLO -------------->
 *          <-------------------------------  STATUS_REPLY, then the server closes
 *          <-------------------------------  ERROR(code, text) any time, then the server closes
 */
#ifndef FARVISOR_RDMA_WIRE_H
#define FARVISOR_RDMA_WIRE_H

#include <stddef.h>
#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structs are sent as they are");

#define WIRE_MAGIC             0x314d5646u /* "FVM1" */
#define WIRE_VERSION           2u          /* 2: chain_wire.h */
#define WIRE_MESSAGE_MAX_BYTES 4096u       /* longest message; bounds every buffer */
#define WIRE_NAME_BYTES        64u         /* with the terminating NUL */
#define WIRE_TEXT_BYTES        256u        /* with the terminating NUL */
#define WIRE_TOKEN_BYTES       16u
#define WIRE_SLAB_BYTES        (2u << 20)
#define WIRE_SLABS_MAX         64u /* slabs in one RESERVE or RELEASE */
#define WIRE_STATUS_ROWS_MAX   24u
#define WIRE_SPAN_MAX_PAGES    (1ULL << 40) /* 4 PiB of page numbers */

enum wire_type {
    WIRE_HELLO = 1,
    WIRE_READY = 2,
    WIRE_PING = 3,
    WIRE_PONG = 4,
    WIRE_RESERVE = 5,
    WIRE_RESERVED = 6,
    WIRE_RELEASE = 7,
    WIRE_RELEASED = 8,
    WIRE_STATUS = 9,
    WIRE_STATUS_REPLY = 10,
    WIRE_BYE = 11,
    WIRE_ERROR = 12,
    WIRE_TYPE_END
};

enum wire_transport { WIRE_LOOPBACK = 1, WIRE_OFI_TCP = 2, WIRE_VERBS = 3, WIRE_TRANSPORT_END };

enum wire_error_code {
    WIRE_ERROR_PROTOCOL = 1, /* the peer sent what it must not */
    WIRE_ERROR_VERSION = 2,
    WIRE_ERROR_FULL = 3,        /* capacity or quota */
    WIRE_ERROR_UNSUPPORTED = 4, /* transport */
    WIRE_ERROR_BUSY = 5,        /* too many tenants, or draining */
    WIRE_ERROR_INTERNAL = 6,    /* the tenant's worker died, out of memory */
    WIRE_ERROR_CODE_END
};

/* First bytes of every message, in every version. */
struct wire_header {
    uint32_t magic;
    uint16_t version;
    uint16_t type;
    uint32_t bytes; /* whole message, header included */
    uint32_t zero;
};
_Static_assert(sizeof(struct wire_header) == 16, "wire format");

struct wire_hello {
    struct wire_header header;
    /* IN */
    uint64_t quota_bytes; /* most the tenant will ever hold; whole slabs */
    uint64_t span_pages;  /* page numbers are below */
    uint32_t transport;   /* enum wire_transport */
    uint32_t timeout_ms;  /* how long the client will wait for an answer */
    char name[WIRE_NAME_BYTES];
};
_Static_assert(sizeof(struct wire_hello) == 104, "wire format");

struct wire_ready {
    struct wire_header header;
    /* OUT */
    uint64_t tenant;
    uint64_t quota_bytes;            /* granted */
    uint64_t map_bytes;              /* loopback: length of the memory passed along; else 0 */
    uint8_t token[WIRE_TOKEN_BYTES]; /* proves to the tenant's worker who connects */
    uint32_t transport;
    uint16_t fabric_port; /* worker's port on the address that the client reached; loopback: 0 */
    uint16_t zero;
};
_Static_assert(sizeof(struct wire_ready) == 64, "wire format");

/* PING and PONG: a PONG returns the PING's stamp. The server sends a tenant's PING through its
 * worker process, so that a PONG says both are alive. */
struct wire_ping {
    struct wire_header header;
    uint64_t stamp;
};
_Static_assert(sizeof(struct wire_ping) == 24, "wire format");

/* RESERVE, RELEASE and RELEASED. */
struct wire_range {
    struct wire_header header;
    uint64_t first_slab;
    uint32_t count; /* 1..WIRE_SLABS_MAX */
    uint32_t zero;
};
_Static_assert(sizeof(struct wire_range) == 32, "wire format");

struct wire_slab {
    uint64_t remote; /* loopback: offset in the mapping; else target address; slab aligned */
    uint64_t key;    /* ofi, verbs: remote key; loopback: 0 */
};

/* Always full length. Only slabs[0..count) mean something; the others are zero. */
struct wire_reserved {
    struct wire_header header;
    /* OUT */
    uint64_t first_slab;
    uint32_t count; /* granted, from first_slab on; 0: full */
    uint32_t full;  /* why count is less than asked: 0 not, 1 quota, 2 capacity */
    struct wire_slab slabs[WIRE_SLABS_MAX];
};
_Static_assert(sizeof(struct wire_reserved) == 32 + 16 * WIRE_SLABS_MAX, "wire format");

struct wire_status {
    struct wire_header header;
    uint64_t after_tenant; /* rows of tenants with higher numbers are wanted */
};
_Static_assert(sizeof(struct wire_status) == 24, "wire format");

struct wire_status_row {
    uint64_t tenant;
    uint64_t quota_bytes, held_bytes;
    uint64_t age_ms, silent_ms; /* since it came; since it was last heard */
    uint32_t transport;
    uint32_t zero;
    char name[WIRE_NAME_BYTES];
};
_Static_assert(sizeof(struct wire_status_row) == 112, "wire format");

struct wire_status_reply {
    struct wire_header header;
    /* OUT */
    uint64_t capacity_bytes, used_bytes, uptime_ms;
    uint64_t served; /* tenants since the start */
    uint32_t tenants, tenants_max;
    uint32_t draining;
    uint32_t hugepages;
    uint32_t rows; /* valid rows; more may follow when the last one is full */
    uint32_t zero;
    struct wire_status_row row[WIRE_STATUS_ROWS_MAX];
};
_Static_assert(sizeof(struct wire_status_reply) == 72 + 112 * WIRE_STATUS_ROWS_MAX, "wire format");
_Static_assert(sizeof(struct wire_status_reply) <= WIRE_MESSAGE_MAX_BYTES, "bounded");

struct wire_bye {
    struct wire_header header;
};

struct wire_error {
    struct wire_header header;
    /* OUT */
    uint32_t code; /* enum wire_error_code */
    uint32_t zero;
    char text[WIRE_TEXT_BYTES];
};
_Static_assert(sizeof(struct wire_error) == 24 + WIRE_TEXT_BYTES, "wire format");

union wire_message {
    struct wire_header header;
    struct wire_hello hello;
    struct wire_ready ready;
    struct wire_ping ping;
    struct wire_range range;
    struct wire_reserved reserved;
    struct wire_status status;
    struct wire_status_reply status_reply;
    struct wire_bye bye;
    struct wire_error error;
};

enum wire_direction { WIRE_TO_SERVER, WIRE_TO_CLIENT };

/* Length of a message of this type, 0 for an unknown one. */
uint32_t wire_type_bytes(uint16_t type);

/* Zeroes the message, fills its header in. */
void wire_message_init(union wire_message *message, enum wire_type type);

/*
 * wire_message_parse - look at the bytes received so far.
 * Copies one message to *out. Returns its length, 0 when more bytes are needed, -EPROTO if these
 * bytes can never become a valid message for this direction, -EPROTONOSUPPORT if they are a
 * message of another version. Never reads past `bytes`. Every field is in its documented bounds
 * afterwards, texts are terminated and printable.
 */
int wire_message_parse(enum wire_direction direction, const void *from, size_t bytes,
                       union wire_message *out);

#endif
