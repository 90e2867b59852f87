/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The redis guide's hooks, called as redis-server would call its functions: when they look ahead,
 * what they make of the arguments, and that the function itself is called and answers.
 */
#include "tests/unit/guide/redis.h"

#include <fcntl.h>
#include <stdio.h>

/* ---- a redis-server 7.0.15, as far as the guide asks ---- */

int RM_GetServerVersion(void);
uint64_t dictGenHashFunction(const void *text, size_t bytes);
const struct skip_node *zslGetElementByRank(const struct skiplist *list, unsigned long rank);
const struct skip_node *zslFirstInRange(const struct skiplist *list, const void *range);
const struct skip_node *zslLastInRange(const struct skiplist *list, const void *range);
const struct skip_node *zslFirstInLexRange(const struct skiplist *list, const void *range);
const struct skip_node *zslLastInLexRange(const struct skiplist *list, const void *range);
const void *dbDictType[8];

static unsigned searches;
static struct skip_node *found;

int RM_GetServerVersion(void)
{
    return 0x07000f;
}

uint64_t dictGenHashFunction(const void *text, size_t bytes)
{
    (void)text;
    return bytes;
}

const struct skip_node *zslGetElementByRank(const struct skiplist *list, unsigned long rank)
{
    (void)list, (void)rank;
    searches++;
    return found;
}

const struct skip_node *zslFirstInRange(const struct skiplist *list, const void *range)
{
    (void)list, (void)range;
    searches++;
    return found;
}

const struct skip_node *zslLastInRange(const struct skiplist *list, const void *range)
{
    return zslFirstInRange(list, range);
}

const struct skip_node *zslFirstInLexRange(const struct skiplist *list, const void *range)
{
    return zslFirstInRange(list, range);
}

const struct skip_node *zslLastInLexRange(const struct skiplist *list, const void *range)
{
    return zslFirstInRange(list, range);
}

/* ---- its functions that are hooked ---- */

#define HOOKS 32u
static struct {
    const char *symbol;
    void *replacement;
} hooks[HOOKS];
static unsigned hook_count, calls;
static intptr_t answer;
static void (*within_call)(void);

static intptr_t any_function(void)
{
    calls++;
    return answer;
}

static void call_function(void)
{
    calls++;
    if (within_call)
        within_call();
}

int guide_hook(const char *symbol, void *replacement, void **original)
{
    ck_assert_uint_lt(hook_count, HOOKS);
    hooks[hook_count].symbol = symbol;
    hooks[hook_count++].replacement = replacement;
    *original = strcmp(symbol, "call") == 0 ? (void *)call_function : (void *)any_function;
    return 0;
}

static void *hooked(const char *symbol)
{
    for (unsigned i = 0; i < hook_count; i++)
        if (strcmp(hooks[i].symbol, symbol) == 0)
            return hooks[i].replacement;
    ck_abort_msg("%s is not hooked", symbol);
    return NULL;
}

/* ---- a client with a command ---- */

#define WORDS 12u
static struct client client;
static struct database database;
static struct object words[WORDS];
static const struct object *word_list[WORDS];

static const uint8_t *text_of(const char *text)
{
    uint8_t *made = text_make(strlen(text));
    strcpy((char *)made, text);
    return made;
}

static void command(const char *const *text)
{
    client.argc = 0;
    for (; *text; text++) {
        struct object *word = &words[client.argc];
        *word = (struct object){.type = TYPE_STRING, .references = 1, .value = text_of(*text)};
        word_list[client.argc++] = word;
    }
    client.argv = word_list;
}
#define COMMAND(...) command((const char *const[]){__VA_ARGS__, NULL})

static void call(void)
{
    void (*replaced)(struct client *, int);
    *(void **)&replaced = hooked("call");
    replaced(&client, 0);
}

static void setup_server(void)
{
    setup();
    struct dict *dict = dict_make(4, -1);
    dict->type = dbDictType;
    database.keys = dict;
    client = (struct client){.protocol = 2, .database = &database, .query = text_of("")};
    ck_assert_int_eq(guide(), 0);
    COMMAND("ping");
}

/* A hash, set or sorted set of as many elements as buckets. */
static struct object object_make(unsigned type, int8_t exponent, struct entry **entry)
{
    struct dict *dict = dict_make(exponent, -1);
    for (unsigned i = 0; i < 1u << exponent; i++)
        entry[i] = dict_put(dict, 0, i);
    return (struct object){.type = type & 15, .encoding = ENCODING_HT, .value = dict};
}

