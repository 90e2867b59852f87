/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which guest addresses an instruction touches, from its bytes and the registers before it. Needed
 * because KVM reports a second-stage miss without its address. Decoding is Zydis; operands that x86
 * leaves implicit (stack, string, bit and vector addressing) are worked out here. Too many accesses
 * cost a look-up each; a missing one would make the miss unresolvable. Intel SDM vol. 2.
 *
 * Pure: takes no lock, touches no guest memory.
 */
#include "vmm/miss.h"

#include <Zydis/Zydis.h>
#include <cpuid.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

/* Standard form of the XSAVE area (SDM vol. 1, 13.4); other components are placed by CPUID 0xd. */
#define XSAVE_XMM_OFFSET 160u
#define XSAVE_YMM        2u
#define XSAVE_OPMASK     5u
#define XSAVE_ZMM_HIGH   6u
#define XSAVE_ZMM_HIGH16 7u
#define FXSAVE_BYTES     512u
#define ENTER_LEVEL_MAX  32u
#define VECTOR_BYTES_MAX 64u

struct decoder {
    const struct kvm_regs *regs;
    const struct kvm_sregs *sregs;
    address_vectors_fn vectors;
    void *owner;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    struct access *out;
    unsigned count;
};

static void access_add(struct decoder *decoder, gpa_t gpa, uint64_t bytes, bool write)
{
    if (decoder->count < ACCESS_MAX && bytes)
        decoder->out[decoder->count++] =
            (struct access){.gpa = gpa, .bytes = (uint32_t)bytes, .write = write};
}

/* ---- register values ---- */

/* By the number that instructions encode registers with. */
static uint64_t general_register(const struct kvm_regs *regs, unsigned number)
{
    const uint64_t values[16] = {regs->rax, regs->rcx, regs->rdx, regs->rbx, regs->rsp, regs->rbp,
                                 regs->rsi, regs->rdi, regs->r8,  regs->r9,  regs->r10, regs->r11,
                                 regs->r12, regs->r13, regs->r14, regs->r15};
    return values[number & 15];
}

static uint64_t register_value(const struct decoder *decoder, ZydisRegister name)
{
    if (name == ZYDIS_REGISTER_NONE)
        return 0;
    if (name == ZYDIS_REGISTER_RIP || name == ZYDIS_REGISTER_EIP)
        return decoder->regs->rip + decoder->insn.length;
    ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, name);
    int8_t number = (int8_t)ZydisRegisterGetId(whole);
    if (number < 0)
        return 0;
    uint64_t value = general_register(decoder->regs, (unsigned)number);
    if (name >= ZYDIS_REGISTER_AH && name <= ZYDIS_REGISTER_BH)
        return value >> 8 & 0xff;
    unsigned bits = ZydisRegisterGetWidth(ZYDIS_MACHINE_MODE_LONG_64, name);
    return bits < 64 ? value & ((1ULL << bits) - 1) : value;
}

static uint64_t segment_base(const struct decoder *decoder, ZydisRegister segment)
{
    if (segment == ZYDIS_REGISTER_FS)
        return decoder->sregs->fs.base;
    return segment == ZYDIS_REGISTER_GS ? decoder->sregs->gs.base : 0;
}

/* Base + index * scale + displacement, cut to the address size, plus the segment's base. */
static gpa_t effective_address(const struct decoder *decoder, const ZydisDecodedOperand *operand,
                               uint64_t index)
{
    uint64_t at = register_value(decoder, operand->mem.base) +
                  index * (operand->mem.scale ? operand->mem.scale : 1);
    if (operand->mem.disp.has_displacement)
        at += (uint64_t)operand->mem.disp.value;
    if (decoder->insn.address_width == 32)
        at &= 0xffffffff;
    return at + segment_base(decoder, operand->mem.segment);
}

/* ---- implicit addressing ---- */

static bool is_write(const ZydisDecodedOperand *operand)
{
    return operand->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
}

