/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces of the program's memory, pinned so that the host kernel can copy straight between a
 * descriptor and guest memory. A piece is bounded in pages, not only in bytes: a thousand tiny
 * spans on a thousand pages would otherwise pin more than --local may have; and in the pages that
 * all threads pin together (guestmem_admit).
 */
#include "vmm/io/hostio_internal.h"

#include <stdlib.h>
#include <string.h>

#define PIN_PAGES_MAX  (GUESTMEM_PIN_MAX / FV_PAGE_SIZE)
#define COPY_MAX_BYTES (64u << 10) /* where the rest can follow: copies are not part of --local */

int io_spans_read(struct vm *vm, gpa_t gpa, uint64_t count, struct iovec small[IO_SPANS_SMALL],
                  struct iovec **spans)
{
    uint64_t total = 0;
    int error;

    if (count > IOV_MAX)
        return -EINVAL;
    *spans = count <= IO_SPANS_SMALL ? small : malloc(count * sizeof(**spans));
    if (!*spans)
        return -ENOMEM;
    error = guestmem_read(vm, *spans, gpa, count * sizeof(**spans));
    for (uint64_t i = 0; !error && i < count; i++) {
        if (__builtin_add_overflow(total, (*spans)[i].iov_len, &total) || total > SSIZE_MAX)
            error = -EINVAL;
    }
    if (error && *spans != small)
        free(*spans);
    return error;
}

static uint64_t pages_of(gpa_t gpa, uint64_t bytes)
{
    return ((gpa % FV_PAGE_SIZE) + bytes + FV_PAGE_SIZE - 1) / FV_PAGE_SIZE;
}

/*
 * Pins as much of [gpa, gpa + bytes) as the program may access, at least one byte's page: Linux
 * transfers what precedes a bad address. *bytes becomes what was pinned.
 */
static int pin_prefix(struct vm *vm, gpa_t gpa, uint64_t *bytes, bool writable, bool held,
                      void **hva)
{
    uint64_t good = 0;
    int error = guestmem_use(vm, gpa, *bytes, writable, held, hva);

    if (error != -EFAULT || pages_of(gpa, *bytes) == 1)
        return error;
    while (good < *bytes) {
        uint64_t piece = FV_PAGE_SIZE - (gpa + good) % FV_PAGE_SIZE;
        void *page;

        if (piece > *bytes - good)
            piece = *bytes - good;
        error = guestmem_use(vm, gpa + good, piece, writable, held, &page);
        /* Handed back: whoever makes the whole call anew must not find a part of it done. */
        if (error == -EINTR)
            return error;
        if (error)
            break;
        guestmem_unpin(vm, gpa + good, piece);
        if (!held)
            mm_use_end(vcpu_self());
        good += piece;
    }
    if (!good)
        return -EFAULT;
    *bytes = good;
    return guestmem_use(vm, gpa, good, writable, held, hva);
}

/* Pages of the next piece if it may be as large as it can be. */
static uint64_t pages_wanted(const struct io_cursor *at)
{
    uint64_t pages = 0, skip = at->offset;

    for (unsigned i = at->index, spans = 0;
         i < at->count && pages < PIN_PAGES_MAX && spans < IO_BATCH_IOV; i++, skip = 0) {
        uint64_t bytes = at->spans[i].iov_len - skip;

        if (!bytes)
            continue;
        spans++;
        /* A length is anything up to SSIZE_MAX. */
        if (bytes > GUESTMEM_PIN_MAX)
            bytes = GUESTMEM_PIN_MAX;
        pages += pages_of((gpa_t)at->spans[i].iov_base + skip, bytes);
    }
    return pages < PIN_PAGES_MAX ? pages : PIN_PAGES_MAX;
}

