# SPDX-License-Identifier: Apache-2.0
#
# libfaralloc: the malloc of programs that run with --allocator far. Runs inside programs, so it is built
# as libfarguide is; -fno-builtin, or the compiler would make calls of the functions that it defines.

ALLOC_SOURCES := $(sort $(wildcard guides-api/alloc/*.c))
ALLOC_OBJECTS := $(ALLOC_SOURCES:%=$(B)/alloc/%.o)
ALLOC_SHARED := $(B)/libfaralloc.so

$(B)/alloc/%.c.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(GUIDE_CPPFLAGS) $(GUIDE_CFLAGS) -fno-builtin-malloc -fno-builtin-calloc \
	    -fno-builtin-realloc -fno-builtin-free -MMD -MP -MF $@.d -c $< -o $@

$(ALLOC_SHARED): $(ALLOC_OBJECTS) guides-api/alloc/exports.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -pthread -Wl,-soname,$(@F) -Wl,-z,now -Wl,-z,noexecstack \
	    -Wl,--version-script=guides-api/alloc/exports.map -Wl,--no-undefined $(ALLOC_OBJECTS) \
	    -l:libmimalloc.so.2 -o $@

-include $(ALLOC_OBJECTS:%=%.d)

# It becomes the test's own malloc; without sanitizers, which bring theirs.
$(patsubst %.c,$(B)/%,$(wildcard tests/unit/alloc/check_*.c)): $(B)/%: %.c $(ALLOC_OBJECTS)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(GUIDE_CPPFLAGS) -I. -Iguides-api -std=gnu11 -O2 -g -Wall -Wextra -pthread $< \
	    $(ALLOC_OBJECTS) -o $@ $(CHECK_LIBS) -l:libmimalloc.so.2
