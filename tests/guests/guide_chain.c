/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chains of nodes that are far away.
 *
 * "check": a writer changes nodes, links their twins in instead, and discards and writes anew those
 * that are not linked, while other memory pushes everything out; whoever follows the chain must
 * find each node in its turn, never with an older value than was there before it started.
 * "time": one read a hop, and the whole chain at once, in turn.
 *
 * usage: guide_chain check MIB SECONDS | guide_chain time MIB ROUNDS
 */
#include "guest.h"

#include <farvisor/guide.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE  4096u
#define NODES 100u
#define APART 8u /* pages from one node to the next */

struct node {
    struct node *_Atomic next;
    _Atomic uint64_t word; /* value << 24 | twin << 16 | number */
    uint64_t rest[6];
};

static struct node *nodes[NODES][2];
static _Atomic uint64_t published[NODES][2]; /* values written, before this was */
static atomic_uint current[NODES];
static atomic_ulong round_now; /* of the reader */
static unsigned long unlinked[NODES];
static atomic_int stop;
static uint8_t *ballast;
static size_t ballast_pages;

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static double now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void *pages_get(size_t pages)
{
    void *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(at != MAP_FAILED);
    return at;
}

static void node_write(unsigned number, unsigned twin, uint64_t value)
{
    struct node *node = nodes[number][twin];
    node->next = number + 1 < NODES ? nodes[number + 1][current[number + 1]] : NULL;
    node->rest[5] = value; /* perhaps in the next page */
    node->word = value << 24 | (uint64_t)twin << 16 | number;
    published[number][twin] = value;
}

static void nodes_make(void)
{
    uint64_t state = 3;
    uint8_t *memory = pages_get((size_t)NODES * 2 * APART);
    for (unsigned i = 0; i < NODES * 2; i++) {
        /* Some nodes cross into the next page. */
        size_t place = i % 9 == 0 ? PAGE - 16 : next_random(&state) % 60 * 64;
        nodes[i / 2][i % 2] = (struct node *)(memory + (size_t)i * APART * PAGE + place);
    }
    for (unsigned i = NODES; i-- > 0;)
        for (unsigned twin = 0; twin < 2; twin++)
            node_write(i, twin, 1);
}

static void push_out(uint64_t *state, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ballast[next_random(state) % ballast_pages * PAGE] = (uint8_t)i;
}

/* ---- check ---- */

/* The other twin, once nobody can be on his way to it any more, with new contents. */
static void twin_swap(unsigned number, uint64_t value)
{
    unsigned twin = !current[number];
    if (round_now < unlinked[number] + 2 || number == 0)
        return;
    madvise((void *)((uintptr_t)nodes[number][twin] & -(uintptr_t)PAGE), 2 * PAGE, MADV_DONTNEED);
    node_write(number, twin, value);
    current[number] = twin;
    for (unsigned i = 0; i < 2; i++)
        nodes[number - 1][i]->next = nodes[number][twin];
    unlinked[number] = round_now;
}

static void *writer_main(void *argument)
{
    uint64_t state = 17, value = 1;
    (void)argument;
    while (!stop) {
        unsigned number = (unsigned)(next_random(&state) % NODES);
        value++;
        if (next_random(&state) % 4 == 0)
            twin_swap(number, value);
        else
            node_write(number, current[number], value);
        push_out(&state, 40);
    }
    return NULL;
}

static void chain_check(struct node *got)
{
    static uint64_t floors[NODES][2];
    round_now++;
    for (unsigned i = 0; i < NODES; i++)
        for (unsigned twin = 0; twin < 2; twin++)
            floors[i][twin] = published[i][twin];
    EXPECT(guide_read_chain(nodes[0][0], sizeof(*got), 0, got, NODES + 1) == NODES);
    for (unsigned i = 0; i < NODES; i++) {
        unsigned twin = got[i].word >> 16 & 1;
        EXPECT((got[i].word & 0xffff) == i);
        EXPECT(got[i].word >> 24 >= floors[i][twin]);
    }
}

static void check(unsigned seconds)
{
    static struct node got[NODES + 1];
    pthread_t writer;
    double end_us = now_us() + seconds * 1e6;
    EXPECT(pthread_create(&writer, NULL, writer_main, NULL) == 0);
    while (now_us() < end_us)
        chain_check(got);
    stop = 1;
    pthread_join(writer, NULL);
    chain_check(got);
    for (unsigned i = 0; i < NODES; i++)
        EXPECT(got[i].word >> 24 == published[i][current[i]]);
}

/* ---- time ---- */

static unsigned remote_nodes(void)
{
    unsigned remote = 0;
    for (unsigned i = 0; i < NODES; i++) {
        uint8_t state = 0;
        EXPECT(guide_residency(nodes[i][0], 1, &state) == 0);
        remote += state == GUIDE_REMOTE;
    }
    return remote;
}

static void follow_by_hops(struct node *got)
{
    const struct node *at = nodes[0][0];
    for (unsigned i = 0; i < NODES; i++) {
        EXPECT(guide_read(at, &got[i], sizeof(*got)) == 0);
        at = got[i].next;
    }
}

static void follow_at_once(struct node *got)
{
    EXPECT(guide_read_chain(nodes[0][0], sizeof(*got), 0, got, NODES) == NODES);
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void times(unsigned rounds)
{
    static struct node got[NODES];
    double *us[2] = {calloc(rounds, sizeof(double)), calloc(rounds, sizeof(double))};
    uint64_t state = 5;
    push_out(&state, ballast_pages * 3);
    for (unsigned i = 0; i < rounds; i++) {
        for (unsigned way = 0; way < 2; way++) {
            double start_us = now_us();
            (way ? follow_at_once : follow_by_hops)(got);
            us[way][i] = now_us() - start_us;
            for (unsigned n = 0; n < NODES; n++)
                EXPECT(got[n].word == (1u << 24 | n));
        }
    }
    for (unsigned way = 0; way < 2; way++) {
        qsort(us[way], rounds, sizeof(double), by_size);
        printf("%s: median %.1f us, quartiles %.1f .. %.1f us\n",
               way ? "whole chain" : "hop by hop", us[way][rounds / 2], us[way][rounds / 4],
               us[way][rounds * 3 / 4]);
    }
    printf("%u nodes, %u of them remote, %u rounds: %.2f times as fast\n", NODES, remote_nodes(),
           rounds, us[0][rounds / 2] / us[1][rounds / 2]);
}

int main(int argc, char **argv)
{
    bool timed = argc > 1 && strcmp(argv[1], "time") == 0;
    unsigned number = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 2;
    ballast_pages = ((argc > 2 ? strtoul(argv[2], NULL, 10) : 64) << 20) / PAGE;
    ballast = pages_get(ballast_pages);
    nodes_make();
    if (timed)
        times(number);
    else
        check(number);
    return guest_passed("guide_chain");
}
