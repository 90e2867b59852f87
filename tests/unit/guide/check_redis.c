/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the redis guide names of structures as redis-server 7.0 has them, built here by hand: all of
 * what a command reads, nothing twice, no more than is allowed; and nothing of what makes no sense.
 */
#include "tests/unit/guide/redis.h"

#include <time.h>

int guide_hook(const char *symbol, void *replacement, void **original)
{
    (void)symbol, (void)replacement, (void)original;
    return -ENOENT;
}

/* ---- hash tables ---- */

START_TEST(all_of_a_table_is_named)
{
    struct entry *entry[ELEMENTS];
    struct dict *dict = dict_make(7, -1);
    for (unsigned i = 0; i < ELEMENTS; i++) /* several in a bucket */
        entry[i] = dict_put(dict, 0, i * 5 % 128);
    dict_name(dict, NAME_KEYS | NAME_VALUES);
    for (unsigned i = 0; i < ELEMENTS; i++)
        ck_assert(is_named(entry[i]->key) && is_named(entry[i]->value));
    ck_assert_uint_eq(elsewhere, 0);
}
END_TEST

START_TEST(objects_of_one_page_are_one_hint)
{
    struct dict *dict = dict_make(5, -1);
    for (unsigned i = 0; i < 32; i++) {
        struct entry *entry = dict_put(dict, 0, i);
        entry->key = (const uint8_t *)dict->table[0] + TEXT_HEADER_MAX + i;
        entry->value = NULL;
    }
    dict_name(dict, NAME_KEYS);
    ck_assert_uint_eq(hints, 1 + 32);
}
END_TEST

START_TEST(values_are_not_named_for_keys)
{
    struct dict *dict = dict_make(4, -1);
    struct entry *entry = dict_put(dict, 0, 3);
    dict_name(dict, NAME_KEYS);
    ck_assert(is_named(entry->key) && !is_named(entry->value));
}
END_TEST

START_TEST(both_tables_are_named_while_one_becomes_the_other)
{
    struct dict *dict = dict_make(3, 5);
    struct entry *old = dict_put(dict, 0, 7), *new = dict_put(dict, 1, 30);
    dict_name(dict, NAME_KEYS);
    ck_assert(is_named(old->key) && is_named(new->key));
}
END_TEST

START_TEST(scan_names_the_buckets_of_its_cursor)
{
    /* Of 8 buckets the cursors are 0, 4, 2, 6, 1, 5, 3, 7: bits counted from the highest down. */
    static const unsigned order[8] = {0, 4, 2, 6, 1, 5, 3, 7};
    struct dict *dict = dict_make(3, -1);
    struct entry *entry[8];
    for (unsigned i = 0; i < 8; i++)
        entry[i] = dict_put(dict, 0, i);
    dict_name_scan(dict, 2, 3, 31, NAME_KEYS);
    for (unsigned i = 0; i < 8; i++)
        ck_assert_int_eq(is_named(entry[order[i]]->key), i >= 2 && i < 5);
}
END_TEST

START_TEST(scan_names_what_a_bucket_becomes)
{
    struct dict *dict = dict_make(2, 4); /* bucket 1 of 4 becomes 1, 5, 9, 13 of 16 */
    struct entry *old = dict_put(dict, 0, 1);
    struct entry *new[16];
    for (unsigned i = 0; i < 16; i++)
        new[i] = dict_put(dict, 1, i);
    dict_name_scan(dict, 1, 5, 51, NAME_KEYS);
    ck_assert(is_named(old->key));
    for (unsigned i = 0; i < 16; i++)
        ck_assert_int_eq(is_named(new[i]->key), i % 4 == 1);
}
END_TEST

/* Of a table that is nearly empty as many buckets are visited as the program visits. */
START_TEST(scan_goes_as_far_as_the_program_does)
{
    struct dict *dict = dict_make(14, -1);
    struct entry *entry[2];
    for (unsigned i = 0; i < 2; i++) { /* the 101st bucket in order, and the next one */
        unsigned bucket = 0;
        for (unsigned bit = 0; bit < 14; bit++)
            bucket |= ((100 + i) >> bit & 1) << (13 - bit);
        entry[i] = dict_put(dict, 0, bucket);
    }
    dict_name_scan(dict, 0, 10, 101, NAME_KEYS);
    ck_assert(is_named(entry[0]->key) && !is_named(entry[1]->key));
}
END_TEST