static unsigned keys_named(struct entry **entry, unsigned count)
{
    unsigned keys = 0;
    for (unsigned i = 0; i < count; i++)
        keys += is_named(entry[i]->key);
    return keys;
}

static struct object set;
static struct entry *members[16];

static void set_walk(void)
{
    void *(*replaced)(struct object *);
    *(void **)&replaced = hooked("setTypeInitIterator");
    replaced(&set);
}

/* ---- when ---- */

START_TEST(nothing_is_looked_ahead_before_a_command_has_shown_the_layout)
{
    set = object_make(TYPE_SET, 4, members);
    set_walk();
    ck_assert_uint_eq(hints, 0);
    call();
    set_walk();
    ck_assert_uint_eq(keys_named(members, 16), 16);
    ck_assert_uint_eq(calls, 3);
}
END_TEST

static void spoil(int how)
{
    struct dict *dict = (struct dict *)(uintptr_t)database.keys;
    switch (how) {
    case 0:
        dict->type = words;
        break;
    case 1:
        client.query_at = 1;
        break;
    case 2:
        client.argc = 0;
        break;
    case 3:
        words[0] = (struct object){.type = TYPE_STRING, .encoding = 1, .value = (void *)17};
        break;
    case 4:
        client.argv = (const struct object *const *)3;
        break;
    case 5:
        dict->rehash_index = 3; /* to where? */
        break;
    case 6:
        client.protocol = 117;
        break;
    default:
        client.database = NULL;
    }
}

START_TEST(a_server_with_another_layout_is_left_alone)
{
    char said[200] = "";
    int file = memfd_create("stderr", 0), old = dup(2);
    struct client right = client;
    set = object_make(TYPE_SET, 4, members);
    spoil(_i);
    ck_assert_int_eq(dup2(file, 2), 2);
    call();
    call();
    dup2(old, 2);
    ck_assert_int_gt(pread(file, said, sizeof(said) - 1, 0), 0);
    ck_assert_str_eq(said, "redis guide: this redis-server 7.0 keeps its clients or databases in "
                           "another way: nothing is looked ahead\n");
    client = right;
    call();
    set_walk();
    ck_assert_uint_eq(hints, 0);
    ck_assert_uint_eq(calls, 4);
}
END_TEST

START_TEST(the_program_is_told_what_its_function_returned)
{
    int (*replaced)(struct client *);
    *(void **)&replaced = hooked("processInputBuffer");
    for (unsigned i = 0; i < 2; i++) {
        answer = 0;
        ck_assert_int_eq(replaced(&client), 0);
        answer = -1; /* C_ERR: the client is gone */
        ck_assert_int_eq(replaced(&client), -1);
        call(); /* from now on it looks ahead */
    }
}
END_TEST

/* ---- what ---- */

static unsigned scanned(const char *function, struct object *object, struct entry **entry)
{
    void (*replaced)(struct client *, struct object *, unsigned long);
    *(void **)&replaced = hooked(function);
    memset(named, 0, sizeof(named));
    replaced(&client, object, 0);
    return keys_named(entry, 64);
}

START_TEST(scans_name_as_many_elements_as_count_says)
{
    struct entry *entry[64];
    struct object hash = object_make(TYPE_HASH, 6, entry);
    call();
    COMMAND("hscan", "key", "0");
    ck_assert_uint_eq(scanned("scanGenericCommand", &hash, entry), 10);
    COMMAND("hscan", "key", "0", "match", "count", "count", "40");
    ck_assert_uint_eq(scanned("scanGenericCommand", &hash, entry), 40);
    COMMAND("hscan", "key", "0", "COUNT", "5", "MATCH", "count");
    ck_assert_uint_eq(scanned("scanGenericCommand", &hash, entry), 5);
    COMMAND("hscan", "key", "0", "count", "20", "match", "count", "match", "9");
    ck_assert_uint_eq(scanned("scanGenericCommand", &hash, entry), 20);
    COMMAND("hscan", "key", "0", "count", "-3");
    ck_assert_uint_eq(scanned("scanGenericCommand", &hash, entry), 0);
    COMMAND("hscan", "key", "0", "count", "9223372036854775807");
    ck_assert_uint_eq(scanned("scanGenericCommand", &hash, entry), 64);
    /* As a module may say it: a number in place of a pointer. */
    words[4] = (struct object){.type = TYPE_STRING, .encoding = 1, .value = (void *)17};
    ck_assert_uint_eq(scanned("scanGenericCommand", &hash, entry), 10);
    hash.type = TYPE_SET;
    COMMAND("sscan", "key", "0", "count", "20");
    ck_assert_uint_eq(scanned("scanGenericCommand", &hash, entry), 20);
}
END_TEST

