/* SPDX-License-Identifier: Apache-2.0 */
/* Prints its arguments, and the variables named GUEST_*, one a line. */
#include "guest.h"

int main(int argc, char **argv, char **environment)
{
    for (int i = 0; i < argc; i++)
        printf("argv[%d]=%s\n", i, i ? argv[i] : strrchr(argv[0], '/') ? "(path)" : argv[0]);
    for (char **entry = environment; *entry; entry++)
        if (strncmp(*entry, "GUEST_", 6) == 0)
            puts(*entry);
    return 0;
}
