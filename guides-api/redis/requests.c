/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests in a client's query buffer: RESP arrays of bulk strings. Foreign bytes: a number is
 * bounded before it is used, and nothing beyond the given length is read. What does not look right
 * is not parsed; the program will say what is wrong with it. So is a request of very many words.
 */
#include "internal.h"

#include <string.h>
#include <strings.h>

#define WORDS_MAX  1024u        /* Redis allows 2^20: to look through those takes too long */
#define BULK_MAX   (512u << 20) /* bytes of a word */
#define NUMBER_MAX 10u          /* digits */

/* Commands whose first argument (`all`: every one) is a key. */
static const struct command {
    const char *name;
    enum request_reads reads;
    bool all;
} commands[] = {
    {"get", READS_ALL, false},         {"mget", READS_ALL, true},
    {"getrange", READS_ALL, false},    {"getex", READS_ALL, false},
    {"getdel", READS_ALL, false},      {"getset", READS_ALL, false},
    {"set", READS_OBJECT, false},      {"setex", READS_OBJECT, false},
    {"strlen", READS_OBJECT, false},   {"append", READS_OBJECT, false},
    {"incr", READS_OBJECT, false},     {"decr", READS_OBJECT, false},
    {"incrby", READS_OBJECT, false},   {"exists", READS_OBJECT, true},
    {"del", READS_OBJECT, true},       {"unlink", READS_OBJECT, true},
    {"type", READS_OBJECT, false},     {"ttl", READS_OBJECT, false},
    {"hget", READS_OBJECT, false},     {"hmget", READS_OBJECT, false},
    {"hset", READS_OBJECT, false},     {"hdel", READS_OBJECT, false},
    {"hexists", READS_OBJECT, false},  {"hgetall", READS_ALL, false},
    {"hkeys", READS_ALL, false},       {"hvals", READS_ALL, false},
    {"hscan", READS_OBJECT, false},    {"sismember", READS_OBJECT, false},
    {"smembers", READS_ALL, false},    {"sscan", READS_OBJECT, false},
    {"sadd", READS_OBJECT, false},     {"srem", READS_OBJECT, false},
    {"scard", READS_OBJECT, false},    {"zrange", READS_ALL, false},
    {"zrevrange", READS_ALL, false},   {"zrangebyscore", READS_ALL, false},
    {"zrangebylex", READS_ALL, false}, {"zrevrangebyscore", READS_ALL, false},
    {"zscore", READS_OBJECT, false},   {"zscan", READS_OBJECT, false},
    {"zadd", READS_OBJECT, false},     {"zrem", READS_OBJECT, false},
    {"zcard", READS_OBJECT, false},    {"lrange", READS_ALL, false},
    {"llen", READS_OBJECT, false},     {"lindex", READS_ALL, false},
    {"lpush", READS_OBJECT, false},    {"rpush", READS_OBJECT, false},
    {"lpop", READS_OBJECT, false},     {"rpop", READS_OBJECT, false},
};

/* Reads `mark`, a number up to `most` and a line's end. Where it ends, or NULL. */
static const uint8_t *number_parse(const uint8_t *at, const uint8_t *end, uint8_t mark,
                                   uint32_t most, uint32_t *number)
{
    uint64_t value = 0;
    unsigned digits = 0;
    if (at == end || *at++ != mark)
        return NULL;
    for (; at < end && *at >= '0' && *at <= '9' && digits < NUMBER_MAX; digits++)
        value = value * 10 + (*at++ - '0');
    if (digits == 0 || value > most || end - at < 2 || at[0] != '\r' || at[1] != '\n')
        return NULL;
    *number = (uint32_t)value;
    return at + 2;
}

static const struct command *command_find(const uint8_t *name, size_t bytes)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        const char *known = commands[i].name;
        /* The length first: what was sent may hold a NUL, at which the comparison ends. */
        if (strlen(known) == bytes && strncasecmp(known, (const char *)name, bytes) == 0)
            return &commands[i];
    }
    return NULL;
}

size_t request_parse(const uint8_t *text, size_t bytes, struct request *request)
{
    const uint8_t *end = text + bytes;
    const struct command *command = NULL;
    uint32_t words, length;
    const uint8_t *at = number_parse(text, end, '*', WORDS_MAX, &words);
    request->keys = 0;
    if (!at || words == 0)
        return 0;
    for (uint32_t word = 0; word < words; word++) {
        at = number_parse(at, end, '$', BULK_MAX, &length);
        if (!at || (size_t)(end - at) < (size_t)length + 2)
            return 0;
        if (word == 0)
            command = command_find(at, length);
        else if (command && (word == 1 || command->all) && request->keys < REQUEST_KEYS) {
            request->key[request->keys].text = at;
            request->key[request->keys++].bytes = length;
        }
        at += length + 2;
    }
    if (command)
        request->reads = command->reads;
    return (size_t)(at - text);
}
