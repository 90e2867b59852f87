/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V shared memory within one process: made, found by key, attached twice, removed while
 * attached. What postgres and fio ask for before they do anything else.
 */
#include "guest.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

#define BYTES ((size_t)5 * 4096 + 100) /* not whole pages */
#define NONE  ((void *)-1)

static struct shmid_ds stat_of(int id)
{
    struct shmid_ds stat;
    EXPECT(shmctl(id, IPC_STAT, &stat) == 0);
    return stat;
}

/* One segment at two places, one of them chosen; a thread writes through the other. */
static void *write_there(void *place)
{
    memset((char *)place + 4096, 'w', 4096);
    return NULL;
}

static void attached_twice(void)
{
    int id = shmget(IPC_PRIVATE, BYTES, IPC_CREAT | 0600);
    char *one = shmat(id, NULL, 0), *other;
    char *room = mmap(NULL, 16 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_t thread;
    EXPECT(id >= 0 && one != NONE && room != MAP_FAILED);
    for (size_t i = 0; i < 6 * 4096; i++)
        EXPECT(one[i] == 0);
    EXPECT(shmat(id, room, 0) == NONE && errno == EINVAL); /* something is there */
    EXPECT(shmat(id, room + 100, SHM_REMAP) == NONE && errno == EINVAL);
    EXPECT(shmat(id, NULL, SHM_REMAP) == NONE && errno == EINVAL);
    other = shmat(id, room + 4096 + 100, SHM_REMAP | SHM_RND);
    EXPECT(other == room + 4096);
    EXPECT(pthread_create(&thread, NULL, write_there, other) == 0 && !pthread_join(thread, NULL));
    EXPECT(one[4095] == 0 && one[4096] == 'w' && one[8191] == 'w' && one[8192] == 0);
    EXPECT(stat_of(id).shm_nattch == 2 && stat_of(id).shm_segsz == BYTES);
    EXPECT(stat_of(id).shm_cpid == getpid() && stat_of(id).shm_lpid == getpid());
    EXPECT(shmdt(one + 4096) == -1 && errno == EINVAL);
    EXPECT(shmdt(one) == 0 && shmdt(one) == -1 && errno == EINVAL);
    other[0] = 'k';
    EXPECT(shmdt(other) == 0 && stat_of(id).shm_nattch == 0);
    /* What was written stays without anybody attached, and cannot be written through this: */
    one = shmat(id, NULL, SHM_RDONLY);
    EXPECT(one != NONE && one[0] == 'k' && one[4096] == 'w');
    EXPECT(shmdt(one) == 0 && shmctl(id, IPC_RMID, NULL) == 0);
    EXPECT(shmat(id, NULL, 0) == NONE && errno == EINVAL);
    EXPECT(shmctl(id, IPC_RMID, NULL) == -1 && errno == EINVAL);
    EXPECT(munmap(room, 16 * 4096) == 0);
}

/* Goes with its last place, and until then by its number alone. */
static void removed_while_attached(void)
{
    key_t key = 0x5eed0000 | (getpid() & 0xffff);
    int id = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600), other;
    EXPECT(id >= 0 && shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600) == -1 && errno == EEXIST);
    EXPECT(shmget(key, 1000, 0) == id && shmget(key, 0, IPC_CREAT) == id);
    EXPECT(shmget(key, 4097, 0) == -1 && errno == EINVAL);
    int *place = shmat(id, NULL, 0), *second;
    EXPECT(place != NONE);
    *place = 77;
    EXPECT(shmctl(id, IPC_RMID, NULL) == 0 && stat_of(id).shm_perm.mode & SHM_DEST);
    EXPECT(shmget(key, 4096, 0) == -1 && errno == ENOENT);
    second = shmat(id, NULL, 0);
    EXPECT(second != NONE && *second == 77);
    other = shmget(key, 4096, IPC_CREAT | 0600);
    EXPECT(other >= 0 && other != id && shmctl(other, IPC_RMID, NULL) == 0);
    EXPECT(shmdt(place) == 0 && *second == 77 && shmdt(second) == 0);
    EXPECT(shmctl(id, IPC_STAT, &(struct shmid_ds){0}) == -1 && errno == EINVAL);
}

