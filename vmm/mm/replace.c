/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings that are replaced while other threads use them (MAP_FIXED over what is there, mremap):
 * on Linux mmap_lock makes that one step. Here the old contents have to be gone before the new
 * mapping is laid, which may take round trips to the memory node, with `table` free meanwhile. What
 * keeps it one step for the program, for each range that a call replaces or moves away:
 *
 *   open   -> hidden  mm_replace_begin: under `table`, before anything is taken away
 *   hidden -> open    mm_replace_end: the new mapping is in the table with its rights, or none is
 *
 * The race: a vCPU faults, or another thread's system call asks for rights, while the range is
 * hidden. Nobody may tell from the table then. Who asks waits for `replace`, which is held for
 * writing as long as something is hidden, and looks again while it holds it for reading: the next
 * replacement cannot begin before. Its answer is of a moment before or after, never between.
 * (glibc's rwlock lets readers that wait have their turn when a writer ends, so a thread that maps
 * again and again keeps nobody waiting for ever.)
 *
 * And a request that came before, whose host call has the addresses in its hands, is waited for
 * (mm_use_begin): it would meet neither the old nor the new pages. It says what it uses before it
 * asks for rights, and a replacement hides its range before it looks who uses it: so either it is
 * seen, or it sees. Such a host call waits for no peer (io/batch.c), for a disk at most; after
 * USERS_WAIT_NS it is not waited for any longer, and goes on with zeroes or ends with EFAULT.
 *
 * Who must not wait is told that nothing is there:
 *   - whoever replaces, for its own discards and copies pin pages: it sees the table as it is;
 *   - a thread that whoever replaces may wait for (vcpu->holds_pins): it lets go and asks again
 *     (io/batch.c), or gives up (guides/pins.c);
 *   - threads that are no vCPU's: what they do is advice, or done again by a vCPU (fault/events.c);
 *   - the poller: it hands the request back.
 */
#include "vmm/mm/internal.h"

#include "support.h"

#include <time.h>

#define USERS_WAIT_NS  2000000000ULL
#define USERS_SLICE_NS 20000L

static bool is_hidden(const struct mm *mm, gpa_t start, gpa_t end)
{
    if (!mm->hiding || mm->replacer == vcpu_self())
        return false;
    for (unsigned i = 0; i < MM_HIDDEN; i++)
        if (mm->hidden[i].start < end && start < mm->hidden[i].end)
            return true;
    return false;
}

/* ---- who uses what ---- */

/*
 * The end first: who reads a start finds its end. A reader in between sees the range without its
 * newest piece, for which rights are asked afterwards.
 */
void mm_use_begin(struct vcpu *self, gpa_t start, gpa_t end)
{
    if (!self)
        return;
    gpa_t from = atomic_load(&self->used_from);
    if (!from || atomic_load(&self->used_to) < end)
        atomic_store(&self->used_to, end);
    if (!from || start < from)
        atomic_store(&self->used_from, start);
}

void mm_use_end(struct vcpu *self)
{
    if (!self)
        return;
    atomic_store(&self->used_from, 0);
    atomic_fetch_add(&self->used_turn, 1);
}

static bool uses(const struct vcpu *vcpu, struct mm_range range)
{
    gpa_t from = vcpu ? atomic_load(&vcpu->used_from) : 0;
    gpa_t to = from ? atomic_load(&vcpu->used_to) : 0;
    return range.start < to && from < range.end;
}

/*
 * Until the use that was seen has ended: what its thread uses next it asks for later, and then its
 * own pieces are not of the range, though what lies between them may be.
 */
static bool user_wait(const struct mm *mm, const struct vcpu *vcpu, struct mm_range range,
                      uint64_t until_ns)
{
    static const struct timespec slice = {.tv_nsec = USERS_SLICE_NS};
    uint32_t turn = vcpu ? atomic_load(&vcpu->used_turn) : 0;
    while (uses(vcpu, range) && atomic_load(&vcpu->used_turn) == turn) {
        if (atomic_load(&mm->vm->ending) || clock_now_ns() >= until_ns)
            return false;
        nanosleep(&slice, NULL);
    }
    return true;
}

bool mm_users_wait(const struct mm *mm, struct mm_range range)
{
    const struct vm *vm = mm->vm;
    uint64_t until_ns = clock_now_ns() + USERS_WAIT_NS;
    uint32_t count = atomic_load(&vm->vcpu_count);
    bool ended = user_wait(mm, poller_vcpu(vm), range, until_ns);
    for (uint32_t i = 0; i < count; i++)
        ended &= user_wait(mm, vm->vcpus[i], range, until_ns);
    return ended;
}

/* ---- replacing ---- */

static bool may_wait(void)
{
    struct vcpu *self = vcpu_self();
    if (!self || self->holds_pins)
        return false;
    if (!self->at_once || self->committed)
        return true;
    self->handed_back = true;
    return false;
}

void mm_replace_begin(struct mm *mm, struct mm_range target, struct mm_range source)
{
    pthread_rwlock_wrlock(&mm->replace);
    pthread_rwlock_wrlock(&mm->table);
    mm->hidden[0] = target;
    mm->hidden[1] = source;
    mm->replacer = vcpu_self();
    mm->hiding = true;
    pthread_rwlock_unlock(&mm->table);
    (void)mm_users_wait(mm, target);
    (void)mm_users_wait(mm, source);
}

void mm_replace_end(struct mm *mm)
{
    pthread_rwlock_wrlock(&mm->table);
    mm->hiding = false;
    pthread_rwlock_unlock(&mm->table);
    pthread_rwlock_unlock(&mm->replace);
}

/* ---- looking ---- */

enum mm_look mm_look_begin(struct mm *mm, gpa_t start, gpa_t end)
{
    pthread_rwlock_rdlock(&mm->table);
    if (!is_hidden(mm, start, end))
        return MM_LOOK_AT_ONCE;
    pthread_rwlock_unlock(&mm->table);
    if (!may_wait())
        return MM_LOOK_REFUSED;
    pthread_rwlock_rdlock(&mm->replace);
    pthread_rwlock_rdlock(&mm->table);
    return MM_LOOK_WAITED;
}

void mm_look_end(struct mm *mm, enum mm_look look)
{
    if (look != MM_LOOK_REFUSED)
        pthread_rwlock_unlock(&mm->table);
    if (look == MM_LOOK_WAITED)
        pthread_rwlock_unlock(&mm->replace);
}

bool mm_is_replaced(const struct mm *mm, gpa_t gpa)
{
    return is_hidden(mm, gpa, gpa + 1);
}

bool mm_source_replaced(void *owner, uint64_t page)
{
    struct mm *mm = owner;
    gpa_t gpa = page << EPT_PAGE_SHIFT;
    enum mm_look look = mm_look_begin(mm, gpa, gpa + EPT_PAGE_BYTES);
    bool found = look != MM_LOOK_REFUSED && mm_find(mm, gpa);
    mm_look_end(mm, look);
    return found && !atomic_load(&mm->vm->ending);
}
