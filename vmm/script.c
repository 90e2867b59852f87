/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scripts: a program whose first line is "#!interpreter [argument]" runs as the interpreter with
 * the script's path put into its arguments, as fs/binfmt_script.c does it. Main thread.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 256u /* as BINPRM_BUF_SIZE */

/*
 * Splits "#!interpreter [one argument]" in place. Linux passes the rest of the line as one
 * argument, whatever blanks it has. Returns false when there is no interpreter in it.
 */
static bool script_split(char *line, char **interpreter, char **argument)
{
    line[strcspn(line, "\n")] = '\0';
    for (size_t end = strlen(line); end && strchr(" \t", line[end - 1]); end--)
        line[end - 1] = '\0';
    *interpreter = line + 2 + strspn(line + 2, " \t");
    *argument = *interpreter + strcspn(*interpreter, " \t");
    if (**argument) {
        *(*argument)++ = '\0';
        *argument += strspn(*argument, " \t");
    }
    return **interpreter;
}

/*
 * "#!/usr/bin/env NAME" means NAME from PATH. env itself would have to execve, which a guest
 * cannot, so its work is done here; any other use of env is left to it, and to its error.
 */
static void env_skip(char **interpreter, char **argument)
{
    const char *slash = strrchr(*interpreter, '/');
    if (strcmp(slash ? slash + 1 : *interpreter, "env") != 0 || !**argument || **argument == '-' ||
        strpbrk(*argument, "= \t"))
        return;
    *interpreter = *argument;
    *argument += strlen(*argument);
}

/* argv becomes: interpreter, its argument if any, the script, the script's own arguments. */
static int arguments_put(struct program *program, const char *interpreter, const char *argument,
                         const char *script)
{
    size_t count = 0, at = 0;
    while (program->argv[count])
        count++;
    char **argv = calloc(count + 4, sizeof(*argv));
    if (!argv)
        return -ENOMEM;
    argv[at++] = strdup(interpreter);
    if (*argument)
        argv[at++] = strdup(argument);
    argv[at++] = strdup(script);
    for (size_t i = 1; i < count; i++)
        argv[at++] = strdup(program->argv[i]);
    program_arguments_free(program);
    program->argv = argv;
    for (size_t i = 0; i < at; i++) {
        if (!argv[i])
            return -ENOMEM;
    }
    return 0;
}

int script_follow(int fd, const char *script, struct program *program, char **interpreter)
{
    char line[LINE_BYTES], *name, *argument;
    ssize_t bytes = pread(fd, line, sizeof(line) - 1, 0);
    if (bytes < 2 || line[0] != '#' || line[1] != '!')
        return 0;
    line[bytes] = '\0';
    if (!script_split(line, &name, &argument))
        return -ENOEXEC;
    env_skip(&name, &argument);
    int error = arguments_put(program, name, argument, script);
    *interpreter = error ? NULL : strdup(name);
    return error ? error : *interpreter ? 1 : -ENOMEM;
}
