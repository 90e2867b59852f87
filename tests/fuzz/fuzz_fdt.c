/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the guest kernel's reading of its device tree. Input: a flattened tree. Whatever it
 * takes is complete, and every string and length lies within the tree.
 */
#include "guest-os/kernel.h"

#include <libfdt.h>
#include <setjmp.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* What the reader needs of the rest of the kernel. */
struct process process;
static jmp_buf refused;

_Noreturn void boot_fail(const char *what, const char *why)
{
    if (what == NULL || why == NULL)
        abort();
    longjmp(refused, 1);
}

static void require(bool promise)
{
    if (!promise)
        abort();
}

static void require_strings(const char *strings, size_t length, const uint8_t *tree, size_t bytes)
{
    const char *begin = (const char *)tree;
    require(length > 0 && strings >= begin && length <= bytes);
    require((size_t)(strings - begin) <= bytes - length && strings[length - 1] == '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct program program;
    if (bytes < sizeof(struct fdt_header) || fdt_totalsize(data) > bytes)
        return 0; /* in a guest the whole region is there */
    /* Aligned as in a guest, and exactly sized, so that a sanitizer sees a read past the end. */
    uint8_t *tree = malloc(bytes);
    require(tree != NULL);
    memcpy(tree, data, bytes);
    if (setjmp(refused) == 0) {
        devicetree_read(tree, &program);
        require_strings(program.path, strlen(program.path) + 1, tree, bytes);
        require_strings(program.argv, program.argv_bytes, tree, bytes);
        if (program.envp != NULL)
            require_strings(program.envp, program.envp_bytes, tree, bytes);
        require(program.random >= tree && program.random + 16 <= tree + bytes);
    }
    free(tree);
    return 0;
}
