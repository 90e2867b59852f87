# SPDX-License-Identifier: Apache-2.0
# Skeleton: the tools owner replaces this.
B := build
CC := gcc
CFLAGS := -std=gnu11 -O2 -g -D_GNU_SOURCE -I. -Iguides-api -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wconversion -MMD -MP
SUPPORT := $(wildcard guides-api/*.c)
FARVISOR := $(wildcard vmm/*.c vmm/*.S ept/*.c fault/*.c rdma/*.c) $(SUPPORT)
MEMSERVER := $(wildcard memserver/*.c) $(filter-out rdma/none.c,$(wildcard rdma/*.c)) $(SUPPORT)
LIBS := -lZydis -lfdt -lfabric -ldw -lelf -lseccomp -ljansson -lpthread -lm
obj = $(patsubst %,$(B)/%.o,$(1))
all: $(B)/farvisor $(B)/memserver
$(B)/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c $< -o $@
$(B)/%.S.o: %.S
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c $< -o $@
$(B)/farvisor: $(call obj,$(FARVISOR))
	$(CC) $(CFLAGS) $^ -o $@ $(LIBS)
$(B)/memserver: $(call obj,$(MEMSERVER))
	$(CC) $(CFLAGS) $^ -o $@ $(LIBS)
-include $(shell find $(B) -name '*.d' 2>/dev/null)
.PHONY: all
