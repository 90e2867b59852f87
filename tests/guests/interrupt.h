/* SPDX-License-Identifier: Apache-2.0 */
/* A thread for the guests that are interrupted: sends SIGUSR1 to another one when that waits. */
#ifndef TESTS_GUEST_INTERRUPT_H
#define TESTS_GUEST_INTERRUPT_H

#include "guest.h"

#include <pthread.h>
#include <signal.h>

/* argument: pthread_t *, the thread to interrupt. */
static void *interrupt(void *argument)
{
    usleep(200000);
    EXPECT(pthread_kill(*(pthread_t *)argument, SIGUSR1) == 0);
    return argument;
}

#endif
