# SPDX-License-Identifier: Apache-2.0
# The benchmark programs: one file is one program, but for the graph. They run natively and in guests.

BENCH_DIR := $(B)/tests/bench
BENCH_SINGLE := $(filter-out tests/bench/graph%.c,$(wildcard tests/bench/*.c))
BENCH_PROGRAMS := $(patsubst tests/bench/%.c,$(BENCH_DIR)/%,$(BENCH_SINGLE)) $(BENCH_DIR)/graph
BENCH_HEADERS := $(wildcard tests/bench/*.h)

bench_libs = -lm $(if $(filter snappy,$(1)),-lsnappy) $(if $(filter taxi,$(1)),-lsqlite3)

$(BENCH_DIR)/graph: $(wildcard tests/bench/graph*.c) $(BENCH_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $(filter %.c,$^) -o $@
$(BENCH_DIR)/lookups: tests/bench/lookups.c $(GUIDE_STATIC) $(BENCH_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) -Iguides-api $(filter-out %.h,$^) -o $@
$(BENCH_DIR)/%: tests/bench/%.c $(BENCH_HEADERS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(GUEST_CFLAGS) $< -o $@ $(call bench_libs,$*)
