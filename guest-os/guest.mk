# SPDX-License-Identifier: Apache-2.0
#
# The unikernel: one ELF image linked at FV_KERNEL_BASE, with the vDSO and libfdt inside. Freestanding
# and without SSE or stack protection, so it has flags of its own: sanitizers never go in here.
# -fPIE makes code position independent, as the small code model does not reach that address.

KERNEL_CFLAGS := -std=gnu11 -O2 -g -ffreestanding -fno-stack-protector -fcf-protection=none \
    -fno-strict-aliasing -fno-asynchronous-unwind-tables -fno-tree-loop-distribute-patterns \
    -fno-omit-frame-pointer -fPIE -fvisibility=hidden -mno-red-zone -mgeneral-regs-only \
    -U_FORTIFY_SOURCE -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes \
    -Wconversion $(if $(WERROR),-Werror)
KERNEL_CPPFLAGS := -I. -Iguides-api
KERNEL_SOURCES := $(sort $(wildcard guest-os/*.c guest-os/*.S)) guest-os/vdso/vdso_image.S
KERNEL_OBJECTS := $(KERNEL_SOURCES:%=$(B)/kernel/%.o)
# Quiet before "make deps" brought a compiler.
KERNEL_LIBFDT := $(shell $(CC) -print-file-name=libfdt.a 2>/dev/null)

VDSO_FILE := $(B)/kernel/vdso.so
VDSO_CFLAGS := -std=gnu11 -O2 -ffreestanding -fno-stack-protector -fcf-protection=none -fPIC \
    -mgeneral-regs-only -U_FORTIFY_SOURCE -Wall -Wextra -Wshadow -Wconversion \
    $(if $(WERROR),-Werror)

$(B)/kernel/%.c.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(KERNEL_CPPFLAGS) $(KERNEL_CFLAGS) -MMD -MP -MF $@.d -c $< -o $@

$(B)/kernel/%.S.o: %.S
	@mkdir -p $(@D)
	$(call say,AS,$<)
	$(Q)$(CC) $(KERNEL_CPPFLAGS) -DVDSO_FILE='"$(VDSO_FILE)"' -MMD -MP -MF $@.d -c $< -o $@

$(B)/kernel/guest-os/vdso/vdso_image.S.o: $(VDSO_FILE)

$(VDSO_FILE): guest-os/vdso/vdso.c guest-os/vdso/vdso.lds
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(KERNEL_CPPFLAGS) $(VDSO_CFLAGS) -MMD -MP -MF $@.d -shared -nostdlib \
	    -Wl,-soname=linux-vdso.so.1 -Wl,-Bsymbolic -Wl,--hash-style=both -Wl,--eh-frame-hdr \
	    -Wl,--no-undefined -Wl,--build-id -Wl,-z,noexecstack -Wl,-T,guest-os/vdso/vdso.lds \
	    guest-os/vdso/vdso.c -o $@

$(GUEST_IMAGE): $(KERNEL_OBJECTS) guest-os/guest.lds
	$(call say,LD,$@)
	$(Q)$(CC) -static -no-pie -nostdlib -Wl,-T,guest-os/guest.lds -Wl,--build-id=none \
	    -Wl,--gc-sections -Wl,-z,noexecstack -Wl,--no-warn-rwx-segments \
	    $(KERNEL_OBJECTS) $(KERNEL_LIBFDT) -o $@

-include $(KERNEL_OBJECTS:%=%.d) $(VDSO_FILE).d

# The parts that judge foreign bytes, and those that answer reads and sends of sockets, for tests
# and fuzzers that run on the host.
KERNEL_HOST_ARCHIVE := $(B)/libkernelhost.a
KERNEL_HOST_OBJECTS := $(B)/obj/guest-os/elf_check.c.o $(B)/obj/guest-os/devicetree.c.o \
    $(B)/obj/guest-os/ahead.c.o $(B)/obj/guest-os/sends.c.o $(B)/obj/guest-os/usercopy.c.o \
    $(B)/obj/guest-os/usercopy.S.o
$(KERNEL_HOST_ARCHIVE): $(KERNEL_HOST_OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^
# usercopy.S has absolute addresses, of its fixups.
$(B)/tests/unit/guest-os/check_reads $(B)/tests/unit/guest-os/check_sends: LDFLAGS += -no-pie
-include $(KERNEL_HOST_OBJECTS:%=%.d)
