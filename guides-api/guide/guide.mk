# SPDX-License-Identifier: Apache-2.0
#
# libfarguide: a library for programs and guides, not for farvisor itself. It runs inside programs, at
# times inside their malloc or between a caller and a callee that share vector registers: so without
# sanitizers, and without AVX in the functions that guard.c says.

GUIDE_CFLAGS := -std=gnu11 -O2 -g -fPIC -fvisibility=hidden -fno-strict-aliasing -pthread \
    -fno-stack-protector -fno-omit-frame-pointer -U_FORTIFY_SOURCE -Wall -Wextra -Wshadow -Wvla \
    -Wstrict-prototypes -Wmissing-prototypes -Wconversion $(if $(WERROR),-Werror)
GUIDE_CPPFLAGS := -D_GNU_SOURCE -Iguides-api
GUIDE_SOURCES := $(sort $(wildcard guides-api/guide/*.c guides-api/guide/*.S))
GUIDE_OBJECTS := $(GUIDE_SOURCES:%=$(B)/guide/%.o)
GUIDE_SONAME := libfarguide.so.0
GUIDE_SHARED := $(B)/$(GUIDE_SONAME).1
GUIDE_LINKS := $(B)/$(GUIDE_SONAME) $(B)/libfarguide.so
GUIDE_STATIC := $(B)/libfarguide.a
GUIDE_GUIDES := $(B)/guides/redis.so $(B)/guides/graph.so
GUIDE_LIBRARIES := $(GUIDE_SHARED) $(GUIDE_LINKS) $(GUIDE_STATIC) $(B)/libfarguide.pc $(GUIDE_GUIDES)

$(B)/guide/%.c.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(GUIDE_CPPFLAGS) $(GUIDE_CFLAGS) -MMD -MP -MF $@.d -c $< -o $@

$(B)/guide/%.S.o: %.S
	@mkdir -p $(@D)
	$(call say,AS,$<)
	$(Q)$(CC) $(GUIDE_CPPFLAGS) -c $< -o $@

$(GUIDE_SHARED): $(GUIDE_OBJECTS) guides-api/guide/exports.map
	$(call say,LD,$@)
	$(Q)$(CC) -shared -pthread -Wl,-soname,$(GUIDE_SONAME) -Wl,-z,now -Wl,-z,noexecstack \
	    -Wl,--version-script=guides-api/guide/exports.map -Wl,--no-undefined $(GUIDE_OBJECTS) -o $@

$(GUIDE_LINKS): $(GUIDE_SHARED)
	$(Q)ln -sf $(<F) $@

# Guides for programs of other people, a folder each.
REDIS_OBJECTS := $(patsubst %,$(B)/guide/%.o,$(sort $(wildcard guides-api/redis/*.c)))
GRAPH_OBJECTS := $(patsubst %,$(B)/guide/%.o,$(sort $(wildcard guides-api/graph/*.c)))
$(B)/guides/redis.so: $(REDIS_OBJECTS)
$(B)/guides/graph.so: $(GRAPH_OBJECTS)
$(GUIDE_GUIDES): $(GUIDE_LINKS)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(filter %.o,$^) -L$(B) -lfarguide -o $@

$(GUIDE_STATIC): $(GUIDE_OBJECTS)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# The prefix is the installation's: pkg-config of a build folder is not for use. Two makes may do this at
# a time, though nothing else has to be built: a file of its own for each, and a rename.
.PHONY: guide-always
$(B)/libfarguide.pc: guides-api/guide/libfarguide.pc.in guide-always
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|' -e "s|@VERSION@|$$(sed -n 's/.*FV_VERSION \"\(.*\)\"/\1/p' \
	    guides-api/support.h)|" $< > $@.$$$$ && { cmp -s $@.$$$$ $@ && rm $@.$$$$ || mv $@.$$$$ $@; }

-include $(patsubst %,%.d,$(GUIDE_OBJECTS) $(REDIS_OBJECTS) $(GRAPH_OBJECTS))

# What a guide finds and names, with the library's functions in the test.
$(B)/tests/unit/guide/check_redis $(B)/tests/unit/guide/check_redis_hooks: $(REDIS_OBJECTS)

# The library is tested as it is, without the sanitizers of the tests around it.
$(patsubst %.c,$(B)/%,$(wildcard tests/unit/guide/check_*.c)): $(B)/%: $(B)/obj/%.c.o $(GUIDE_STATIC)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(FV_CFLAGS) $(CFLAGS) -rdynamic $^ -o $@ $(CHECK_LIBS) -lZydis
