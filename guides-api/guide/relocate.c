/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves the first instructions of a function elsewhere, so that a jump can be put in their place.
 * What cannot be made right in the new place is refused, and so is a function that jumps back into
 * the part that would be overwritten.
 */
#include "guide/internal.h"

#include <errno.h>
#include <string.h>

#define INSN_MAX 15u

static int64_t offset_get(const uint8_t *at, unsigned bytes)
{
    int32_t wide;
    if (bytes == 1)
        return (int8_t)*at;
    memcpy(&wide, at, sizeof(wide));
    return wide;
}

/* Where a branch or RIP-relative operand of the instruction at `code` leads. */
static const uint8_t *target_of(const uint8_t *code, const struct guide_insn *insn)
{
    int64_t offset = insn->branch_at ? offset_get(code + insn->branch_at, insn->branch_bytes)
                                     : offset_get(code + insn->rip_at, 4);
    return code + insn->bytes + offset;
}

static int offset_put(uint8_t *at, const uint8_t *end, const uint8_t *target)
{
    int64_t offset = target - end;
    int32_t narrow = (int32_t)offset;
    if (offset != narrow)
        return -ENOTSUP;
    memcpy(at, &narrow, sizeof(narrow));
    return 0;
}

/* A branch with an offset of one byte becomes its form with four. Bytes written, or -ENOTSUP. */
static int short_branch_move(const uint8_t *from, const struct guide_insn *insn, uint8_t *to)
{
    unsigned bytes = 0;
    if (insn->bytes != 2) /* prefixes */
        return -ENOTSUP;
    if (from[0] == 0xeb) {
        to[bytes++] = 0xe9;
    } else if (from[0] >= 0x70 && from[0] <= 0x7f) {
        to[bytes++] = 0x0f;
        to[bytes++] = (uint8_t)(from[0] + 0x10);
    } else { /* loop and jrcxz have no such form */
        return -ENOTSUP;
    }
    int error = offset_put(to + bytes, to + bytes + 4, target_of(from, insn));
    return error ? error : (int)bytes + 4;
}

/* Copies one instruction to `to` with its offset made right. Bytes written, or -ENOTSUP. */
static int insn_move(const uint8_t *from, const struct guide_insn *insn, uint8_t *to)
{
    if (insn->branch_bytes == 1)
        return short_branch_move(from, insn, to);
    memcpy(to, from, insn->bytes);
    uint8_t place = insn->branch_at ? insn->branch_at : insn->rip_at;
    int error = place ? offset_put(to + place, to + insn->bytes, target_of(from, insn)) : 0;
    return error ? error : insn->bytes;
}

static bool lies_in(const uint8_t *target, const uint8_t *function, unsigned bytes)
{
    return target > function && target < function + bytes;
}

/* Does any branch of the rest of the function lead into its first `moved` bytes? */
static bool branches_back(const uint8_t *function, size_t function_bytes, unsigned moved)
{
    struct guide_insn insn;
    for (size_t at = moved; at < function_bytes; at += insn.bytes) {
        if (!guide_insn_decode(function + at, function_bytes - at, &insn))
            return false; /* data, or beyond what compilers put behind a function's start */
        if (insn.branch_at && lies_in(target_of(function + at, &insn), function, moved))
            return true;
    }
    return false;
}

static void jump_put(uint8_t *at, const uint8_t *to)
{
    static const uint8_t jump_indirect[6] = {0xff, 0x25, 0, 0, 0, 0}; /* jmp *0(%rip) */
    memcpy(at, jump_indirect, sizeof(jump_indirect));
    memcpy(at + sizeof(jump_indirect), &to, sizeof(to));
}

int guide_relocate(const uint8_t *function, size_t function_bytes, uint8_t *to)
{
    unsigned moved = 0, written = 0;
    const uint8_t *target = function; /* of a moved branch; into the moved part is refused */
    struct guide_insn insn = {0};
    while (moved < GUIDE_PATCH_BYTES) {
        size_t room = function_bytes ? function_bytes - moved : INSN_MAX;
        if (insn.ends || !guide_insn_decode(function + moved, room, &insn))
            return -ENOTSUP;
        if (insn.branch_at && target > function)
            return -ENOTSUP; /* two branches: not worth keeping both in mind */
        if (insn.branch_at)
            target = target_of(function + moved, &insn);
        int bytes = insn_move(function + moved, &insn, to + written);
        if (bytes < 0)
            return bytes;
        written += (unsigned)bytes;
        moved += insn.bytes;
    }
    if (lies_in(target, function, moved) || branches_back(function, function_bytes, moved))
        return -ENOTSUP;
    jump_put(to + written, function + moved);
    return (int)moved;
}
