/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A storm on malloc: threads allocate, change, check, reallocate and free objects that any of them
 * may own, all contents computed from a seed, so that a byte that was lost or is another's shows.
 * From time to time most objects of a part are freed at random, to leave pages on which little
 * lives. Says what it did; exit status 1 if any byte was wrong.
 *
 * usage: heap_storm THREADS OBJECTS SECONDS SEED
 */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LOCKS 1024u

struct object {
    unsigned char *at;
    uint32_t bytes, seed;
};

static struct object *objects;
static size_t object_count;
static pthread_mutex_t locks[LOCKS];
static atomic_ulong steps, mismatches;
static atomic_bool over;

static uint32_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

static unsigned char content(uint32_t seed, size_t i)
{
    return (unsigned char)((seed + i * 0x9e3779b1u) >> 11);
}

static void fill(const struct object *object, size_t from)
{
    for (size_t i = from; i < object->bytes; i++)
        object->at[i] = content(object->seed, i);
}

static void check(const struct object *object, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (object->at[i] == content(object->seed, i))
            continue;
        if (atomic_fetch_add(&mismatches, 1) < 10)
            printf("byte %zu of %u at %p: %u, not %u\n", i, object->bytes, (void *)object->at,
                   object->at[i], content(object->seed, i));
        return;
    }
}

/* Mostly small, some of a few pages. */
static size_t some_bytes(uint64_t *state)
{
    uint32_t kind = next(state) % 64;
    return 1 + next(state) % (kind == 0 ? 30000 : kind < 8 ? 2048 : kind < 24 ? 512 : 160);
}

static void check_zero(const unsigned char *at, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (!at[i])
            continue;
        if (atomic_fetch_add(&mismatches, 1) < 10)
            printf("byte %zu of calloc(%zu) at %p: %u\n", i, bytes, (const void *)at, at[i]);
        return;
    }
}

static void object_make(struct object *object, uint64_t *state)
{
    uint32_t how = next(state) % 8;
    size_t alignment = (size_t)16 << next(state) % 8;
    object->bytes = (uint32_t)some_bytes(state);
    object->seed = next(state);
    if (how == 0) {
        object->at = calloc(1, object->bytes);
        check_zero(object->at, object->bytes);
    } else if (how == 1) {
        object->at = memalign(alignment, object->bytes);
        if ((uintptr_t)object->at % alignment)
            atomic_fetch_add(&mismatches, 1);
    } else {
        object->at = malloc(object->bytes);
    }
    if (!object->at) {
        fprintf(stderr, "out of memory\n");
        exit(2);
    }
    fill(object, 0);
}

static void object_end(struct object *object)
{
    check(object, object->bytes);
    free(object->at);
    object->at = NULL;
}

static void object_resize(struct object *object, uint64_t *state)
{
    uint32_t before = object->bytes;
    object->bytes = (uint32_t)some_bytes(state);
    object->at = realloc(object->at, object->bytes);
    check(object, before < object->bytes ? before : object->bytes);
    fill(object, before < object->bytes ? before : object->bytes);
}

static void step(size_t index, uint64_t *state, bool thin)
{
    struct object *object = &objects[index];
    pthread_mutex_lock(&locks[index % LOCKS]);
    uint32_t what = next(state) % 16;
    if (thin && object->at && next(state) % 10 < 7) {
        object_end(object);
    } else if (!thin && !object->at) {
        object_make(object, state);
    } else if (!thin && what < 4) {
        object_end(object);
    } else if (!thin && what < 6) {
        object_resize(object, state);
    } else if (object->at) {
        check(object, object->bytes);
        if (what < 11) {
            object->seed = next(state);
            fill(object, 0);
        }
    }
    pthread_mutex_unlock(&locks[index % LOCKS]);
}

static void *storm(void *argument)
{
    uint64_t state = (uint64_t)(uintptr_t)argument;
    while (!atomic_load(&over)) {
        size_t from = next(&state) % object_count;
        bool thin = next(&state) % 4 == 0;
        size_t count = thin ? object_count / 16 : 2000;
        for (size_t i = 0; i < count && !atomic_load(&over); i++)
            step(thin || i % 4 ? (from + i) % object_count : next(&state) % object_count, &state,
                 thin);
        atomic_fetch_add(&steps, count);
    }
    return NULL;
}

/* Threads come and go, so that heaps are handed on. */
static void rounds(unsigned threads, unsigned seconds, uint64_t seed)
{
    pthread_t thread[64];
    time_t end = time(NULL) + seconds;
    while (time(NULL) < end) {
        atomic_store(&over, false);
        for (unsigned i = 0; i < threads; i++)
            if (pthread_create(&thread[i], NULL, storm, (void *)(uintptr_t)(seed += 0x9e3779b9u)))
                exit(2);
        struct timespec pause = {.tv_sec = 1};
        nanosleep(&pause, NULL);
        atomic_store(&over, true);
        for (unsigned i = 0; i < threads; i++)
            pthread_join(thread[i], NULL);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5)
        return 2;
    unsigned threads = (unsigned)atoi(argv[1]);
    object_count = strtoul(argv[2], NULL, 0);
    objects = calloc(object_count, sizeof(*objects));
    if (!objects || threads < 1 || threads > 64)
        return 2;
    for (unsigned i = 0; i < LOCKS; i++)
        pthread_mutex_init(&locks[i], NULL);
    rounds(threads, (unsigned)atoi(argv[3]), strtoul(argv[4], NULL, 0));
    size_t alive = 0;
    for (size_t i = 0; i < object_count; i++) {
        alive += objects[i].at != NULL;
        if (objects[i].at)
            object_end(&objects[i]);
    }
    printf("steps=%lu alive=%zu mismatches=%lu\n", steps, alive, mismatches);
    return mismatches != 0;
}