static bool touches_nothing(const struct decoder *decoder)
{
    switch (decoder->insn.mnemonic) {
    case ZYDIS_MNEMONIC_LEA:
    case ZYDIS_MNEMONIC_NOP:
    case ZYDIS_MNEMONIC_PREFETCH:
    case ZYDIS_MNEMONIC_PREFETCHNTA:
    case ZYDIS_MNEMONIC_PREFETCHT0:
    case ZYDIS_MNEMONIC_PREFETCHT1:
    case ZYDIS_MNEMONIC_PREFETCHT2:
    case ZYDIS_MNEMONIC_PREFETCHW:
    case ZYDIS_MNEMONIC_PREFETCHWT1:
    case ZYDIS_MNEMONIC_CLDEMOTE:
        return true;
    default:
        return false;
    }
}

/* A repeated string instruction whose count is zero ends without an access. */
static bool repeats_nothing(const struct decoder *decoder)
{
    const ZyanU64 repeated = ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE;
    uint64_t count =
        decoder->insn.address_width == 32 ? decoder->regs->rcx & 0xffffffff : decoder->regs->rcx;
    return decoder->insn.attributes & repeated && !count;
}

/* BT and its kin address memory by bit: the register's upper part moves the operand (SDM). */
static int64_t bit_displacement(const struct decoder *decoder, const ZydisDecodedOperand *operand)
{
    const ZydisDecodedOperand *bit = &decoder->operands[1];
    switch (decoder->insn.mnemonic) {
    case ZYDIS_MNEMONIC_BT:
    case ZYDIS_MNEMONIC_BTS:
    case ZYDIS_MNEMONIC_BTR:
    case ZYDIS_MNEMONIC_BTC:
        break;
    default:
        return 0;
    }
    if (bit->type != ZYDIS_OPERAND_TYPE_REGISTER || !operand->size)
        return 0;
    uint64_t value = register_value(decoder, bit->reg.value);
    int64_t offset = bit->size == 16   ? (int16_t)value
                     : bit->size == 32 ? (int32_t)value
                                       : (int64_t)value;
    int64_t unit_bits = operand->size;
    int64_t units = offset / unit_bits - (offset % unit_bits < 0);
    return units * (unit_bits / 8);
}

/* Bytes of an operand whose size the encoding leaves open: state saving by the features enabled. */
static uint64_t operand_bytes(const struct decoder *decoder, const ZydisDecodedOperand *operand)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    switch (decoder->insn.meta.category) {
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
        return __get_cpuid_count(0xd, 0, &a, &b, &c, &d) && b ? b : FXSAVE_BYTES;
    default:
        return operand->size >= 8 ? operand->size / 8 : 1;
    }
}

/*
 * Zydis names the stack operand of push-like instructions [rsp], meaning rsp after the decrement;
 * registers here are those before it. A popped-to operand counts from rsp after the increment.
 */
static gpa_t stack_adjust(const struct decoder *decoder, const ZydisDecodedOperand *operand,
                          gpa_t gpa)
{
    uint64_t bytes = operand->size / 8;
    if (operand->mem.base != ZYDIS_REGISTER_RSP)
        return gpa;
    if (operand->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
        return is_write(operand) ? gpa - bytes : gpa;
    return decoder->insn.mnemonic == ZYDIS_MNEMONIC_POP ? gpa + bytes : gpa;
}

static bool enter_or_leave(struct decoder *decoder)
{
    const struct kvm_regs *regs = decoder->regs;
    if (decoder->insn.mnemonic == ZYDIS_MNEMONIC_LEAVE) {
        access_add(decoder, regs->rbp, 8, false);
        return true;
    }
    if (decoder->insn.mnemonic != ZYDIS_MNEMONIC_ENTER)
        return false;
    uint64_t frame_bytes = decoder->operands[0].imm.value.u;
    uint64_t levels = decoder->operands[1].imm.value.u % ENTER_LEVEL_MAX;
    uint64_t pushed = 8 * (levels + 1);
    access_add(decoder, regs->rsp - pushed, pushed, true);
    if (levels > 1)
        access_add(decoder, regs->rbp - 8 * (levels - 1), 8 * (levels - 1), false);
    access_add(decoder, regs->rsp - pushed - frame_bytes, 1, true); /* SDM: checked for a write */
    return true;
}

/* ---- gather and scatter ---- */

static uint32_t component_offset(unsigned component)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(0xd, component, &a, &b, &c, &d) ? b : 0;
}

