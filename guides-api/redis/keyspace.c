/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The program's databases. A version number says what its structures look like, but a server that
 * was changed may say the same: so what is easily told is looked at once, when the first command
 * runs, and nothing is looked ahead before.
 */
#include "internal.h"

#include <dlfcn.h>
#include <errno.h>

#define ARGUMENTS_MAX (1 << 20) /* of a command, as Redis has it */

static const void *database_type; /* dbDictType */

int keyspace_open(void)
{
    database_type = dlsym(RTLD_DEFAULT, "dbDictType");
    return database_type ? 0 : -ENOENT;
}

const struct dict *keyspace_of(const struct client *client)
{
    if (!sane_link(client->database) || !sane_link(client->database->keys))
        return NULL;
    const struct dict *dict = client->database->keys;
    return dict->type == database_type && dict_sane(dict) ? dict : NULL;
}

/* What a client sent, and how far that was parsed. */
static bool query_known(const struct client *client)
{
    return sane(client->query) && client->query_at <= text_bytes(client->query) &&
           (client->protocol == 2 || client->protocol == 3);
}

/* The name of the command is a text, and as long as it says. */
static bool arguments_known(const struct client *client)
{
    if (client->argc < 1 || client->argc > ARGUMENTS_MAX || !sane_link(client->argv))
        return false;
    const struct object *name = client->argv[0];
    return sane_link(name) && object_has_text(name) && name->references > 0 && sane(name->value);
}

/* A table has no more buckets moved than it has, and none is moved where there is no other. */
static bool rehash_known(const struct dict *dict)
{
    return dict->rehash_index >= -1 &&
           (dict->rehash_index < 0 ||
            (dict->exponent[1] >= 0 && (uint64_t)dict->rehash_index <= table_size(dict, 0)));
}

bool keyspace_known(const struct client *client)
{
    const struct dict *dict = sane_link(client) ? keyspace_of(client) : NULL;
    return dict && rehash_known(dict) && query_known(client) && arguments_known(client);
}
