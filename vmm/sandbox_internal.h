/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between sandbox.c and sandbox_filter.c.
 */
#ifndef FARVISOR_SANDBOX_INTERNAL_H
#define FARVISOR_SANDBOX_INTERNAL_H

#include <stddef.h>

/*
 * Installs the system call filter on every thread. `families`: the kinds of socket that can be
 * made, NULL: any. 0; -EINVAL: none on this host; -errno.
 */
int sandbox_filter_load(const int *families, size_t count);

#endif
