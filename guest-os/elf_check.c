/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Validation of ELF headers (System V ABI, chapter 4 and 5; AMD64 supplement). Copies each header
 * once and judges the copy; every sum is checked for overflow.
 */
#include "guest-os/elf_check.h"

#include <elf.h>

#define PAGE            0x1000ULL
#define ADDRESS_LIMIT   0x800000000000ULL /* 47 bits */
#define INTERPRETER_MAX 4096
#define ALIGN_MAX       (1ULL << 30)

_Static_assert(sizeof(Elf64_Phdr) == ELF_PHDR_BYTES, "program header");

static bool ends_within(uint64_t begin, uint64_t bytes, uint64_t limit)
{
    uint64_t end;
    return !__builtin_add_overflow(begin, bytes, &end) && end <= limit;
}

static const char *ident_check(const unsigned char *ident)
{
    if (ident[EI_MAG0] != ELFMAG0 || ident[EI_MAG1] != ELFMAG1 || ident[EI_MAG2] != ELFMAG2 ||
        ident[EI_MAG3] != ELFMAG3)
        return "not an ELF file";
    if (ident[EI_CLASS] != ELFCLASS64)
        return "not a 64-bit program";
    if (ident[EI_DATA] != ELFDATA2LSB)
        return "not a little-endian program";
    if (ident[EI_VERSION] != EV_CURRENT)
        return "unknown ELF version";
    return NULL;
}

const char *elf_header_check(const void *bytes, size_t length, struct elf_header *out)
{
    Elf64_Ehdr header;
    if (length < sizeof(header))
        return "too short for an ELF file";
    __builtin_memcpy(&header, bytes, sizeof(header));
    const char *wrong = ident_check(header.e_ident);
    if (wrong != NULL)
        return wrong;
    if (header.e_machine != EM_X86_64)
        return "not an x86-64 program";
    if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
        return "not an executable";
    if (header.e_phentsize != sizeof(Elf64_Phdr))
        return "wrong size of program headers";
    if (header.e_phnum == 0 || header.e_phnum > ELF_PHDRS_MAX)
        return "impossible number of program headers";
    if (!ends_within(header.e_phoff, (uint64_t)header.e_phnum * ELF_PHDR_BYTES, INT64_MAX))
        return "program headers outside the file";
    out->dynamic = header.e_type == ET_DYN;
    out->entry = header.e_entry;
    out->phdrs_offset = header.e_phoff;
    out->phdr_count = header.e_phnum;
    return NULL;
}

static const char *segment_check(const Elf64_Phdr *phdr, uint64_t file_bytes,
                                 const struct elf_plan *plan)
{
    if (phdr->p_filesz > phdr->p_memsz)
        return "segment larger in the file than in memory";
    if (!ends_within(phdr->p_vaddr, phdr->p_memsz, ADDRESS_LIMIT))
        return "segment outside the address space";
    if (!ends_within(phdr->p_offset, phdr->p_filesz, file_bytes) || phdr->p_offset > INT64_MAX)
        return "segment outside the file";
    if (phdr->p_align > 1 && (phdr->p_align & (phdr->p_align - 1)) != 0)
        return "segment alignment is not a power of two";
    if (phdr->p_align > ALIGN_MAX)
        return "segment alignment is too large";
    if ((phdr->p_vaddr ^ phdr->p_offset) % PAGE != 0)
        return "segment's address and file offset disagree";
    if (plan->segment_count == ELF_SEGMENTS_MAX)
        return "too many segments";
    if (plan->segment_count > 0) {
        const struct elf_segment *last = &plan->segments[plan->segment_count - 1];
        if (phdr->p_vaddr < last->address + last->memory_bytes)
            return "segments overlap or are out of order";
    }
    return NULL;
}

