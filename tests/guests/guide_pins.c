/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins that take their time keep nobody from unmapping other memory. Unmapping theirs ends them,
 * without waiting for the rest of their pages; what was ended is free to be pinned again, or mapped
 * anew, and who holds the new pages keeps them. For 32 MiB here and a slow network.
 * usage: guide_pins
 */
#include "guest.h"

#include <farvisor/guide.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE       4096u
#define PAGES      16384u
#define PIN_PAGES  2000u  /* of the 2048 that may be pinned */
#define PUSH_PAGES 12288u /* more than there is room for */

static uint8_t *region;
static atomic_int pinning;
static int pin_result;
static double pin_s;

static uint8_t *area_new(size_t pages)
{
    uint8_t *area =
        mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(area != MAP_FAILED);
    for (size_t i = 0; i < pages; i++)
        area[i * PAGE] = (uint8_t)(i % 251 + 1);
    return area;
}

static void *pinner(void *argument)
{
    double start = guest_now_s();
    atomic_store(&pinning, 1);
    pin_result = guide_pin(argument, PIN_PAGES * PAGE);
    pin_s = guest_now_s() - start;
    atomic_store(&pinning, 0);
    return NULL;
}

static pthread_t pin_start(uint8_t *at)
{
    pthread_t thread;
    EXPECT(pthread_create(&thread, NULL, pinner, at) == 0);
    while (!atomic_load(&pinning))
        sched_yield();
    usleep(1000);
    EXPECT(atomic_load(&pinning)); /* or the network is not slow */
    return thread;
}

static bool is_here(uint8_t *at)
{
    unsigned char resident = 0;
    EXPECT(mincore(at, PAGE, &resident) == 0);
    return resident & 1;
}

/* All that is not pinned goes. */
static void push_out(void)
{
    EXPECT(munmap(area_new(PUSH_PAGES), PUSH_PAGES * PAGE) == 0);
}

static int file_new(void)
{
    int fd = memfd_create("page", 0);
    EXPECT(fd >= 0 && ftruncate(fd, PAGE) == 0 && pwrite(fd, "file", 4, 0) == 4);
    return fd;
}

static void file_map(uint8_t *at, int fd)
{
    EXPECT(mmap(at, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == at);
    EXPECT(memcmp(at, "file", 4) == 0);
}

/*
 * A file goes where a page was that a pin under way held. Returns whether it was still under way:
 * on a busy host the pin may be done first.
 */
static bool file_takes_the_place(void)
{
    uint8_t *area = area_new(PIN_PAGES);
    int fd = file_new();
    push_out();
    pthread_t thread = pin_start(area);
    while (atomic_load(&pinning) && !is_here(area))
        sched_yield();
    EXPECT(munmap(area, PAGE) == 0);
    file_map(area, fd);
    EXPECT(pthread_join(thread, NULL) == 0);
    EXPECT(memcmp(area, "file", 4) == 0);
    EXPECT(munmap(area, PIN_PAGES * PAGE) == 0 && close(fd) == 0);
    return pin_result < 0;
}

/* A file's page is not pinned: what is mapped and pinned there next may not be let go for it. */
static void next_pin_stays(void)
{
    uint8_t *area = area_new(PIN_PAGES);
    int fd = file_new();
    file_map(area, fd);
    push_out();
    pthread_t thread = pin_start(area);
    while (atomic_load(&pinning) && !is_here(area + PAGE)) /* past the file's page */
        sched_yield();
    EXPECT(munmap(area, PAGE) == 0);
    EXPECT(mmap(area, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                0) == area);
    area[0] = 77;
    EXPECT(guide_pin(area, PAGE) == 0);
    EXPECT(pthread_join(thread, NULL) == 0 && pin_result < 0);
    push_out();
    EXPECT(is_here(area) && area[0] == 77);
    EXPECT(guide_unpin(area, PAGE) == 0);
    EXPECT(munmap(area, PIN_PAGES * PAGE) == 0 && close(fd) == 0);
}

int main(void)
{
    uint8_t *small = area_new(1);
    region = area_new(PAGES);
    EXPECT(guide_pin(small, PAGE) == 0);

    pthread_t thread = pin_start(region);
    double start = guest_now_s();
    EXPECT(munmap(small, PAGE) == 0);
    double took = guest_now_s() - start;
    EXPECT(pthread_join(thread, NULL) == 0 && pin_result == 0);
    double whole_s = pin_s;
    EXPECT(took < whole_s / 2);
    for (size_t i = 0; i < PIN_PAGES; i++)
        EXPECT(region[i * PAGE] == (uint8_t)(i % 251 + 1));
    EXPECT(guide_unpin(region, PIN_PAGES * PAGE) == 0);

    uint8_t *second = region + PAGES / 2 * PAGE;
    thread = pin_start(second);
    start = guest_now_s();
    EXPECT(munmap(second + (PIN_PAGES - 1) * PAGE, PAGE) == 0);
    took = guest_now_s() - start;
    EXPECT(pthread_join(thread, NULL) == 0 && pin_result < 0);
    EXPECT(took < whole_s);
    EXPECT(guide_unpin(second, PIN_PAGES * PAGE) < 0);
    EXPECT(guide_pin(region, PIN_PAGES * PAGE) == 0);
    EXPECT(guide_unpin(region, PIN_PAGES * PAGE) == 0);
    int tries = 0;
    while (!file_takes_the_place())
        EXPECT(++tries < 20);
    next_pin_stays();
    return guest_passed("guide_pins");
}