static uint64_t cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#define HUGE_EXPONENT 30
#define HUGE_BYTES    (sizeof(void *) << HUGE_EXPONENT)

/* Hundreds of milliseconds and more where each bucket is looked at. */
START_TEST(a_huge_table_is_left_when_it_is_late)
{
    struct dict *dict = dict_make(2, -1);
    dict->table[1] =
        mmap(NULL, HUGE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(dict->table[1], MAP_FAILED);
    dict->exponent[1] = HUGE_EXPONENT;
    dict->rehash_index = 0;
    uint64_t start_ms = cpu_ms();
    pages_late_ns = 40000000;
    pages_begin(UINT32_MAX);
    if (_i)
        dict_name_scan(dict, 0, 10, 101, NAME_KEYS);
    else
        dict_name(dict, NAME_KEYS);
    ck_assert_uint_lt(cpu_ms() - start_ms, 150);
    ck_assert(pages_late());
}
END_TEST

/* What has moved to the larger table is not looked for in the smaller one. */
START_TEST(buckets_that_were_moved_are_passed_by)
{
    struct dict *dict = dict_make(3, 5);
    struct entry *moved = dict_put(dict, 0, 4), *old = dict_put(dict, 0, 5);
    dict->rehash_index = 5;
    dict_name(dict, NAME_KEYS);
    ck_assert(!is_named(moved->key) && is_named(old->key));
}
END_TEST

START_TEST(nonsense_is_not_followed)
{
    struct dict *dict = dict_make(3, -1);
    struct entry *entry = dict_put(dict, 0, 0);
    dict_put(dict, 0, 1)->next = (const struct entry *)5;
    *(const struct entry **)(uintptr_t)&dict->table[0][2] = (const struct entry *)(1ULL << 60);
    entry->key = (const uint8_t *)1;
    entry->value = (const void *)~0ULL;
    dict_name(dict, NAME_KEYS | NAME_SCORES);
    dict->exponent[0] = 63;
    dict_name(dict, NAME_KEYS);
    dict_name_scan(dict, 0, 10, 101, NAME_KEYS);
    dict->exponent[0] = 3;
    dict->table[0] = (const struct entry *const *)3;
    dict_name(dict, NAME_KEYS);
    ck_assert_uint_eq(elsewhere, 0);
}
END_TEST

START_TEST(no_more_is_named_than_is_allowed)
{
    struct dict *dict = dict_make(9, -1);
    unsigned pages = 0;
    for (unsigned i = 0; i < ELEMENTS; i++)
        dict_put(dict, 0, i);
    pages_begin(50);
    dict_name(dict, NAME_KEYS | NAME_VALUES);
    for (unsigned i = 0; i < ARENA; i++)
        pages += named[i];
    ck_assert_uint_eq(pages, 50);
    ck_assert_uint_eq(pages_left(), 0);
}
END_TEST

/* ---- lists and skiplists, in both ways ---- */

static const char *const ways[] = {"touch", "read"};

START_TEST(range_of_a_list_is_named_from_either_end)
{
    struct list list;
    struct list_node *node[100];
    setenv("FARVISOR_REDIS_WALK", ways[_i], 1);
    chains_open();
    list_make(&list, node, 100);
    list_name(&list, 205, 234, false); /* nodes 20 to 23 */
    list_name(&list, 50, 59, true);    /* node 94 */
    for (unsigned i = 0; i < 100; i++)
        ck_assert_int_eq(is_named(node[i]->entry), (i >= 20 && i <= 23) || i == 94);
    ck_assert_int_eq(chains > 0, _i == 1);
    ck_assert_int_eq(is_named(node[3]), _i == 1); /* what is touched need not be named */
}
END_TEST

static void skip_make(struct skip_node **node, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        node[i] = take_page();
        node[i]->element = text_make(20);
        node[i]->score = i;
        node[i]->backward = i ? node[i - 1] : NULL;
        if (i)
            node[i - 1]->forward = node[i];
    }
}

