/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that keeps files open until its parent is gone, so that it, and not the parent, is the
 * one in which the kernel closes them for good.
 *
 * A device whose packets are stuck may keep whoever destroys its queue pairs in the kernel for as
 * long as the link is down, beyond any signal (soft-RoCE of Linux 6.1 does), and the end of a
 * process destroys what it left. Where a keeper has the same files open, the parent's end does not:
 * it ends at once, with its status, and the keeper waits in its place.
 */
#ifndef FARVISOR_RDMA_KEEPER_H
#define FARVISOR_RDMA_KEEPER_H

#define KEEPER_FILES_MAX 4

/*
 * keeper_start - fork a keeper of the `count` (at most KEEPER_FILES_MAX) files.
 * It lives until the returned descriptor, which no program started later inherits, is closed, also
 * by the end of this process; then it ends and closes them. It has nothing else open, hears no
 * signal but KILL, and its end is not told (no SIGCHLD, not waited for).
 * Returns the descriptor or -errno. Any thread.
 */
int keeper_start(const int *files, int count);

#endif