/* Cut and unmapped as any memory is. */
static void used_as_memory(void)
{
    int id = shmget(IPC_PRIVATE, 8 * 4096, IPC_CREAT | 0600), out[2];
    char *place = shmat(id, NULL, 0), byte;
    EXPECT(id >= 0 && place != NONE && pipe(out) == 0);
    EXPECT(write(out[1], "x", 1) == 1 && read(out[0], place + 5 * 4096, 1) == 1);
    EXPECT(write(out[1], place + 5 * 4096, 1) == 1 && read(out[0], &byte, 1) == 1 && byte == 'x');
    EXPECT(mprotect(place + 4096, 4096, PROT_READ) == 0 && stat_of(id).shm_nattch == 3);
    EXPECT(munmap(place + 2 * 4096, 4096) == 0 && stat_of(id).shm_nattch == 3);
    EXPECT(shmdt(place) == 0 && stat_of(id).shm_nattch == 0);
    EXPECT(write(out[1], place + 5 * 4096, 1) == -1 && errno == EFAULT);
    EXPECT(shmctl(id, IPC_RMID, NULL) == 0 && close(out[0]) == 0 && close(out[1]) == 0);
}

/* What was attached to be read is not made writable, by whatever way; what is not is. */
static void read_only(void)
{
    int id = shmget(IPC_PRIVATE, 2 * 4096, IPC_CREAT | 0600), ends[2];
    char *place = shmat(id, NULL, 0), *other = shmat(id, NULL, SHM_RDONLY), *moved, *room;
    EXPECT(id >= 0 && place != NONE && other != NONE && pipe(ends) == 0);
    EXPECT(mprotect(other, 4096, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
    EXPECT(mprotect(other, 8192, PROT_NONE) == 0 && mprotect(other, 8192, PROT_READ) == 0);
    EXPECT(madvise(other, 4096, MADV_REMOVE) == -1 && errno == EACCES);
    EXPECT(write(ends[1], "x", 1) == 1 && read(ends[0], other, 1) == -1 && errno == EFAULT);
    room = mmap(NULL, 2 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    moved = mremap(other, 2 * 4096, 2 * 4096, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    EXPECT(moved == room && stat_of(id).shm_nattch == 2);
    EXPECT(mprotect(moved, 4096, PROT_READ | PROT_WRITE) == -1 && errno == EACCES);
    EXPECT(mprotect(place, 4096, PROT_READ) == 0);
    EXPECT(mprotect(place, 4096, PROT_READ | PROT_WRITE) == 0);
    place[0] = 'p';
    EXPECT(moved[0] == 'p' && shmdt(other) == -1 && errno == EINVAL);
    EXPECT(shmdt(place) == 0 && moved[0] == 'p' && stat_of(id).shm_nattch == 1);
    EXPECT(shmctl(id, IPC_RMID, NULL) == 0 && shmdt(moved) == 0);
    EXPECT(shmctl(id, IPC_STAT, &(struct shmid_ds){0}) == -1 && errno == EINVAL);
    EXPECT(close(ends[0]) == 0 && close(ends[1]) == 0);
}

/* A removed segment goes with its last part, whatever takes that: its room is the next one's. */
static void room_of_removed(void)
{
    size_t bytes = (size_t)192 << 20; /* of 256 MiB */
    for (int i = 0; i < 6; i++) {
        int id = shmget(IPC_PRIVATE, bytes, IPC_CREAT | 0600);
        char *place = shmat(id, NULL, i % 2 ? SHM_RDONLY : 0);
        EXPECT(id >= 0 && place != NONE && place[0] == 0 && place[bytes - 1] == 0);
        if (i % 2 == 0)
            memset(place + bytes - 4096, 'o', 4096);
        EXPECT(shmctl(id, IPC_RMID, NULL) == 0 && shmctl(id, IPC_RMID, NULL) == 0);
        if (i < 2) {
            EXPECT(munmap(place, bytes) == 0);
        } else if (i < 4) {
            EXPECT(mmap(place, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
                   place);
            EXPECT(place[bytes - 1] == 0 && munmap(place, bytes) == 0);
        } else {
            EXPECT(munmap(place, 4096) == 0 && stat_of(id).shm_nattch == 1);
            EXPECT(shmdt(place) == 0); /* the rest lies where it would if all were there */
        }
        EXPECT(shmctl(id, IPC_STAT, &(struct shmid_ds){0}) == -1 && errno == EINVAL);
    }
}

static atomic_int over;

static void *flush(void *place)
{
    while (!atomic_load(&over))
        EXPECT(msync(place, 4096, MS_SYNC) == 0);
    return NULL;
}

/* What another thread asks of the memory is no attachment. */
static void counted_while_used(void)
{
    int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
    char *place = shmat(id, NULL, 0);
    pthread_t thread;
    EXPECT(id >= 0 && place != NONE);
    EXPECT(pthread_create(&thread, NULL, flush, place) == 0);
    for (int i = 0; i < 5000; i++)
        EXPECT(stat_of(id).shm_nattch == 1);
    atomic_store(&over, 1);
    EXPECT(pthread_join(thread, NULL) == 0 && shmdt(place) == 0);
    EXPECT(shmctl(id, IPC_RMID, NULL) == 0);
}

static void *attach_again_and_again(void *argument)
{
    int id = *(int *)argument;
    for (int i = 0; i < 300; i++) {
        unsigned char *place = shmat(id, NULL, i % 3 ? 0 : SHM_RDONLY);
        EXPECT(place != NONE && place[0] == 0xab && place[2 * 4096] == 0);
        EXPECT(i % 2 ? shmdt(place) == 0 : munmap(place, 3 * 4096) == 0);
    }
    return NULL;
}

/* By many threads, of a segment that is removed meanwhile; all but one attachment is theirs. */
static void many_threads(void)
{
    int id = shmget(IPC_PRIVATE, 3 * 4096, IPC_CREAT | 0600);
    unsigned char *place = shmat(id, NULL, 0);
    pthread_t threads[4];
    EXPECT(id >= 0 && place != NONE);
    place[0] = 0xab;
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_create(&threads[i], NULL, attach_again_and_again, &id) == 0);
    usleep(5000);
    EXPECT(shmctl(id, IPC_RMID, NULL) == 0);
    for (int i = 0; i < 4; i++)
        EXPECT(pthread_join(threads[i], NULL) == 0);
    EXPECT(place[0] == 0xab && stat_of(id).shm_nattch == 1 && shmdt(place) == 0);
    EXPECT(shmat(id, NULL, 0) == NONE && errno == EINVAL);
}

static void refused(void)
{
    struct shmid_ds change;
    int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
    EXPECT(shmget(IPC_PRIVATE, 0, IPC_CREAT | 0600) == -1 && errno == EINVAL);
    EXPECT(shmget(0x7fffbeef, 4096, 0) == -1 && errno == ENOENT);
    EXPECT(shmat(-1, NULL, 0) == NONE && errno == EINVAL);
    EXPECT(shmat(id, (void *)100, SHM_REMAP | SHM_RND) == NONE && errno == EINVAL);
    EXPECT(shmat(id, (void *)-4096, 0) == NONE && errno == EINVAL);
    EXPECT(shmctl(id, 12345, NULL) == -1 && errno == EINVAL);
    EXPECT(shmctl(id, IPC_STAT, (struct shmid_ds *)8) == -1 && errno == EFAULT);
    change = stat_of(id);
    EXPECT(change.shm_perm.uid == geteuid() && change.shm_perm.mode == 0600);
    change.shm_perm.uid = (uid_t)-1;
    EXPECT(shmctl(id, IPC_SET, &change) == -1 && errno == EINVAL);
    change.shm_perm.uid = geteuid();
    change.shm_perm.mode = 0640;
    EXPECT(shmctl(id, IPC_SET, &change) == 0 && stat_of(id).shm_perm.mode == 0640);
    EXPECT(shmctl(id, SHM_LOCK, NULL) == 0 && shmctl(id, SHM_UNLOCK, NULL) == 0);
    EXPECT(shmctl(id, IPC_RMID, NULL) == 0);
}

int main(void)
{
    attached_twice();
    removed_while_attached();
    used_as_memory();
    read_only();
    room_of_removed();
    counted_while_used();
    many_threads();
    refused();
    return guest_passed("sysv_shm");
}