START_TEST(range_of_a_sorted_set_is_named)
{
    struct skip_node *node[300];
    struct score_range range = {.least = 250, .most = 295, .least_excluded = 1};
    setenv("FARVISOR_REDIS_WALK", ways[_i], 1);
    chains_open();
    skip_make(node, 300);
    skiplist_name(node[10], false, 5, 150, NULL);          /* 15 to 164 */
    skiplist_name(node[295], true, 0, UINT64_MAX, &range); /* 295 to 251 */
    skiplist_name(NULL, false, 0, 10, NULL);
    for (unsigned i = 0; i < 300; i++)
        ck_assert_int_eq(is_named(node[i]->element),
                         (i >= 15 && i <= 164) || (i >= 251 && i <= 295));
}
END_TEST

START_TEST(long_elements_are_named_to_their_end)
{
    struct skip_node *node[10];
    skip_make(node, 10);
    for (unsigned i = 0; i < 10; i++)
        node[i]->element = text_make(10000);
    skiplist_name(node[0], false, 0, 10, NULL);
    for (unsigned i = 0; i < 10; i++)
        ck_assert(is_named(node[i]->element) && is_named(node[i]->element + 9999));
}
END_TEST

/* ---- blocks ---- */

START_TEST(block_is_named_as_far_as_it_reaches)
{
    uint32_t *pack = take_page();
    (void)take(2 * PAGE);
    uint32_t *numbers = take_page();
    pack[0] = PAGE + 100;
    numbers[0] = 8;
    numbers[1] = 20;
    (void)take(PAGE);
    struct object object = {.type = TYPE_HASH, .encoding = ENCODING_LISTPACK, .value = pack};
    block_name(&object);
    ck_assert(is_named(pack) && is_named((uint8_t *)pack + PAGE));
    ck_assert(!is_named((uint8_t *)pack + 2 * PAGE));
    object.encoding = ENCODING_INTSET;
    object.value = numbers;
    block_name(&object);
    ck_assert(is_named(numbers) && !is_named((uint8_t *)numbers + PAGE));
    numbers[0] = 77; /* no such width */
    numbers[1] = UINT32_MAX;
    pages_begin(ARENA);
    hints = 0;
    block_name(&object);
    object.value = (const void *)8;
    block_name(&object);
    ck_assert_uint_eq(hints, 0);
}
END_TEST

/* ---- pipelines ---- */

const void *dbDictType[7];
uint64_t dictGenHashFunction(const void *text, size_t bytes);

static size_t hashed_bytes; /* the longest text */

/* Few hashes, so that buckets hold several entries. */
uint64_t dictGenHashFunction(const void *text, size_t bytes)
{
    const uint8_t *end = (const uint8_t *)text + bytes;
    hashed_bytes = bytes > hashed_bytes ? bytes : hashed_bytes;
    usleep(slow_ms * 1000);
    return bytes < 2 ? 0 : (uint64_t)end[-1] + end[-2] * 10u;
}

#define KEYS 200u

static struct {
    struct client client;
    struct database database;
    struct object *object[KEYS];
    uint8_t *query;
    size_t query_bytes;
} server;

static void server_make(void)
{
    struct dict *dict = dict_make(8, -1);
    dict->type = dbDictType;
    for (unsigned i = 0; i < KEYS; i++) {
        char key[16];
        size_t bytes = (size_t)snprintf(key, sizeof(key), "key:%03u", i);
        struct entry *entry = take_page();
        struct object *object = take_page();
        uint8_t *text = text_make(bytes);
        uint64_t bucket = dictGenHashFunction(key, bytes) & 255;
        memcpy(text, key, bytes);
        *object = (struct object){.type = TYPE_STRING, .value = text_make(2 * PAGE)};
        *entry = (struct entry){.key = text, .value = object, .next = dict->table[0][bucket]};
        *(const struct entry **)(uintptr_t)&dict->table[0][bucket] = entry;
        server.object[i] = object;
    }
    server.query = text_make(16384);
    server.query_bytes = 0;
    server.database.keys = dict;
    server.client.database = &server.database;
    server.client.query = server.query;
    ck_assert_int_eq(keyspace_open() | pipeline_open(), 0);
}

