/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text to socket address and back. Host names go to the resolver, whose waits are bounded by its
 * own configuration; numbers and unix paths need no waiting. Any thread.
 */
#include "rdma/address.h"

#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#define HOST_MAX_BYTES 256

static int address_parse_unix(const char *path, struct address *out, const char **why)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    size_t length = strlen(path);

    if (length == 0 || length >= sizeof(local.sun_path)) {
        *why = length ? "path is longer than a unix socket's name may be (107 bytes)"
                      : "path is empty";
        return -EINVAL;
    }
    memcpy(local.sun_path, path, length + 1);
    memset(&out->storage, 0, sizeof(out->storage));
    memcpy(&out->storage, &local, sizeof(local));
    out->bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1);
    return 0;
}

/* Splits at the last colon; brackets around an IPv6 host are required and removed. */
static int address_split(const char *text, char *host, size_t host_bytes, const char **port,
                         const char **why)
{
    const char *colon = strrchr(text, ':');
    const char *first = text;
    size_t length;

    *why = "expected HOST:PORT, [IPV6]:PORT or unix:PATH";
    if (!colon || colon == text)
        return -EINVAL;
    length = (size_t)(colon - text);
    if (text[0] == '[') {
        if (length < 3 || text[length - 1] != ']')
            return -EINVAL;
        first = text + 1;
        length -= 2;
    } else if (memchr(text, ':', length)) {
        return -EINVAL;
    }
    if (length >= host_bytes)
        return -EINVAL;
    memcpy(host, first, length);
    host[length] = '\0';
    *port = colon + 1;
    return 0;
}

int address_parse(const char *text, struct address *out, const char **why)
{
    char host[HOST_MAX_BYTES];
    const char *port_text;
    uint64_t port;
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;

    if (strncmp(text, "unix:", 5) == 0)
        return address_parse_unix(text + 5, out, why);
    if (address_split(text, host, sizeof(host), &port_text, why) < 0)
        return -EINVAL;
    if (parse_u64(port_text, &port) < 0 || port > 65535) {
        *why = "port is not a number from 0 to 65535";
        return -EINVAL;
    }
    hints.ai_flags = AI_NUMERICSERV;
    if (getaddrinfo(host, port_text, &hints, &found) != 0) {
        *why = "host name not found";
        return -EHOSTUNREACH;
    }
    memset(&out->storage, 0, sizeof(out->storage));
    memcpy(&out->storage, found->ai_addr, found->ai_addrlen);
    out->bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

bool address_is_unix(const struct address *address)
{
    return address->storage.ss_family == AF_UNIX;
}

const char *address_format(const struct address *address, char *buffer, size_t buffer_bytes)
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (address->storage.ss_family == AF_UNIX) {
        snprintf(buffer, buffer_bytes, "unix:%s",
                 ((const struct sockaddr_un *)&address->storage)->sun_path);
    } else if (address->storage.ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->storage;

        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
        snprintf(buffer, buffer_bytes, "[%s]:%u", host, ntohs(v6->sin6_port));
    } else {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->storage;

        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
        snprintf(buffer, buffer_bytes, "%s:%u", host, ntohs(v4->sin_port));
    }
    return buffer;
}
