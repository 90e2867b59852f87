/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main() of a fuzz target without libFuzzer: feeds it every file named on the command line, or
 * found in a directory named there, and ends with how many there were. `make check` replays the
 * corpus this way, so that what fuzzing once found stays found.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static int replay_file(const char *path, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    /* Exactly sized, so that a sanitizer sees a read past the end. */
    uint8_t *data = malloc(bytes ? bytes : 1);

    if (!file || !data || fread(data, 1, bytes, file) != bytes) {
        fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    fclose(file);
    LLVMFuzzerTestOneInput(data, bytes);
    free(data);
    return 1;
}

static int replay_path(const char *path)
{
    struct stat info;
    struct dirent *entry;
    char child[4096];
    int count = 0;

    if (stat(path, &info)) {
        fprintf(stderr, "replay: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    if (!S_ISDIR(info.st_mode))
        return replay_file(path, (size_t)info.st_size);
    DIR *directory = opendir(path);
    while (directory && (entry = readdir(directory))) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
        count += replay_path(child);
    }
    if (directory)
        closedir(directory);
    return count;
}

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++)
        count += replay_path(argv[i]);
    printf("%d inputs\n", count);
    return count ? 0 : 1;
}
