/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins that take their time keep nobody from unmapping memory, neither other memory nor theirs,
 * which ends them; and what was ended is free to be pinned again. For 32 MiB here and a slow
 * network. usage: guide_pins
 */
#include "guest.h"

#include <farvisor/guide.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

#define PAGE      4096u
#define PAGES     16384u
#define PIN_PAGES 2000u /* of the 2048 that may be pinned */

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
    EXPECT(took < pin_s / 2);
    for (size_t i = 0; i < PIN_PAGES; i++)
        EXPECT(region[i * PAGE] == (uint8_t)(i % 251 + 1));
    EXPECT(guide_unpin(region, PIN_PAGES * PAGE) == 0);

    uint8_t *second = region + PAGES / 2 * PAGE;
    thread = pin_start(second);
    start = guest_now_s();
    EXPECT(munmap(second + (PIN_PAGES - 1) * PAGE, PAGE) == 0);
    took = guest_now_s() - start;
    EXPECT(pthread_join(thread, NULL) == 0 && pin_result < 0);
    EXPECT(took < pin_s / 2);
    EXPECT(guide_unpin(second, PIN_PAGES * PAGE) < 0);
    EXPECT(guide_pin(region, PIN_PAGES * PAGE) == 0);
    return guest_passed("guide_pins");
}