/* The server received one more request. */
static void receive(const char *command, unsigned key)
{
    char *at = (char *)server.query + server.query_bytes;
    server.query_bytes += (size_t)sprintf(at, "*2\r\n$%zu\r\n%s\r\n$7\r\nkey:%03u\r\n",
                                          strlen(command), command, key);
    uint64_t bytes = server.query_bytes;
    memcpy(server.query - TEXT_HEADER_MAX, &bytes, sizeof(bytes));
}

/* Its last page: only the length in its header leads there. */
static bool value_named(unsigned key)
{
    return is_named((const uint8_t *)server.object[key]->value + 2 * PAGE - 1);
}

START_TEST(values_of_a_pipeline_are_named)
{
    server_make();
    receive("GET", 7);
    receive("get", 107);
    receive("SET", 9);
    receive("PING", 10);
    receive("GET", 117); /* not whole yet */
    server.query_bytes -= 3;
    uint64_t bytes = server.query_bytes;
    memcpy(server.query - TEXT_HEADER_MAX, &bytes, sizeof(bytes));
    pipeline_look(&server.client, true);
    for (unsigned i = 0; i < KEYS; i++)
        ck_assert_int_eq(value_named(i), i == 7 || i == 107);
    ck_assert(is_named(server.object[9]) && is_named(server.object[9]->value));
    ck_assert(pipeline_named(server.object[7]->value));
    ck_assert(!pipeline_named(server.object[7]->value)); /* asked once */
    ck_assert_uint_eq(elsewhere, 0);
}
END_TEST

START_TEST(single_request_is_left_to_the_program)
{
    server_make();
    receive("GET", 7);
    pipeline_look(&server.client, true);
    ck_assert_uint_eq(hints, 0);
}
END_TEST

START_TEST(window_moves_with_the_requests)
{
    server_make();
    for (unsigned i = 0; i < KEYS; i++)
        receive("GET", i);
    size_t request_bytes = server.query_bytes / KEYS;
    pipeline_look(&server.client, true);
    ck_assert(value_named(0) && value_named(63) && !value_named(64));
    for (unsigned i = 1; i <= KEYS; i++) { /* the next one runs, as call() sees it */
        server.client.query_at = i * request_bytes;
        pipeline_look(&server.client, false);
        unsigned ahead = 0;
        while (i + ahead < KEYS && value_named(i + ahead))
            ahead++;
        ck_assert_uint_ge(ahead, i + 31 < KEYS ? 31 : KEYS - i);
        ck_assert_uint_le(ahead, 64);
    }
    ck_assert(value_named(KEYS - 1));
}
END_TEST

START_TEST(other_structures_are_not_looked_into)
{
    server_make();
    receive("GET", 1);
    receive("GET", 2);
    ((struct dict *)(uintptr_t)server.database.keys)->type = server.query;
    pipeline_look(&server.client, true);
    server.database.keys = (const struct dict *)3;
    pipeline_look(&server.client, true);
    server.client.database = NULL;
    pipeline_look(&server.client, true);
    server.client.query = NULL;
    pipeline_look(&server.client, false);
    ck_assert_uint_eq(hints, 0);
}
END_TEST

START_TEST(a_pipeline_is_left_when_it_is_late)
{
    server_make();
    receive("GET", 1);
    receive("GET", 2);
    receive("GET", 3);
    slow_ms = 50;
    pages_late_ns = 40000000;
    pipeline_look(&server.client, true);
    ck_assert_uint_le(hints, 1);
}
END_TEST

START_TEST(a_script_does_not_begin_a_pipeline_anew)
{
    struct client script = {.id = 0};
    server_make();
    for (unsigned i = 0; i < KEYS; i++)
        receive("GET", i);
    script.database = &server.database;
    script.query = text_make(100);
    pipeline_look(&server.client, true);
    server.client.query_at = server.query_bytes / KEYS;
    ck_assert(value_named(20));
    unsigned before = hints;
    pipeline_look(&script, false);
    pipeline_look(&server.client, false);
    ck_assert_uint_eq(hints, before);
}
END_TEST

