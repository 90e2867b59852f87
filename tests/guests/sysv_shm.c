/* SPDX-License-Identifier: Apache-2.0 */
/*
 * System V shared memory within one process: made, found by key, attached twice, removed while
 * attached. What postgres and fio ask for before they do anything else.
 */
#include "guest.h"

#include <pthread.h>
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

static void refused(void)
{
    struct shmid_ds change;
    int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600);
    EXPECT(shmget(IPC_PRIVATE, 0, IPC_CREAT | 0600) == -1 && errno == EINVAL);
    EXPECT(shmget(0x7fffbeef, 4096, 0) == -1 && errno == ENOENT);
    EXPECT(shmat(-1, NULL, 0) == NONE && errno == EINVAL);
    EXPECT(shmctl(id, 12345, NULL) == -1 && errno == EINVAL);
    EXPECT(shmctl(id, IPC_STAT, (struct shmid_ds *)8) == -1 && errno == EFAULT);
    change = stat_of(id);
    EXPECT(change.shm_perm.uid == geteuid() && change.shm_perm.mode == 0600);
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
    refused();
    return guest_passed("sysv_shm");
}
