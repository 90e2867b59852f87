/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzz target: the guest loader's ELF checks. Input: an ELF file's bytes. Beyond "does not crash":
 * whatever is accepted keeps every promise elf_check.h makes, which the loader relies on.
 */
#include "guest-os/elf_check.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void require(bool promise)
{
    if (!promise)
        abort();
}

static void plan_check(const struct elf_plan *plan, size_t bytes)
{
    uint64_t end = plan->begin;
    bool code = false;
    require(plan->segment_count > 0 && plan->segment_count <= ELF_SEGMENTS_MAX);
    require(plan->begin % 4096 == 0 && plan->end % 4096 == 0 && plan->begin < plan->end);
    require(plan->end <= 1ULL << 47);
    require(plan->align_bytes >= 4096 && (plan->align_bytes & (plan->align_bytes - 1)) == 0);
    for (unsigned i = 0; i < plan->segment_count; i++) {
        const struct elf_segment *segment = &plan->segments[i];
        require(segment->address >= end && segment->memory_bytes > 0);
        end = segment->address + segment->memory_bytes;
        require(end <= plan->end);
        require(segment->file_bytes <= segment->memory_bytes);
        require(segment->file_offset <= bytes &&
                segment->file_bytes <= bytes - segment->file_offset);
        require((segment->file_offset ^ segment->address) % 4096 == 0);
        code |= (segment->protection & 4) != 0;
    }
    require(code);
    if (plan->interpreter_bytes != 0)
        require(plan->interpreter_offset <= bytes &&
                plan->interpreter_bytes <= bytes - plan->interpreter_offset);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct elf_plan plan;
    struct elf_header header;
    if (elf_header_check(data, bytes, &header) != NULL)
        return 0;
    require(header.phdr_count > 0 && header.phdr_count <= ELF_PHDRS_MAX);
    size_t needed = (size_t)header.phdr_count * ELF_PHDR_BYTES;
    if (header.phdrs_offset > bytes || needed > bytes - header.phdrs_offset)
        return 0;
    if (elf_segments_check(&header, data + header.phdrs_offset, bytes, &plan) == NULL)
        plan_check(&plan, bytes);
    return 0;
}
