/* SPDX-License-Identifier: Apache-2.0 */
/* One program, one guest: fork, vfork and exec answer ENOSYS and the program goes on. */
#include "guest.h"

#include <sys/wait.h>

int main(void)
{
    char *const none[] = {NULL};
    EXPECT(fork() == -1 && errno == ENOSYS);
    EXPECT(execve("/bin/true", none, none) == -1 && errno == ENOSYS);
    EXPECT(wait(NULL) == -1 && errno == ECHILD);
    EXPECT(syscall(999) == -1 && errno == ENOSYS);
    return guest_passed("fork_refused");
}
