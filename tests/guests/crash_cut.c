/* SPDX-License-Identifier: Apache-2.0 */
/* Dies of a wild store while its own file's symbols come and go. usage: crash_cut FILE, its own. */
#include "guest.h"

#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE   4096
#define ROUNDS 50 /* before it dies */

static atomic_int rounds;

/* What follows the loaded part: symbols, lines, the section table. */
static size_t loaded_bytes(const char *file)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)(const void *)file;
    const Elf64_Phdr *segments = (const Elf64_Phdr *)(const void *)(file + header->e_phoff);
    size_t most = 0;
    for (int i = 0; i < header->e_phnum; i++) {
        size_t end = segments[i].p_offset + segments[i].p_filesz;
        if (segments[i].p_type == PT_LOAD && end > most)
            most = end;
    }
    return (most + PAGE - 1) / PAGE * PAGE;
}

static void *cut(void *argument)
{
    int fd = open(argument, O_RDWR);
    struct stat status;
    EXPECT(fd >= 0 && fstat(fd, &status) == 0);
    size_t bytes = (size_t)status.st_size;
    char *file = malloc(bytes);
    EXPECT(file != NULL && pread(fd, file, bytes, 0) == status.st_size);
    size_t kept = loaded_bytes(file);
    EXPECT(kept < bytes);
    for (;;) {
        EXPECT(ftruncate(fd, (off_t)kept) == 0);
        usleep(500);
        EXPECT(pwrite(fd, file + kept, bytes - kept, (off_t)kept) == (ssize_t)(bytes - kept));
        usleep(500);
        atomic_fetch_add(&rounds, 1);
    }
    return argument;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    EXPECT(argc == 2 && pthread_create(&thread, NULL, cut, argv[1]) == 0);
    while (atomic_load(&rounds) < ROUNDS)
        usleep(1000);
    *(volatile int *)(uintptr_t)0x123450 = 1;
    return 0;
}
