/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Analytics in SQL over taxi trips with the columns of New York's public table: a made-up table of
 * ROWS trips in an SQLite file, and six queries over a copy of it in memory. All amounts are
 * integers, so that sums do not depend on their order.
 *
 * usage: taxi generate ROWS FILE | taxi query FILE
 */
#include "bench.h"

#include <sqlite3.h>

static const char SCHEMA[] =
    "CREATE TABLE zones (zone INTEGER PRIMARY KEY, borough TEXT);"
    "CREATE TABLE trips (id INTEGER PRIMARY KEY, vendor INTEGER, pickup_s INTEGER,"
    " dropoff_s INTEGER, passengers INTEGER, metres INTEGER, pickup_longitude INTEGER,"
    " pickup_latitude INTEGER, rate INTEGER, stored TEXT, dropoff_longitude INTEGER,"
    " dropoff_latitude INTEGER, from_zone INTEGER, to_zone INTEGER, payment INTEGER,"
    " fare_cents INTEGER, extra_cents INTEGER, tax_cents INTEGER, tip_cents INTEGER,"
    " toll_cents INTEGER, total_cents INTEGER);";

static const char *const QUERIES[] = {
    "SELECT passengers, count(*), sum(total_cents), sum(metres) FROM trips GROUP BY passengers",
    "SELECT pickup_s / 3600 % 24 AS hour, count(*), sum(tip_cents), sum(dropoff_s - pickup_s)"
    " FROM trips GROUP BY hour",
    "SELECT count(*), sum(fare_cents) FROM trips WHERE metres > 20000 AND payment = 2",
    "SELECT borough, count(*), max(total_cents) FROM trips JOIN zones ON zone = from_zone"
    " GROUP BY borough",
    "SELECT id, tip_cents FROM trips ORDER BY tip_cents * 1000 / total_cents DESC, id LIMIT 100",
    "SELECT rate, avg(pickup_longitude - dropoff_longitude),"
    " avg(pickup_latitude - dropoff_latitude) FROM trips WHERE stored = 'Y' GROUP BY rate",
};

enum { ZONES = 263, COLUMNS = 20, BOROUGHS = 5 };

static void check(sqlite3 *base, int status, int wanted)
{
    if (status == wanted)
        return;
    fprintf(stderr, "taxi: %s\n", sqlite3_errmsg(base));
    exit(1);
}

static void run(sqlite3 *base, const char *sql)
{
    check(base, sqlite3_exec(base, sql, NULL, NULL, NULL), SQLITE_OK);
}

static void make_trip(uint64_t *state, int64_t *row)
{
    uint64_t r = bench_random(state);
    int64_t metres = (int64_t)(r % 9000 + ((r >> 16) % 20 == 0 ? (r >> 24) % 30000 : 0)) + 300;
    int64_t fare = 250 + metres / 10;
    int64_t tip = (r >> 33) % 3 ? fare * (int64_t)((r >> 36) % 30) / 100 : 0;
    int64_t pickup = 1451606400 + (int64_t)(bench_random(state) % (366 * 86400));
    uint64_t s = bench_random(state);
    int64_t toll = s % 25 == 0 ? 554 : 0;
    const int64_t values[COLUMNS] = {(int64_t)(s % 2 + 1),
                                     pickup,
                                     pickup + metres / 5 + 60,
                                     (int64_t)(1 + (s >> 8) % 6),
                                     metres,
                                     -73980000 + (int64_t)((s >> 12) % 90000),
                                     40750000 + (int64_t)((s >> 30) % 90000),
                                     (int64_t)(1 + (s >> 48) % 6),
                                     (s >> 52) % 8 == 0,
                                     -73980000 + (int64_t)((r >> 8) % 90000),
                                     40750000 + (int64_t)((r >> 26) % 90000),
                                     (int64_t)(1 + (s >> 20) % ZONES),
                                     (int64_t)(1 + (s >> 40) % ZONES),
                                     (int64_t)(1 + (s >> 56) % 4),
                                     fare,
                                     50,
                                     50,
                                     tip,
                                     toll,
                                     fare + 100 + tip + toll};
    memcpy(row, values, sizeof values);
}

static void generate_trips(sqlite3 *base, uint64_t rows)
{
    sqlite3_stmt *insert;
    uint64_t state = 5;
    int64_t row[COLUMNS];

    check(base,
          sqlite3_prepare_v2(
              base, "INSERT INTO trips VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", -1,
              &insert, NULL),
          SQLITE_OK);
    for (uint64_t i = 0; i < rows; i++) {
        make_trip(&state, row);
        for (int c = 0; c < COLUMNS; c++) {
            if (c == 8)
                sqlite3_bind_text(insert, c + 1, row[c] ? "Y" : "N", 1, SQLITE_STATIC);
            else
                sqlite3_bind_int64(insert, c + 1, row[c]);
        }
        check(base, sqlite3_step(insert), SQLITE_DONE);
        sqlite3_reset(insert);
    }
    sqlite3_finalize(insert);
}

static void generate(const char *path, uint64_t rows)
{
    sqlite3 *base;
    char zone[80];

    unlink(path);
    check(NULL, sqlite3_open(path, &base), SQLITE_OK);
    run(base, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN");
    run(base, SCHEMA);
    for (int i = 1; i <= ZONES; i++) {
        snprintf(zone, sizeof zone, "INSERT INTO zones VALUES (%d, 'borough %d')", i, i % BOROUGHS);
        run(base, zone);
    }
    generate_trips(base, rows);
    run(base, "COMMIT");
    sqlite3_close(base);
}

static int add_row(void *hash, int columns, char **values, char **names)
{
    (void)names;
    for (int c = 0; c < columns; c++)
        *(uint64_t *)hash =
            bench_hash(*(uint64_t *)hash, values[c], values[c] ? strlen(values[c]) : 0);
    return 0;
}

static void query(const char *path)
{
    sqlite3 *base;
    size_t length_bytes;
    uint64_t hash = 0;

    bench_phase(NULL);
    unsigned char *image = bench_load(path, &length_bytes);
    check(NULL, sqlite3_open(":memory:", &base), SQLITE_OK);
    check(base,
          sqlite3_deserialize(base, "main", image, (sqlite3_int64)length_bytes,
                              (sqlite3_int64)length_bytes, SQLITE_DESERIALIZE_READONLY),
          SQLITE_OK);
    run(base, "PRAGMA temp_store = MEMORY");
    bench_phase("setup");
    for (size_t i = 0; i < sizeof QUERIES / sizeof *QUERIES; i++)
        check(base, sqlite3_exec(base, QUERIES[i], add_row, &hash, NULL), SQLITE_OK);
    bench_phase("run");
    bench_checksum(hash);
    sqlite3_close(base);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "generate") == 0) {
        generate(argv[3], strtoull(argv[2], NULL, 10));
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "query") == 0) {
        query(argv[2]);
        return 0;
    }
    fprintf(stderr, "usage: taxi generate ROWS FILE | taxi query FILE\n");
    return 2;
}
