/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lengths of x86-64 instructions, and where in them an offset from RIP stands: what moving the
 * start of a function takes, and no more. Unknown encodings are refused, not guessed. Source: Intel
 * SDM vol. 2, appendix A (opcode maps) and chapter 2 (prefixes, ModRM, VEX, EVEX). A unit test
 * compares it with Zydis over the C library's own code.
 */
#include "guide/internal.h"

#include <string.h>

enum { UNKNOWN, PLAIN, MODRM, IMM8, IMMZ, MODRM_IMM8, MODRM_IMMZ, REL8, REL32, SPECIAL };

struct cursor {
    const uint8_t *code;
    size_t room, at;
    bool operand16, rex_w, address32, failed;
};

static uint8_t next_byte(struct cursor *cursor)
{
    if (cursor->at >= cursor->room || cursor->at >= 15) {
        cursor->failed = true;
        return 0;
    }
    return cursor->code[cursor->at++];
}

static void skip(struct cursor *cursor, size_t bytes)
{
    if (bytes > cursor->room - cursor->at || cursor->at + bytes > 15)
        cursor->failed = true;
    else
        cursor->at += bytes;
}

/* Rows of 16: the shape of what follows a one-byte opcode. */
static const uint8_t one_byte[256] = {
#define ARITHMETIC MODRM, MODRM, MODRM, MODRM, IMM8, IMMZ, UNKNOWN, UNKNOWN
    ARITHMETIC,
    ARITHMETIC,
    ARITHMETIC,
    ARITHMETIC, /* 00-1f */
    ARITHMETIC,
    ARITHMETIC,
    ARITHMETIC,
    ARITHMETIC, /* 20-3f */
#undef ARITHMETIC
    [0x50 ... 0x5f] = PLAIN,
    [0x63] = MODRM,
    [0x68] = IMMZ,
    [0x69] = MODRM_IMMZ,
    [0x6a] = IMM8,
    [0x6b] = MODRM_IMM8,
    [0x6c ... 0x6f] = PLAIN,
    [0x70 ... 0x7f] = REL8,
    [0x80] = MODRM_IMM8,
    [0x81] = MODRM_IMMZ,
    [0x83] = MODRM_IMM8,
    [0x84 ... 0x8e] = MODRM,
    [0x90 ... 0x99] = PLAIN,
    [0x9b ... 0x9f] = PLAIN,
    [0xa0 ... 0xa3] = SPECIAL, /* 8-byte addresses */
    [0xa4 ... 0xa7] = PLAIN,
    [0xa8] = IMM8,
    [0xa9] = IMMZ,
    [0xaa ... 0xaf] = PLAIN,
    [0xb0 ... 0xb7] = IMM8,
    [0xb8 ... 0xbf] = SPECIAL, /* mov: 8 bytes with REX.W */
    [0xc0 ... 0xc1] = MODRM_IMM8,
    [0xc2] = SPECIAL, /* ret imm16 */
    [0xc3] = PLAIN,
    [0xc6] = MODRM_IMM8,
    [0xc7] = MODRM_IMMZ,
    [0xc8] = SPECIAL, /* enter */
    [0xc9] = PLAIN,
    [0xcc] = PLAIN,
    [0xcd] = IMM8,
    [0xd0 ... 0xd3] = MODRM,
    [0xd8 ... 0xdf] = MODRM,
    [0xe0 ... 0xe3] = REL8,
    [0xe8 ... 0xe9] = REL32,
    [0xeb] = REL8,
    [0xf4 ... 0xf5] = PLAIN,
    [0xf6 ... 0xf7] = SPECIAL, /* test has an immediate, not and neg have none */
    [0xf8 ... 0xfd] = PLAIN,
    [0xfe ... 0xff] = MODRM,
};

static const uint8_t two_byte[256] = {
    [0x05] = PLAIN,
    [0x0b] = PLAIN,
    [0x0d] = MODRM,
    [0x10 ... 0x1f] = MODRM,
    [0x28 ... 0x2f] = MODRM,
    [0x31] = PLAIN,
    [0x40 ... 0x6f] = MODRM,
    [0x70 ... 0x73] = MODRM_IMM8,
    [0x74 ... 0x76] = MODRM,
    [0x77] = PLAIN,
    [0x7c ... 0x7f] = MODRM,
    [0x80 ... 0x8f] = REL32,
    [0x90 ... 0x9f] = MODRM,
    [0xa2] = PLAIN,
    [0xa3] = MODRM,
    [0xa4] = MODRM_IMM8,
    [0xa5] = MODRM,
    [0xab] = MODRM,
    [0xac] = MODRM_IMM8,
    [0xad ... 0xb9] = MODRM,
    [0xba] = MODRM_IMM8,
    [0xbb ... 0xc1] = MODRM,
    [0xc2] = MODRM_IMM8,
    [0xc3] = MODRM,
    [0xc4 ... 0xc6] = MODRM_IMM8,
    [0xc7] = MODRM,
    [0xc8 ... 0xcf] = PLAIN,
    [0xd0 ... 0xff] = MODRM,
};

/* Reads ModRM, SIB and displacement; returns ModRM. */
static uint8_t modrm_read(struct cursor *cursor, struct guide_insn *out)
{
    uint8_t modrm = next_byte(cursor), mode = modrm >> 6, memory = modrm & 7;
    if (mode == 3)
        return modrm;
    bool no_base = false;
    if (memory == 4) {
        uint8_t sib = next_byte(cursor);
        no_base = mode == 0 && (sib & 7) == 5;
    } else if (memory == 5 && mode == 0) {
        out->rip_at = (uint8_t)cursor->at;
    }
    if (mode == 1)
        skip(cursor, 1);
    else if (mode == 2 || out->rip_at || no_base)
        skip(cursor, 4);
    return modrm;
}

