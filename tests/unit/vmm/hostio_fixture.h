/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door to the host without a guest. Each test has its own little host directory:
 *
 *   top/secret  top/vault/secret   outside of every grant
 *   top/base                       the current directory, granted read-write
 *   top/ro                         granted read-only as /ro, top/rw read-write as /data
 */
#ifndef FARVISOR_HOSTIO_FIXTURE_H
#define FARVISOR_HOSTIO_FIXTURE_H

#include "vmm/io/hostio_internal.h"

extern char top[64];
extern struct vm vm;
extern struct hostio *io;

void hostio_setup(void);
void hostio_teardown(void);
/* A host file that contains its name. */
void host_file(const char *name, mode_t mode);
/* Resolves; the guest path it came to, or NULL with errno set. */
const char *resolved(const char *path, unsigned flags);
/* Guest path of a name in the current directory. */
const char *in_base(const char *name);
int64_t call(uint32_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d);

#endif