START_TEST(a_set_that_may_be_walked_in_part_is_not_named)
{
    set = object_make(TYPE_SET, 4, members);
    within_call = set_walk;
    COMMAND("SinterCard", "2", "a", "b", "LIMIT", "1");
    call();
    ck_assert_uint_eq(keys_named(members, 16), 0);
    COMMAND("sintercard", "2", "a", "b");
    call();
    ck_assert_uint_eq(keys_named(members, 16), 16);
}
END_TEST

/* Nodes on the way are named where they are read from afar. */
START_TEST(a_list_is_walked_from_where_the_program_begins)
{
    struct list list;
    struct list_node *node[100];
    struct object object = {.type = TYPE_LIST, .encoding = ENCODING_QUICKLIST, .value = &list};
    void (*replaced)(void *, struct object *, long, long, int);
    list_make(&list, node, 100);
    setenv("FARVISOR_REDIS_WALK", "read", 1);
    ck_assert_int_eq(guide(), 0);
    *(void **)&replaced = hooked("addListRangeReply");
    call();
    memset(named, 0, sizeof(named));
    if (_i == 0)
        replaced(NULL, &object, 400, 949, 0);
    else if (_i == 1)
        replaced(NULL, &object, -900, 949, 1);
    else
        replaced(NULL, &object, 50, 449, 1);
    ck_assert_int_eq(is_named(node[0]), _i != 1);
    ck_assert_int_eq(is_named(node[99]), _i == 1);
    ck_assert_int_eq(is_named(node[90]->entry), _i != 2);
    ck_assert(is_named(node[41]->entry));
}
END_TEST

START_TEST(ends_of_a_sorted_set_are_found_without_a_search)
{
    struct skip_node *node[3];
    struct skiplist list = {.length = 3};
    struct zset zset = {.list = &list};
    struct object object = {.type = TYPE_ZSET, .encoding = ENCODING_SKIPLIST, .value = &zset};
    void (*replaced)(void *, struct object *, long, long, int, int);
    *(void **)&replaced = hooked("genericZrangebyrankCommand");
    for (unsigned i = 0; i < 3; i++) {
        node[i] = take_page();
        node[i]->element = text_make(20);
    }
    list.tail = found = node[2];
    list.header = node[0];
    node[0]->forward = node[1];
    call();
    replaced(NULL, &object, 0, 0, 0, 0);
    ck_assert(is_named(node[1]->element) && !is_named(node[2]->element));
    replaced(NULL, &object, 0, 0, 0, 1);
    ck_assert(is_named(node[2]->element));
    ck_assert_uint_eq(searches, 0);
    replaced(NULL, &object, 1, 1, 0, 1);
    ck_assert_uint_eq(searches, 1);
    replaced(NULL, &object, 3, 9, 0, 0); /* nothing is there */
    ck_assert_uint_eq(searches, 1);
}
END_TEST

START_TEST(nothing_is_searched_for_behind_the_last_element)
{
    struct skip_node *header = take_page();
    struct skiplist list = {.length = 3, .header = header};
    struct zset zset = {.list = &list};
    struct object object = {.type = TYPE_ZSET, .encoding = ENCODING_SKIPLIST, .value = &zset};
    struct score_range range = {.most = 10};
    void (*replaced)(void *, const struct score_range *, struct object *, long, long, int);
    *(void **)&replaced = hooked("genericZrangebyscoreCommand");
    call();
    replaced(NULL, &range, &object, 3, 10, 0);
    replaced(NULL, &range, &object, -1, 10, 0);
    ck_assert_uint_eq(searches, 0);
    replaced(NULL, &range, &object, 2, -1, 1);
    ck_assert_uint_eq(searches, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("redis guide");
    TCase *tests = tcase_create("hooks");
    tcase_add_checked_fixture(tests, setup_server, NULL);
    tcase_add_test(tests, nothing_is_looked_ahead_before_a_command_has_shown_the_layout);
    tcase_add_loop_test(tests, a_server_with_another_layout_is_left_alone, 0, 8);
    tcase_add_test(tests, the_program_is_told_what_its_function_returned);
    tcase_add_test(tests, scans_name_as_many_elements_as_count_says);
    tcase_add_test(tests, a_set_that_may_be_walked_in_part_is_not_named);
    tcase_add_loop_test(tests, a_list_is_walked_from_where_the_program_begins, 0, 3);
    tcase_add_test(tests, ends_of_a_sorted_set_are_found_without_a_search);
    tcase_add_test(tests, nothing_is_searched_for_behind_the_last_element);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
