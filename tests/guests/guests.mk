# SPDX-License-Identifier: Apache-2.0
# The test programs that run inside guests. One file is one program, but for the storm; a name says
# how it is linked: static_* and staticpie_* without a dynamic loader, openmp_* with OpenMP, guide_*
# with libfarguide. tests/guides has guides for the example's program.

GUEST_CFLAGS := -std=gnu11 -O2 -g -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes \
	-Wmissing-prototypes -Wconversion -pthread
GUEST_CXXFLAGS := -std=c++17 -O2 -g -Wall -Wextra -Wshadow -pthread
GUEST_DIR := $(B)/tests/guests
GUEST_HEADERS := $(wildcard tests/guests/*.h)
GUIDE_TESTS := $(B)/tests/guides/orders $(B)/tests/guides/example.so \
	$(patsubst tests/guides/%.c,$(B)/tests/guides/%.so,$(wildcard tests/guides/*.c))
GUEST_STORM := $(wildcard tests/guests/storm*.c)
GUEST_SINGLE := $(filter-out $(GUEST_STORM),$(wildcard tests/guests/*.c))
GUEST_PROGRAMS := $(patsubst tests/guests/%.c,$(GUEST_DIR)/%,$(GUEST_SINGLE)) \
	$(patsubst tests/guests/%.cc,$(GUEST_DIR)/%,$(wildcard tests/guests/*.cc)) \
	$(GUEST_DIR)/storm $(GUIDE_TESTS)

guest_link = $(if $(filter static_%,$(1)),-static,$(if $(filter staticpie_%,$(1)),-static-pie -fPIE)) \
	$(if $(filter openmp_%,$(1)),-fopenmp)

$(GUEST_DIR)/storm: $(GUEST_STORM) $(GUEST_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(GUEST_STORM) -o $@
$(GUEST_DIR)/%: tests/guests/%.c $(GUEST_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(call guest_link,$*) $< -o $@ -lm
$(GUEST_DIR)/guide_%: tests/guests/guide_%.c $(GUEST_HEADERS) $(GUIDE_STATIC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -Iguides-api $< $(GUIDE_STATIC) -o $@
$(B)/tests/guides/orders: guides-api/examples/orders.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -rdynamic $< -o $@
$(B)/tests/guides/%.so: tests/guides/%.c $(GUIDE_LINKS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -Iguides-api -fPIC -shared $< -L$(B) -lfarguide -o $@
$(B)/tests/guides/example.so: guides-api/examples/example.c $(GUIDE_LINKS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -Iguides-api -fPIC -shared $< -L$(B) -lfarguide -o $@
$(GUEST_DIR)/%: tests/guests/%.cc
	@mkdir -p $(@D)
	$(Q)$(CXX) $(GUEST_CXXFLAGS) $< -o $@

.PHONY: guests
guests: $(GUEST_PROGRAMS)
