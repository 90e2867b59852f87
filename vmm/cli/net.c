/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the network the program gets by option: ports of this host to listen on, addresses to
 * connect to. Names are looked up here, once: the guest is held to numbers.
 */
#include "vmm/cli/cli.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define PORT_MAX        65535u
#define NAMESERVER_PORT 53u
#define HOST_BYTES      256u
#define RESOLVER_FILE   "/etc/resolv.conf"

int cli_set_net(void *cli, const char *value)
{
    struct run_config *config = &((struct cli *)cli)->config;

    if (strcmp(value, "host") != 0 && strcmp(value, "none") != 0) {
        message_error("--net %s: unknown mode (none or host)", value);
        return -EINVAL;
    }
    config->net = strcmp(value, "host") == 0;
    return 0;
}

static int rule_add(struct net_rule **rules, size_t *count, const struct net_rule *rule)
{
    struct net_rule *longer = reallocarray(*rules, *count + 1, sizeof(*longer));

    if (!longer)
        return -ENOMEM;
    longer[(*count)++] = *rule;
    *rules = longer;
    return 0;
}

static bool port_parse(const char *text, uint16_t *port)
{
    uint64_t value;

    if (parse_u64(text, &value) || value < 1 || value > PORT_MAX)
        return false;
    *port = (uint16_t)value;
    return true;
}

/* "HOST:PORT", "[V6]:PORT", "HOST" into its parts; *port NULL when not given. false: not a form. */
static bool address_split(char *text, char **host, char **port)
{
    char *colon;

    *port = NULL;
    *host = text;
    if (*text == '[') {
        char *end = strchr(text, ']');

        *host = text + 1;
        if (!end || (end[1] && end[1] != ':'))
            return false;
        *port = end[1] ? end + 2 : NULL;
        *end = '\0';
        return true;
    }
    colon = strrchr(text, ':');
    if (colon && strchr(text, ':') != colon) /* an IPv6 address by itself */
        return true;
    if (colon) {
        *colon = '\0';
        *port = colon + 1;
    }
    return true;
}

static bool number_parse(const char *host, struct net_rule *rule)
{
    rule->family = strchr(host, ':') ? AF_INET6 : AF_INET;
    return inet_pton(rule->family, host, rule->address) == 1;
}

int cli_set_publish(void *cli, const char *value)
{
    struct run_config *config = &((struct cli *)cli)->config;
    struct net_rule rule = {.family = AF_UNSPEC};
    char text[HOST_BYTES], *slash, *host, *port;
    bool good = strlen(value) < sizeof(text);

    snprintf(text, sizeof(text), "%s", value);
    slash = strrchr(text, '/');
    if (slash) {
        rule.udp = strcmp(slash, "/udp") == 0;
        good = good && (rule.udp || strcmp(slash, "/tcp") == 0);
        *slash = '\0';
    }
    good = good && address_split(text, &host, &port);
    if (good && !port) /* a port alone */
        good = port_parse(host, &rule.port);
    else if (good)
        good = port_parse(port, &rule.port) && number_parse(host, &rule);
    if (!good) {
        message_error("--publish %s: not of the form [ADDR:]PORT[/udp], ADDR being a number",
                      value);
        return -EINVAL;
    }
    return rule_add(&config->publish, &config->publish_count, &rule);
}

/* Every address the name has. */
static int connect_resolve(struct run_config *config, const char *value, const char *host,
                           struct net_rule *rule)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
    int error = getaddrinfo(host, NULL, &hints, &list);

    if (error) {
        message_error("--allow-connect %s: %s: %s", value, host, gai_strerror(error));
        return -EINVAL;
    }
    for (const struct addrinfo *at = list; at && !error; at = at->ai_next) {
        memset(rule->address, 0, sizeof(rule->address));
        rule->family = (sa_family_t)at->ai_family;
        if (at->ai_family == AF_INET)
            memcpy(rule->address, &((struct sockaddr_in *)at->ai_addr)->sin_addr, 4);
        else
            memcpy(rule->address, &((struct sockaddr_in6 *)at->ai_addr)->sin6_addr, 16);
        error = rule_add(&config->connect, &config->connect_count, rule);
    }
    freeaddrinfo(list);
    return error;
}

int cli_set_allow_connect(void *cli, const char *value)
{
    struct run_config *config = &((struct cli *)cli)->config;
    struct net_rule rule = {.family = AF_UNSPEC};
    char text[HOST_BYTES], *host, *port;

    snprintf(text, sizeof(text), "%s", value);
    if (!*value || strlen(value) >= sizeof(text) || !address_split(text, &host, &port) ||
        (port && !port_parse(port, &rule.port))) {
        message_error("--allow-connect %s: not of the form [HOST][:PORT], HOST may be *", value);
        return -EINVAL;
    }
    if (!*host || strcmp(host, "*") == 0)
        return rule_add(&config->connect, &config->connect_count, &rule);
    if (number_parse(host, &rule))
        return rule_add(&config->connect, &config->connect_count, &rule);
    return connect_resolve(config, value, host, &rule);
}

/* Who may connect may look up names: the host's name servers. */
static int nameservers_add(struct run_config *config)
{
    FILE *file = fopen(RESOLVER_FILE, "re");
    char line[HOST_BYTES], host[HOST_BYTES];
    int error = 0;

    if (!file)
        return 0;
    while (!error && fgets(line, sizeof(line), file)) {
        struct net_rule rule = {.port = NAMESERVER_PORT};

        if (sscanf(line, "nameserver %255[0-9a-fA-F.:]", host) == 1 && number_parse(host, &rule))
            error = rule_add(&config->connect, &config->connect_count, &rule);
    }
    fclose(file);
    return error;
}

int cli_net_finish(struct cli *cli)
{
    struct run_config *config = &cli->config;

    if (!config->net && (config->publish_count || config->connect_count)) {
        cli_usage_error("%s needs --net host",
                        config->publish_count ? "--publish" : "--allow-connect");
        return -EINVAL;
    }
    return config->connect_count ? nameservers_add(config) : 0;
}

static void rules_dump(const char *key, const struct net_rule *rules, size_t count)
{
    char name[INET6_ADDRSTRLEN];

    for (size_t i = 0; i < count; i++) {
        const char *host = "*";

        if (rules[i].family != AF_UNSPEC)
            host = inet_ntop(rules[i].family, rules[i].address, name, sizeof(name));
        printf(rules[i].family == AF_INET6 ? "%s=[%s]:%u%s\n" : "%s=%s:%u%s\n", key, host,
               rules[i].port, rules[i].udp ? "/udp" : "");
    }
}

void cli_net_dump(const struct run_config *config)
{
    printf("net=%s\n", config->net ? "host" : "none");
    rules_dump("publish", config->publish, config->publish_count);
    rules_dump("connect", config->connect, config->connect_count);
}