static void branch_read(struct cursor *cursor, struct guide_insn *out, uint8_t bytes)
{
    out->branch_at = (uint8_t)cursor->at;
    out->branch_bytes = bytes;
    skip(cursor, bytes);
}

static void special_read(struct cursor *cursor, uint8_t opcode, struct guide_insn *out)
{
    size_t immediate = cursor->operand16 ? 2 : 4;
    if (opcode >= 0xa0 && opcode <= 0xa3) {
        skip(cursor, cursor->address32 ? 4 : 8);
    } else if (opcode >= 0xb8 && opcode <= 0xbf) {
        skip(cursor, cursor->rex_w ? 8 : immediate);
    } else if (opcode == 0xc2) {
        skip(cursor, 2);
    } else if (opcode == 0xc8) {
        skip(cursor, 3);
    } else { /* f6, f7 */
        bool test = (modrm_read(cursor, out) >> 3 & 7) < 2;
        if (test)
            skip(cursor, opcode == 0xf6 ? 1 : immediate);
    }
}

static void operands_read(struct cursor *cursor, uint8_t shape, uint8_t opcode,
                          struct guide_insn *out)
{
    size_t immediate = cursor->operand16 ? 2 : 4;
    switch (shape) {
    case PLAIN:
        break;
    case MODRM:
    case MODRM_IMM8:
    case MODRM_IMMZ:
        modrm_read(cursor, out);
        skip(cursor, shape == MODRM ? 0 : shape == MODRM_IMM8 ? 1 : immediate);
        break;
    case IMM8:
        skip(cursor, 1);
        break;
    case IMMZ:
        skip(cursor, immediate);
        break;
    case REL8:
        branch_read(cursor, out, 1);
        break;
    case REL32:
        branch_read(cursor, out, 4);
        break;
    case SPECIAL:
        special_read(cursor, opcode, out);
        break;
    default:
        cursor->failed = true;
    }
}

/* VEX and EVEX: `map` is 1 (0f), 2 (0f 38), 3 (0f 3a), 5 or 6 (half precision). */
static void vector_read(struct cursor *cursor, unsigned map, struct guide_insn *out)
{
    uint8_t opcode = next_byte(cursor);
    bool immediate = map == 3 || (map == 1 && two_byte[opcode] == MODRM_IMM8);
    if (map == 0 || map == 4 || map > 6) {
        cursor->failed = true;
        return;
    }
    if (map == 1 && opcode == 0x77) /* vzeroupper */
        return;
    modrm_read(cursor, out);
    skip(cursor, immediate ? 1 : 0);
}

static void two_byte_read(struct cursor *cursor, struct guide_insn *out)
{
    uint8_t opcode = next_byte(cursor);
    if (opcode == 0x38 || opcode == 0x3a) {
        (void)next_byte(cursor);
        modrm_read(cursor, out);
        skip(cursor, opcode == 0x3a ? 1 : 0);
        return;
    }
    operands_read(cursor, two_byte[opcode], opcode, out);
}

static void opcode_read(struct cursor *cursor, uint8_t opcode, bool rex, struct guide_insn *out)
{
    size_t modrm_at;
    switch (opcode) {
    case 0x0f:
        two_byte_read(cursor, out);
        break;
    case 0xc5:
        skip(cursor, 1);
        vector_read(cursor, rex ? 0 : 1, out);
        break;
    case 0xc4:
    case 0x62: {
        unsigned map = next_byte(cursor) & (opcode == 0x62 ? 7 : 31);
        skip(cursor, opcode == 0x62 ? 2 : 1);
        vector_read(cursor, rex ? 0 : map, out);
        break;
    }
    case 0x8f: /* pop; with other ModRM.reg it is XOP */
        if ((modrm_read(cursor, out) >> 3 & 7) != 0)
            cursor->failed = true;
        break;
    default:
        if (opcode == 0xc7 && cursor->at < cursor->room && cursor->code[cursor->at] == 0xf8) {
            cursor->failed = true; /* xbegin: its immediate is an address */
            return;
        }
        modrm_at = cursor->at;
        operands_read(cursor, one_byte[opcode], opcode, out);
        out->ends = opcode == 0xc2 || opcode == 0xc3 || opcode == 0xe9 || opcode == 0xeb;
        if (opcode == 0xff && !cursor->failed) /* /4: an indirect jump */
            out->ends = (cursor->code[modrm_at] >> 3 & 7) == 4;
    }
}

bool guide_insn_decode(const uint8_t *code, size_t room, struct guide_insn *out)
{
    struct cursor cursor = {.code = code, .room = room};
    bool rex = false;
    uint8_t byte;
    memset(out, 0, sizeof(*out));
    for (;;) {
        byte = next_byte(&cursor);
        bool prefix = true;
        if (byte == 0x66)
            cursor.operand16 = true;
        else if (byte == 0x67)
            cursor.address32 = true;
        else
            prefix = byte == 0xf0 || byte == 0xf2 || byte == 0xf3 || byte == 0x2e || byte == 0x36 ||
                     byte == 0x3e || byte == 0x26 || byte == 0x64 || byte == 0x65;
        if (!prefix || cursor.failed)
            break;
    }
    if (!cursor.failed && byte >= 0x40 && byte <= 0x4f) {
        rex = true;
        cursor.rex_w = byte & 8;
        cursor.operand16 = cursor.operand16 && !cursor.rex_w;
        byte = next_byte(&cursor);
    }
    if (cursor.failed)
        return false;
    opcode_read(&cursor, byte, rex, out);
    out->bytes = (uint8_t)cursor.at;
    return !cursor.failed;
}
