/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads of bytes while the pages they are in come, go and change: every page has one writer, who
 * knows what must be read back; others chase a chain whose nodes never change. Also pins,
 * residency, and what must be refused.
 *
 * usage: guide_reads MIB SECONDS
 */
#include "guest.h"

#include <farvisor/guide.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define PAGE    4096u
#define READS   48u
#define WRITERS 3u
#define NODES   100u

struct node {
    struct node *next;
    uint64_t number;
};

static uint8_t *region;
static size_t pages;
static atomic_int stop;
static struct node *chain_first;

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

/* The writer's pages are those of its number modulo WRITERS, but for the chain's, at their end. */
static uint64_t *word_of(size_t page)
{
    return (uint64_t *)(region + page * PAGE + (page * 56) % 3800);
}

static void round_trip(unsigned writer, uint64_t *truth, uint64_t *state)
{
    struct guide_read reads[READS] = {{0}};
    uint64_t got[READS];
    size_t page[READS];
    for (unsigned i = 0; i < READS; i++) {
        page[i] = next_random(state) % (pages / WRITERS) * WRITERS + writer;
        if (next_random(state) % 3 == 0)
            *word_of(page[i]) = truth[page[i]] = next_random(state);
        if (next_random(state) % 64 == 0) {
            madvise(region + page[i] * PAGE, PAGE, MADV_DONTNEED);
            truth[page[i]] = 0;
        }
    }
    for (unsigned i = 0; i < READS; i++)
        reads[i] = (struct guide_read){.from = word_of(page[i]), .to = &got[i], .bytes = 8};
    guide_reads_start(reads, READS);
    EXPECT(guide_reads_wait(reads, READS) == 0);
    for (unsigned i = 0; i < READS; i++)
        EXPECT(got[i] == truth[page[i]]);
}

static void *writer_main(void *argument)
{
    unsigned writer = (unsigned)(uintptr_t)argument;
    uint64_t *truth = calloc(pages, sizeof(*truth)), state = writer + 1;
    while (!stop)
        round_trip(writer, truth, &state);
    free(truth);
    return NULL;
}

static void chain_make(void)
{
    uint64_t state = 7;
    uint8_t *memory =
        mmap(NULL, NODES * 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct node **link = &chain_first;
    EXPECT(memory != MAP_FAILED);
    for (unsigned i = 0; i < NODES; i++) {
        /* Some nodes cross into the next page. */
        size_t place = i % 7 == 0 ? PAGE - 8 : next_random(&state) % 400 * 8;
        struct node *node = (struct node *)(memory + (size_t)i * 8 * PAGE + place);
        *link = node;
        node->number = i * 1000 + 5;
        link = &node->next;
    }
}

static void *chaser_main(void *argument)
{
    struct node got[NODES + 1];
    (void)argument;
    while (!stop) {
        EXPECT(guide_read_chain(chain_first, sizeof(got[0]), 0, got, NODES + 1) == NODES);
        for (unsigned i = 0; i < NODES; i++)
            EXPECT(got[i].number == i * 1000 + 5);
        EXPECT(guide_read_chain(chain_first, sizeof(got[0]), 0, got, 3) == 3);
    }
    return NULL;
}

static void refusals(void)
{
    uint8_t byte, states[2];
    void *nothing = mmap(NULL, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(guide_read(region, &byte, 0) == -EINVAL && guide_read(region, &byte, 257) == -EINVAL);
    if (guide_is_far()) {
        EXPECT(guide_read(nothing, &byte, 1) == -EFAULT);
        EXPECT(guide_read((void *)8, &byte, 1) == -EFAULT);
        EXPECT(guide_read((void *)0x3fc0000000, &byte, 1) == -EFAULT);
        EXPECT(guide_read((void *)-4096, &byte, 1) == -EFAULT);
        int pinned = guide_pin(region, pages * PAGE); /* 0 where nothing is remote */
        EXPECT(pinned == -EDQUOT || (pinned == 0 && guide_unpin(region, pages * PAGE) == 0));
        EXPECT(pinned == 0 || guide_unpin(region, PAGE) == -EINVAL);
        EXPECT(guide_residency((void *)-4096, 8192, states) < 0);
    }
}

/* A pin ends with its pages, and what is mapped there next has its own contents. */
static void pins(void)
{
    uint8_t states[4];
    uint8_t *own = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(own, 7, 4 * PAGE);
    EXPECT(guide_pin(own, 4 * PAGE) == 0);
    EXPECT(guide_residency(own, 4 * PAGE, states) == 0 && states[0] == GUIDE_LOCAL);
    munmap(own, PAGE);
    uint8_t *again =
        mmap(own, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    EXPECT(again == own && again[0] == 0 && own[PAGE] == 7);
    int left = guide_unpin(own, 4 * PAGE); /* 0 natively, and where nothing is remote */
    EXPECT(left == -EINVAL || left == 0);
    EXPECT(guide_pin(own, 4 * PAGE) == 0 && guide_unpin(own, 4 * PAGE) == 0);
}

int main(int argc, char **argv)
{
    size_t mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 64;
    unsigned seconds = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 2;
    pthread_t threads[WRITERS + 1];
    pages = (mib << 20) / PAGE;
    region = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(region != MAP_FAILED);
    chain_make();
    refusals();
    pins();
    for (uintptr_t i = 0; i < WRITERS; i++)
        EXPECT(pthread_create(&threads[i], NULL, writer_main, (void *)i) == 0);
    EXPECT(pthread_create(&threads[WRITERS], NULL, chaser_main, NULL) == 0);
    sleep(seconds);
    stop = 1;
    for (unsigned i = 0; i <= WRITERS; i++)
        pthread_join(threads[i], NULL);
    return guest_passed("guide_reads");
}
