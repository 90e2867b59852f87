/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the network the program may use: the ports of --publish to listen on, the addresses of
 * --allow-connect to connect and send to; and which congestion control. Any thread.
 */
#include "vmm/vmm.h"

#include "support.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

/* An address and port in the form rules have, whatever notation the program chose. */
static struct net_rule address_plain(const struct sockaddr_storage *address)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct net_rule plain = {.family = address->ss_family};
    memcpy(&v4, address, sizeof(v4));
    memcpy(&v6, address, sizeof(v6));
    if (address->ss_family == AF_INET) {
        plain.port = ntohs(v4.sin_port);
        memcpy(plain.address, &v4.sin_addr, sizeof(v4.sin_addr));
    } else if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
        plain.family = AF_INET;
        plain.port = ntohs(v6.sin6_port);
        memcpy(plain.address, &v6.sin6_addr.s6_addr[12], 4);
    } else {
        plain.port = ntohs(v6.sin6_port);
        memcpy(plain.address, &v6.sin6_addr, sizeof(v6.sin6_addr));
    }
    return plain;
}

static bool is_wildcard(const struct net_rule *plain)
{
    static const uint8_t zero[16];
    return memcmp(plain->address, zero, sizeof(zero)) == 0;
}

static bool same_address(const struct net_rule *rule, const struct net_rule *plain)
{
    return rule->family == plain->family &&
           memcmp(rule->address, plain->address, sizeof(rule->address)) == 0;
}

/* The wildcard as it was published: an IPv6 socket takes an IPv4 address in its mapped form. */
static int address_replace(struct sockaddr_storage *address, const struct net_rule *rule)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    if (address->ss_family == AF_INET) {
        if (rule->family != AF_INET)
            return -EADDRNOTAVAIL;
        memcpy(&v4->sin_addr, rule->address, sizeof(v4->sin_addr));
    } else if (rule->family == AF_INET6) {
        memcpy(&v6->sin6_addr, rule->address, sizeof(v6->sin6_addr));
    } else {
        memset(&v6->sin6_addr, 0, sizeof(v6->sin6_addr));
        v6->sin6_addr.s6_addr[10] = v6->sin6_addr.s6_addr[11] = 0xff;
        memcpy(&v6->sin6_addr.s6_addr[12], rule->address, 4);
    }
    return 0;
}

int net_bind_check(const struct run_config *config, struct sockaddr_storage *address, bool udp)
{
    struct net_rule plain = address_plain(address);
    int error = -EACCES;
    if (address->ss_family != AF_INET && address->ss_family != AF_INET6)
        return -EAFNOSUPPORT;
    /* A port of the host's choice is for connections that the program makes (listen looks again).
     */
    if (!plain.port)
        return 0;
    for (size_t i = 0; i < config->publish_count; i++) {
        const struct net_rule *rule = &config->publish[i];
        if (rule->port != plain.port || rule->udp != udp)
            continue;
        if (rule->family == AF_UNSPEC || same_address(rule, &plain))
            return 0;
        if (!is_wildcard(&plain))
            continue;
        error = address_replace(address, rule);
        if (!error)
            return 0;
    }
    return error;
}

int net_listen_check(const struct run_config *config, int fd, bool udp)
{
    struct sockaddr_storage address = {0};
    socklen_t bytes = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) < 0)
        return -errno;
    struct net_rule plain = address_plain(&address);
    for (size_t i = 0; i < config->publish_count; i++) {
        const struct net_rule *rule = &config->publish[i];
        if (rule->port == plain.port && rule->udp == udp &&
            (rule->family == AF_UNSPEC || same_address(rule, &plain)))
            return 0;
    }
    return -EACCES;
}

int net_connect_check(const struct run_config *config, struct sockaddr_storage *address)
{
    static const uint8_t loopback[2][16] = {{127, 0, 0, 1}, {[15] = 1}};
    if (address->ss_family == AF_UNSPEC)
        return 0;
    struct net_rule plain = address_plain(address);
    /*
     * Linux takes the wildcard for this host: loopback, but for a bound socket the address it is
     * bound to. What is asked about is what the host is told.
     */
    if (is_wildcard(&plain)) {
        memcpy(plain.address, loopback[plain.family == AF_INET6], sizeof(plain.address));
        (void)address_replace(address, &plain); /* of its own family */
    }
    for (size_t i = 0; i < config->connect_count; i++) {
        const struct net_rule *rule = &config->connect[i];
        if ((rule->family == AF_UNSPEC || same_address(rule, &plain)) &&
            (!rule->port || rule->port == plain.port))
            return 0;
    }
    return -EACCES;
}

const char *net_text(const struct sockaddr_storage *address, char text[NET_TEXT_BYTES])
{
    char name[INET6_ADDRSTRLEN] = "?";
    struct net_rule plain = address_plain(address);
    inet_ntop(plain.family, plain.address, name, sizeof(name));
    snprintf(text, NET_TEXT_BYTES, plain.family == AF_INET6 ? "[%s]:%u" : "%s:%u", name,
             plain.port);
    return text;
}

/* 0, or -errno of the bind that the program will make. */
static int probe(const struct net_rule *rule, struct sockaddr_storage *address)
{
    static const int on = 1;
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    memset(address, 0, sizeof(*address));
    address->ss_family = rule->family == AF_INET6 ? AF_INET6 : AF_INET;
    if (rule->family == AF_INET6)
        v6->sin6_port = htons(rule->port);
    else
        v4->sin_port = htons(rule->port);
    if (rule->family != AF_UNSPEC)
        (void)address_replace(address, rule);
    int fd = socket(address->ss_family, (rule->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* As servers do, so that the last run's connections do not count. */
    int error = 0;
    if (!rule->udp && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
        error = -errno;
    if (!error && bind(fd, (struct sockaddr *)address, sizeof(*address)) < 0)
        error = -errno;
    if (!error && !rule->udp && listen(fd, 1) < 0)
        error = -errno;
    close(fd);
    return error;
}

#define CONGESTION_NAME_BYTES 15 /* Linux's TCP_CA_NAME_MAX without its end */
#define CONGESTION_LIST       "/proc/sys/net/ipv4/tcp_available_congestion_control"

int net_congestion_check(const char *name, size_t bytes)
{
    size_t length = strnlen(name, bytes < CONGESTION_NAME_BYTES ? bytes : CONGESTION_NAME_BYTES);
    char list[1024] = "", *rest = NULL;
    int fd = open(CONGESTION_LIST, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, list, sizeof(list) - 1);

    if (fd >= 0)
        close(fd);
    if (!bytes)
        return -EINVAL;
    if (got < 0)
        return -ENOENT;
    for (char *word = strtok_r(list, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest)) {
        if (strlen(word) == length && !memcmp(word, name, length))
            return 0;
    }
    return -ENOENT;
}

int net_publish_probe(const struct run_config *config)
{
    char text[NET_TEXT_BYTES];
    struct sockaddr_storage address;
    int error = 0;
    for (size_t i = 0; i < config->publish_count && !error; i++) {
        error = probe(&config->publish[i], &address);
        if (error)
            message_error("--publish %s%s: %s", net_text(&address, text),
                          config->publish[i].udp ? "/udp" : "", strerror(-error));
    }
    return error;
}
