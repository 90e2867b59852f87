/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Is this an ELF file the guest can load, and what does its loading take? Pure functions over bytes
 * somebody else wrote, freestanding: the unikernel's loader uses them, and host-side tests and the
 * fuzzer run the same code.
 */
#ifndef GUEST_ELF_CHECK_H
#define GUEST_ELF_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ELF_PHDR_BYTES   56
#define ELF_PHDRS_MAX    (0x10000 / ELF_PHDR_BYTES) /* as Linux: at most 64 KiB of them */
#define ELF_SEGMENTS_MAX 64

struct elf_header {
    bool dynamic; /* ET_DYN: may be placed anywhere */
    uint64_t entry;
    uint64_t phdrs_offset;
    uint16_t phdr_count;
};

struct elf_segment {
    uint64_t address;
    uint64_t file_offset;
    uint64_t file_bytes;
    uint64_t memory_bytes;
    unsigned protection; /* PROT_* bits */
};

struct elf_plan {
    uint64_t begin, end;   /* of all segments, whole pages */
    uint64_t align_bytes;  /* of the base, at least a page */
    uint64_t phdr_address; /* AT_PHDR before the base is added; 0: not in memory */
    uint64_t interpreter_offset;
    uint32_t interpreter_bytes; /* with its NUL; 0: none */
    bool executable_stack;
    unsigned segment_count;
    struct elf_segment segments[ELF_SEGMENTS_MAX];
};

/* Checks the first bytes of a file. NULL, or what is wrong in a few words. */
const char *elf_header_check(const void *bytes, size_t length, struct elf_header *out);

/*
 * Checks header->phdr_count program headers. file_bytes: length of the file, UINT64_MAX if unknown.
 * NULL, or what is wrong. Segments come out in ascending order and never overlap.
 */
const char *elf_segments_check(const struct elf_header *header, const void *phdrs,
                               uint64_t file_bytes, struct elf_plan *out);

#endif
