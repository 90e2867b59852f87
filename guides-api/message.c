/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages to the person at the terminal: one line each, on standard error, in a single write(2) so
 * that lines of several threads and of the guest never mix. Text may quote file names or peers'
 * words, so control characters are replaced: a message can neither span lines nor drive the
 * terminal. Callable from any thread; errno is kept, so callers may print first and return errno.
 */
#include "support.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MESSAGE_LINE_BYTES 1024

static const char *message_program = "farvisor";
static enum message_level message_level = MESSAGE_NORMAL;
static atomic_uint message_error_count;

void message_init(const char *program, enum message_level level)
{
    message_program = program;
    message_level = level;
}

/* Writes all of it, or gives up silently: there is nowhere left to complain. */
static void message_write(const char *line, size_t bytes)
{
    while (bytes > 0) {
        ssize_t written = write(STDERR_FILENO, line, bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        line += written;
        bytes -= (size_t)written;
    }
}

/* Length of the text snprintf left in a buffer of `bytes`, given its return value. */
static size_t message_fitted(int length, size_t bytes)
{
    if (length < 0)
        return 0;
    return (size_t)length < bytes ? (size_t)length : bytes - 1;
}

static void message_print(const char *format, va_list arguments)
{
    int kept_errno = errno;
    char line[MESSAGE_LINE_BYTES];
    size_t room = sizeof(line) - 1; /* the newline always fits */
    size_t used = message_fitted(snprintf(line, room, "%s: ", message_program), room);
    int length = vsnprintf(line + used, room - used, format, arguments);

    used += message_fitted(length, room - used);
    for (size_t i = 0; i < used; i++) {
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    }
    line[used++] = '\n';
    message_write(line, used);
    errno = kept_errno;
}

void message_error(const char *format, ...)
{
    va_list arguments;

    atomic_fetch_add_explicit(&message_error_count, 1, memory_order_relaxed);
    va_start(arguments, format);
    message_print(format, arguments);
    va_end(arguments);
}

unsigned message_errors(void)
{
    return atomic_load_explicit(&message_error_count, memory_order_relaxed);
}

void message_warning(const char *format, ...)
{
    va_list arguments;

    if (message_level == MESSAGE_QUIET)
        return;
    va_start(arguments, format);
    message_print(format, arguments);
    va_end(arguments);
}

void message_info(const char *format, ...)
{
    va_list arguments;

    if (message_level != MESSAGE_VERBOSE)
        return;
    va_start(arguments, format);
    message_print(format, arguments);
    va_end(arguments);
}

_Noreturn void fv_assert_failed(const char *condition, const char *file, int line)
{
    message_error("%s:%d: assertion failed: %s (a bug in this program: please report it)", file,
                  line, condition);
    abort();
}
