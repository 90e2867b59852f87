/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of memory nodes as people write them: "HOST:PORT", "[V6]:PORT", "unix:PATH". Used by
 * both ends. Knows sockets, nothing of the protocol.
 */
#ifndef FARVISOR_RDMA_ADDRESS_H
#define FARVISOR_RDMA_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

struct address {
    struct sockaddr_storage storage;
    socklen_t bytes;
};

/*
 * address_parse - text to socket address. Names are looked up, which may take seconds.
 * Returns 0, -EINVAL (malformed; *why says how, a constant), -EHOSTUNREACH (name not found).
 */
int address_parse(const char *text, struct address *out, const char **why);
bool address_is_unix(const struct address *address);
/* "127.0.0.1:7470", "[::1]:7470", "unix:/run/x". Returns buffer. */
const char *address_format(const struct address *address, char *buffer, size_t buffer_bytes);

#define ADDRESS_TEXT_BYTES 128u

#endif