static void segment_add(const Elf64_Phdr *phdr, const struct elf_header *header,
                        struct elf_plan *plan)
{
    uint64_t phdrs_bytes = (uint64_t)header->phdr_count * ELF_PHDR_BYTES;
    struct elf_segment *segment = &plan->segments[plan->segment_count];
    segment->address = phdr->p_vaddr;
    segment->file_offset = phdr->p_offset;
    segment->file_bytes = phdr->p_filesz;
    segment->memory_bytes = phdr->p_memsz;
    segment->protection = (phdr->p_flags & PF_R ? 1u : 0u) | (phdr->p_flags & PF_W ? 2u : 0u) |
                          (phdr->p_flags & PF_X ? 4u : 0u);
    if (plan->segment_count == 0)
        plan->begin = phdr->p_vaddr & ~(PAGE - 1);
    plan->end = (phdr->p_vaddr + phdr->p_memsz + PAGE - 1) & ~(PAGE - 1);
    if (phdr->p_align > plan->align_bytes)
        plan->align_bytes = phdr->p_align;
    if (header->phdrs_offset >= phdr->p_offset &&
        header->phdrs_offset + phdrs_bytes <= phdr->p_offset + phdr->p_filesz)
        plan->phdr_address = phdr->p_vaddr + (header->phdrs_offset - phdr->p_offset);
    plan->segment_count++;
}

static const char *interpreter_check(const Elf64_Phdr *phdr, uint64_t file_bytes,
                                     struct elf_plan *plan)
{
    if (plan->interpreter_bytes != 0)
        return "more than one interpreter";
    if (phdr->p_filesz < 2 || phdr->p_filesz > INTERPRETER_MAX)
        return "impossible interpreter path";
    if (!ends_within(phdr->p_offset, phdr->p_filesz, file_bytes) || phdr->p_offset > INT64_MAX)
        return "interpreter path outside the file";
    plan->interpreter_offset = phdr->p_offset;
    plan->interpreter_bytes = (uint32_t)phdr->p_filesz;
    return NULL;
}

static bool entry_is_code(const struct elf_header *header, const struct elf_plan *plan)
{
    for (unsigned i = 0; i < plan->segment_count; i++) {
        const struct elf_segment *segment = &plan->segments[i];
        if (header->entry - segment->address < segment->memory_bytes)
            return (segment->protection & 4) != 0;
    }
    return false;
}

static const char *phdr_check(const Elf64_Phdr *phdr, const struct elf_header *header,
                              uint64_t file_bytes, struct elf_plan *out)
{
    const char *wrong = NULL;
    switch (phdr->p_type) {
    case PT_LOAD:
        if (phdr->p_memsz == 0)
            break;
        wrong = segment_check(phdr, file_bytes, out);
        if (wrong == NULL)
            segment_add(phdr, header, out);
        break;
    case PT_INTERP:
        wrong = interpreter_check(phdr, file_bytes, out);
        break;
    case PT_GNU_STACK:
        out->executable_stack = (phdr->p_flags & PF_X) != 0;
        break;
    default:
        break;
    }
    return wrong;
}

const char *elf_segments_check(const struct elf_header *header, const void *phdrs,
                               uint64_t file_bytes, struct elf_plan *out)
{
    out->begin = 0;
    out->end = 0;
    out->align_bytes = PAGE;
    out->phdr_address = 0;
    out->interpreter_offset = 0;
    out->interpreter_bytes = 0;
    out->executable_stack = false;
    out->segment_count = 0;
    for (unsigned i = 0; i < header->phdr_count; i++) {
        Elf64_Phdr phdr;
        __builtin_memcpy(&phdr, (const char *)phdrs + (size_t)i * ELF_PHDR_BYTES, sizeof(phdr));
        const char *wrong = phdr_check(&phdr, header, file_bytes, out);
        if (wrong != NULL)
            return wrong;
    }
    if (out->segment_count == 0)
        return "nothing to load";
    if (!entry_is_code(header, out))
        return "entry point outside the program's code";
    return NULL;
}
