/* SPDX-License-Identifier: Apache-2.0 */
/* Linked as a static position-independent program: threads, thread-locals, locale and float
 * formatting in it. */
#include "guest.h"

#include <locale.h>
#include <math.h>
#include <pthread.h>

static __thread int local = 3;

static void *add(void *argument)
{
    local += (int)(long)argument;
    return (void *)(long)local;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    void *result;
    EXPECT(setlocale(LC_ALL, "C"));
    EXPECT(pthread_create(&thread, NULL, add, (void *)4L) == 0);
    EXPECT(pthread_join(thread, &result) == 0);
    printf("staticpie_hello: %d %ld %.6f %s\n", local, (long)result, sqrt(2.0 + argc),
           argc > 1 ? argv[1] : "none");
    return 0;
}