static void piece_copy(uint8_t *to, const uint8_t *area, size_t offset, size_t bytes)
{
    if (offset && offset + bytes <= ADDRESS_XSAVE_BYTES)
        memcpy(to, area + offset, bytes);
}

/* Gathers a vector register's pieces from the places the XSAVE area keeps them in. */
static void vector_read(const uint8_t *area, unsigned number, uint8_t value[VECTOR_BYTES_MAX])
{
    memset(value, 0, VECTOR_BYTES_MAX);
    if (number >= 16) {
        uint32_t offset = component_offset(XSAVE_ZMM_HIGH16);
        if (offset)
            piece_copy(value, area, offset + (number - 16) * 64, 64);
        return;
    }
    memcpy(value, area + XSAVE_XMM_OFFSET + (size_t)number * 16, 16);
    uint32_t ymm = component_offset(XSAVE_YMM), zmm = component_offset(XSAVE_ZMM_HIGH);
    if (ymm)
        piece_copy(value + 16, area, ymm + number * 16, 16);
    if (zmm)
        piece_copy(value + 32, area, zmm + number * 32, 32);
}

static bool index_is_64_bit(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERQD:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VSCATTERQPD:
    case ZYDIS_MNEMONIC_VSCATTERQPS:
    case ZYDIS_MNEMONIC_VPSCATTERQD:
    case ZYDIS_MNEMONIC_VPSCATTERQQ:
        return true;
    default:
        return false;
    }
}

static bool data_is_64_bit(ZydisMnemonic mnemonic)
{
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VPGATHERDQ:
    case ZYDIS_MNEMONIC_VPGATHERQQ:
    case ZYDIS_MNEMONIC_VSCATTERQPD:
    case ZYDIS_MNEMONIC_VSCATTERDPD:
    case ZYDIS_MNEMONIC_VPSCATTERDQ:
    case ZYDIS_MNEMONIC_VPSCATTERQQ:
        return true;
    default:
        return false;
    }
}

/* One bit an element: an AVX-512 mask register, or the sign bits of AVX2's mask vector. */
static uint64_t element_mask(const struct decoder *decoder, const uint8_t *area,
                             unsigned data_bytes)
{
    ZydisRegister opmask = decoder->insn.avx.mask.reg;
    if (opmask != ZYDIS_REGISTER_NONE) {
        uint64_t bits = 0;
        uint32_t offset = component_offset(XSAVE_OPMASK);
        unsigned number = (unsigned)(opmask - ZYDIS_REGISTER_K0);
        if (!offset || !number)
            return ~0ULL;
        piece_copy((uint8_t *)&bits, area, offset + number * 8, sizeof(bits));
        return bits;
    }
    const ZydisDecodedOperand *mask = &decoder->operands[2];
    if (mask->type != ZYDIS_OPERAND_TYPE_REGISTER)
        return ~0ULL;
    uint8_t value[VECTOR_BYTES_MAX];
    uint64_t bits = 0;
    vector_read(area, (unsigned)ZydisRegisterGetId(mask->reg.value), value);
    for (unsigned i = 0; (i + 1) * data_bytes <= VECTOR_BYTES_MAX; i++)
        bits |= (uint64_t)(value[(i + 1) * data_bytes - 1] >> 7) << i;
    return bits;
}

static int64_t index_element(const uint8_t *value, unsigned i, bool wide)
{
    int32_t narrow;
    int64_t whole;
    if (wide) {
        memcpy(&whole, value + (size_t)i * 8, sizeof(whole));
        return whole;
    }
    memcpy(&narrow, value + (size_t)i * 4, sizeof(narrow));
    return narrow;
}

