/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tenant's worker process: holds that tenant's memory and the connections through which one-sided
 * operations reach it. Does what the supervisor asks (make slabs reachable, or unreachable and
 * free); the rest is its network's, fabric.c or verbs.c. Sandboxed once it listens.
 */
#include "memserver/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

struct worker_process {
    const struct worker_transport *transport;
    uint64_t map_bytes;
};

/* Takes as long whichever byte differs. */
bool worker_token_matches(const uint8_t *ours, const uint8_t *theirs)
{
    uint8_t difference = 0;

    for (size_t i = 0; i < WIRE_TOKEN_BYTES; i++)
        difference |= (uint8_t)(ours[i] ^ theirs[i]);
    return difference == 0;
}

/* Waits for the supervisor's first message. The connection's end is the supervisor's. */
static int process_receive(struct worker_message *message)
{
    struct pollfd waited = {.fd = WORKER_CONTROL_FD, .events = POLLIN};
    int got = worker_receive(WORKER_CONTROL_FD, message);

    while (got == 0) {
        if (poll(&waited, 1, -1) < 0 && errno != EINTR)
            return -errno;
        got = worker_receive(WORKER_CONTROL_FD, message);
    }
    return got < 0 ? got : 0;
}

static int process_setup(struct worker_process *process, struct worker_message *start)
{
    uint8_t *base;
    int error = process_receive(start);

    if (error)
        return error;
    /* The supervisor may have died before the death signal was asked for. */
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    if ((uint64_t)getppid() != start->parent)
        return -ECONNRESET;
    process->map_bytes = start->map_bytes;
    base = mmap(NULL, start->map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                WORKER_MEMORY_FD, 0);
    if (base == MAP_FAILED)
        return -errno;
    process->transport = start->transport == WIRE_VERBS ? &worker_verbs : &worker_fabric;
    error = chains_open(start->span_pages, base);
    if (!error)
        error = process->transport->open(start, base);
    return error ? error : sandbox_enter();
}

static int process_unmap(const struct worker_process *process, uint64_t offset)
{
    int error = process->transport->unmap(offset);

    if (!error && fallocate(WORKER_MEMORY_FD, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            (off_t)offset, WIRE_SLAB_BYTES) < 0)
        error = -errno;
    return error;
}

/* The supervisor is trusted, its bugs are not. */
static int process_slab(const struct worker_process *process, uint32_t type, uint64_t number,
                        struct wire_slab *slab)
{
    uint64_t offset = slab->remote;
    int error;

    if (offset % WIRE_SLAB_BYTES || offset >= process->map_bytes)
        return -EINVAL;
    error = chains_slab(number, offset, type == WORKER_MAP);
    if (error)
        return error;
    return type == WORKER_MAP ? process->transport->map(slab) : process_unmap(process, offset);
}

/* -errno: the supervisor is gone. */
static int process_request(const struct worker_process *process)
{
    struct worker_message message;
    int got = worker_receive(WORKER_CONTROL_FD, &message);

    if (got <= 0)
        return got;
    message.status = 0;
    for (uint32_t i = 0; i < message.count && !message.status; i++)
        message.status =
            process_slab(process, message.type, message.first_slab + i, &message.slabs[i]);
    return worker_send(WORKER_CONTROL_FD, &message);
}

int worker_process_main(void)
{
    struct worker_process process = {.transport = &worker_fabric};
    struct worker_message start;
    int error;

    signal(SIGPIPE, SIG_IGN);
    error = process_setup(&process, &start);
    start.status = error;
    if (worker_send(WORKER_CONTROL_FD, &start) < 0)
        return -ECONNRESET;
    while (!error) {
        bool asked = false;

        error = process.transport->turn(&asked);
        if (!error && asked)
            error = process_request(&process);
    }
    return error;
}