static int batch_fill(struct vm *vm, struct io_batch *batch, const struct io_cursor *at,
                      bool writable)
{
    uint64_t pages_left = batch->admitted, skip = at->offset;

    for (unsigned i = at->index; i < at->count && batch->count < IO_BATCH_IOV; i++, skip = 0) {
        gpa_t gpa = (gpa_t)at->spans[i].iov_base + skip;
        uint64_t wanted = at->spans[i].iov_len - skip, bytes = wanted;
        void *hva;
        int error;

        if (!bytes)
            continue;
        if (!pages_left)
            break;
        if (bytes > GUESTMEM_PIN_MAX) /* any number, and the count of its pages could wrap */
            bytes = GUESTMEM_PIN_MAX;
        if (pages_of(gpa, bytes) > pages_left)
            bytes = pages_left * FV_PAGE_SIZE - gpa % FV_PAGE_SIZE;
        wanted = bytes;
        error = pin_prefix(vm, gpa, &bytes, writable, batch->count > 0, &hva);
        /* On the poller, what is not here is fetched by the vCPU's thread: all or nothing. */
        if (error && (!batch->count || error == -EINTR))
            return error;
        if (error)
            break;
        batch->iov[batch->count] = (struct iovec){.iov_base = hva, .iov_len = bytes};
        batch->gpa[batch->count++] = gpa;
        batch->bytes += bytes;
        pages_left -= pages_of(gpa, bytes);
        if (bytes < wanted)
            break;
    }
    guestmem_dismiss(vm, pages_left);
    batch->admitted -= pages_left;
    return 0;
}

int io_batch_pin(struct vm *vm, struct io_batch *batch, const struct io_cursor *at, bool writable)
{
    int64_t admitted = guestmem_admit(vm, pages_wanted(at));
    int error;

    batch->count = 0;
    batch->bytes = 0;
    batch->admitted = admitted > 0 ? (uint64_t)admitted : 0;
    if (admitted < 0)
        return (int)admitted;
    error = batch_fill(vm, batch, at, writable);
    if (error)
        io_batch_unpin(vm, batch);
    return error;
}

void io_batch_unpin(struct vm *vm, struct io_batch *batch)
{
    for (unsigned i = 0; i < batch->count; i++)
        guestmem_unpin(vm, batch->gpa[i], batch->iov[i].iov_len);
    mm_use_end(vcpu_self());
    guestmem_dismiss(vm, batch->admitted);
    batch->count = 0;
    batch->admitted = 0;
}

uint64_t io_cursor_left(const struct io_cursor *at)
{
    uint64_t bytes = 0;

    for (unsigned i = at->index; i < at->count; i++)
        bytes += at->spans[i].iov_len;
    return bytes - at->offset;
}

int io_cursor_read(struct vm *vm, const struct io_cursor *at, char *to, uint64_t bytes)
{
    uint64_t skip = at->offset;
    int error = 0;

    for (unsigned i = at->index; i < at->count && bytes && !error; i++, skip = 0) {
        uint64_t piece = at->spans[i].iov_len - skip;

        if (piece > bytes)
            piece = bytes;
        error = guestmem_read(vm, to, (gpa_t)at->spans[i].iov_base + skip, piece);
        to += piece;
        bytes -= piece;
    }
    return error;
}

int io_cursor_write(struct vm *vm, const struct io_cursor *at, const char *from, uint64_t bytes)
{
    uint64_t skip = at->offset;
    int error = 0;

    for (unsigned i = at->index; i < at->count && bytes && !error; i++, skip = 0) {
        uint64_t piece = at->spans[i].iov_len - skip;

        if (piece > bytes)
            piece = bytes;
        error = guestmem_write(vm, (gpa_t)at->spans[i].iov_base + skip, from, piece);
        from += piece;
        bytes -= piece;
    }
    return error;
}

uint64_t io_copy_bytes(const struct io_file *file, const struct io_cursor *at, uint64_t bytes,
                       bool out)
{
    uint64_t left = io_cursor_left(at);

    if (S_ISSOCK(file->type) && !file->stream)
        return bytes;
    if (out)
        return bytes < COPY_MAX_BYTES ? bytes : COPY_MAX_BYTES;
    /* Its least is waited for in one call, however little could be pinned. */
    if (atomic_load(&file->patient))
        return left < GUESTMEM_PIN_MAX ? left : GUESTMEM_PIN_MAX;
    return bytes;
}

bool io_never_waits(const struct io_file *file)
{
    int flags = fcntl(file->fd, F_GETFL);

    return flags >= 0 && flags & O_NONBLOCK;
}

bool io_batch_is_whole(const struct io_batch *batch, const struct io_cursor *at)
{
    return batch->bytes == io_cursor_left(at);
}

void io_cursor_advance(struct io_cursor *at, uint64_t bytes)
{
    while (at->index < at->count && bytes) {
        uint64_t left = at->spans[at->index].iov_len - at->offset;

        if (bytes < left) {
            at->offset += bytes;
            return;
        }
        bytes -= left;
        at->index++;
        at->offset = 0;
    }
}