/* All of a request that is whole, whatever it says. */
static unsigned keys_of(const char *text, size_t bytes, size_t length)
{
    static struct request request;
    ck_assert_uint_eq(request_parse((const uint8_t *)text, bytes, &request), length);
    return request.keys;
}

START_TEST(names_of_commands_are_compared_to_their_end)
{
    static const char plain[] = "*2\r\n$3\r\nGeT\r\n$1\r\nk\r\n";
    static const char longer[] = "*2\r\n$5\r\nget\0x\r\n$1\r\nk\r\n";
    static const char shorter[] = "*2\r\n$2\r\nge\r\n$1\r\nk\r\n";
    static const char empty[] = "*2\r\n$0\r\n\r\n$1\r\nk\r\n";
    ck_assert_uint_eq(keys_of(plain, sizeof(plain) - 1, sizeof(plain) - 1), 1);
    ck_assert_uint_eq(keys_of(longer, sizeof(longer) - 1, sizeof(longer) - 1), 0);
    ck_assert_uint_eq(keys_of(shorter, sizeof(shorter) - 1, sizeof(shorter) - 1), 0);
    ck_assert_uint_eq(keys_of(empty, sizeof(empty) - 1, sizeof(empty) - 1), 0);
}
END_TEST

START_TEST(long_keys_are_not_hashed)
{
    static uint8_t query[200000];
    size_t at = TEXT_HEADER_MAX;
    server_make();
    hashed_bytes = 0;
    for (unsigned i = 0; i < 2; i++) {
        at += (size_t)sprintf((char *)query + at, "*2\r\n$3\r\nGET\r\n$90000\r\n");
        memset(query + at, 'k', 90000);
        at += 90000;
        at += (size_t)sprintf((char *)query + at, "\r\n");
    }
    uint64_t bytes = at - TEXT_HEADER_MAX;
    memcpy(query, &bytes, sizeof(bytes));
    query[TEXT_HEADER_MAX - 1] = 4;
    server.client.query = query + TEXT_HEADER_MAX;
    pipeline_look(&server.client, true);
    ck_assert_uint_eq(hashed_bytes, 0);
    receive("GET", 7);
    receive("GET", 8);
    server.client.query = server.query;
    pipeline_look(&server.client, true);
    ck_assert_uint_eq(hashed_bytes, 7);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("redis guide");
    TCase *tests = tcase_create("names");
    tcase_add_checked_fixture(tests, setup, NULL);
    tcase_add_test(tests, all_of_a_table_is_named);
    tcase_add_test(tests, objects_of_one_page_are_one_hint);
    tcase_add_test(tests, values_are_not_named_for_keys);
    tcase_add_test(tests, both_tables_are_named_while_one_becomes_the_other);
    tcase_add_test(tests, scan_names_the_buckets_of_its_cursor);
    tcase_add_test(tests, scan_names_what_a_bucket_becomes);
    tcase_add_test(tests, scan_goes_as_far_as_the_program_does);
    tcase_add_loop_test(tests, a_huge_table_is_left_when_it_is_late, 0, 2);
    tcase_add_test(tests, buckets_that_were_moved_are_passed_by);
    tcase_add_test(tests, nonsense_is_not_followed);
    tcase_add_test(tests, no_more_is_named_than_is_allowed);
    tcase_add_loop_test(tests, range_of_a_list_is_named_from_either_end, 0, 2);
    tcase_add_loop_test(tests, range_of_a_sorted_set_is_named, 0, 2);
    tcase_add_test(tests, long_elements_are_named_to_their_end);
    tcase_add_test(tests, block_is_named_as_far_as_it_reaches);
    tcase_add_test(tests, values_of_a_pipeline_are_named);
    tcase_add_test(tests, single_request_is_left_to_the_program);
    tcase_add_test(tests, window_moves_with_the_requests);
    tcase_add_test(tests, other_structures_are_not_looked_into);
    tcase_add_test(tests, a_pipeline_is_left_when_it_is_late);
    tcase_add_test(tests, a_script_does_not_begin_a_pipeline_anew);
    tcase_add_test(tests, names_of_commands_are_compared_to_their_end);
    tcase_add_test(tests, long_keys_are_not_hashed);
    suite_add_tcase(suite, tests);
    return unit_run(suite);
}
