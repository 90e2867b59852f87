/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs libfabric's first call, which starts every provider it was built with, in a thread that
 * cannot read /proc/kallsyms. The verbs provider of 1.17 reads that file through twice, 1 KiB a
 * call: 0.2 to 0.4 s of CPU time each for client and worker, a stall of seconds in every connect of
 * a busy host. Landlock bounds a thread alone, so nothing of it is left when the thread is gone;
 * where the host has none, starting is as slow as before.
 */
#include "rdma/fabric_info.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HIDDEN_FOLDER "/proc"
#define HIDDEN_FILE   "kallsyms"

static void allow(int ruleset, const char *folder, const char *name)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = LANDLOCK_ACCESS_FS_READ_FILE};
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    rule.parent_fd = open(path, O_PATH | O_CLOEXEC);
    if (rule.parent_fd < 0)
        return; /* a process that just ended */
    syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    close(rule.parent_fd);
}

/* Landlock only knows what is allowed: everything in the folder but one name. */
static int allow_all_but(int ruleset, const char *folder, const char *hidden)
{
    DIR *entries = opendir(folder[0] ? folder : "/");
    const struct dirent *entry;

    if (!entries)
        return -1;
    while ((entry = readdir(entries)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            strcmp(entry->d_name, hidden) != 0)
            allow(ruleset, folder, entry->d_name);
    }
    closedir(entries);
    return 0;
}

static void hide(void)
{
    struct landlock_ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_READ_FILE};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);

    if (ruleset < 0)
        return;
    if (!allow_all_but(ruleset, "", HIDDEN_FOLDER + 1) &&
        !allow_all_but(ruleset, HIDDEN_FOLDER, HIDDEN_FILE) &&
        !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        syscall(SYS_landlock_restrict_self, ruleset, 0);
    close(ruleset);
}

static void *start_main(void *argument)
{
    void (*const *start)(void) = argument;

    hide();
    (*start)();
    return NULL;
}

void fabric_start_quietly(void (*start)(void))
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, start_main, &start))
        start();
    else
        pthread_join(thread, NULL);
}
