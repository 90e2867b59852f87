/* SPDX-License-Identifier: Apache-2.0 */
/* Files and directories in the current directory: the calls programs make, with their errors. */
#include "guest.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>

static void write_file(const char *name, const char *text)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    EXPECT(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
}

static void expect_content(const char *name, const char *text)
{
    char found[256] = "";
    int fd = open(name, O_RDONLY);
    EXPECT(fd >= 0 && read(fd, found, sizeof found - 1) == (ssize_t)strlen(text));
    EXPECT(strcmp(found, text) == 0 && close(fd) == 0);
}

static int count_entries(const char *name)
{
    int count = 0;
    DIR *directory = opendir(name);
    EXPECT(directory);
    while (readdir(directory))
        count++;
    EXPECT(closedir(directory) == 0);
    return count;
}

int main(void)
{
    struct stat info;
    char path[4096];
    char name[64];

    EXPECT(getcwd(path, sizeof path) == path && path[0] == '/');
    EXPECT(mkdir("files.tmp", 0750) == 0 && chdir("files.tmp") == 0);
    EXPECT(mkdir(".", 0700) == -1 && errno == EEXIST);
    write_file("a", "first");
    expect_content("a", "first");
    EXPECT(stat("a", &info) == 0 && info.st_size == 5 && (info.st_mode & 0777) == 0640);
    EXPECT(rename("a", "b") == 0 && access("a", F_OK) == -1 && errno == ENOENT);
    EXPECT(link("b", "c") == 0 && symlink("b", "d") == 0);
    EXPECT(stat("c", &info) == 0 && info.st_nlink == 2);
    EXPECT(lstat("d", &info) == 0 && S_ISLNK(info.st_mode));
    EXPECT(readlink("d", path, sizeof path) == 1 && path[0] == 'b');
    expect_content("d", "first");

    int fd = open("b", O_RDWR | O_APPEND | O_CLOEXEC);
    EXPECT(fd >= 0 && write(fd, " second", 7) == 7);
    EXPECT(lseek(fd, 6, SEEK_SET) == 6 && read(fd, path, 6) == 6 && memcmp(path, "second", 6) == 0);
    EXPECT(ftruncate(fd, 5) == 0 && fstat(fd, &info) == 0 && info.st_size == 5);
    EXPECT(fcntl(fd, F_GETFD) == FD_CLOEXEC && (fcntl(fd, F_GETFL) & O_APPEND));
    int copy = dup(fd);
    EXPECT(copy > fd && dup2(fd, 77) == 77 && close(77) == 0 && close(copy) == 0);
    EXPECT(fsync(fd) == 0 && close(fd) == 0 && close(fd) == -1 && errno == EBADF);

    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "file-with-a-longer-name-%04d", i);
        write_file(name, name);
    }
    EXPECT(count_entries(".") == 505);
    for (int i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "file-with-a-longer-name-%04d", i);
        EXPECT(unlink(name) == 0);
    }
    EXPECT(unlink("b") == 0 && unlink("c") == 0 && unlink("d") == 0);
    EXPECT(open("b/c", O_RDONLY) == -1 && errno == ENOENT);
    EXPECT(open(".", O_WRONLY) == -1 && errno == EISDIR);
    EXPECT(chdir("..") == 0 && rmdir("files.tmp") == 0);
    EXPECT(read(0, path, 0) == 0 || errno == EBADF);
    return guest_passed("files");
}