static int vector_accesses(struct decoder *decoder, const ZydisDecodedOperand *operand)
{
    uint8_t area[ADDRESS_XSAVE_BYTES], value[VECTOR_BYTES_MAX];
    ZydisMnemonic mnemonic = decoder->insn.mnemonic;
    bool wide = index_is_64_bit(mnemonic);
    unsigned data_bytes = data_is_64_bit(mnemonic) ? 8 : 4;
    unsigned largest_bits = wide || data_bytes == 8 ? 64 : 32;
    unsigned elements = decoder->insn.avx.vector_length / largest_bits;
    if (!decoder->vectors || decoder->vectors(decoder->owner, area, sizeof(area)))
        return -EINVAL;
    uint64_t mask = element_mask(decoder, area, data_bytes);
    vector_read(area, (unsigned)ZydisRegisterGetId(operand->mem.index), value);
    for (unsigned i = 0; i < elements && i < VECTOR_BYTES_MAX / 4; i++) {
        if (mask >> i & 1)
            access_add(decoder,
                       effective_address(decoder, operand, (uint64_t)index_element(value, i, wide)),
                       data_bytes, is_write(operand));
    }
    return 0;
}

/* ---- all together ---- */

static int operand_access(struct decoder *decoder, const ZydisDecodedOperand *operand)
{
    if (operand->type != ZYDIS_OPERAND_TYPE_MEMORY || operand->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
        return 0;
    if (operand->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
        return vector_accesses(decoder, operand);
    uint64_t index = register_value(decoder, operand->mem.index);
    if (decoder->insn.mnemonic == ZYDIS_MNEMONIC_XLAT)
        index = register_value(decoder, ZYDIS_REGISTER_AL); /* Zydis lists it as an operand only */
    gpa_t gpa = effective_address(decoder, operand, index);
    gpa = stack_adjust(decoder, operand, gpa);
    gpa += (uint64_t)bit_displacement(decoder, operand);
    access_add(decoder, gpa, operand_bytes(decoder, operand), is_write(operand));
    return 0;
}

int address_decode_with(const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                        const uint8_t *code, size_t bytes, address_vectors_fn vectors, void *owner,
                        struct access out[ACCESS_MAX])
{
    struct decoder decoder = {
        .regs = regs, .sregs = sregs, .vectors = vectors, .owner = owner, .out = out};
    ZydisDecoder zydis;
    if (ZYAN_FAILED(ZydisDecoderInit(&zydis, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)) ||
        ZYAN_FAILED(ZydisDecoderDecodeFull(&zydis, code, bytes, &decoder.insn, decoder.operands)))
        return -EINVAL;
    if (touches_nothing(&decoder) || repeats_nothing(&decoder) || enter_or_leave(&decoder))
        return (int)decoder.count;
    for (unsigned i = 0; i < decoder.insn.operand_count; i++) {
        int error = operand_access(&decoder, &decoder.operands[i]);
        if (error)
            return error;
    }
    return (int)decoder.count;
}

static int vcpu_vectors(void *owner, uint8_t xsave[], size_t bytes)
{
    struct vcpu *vcpu = owner;
    struct kvm_xsave area;
    _Static_assert(sizeof(area.region) == ADDRESS_XSAVE_BYTES, "KVM_GET_XSAVE's size");
    if (bytes != sizeof(area.region) || ioctl(vcpu->fd, KVM_GET_XSAVE, &area) < 0)
        return -EINVAL;
    memcpy(xsave, area.region, bytes);
    return 0;
}

int address_decode(struct vcpu *vcpu, const struct kvm_regs *regs, const struct kvm_sregs *sregs,
                   const uint8_t *code, size_t bytes, struct access out[ACCESS_MAX])
{
    return address_decode_with(regs, sregs, code, bytes, vcpu_vectors, vcpu, out);
}
