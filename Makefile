# SPDX-License-Identifier: Apache-2.0
#
# One Makefile, out-of-tree objects, files found by folder: a new source file needs no edit here.
# Each folder is a layer and becomes one archive; programs and unit tests link the archives of the
# layers they may depend on, in that order, so a dependency in the wrong direction fails to link.
#
#   make V=1            show the commands
#   make SANITIZE=...   address,undefined or thread: host programs only, in a build folder of its own
#   make WERROR=1       warnings are errors (continuous integration)
#   make DESTDIR=/tmp/root PREFIX=/usr install

.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:

PREFIX ?= /usr/local
DESTDIR ?=
JOBS ?= $(shell nproc 2>/dev/null || echo 1)

comma := ,
B := build$(if $(SANITIZE),/sanitize-$(subst $(comma),-,$(SANITIZE)))
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)')

CC := gcc
CXX := g++
AR := ar
FUZZ_CC := clang
FUZZ_SECONDS ?= 60
CFLAGS ?= -O2 -g
FV_CPPFLAGS := -D_GNU_SOURCE -I. -Iguides-api
FV_CFLAGS := -std=gnu11 -pthread -fno-strict-aliasing -fno-omit-frame-pointer \
    -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes -Wconversion \
    $(if $(WERROR),-Werror) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all)
DEPFLAGS = -MMD -MP -MF $@.d
LDFLAGS ?= -Wl,--as-needed
# libfabric is loaded when its transport is chosen (rdma/): its dependencies cost 200 ms at start.
LIBS := -lZydis -lfdt -ldw -lelf -lseccomp -ljansson -lpthread -lm
CHECK_LIBS := -lcheck -lsubunit -lrt -lm -pthread

# --- layers: folder of sources, and what each layer may link with, itself first ---
DIR_support := guides-api
DIR_rdma := rdma
DIR_ept := ept
DIR_fault := fault
DIR_vmm := vmm $(addprefix vmm/,cli doctor guides io mm)
DIR_memserver := memserver
LAYERS := support rdma ept fault vmm memserver

LINK_support := support
LINK_rdma := rdma support
LINK_ept := ept rdma support
LINK_fault := fault ept rdma support
LINK_vmm := vmm fault ept rdma support
LINK_memserver := memserver rdma support

archives = $(foreach layer,$(LINK_$(1)),$(B)/lib$(layer).a)
objects = $(patsubst %,$(B)/obj/%.o,$(sort $(wildcard $(foreach folder,$(DIR_$(1)),$(folder)/*.c $(folder)/*.S))))

PROGRAMS := $(B)/farvisor $(B)/memserver
UNIT_SOURCES := $(wildcard tests/unit/*/check_*.c)
UNIT_PROGRAMS := $(patsubst %.c,$(B)/%,$(UNIT_SOURCES))
MAN_PAGES := $(wildcard man/*.1)
MAN3_PAGES := $(wildcard man/*.3)

FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

# Written by the folders themselves: GUEST_IMAGE's rules, KERNEL_HOST_ARCHIVE (guest code that unit
# tests and fuzzers run on the host), and GUEST_PROGRAMS, which the system tests run.
GUEST_IMAGE := $(B)/farvisor-guest.elf
-include guest-os/guest.mk
include guides-api/guide/guide.mk
include guides-api/alloc/alloc.mk
-include tests/guests/guests.mk
-include tests/bench/bench.mk

.PHONY: help
help: ## this text
	@printf 'farvisor: run one Linux program with its memory on another machine\n\nTargets:\n'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
	@printf '\nVariables: V=1  SANITIZE=address,undefined|thread  WERROR=1  B=build  PREFIX=  DESTDIR=  JOBS=\n'

.PHONY: all
all: $(PROGRAMS) $(if $(wildcard guest-os/guest.mk),$(GUEST_IMAGE)) $(GUIDE_LIBRARIES) $(ALLOC_SHARED) ## build farvisor, memserver, the guest image, libfarguide, its guides and libfaralloc

# --- rules ---
$(B)/obj/%.c.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(FV_CPPFLAGS) $(CPPFLAGS) $(FV_CFLAGS) $(CFLAGS) $(DEPFLAGS) -c $< -o $@

$(B)/obj/%.S.o: %.S
	@mkdir -p $(@D)
	$(call say,AS,$<)
	$(Q)$(CC) $(FV_CPPFLAGS) $(CPPFLAGS) $(CFLAGS) $(DEPFLAGS) -c $< -o $@

# The list of members is a file that changes only when files come or go: a removed source must not
# live on inside an old archive. Looked at by every make, so written aside and renamed: two may run.
.PHONY: always
$(B)/%.members: always
	@mkdir -p $(@D)
	@echo '$(filter-out %/main.c.o,$(call objects,$*))' | cmp -s - $@ || \
	    { echo '$(filter-out %/main.c.o,$(call objects,$*))' > $@.$$$$ && mv $@.$$$$ $@; }

define layer_rules
$(B)/lib$(1).a: $(filter-out %/main.c.o,$(call objects,$(1))) $(B)/$(1).members
	$$(call say,AR,$$@)
	$$(Q)rm -f $$@ && $(AR) rcsP $$@ $$(filter %.o,$$^)

$(patsubst %.c,$(B)/%,$(wildcard tests/unit/$(1)/check_*.c)): $(B)/%: $(B)/obj/%.c.o \
    $(patsubst %.c,$(B)/obj/%.c.o,$(filter-out $(UNIT_SOURCES),$(wildcard tests/unit/$(1)/*.c))) \
    $(call archives,$(1))
	@mkdir -p $$(@D)
	$$(call say,LD,$$@)
	$$(Q)$(CC) $(FV_CFLAGS) $(CFLAGS) $(LDFLAGS) $$^ -o $$@ $(CHECK_LIBS) $(LIBS)
endef
$(foreach layer,$(LAYERS),$(eval $(call layer_rules,$(layer))))

$(B)/farvisor: $(B)/obj/vmm/main.c.o $(call archives,vmm)
$(B)/memserver: $(B)/obj/memserver/main.c.o $(call archives,memserver)
$(PROGRAMS):
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(FV_CFLAGS) $(CFLAGS) $(LDFLAGS) $^ -o $@ $(LIBS)

# Guest code that can run on the host is tested there, against the support library only.
$(patsubst %.c,$(B)/%,$(wildcard tests/unit/guest-os/check_*.c)): $(B)/%: $(B)/obj/%.c.o \
    $(patsubst %.c,$(B)/obj/%.c.o,$(filter-out $(UNIT_SOURCES),$(wildcard tests/unit/guest-os/*.c))) \
    $(KERNEL_HOST_ARCHIVE) $(B)/libsupport.a
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(FV_CFLAGS) $(CFLAGS) $(LDFLAGS) $^ -o $@ $(CHECK_LIBS) $(LIBS)

# One fuzz target, two programs: fuzz_X explores with libFuzzer, replay_X only runs the corpus.
FUZZ_ARCHIVES := $(KERNEL_HOST_ARCHIVE) $(B)/libmemserver.a $(call archives,vmm)
REPLAY_PROGRAMS := $(FUZZ_NAMES:%=$(B)/tests/fuzz/replay_%)
FUZZ_PROGRAMS := $(FUZZ_NAMES:%=$(B)/tests/fuzz/fuzz_%)
$(REPLAY_PROGRAMS): $(B)/tests/fuzz/replay_%: $(B)/obj/tests/fuzz/fuzz_%.c.o \
    $(B)/obj/tests/fuzz/replay.c.o $(FUZZ_ARCHIVES)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(FV_CFLAGS) $(CFLAGS) $(LDFLAGS) $^ -o $@ $(LIBS)
$(FUZZ_PROGRAMS): $(B)/tests/fuzz/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.c.o $(FUZZ_ARCHIVES)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(FV_CFLAGS) -fsanitize=fuzzer $(CFLAGS) $(LDFLAGS) $^ -o $@ $(LIBS)

-include $(patsubst %,%.d,$(foreach layer,$(LAYERS),$(call objects,$(layer))))
-include $(patsubst %.c,$(B)/obj/%.c.o.d,$(wildcard tests/unit/*/*.c tests/fuzz/*.c tests/lab/*.c))

# --- what people run; deps first, so that each works on a fresh system ---
SUBMAKE := +$(Q)$(MAKE) --no-print-directory -j$(JOBS)
TEST_ENV = BUILD=$(B) FARVISOR=$(abspath $(B)/farvisor) MEMSERVER=$(abspath $(B)/memserver) \
    SANITIZE=$(SANITIZE)

.PHONY: deps
deps: ## install missing Debian packages (asks for root only if any is missing)
	@tools/deps.sh

.PHONY: demo demo-run
demo: deps ## build, then run a real program with three quarters of its memory far away
	$(SUBMAKE) demo-run
demo-run: all $(GUEST_PROGRAMS)
	@$(TEST_ENV) tests/demo/demo.sh

.PHONY: check check-run
check: deps ## build, then run every test: unit, model, fuzz corpus, bench's own, system (SUITES=)
	$(SUBMAKE) check-run
check-run: all $(UNIT_PROGRAMS) $(REPLAY_PROGRAMS) $(GUEST_PROGRAMS) $(BENCH_PROGRAMS)
	@$(TEST_ENV) tests/check.sh $(SUITES)

# What the lab runs besides the unit tests of the transports.
LAB_PROGRAMS := $(patsubst tests/lab/%.c,$(B)/tests/lab/%,$(wildcard tests/lab/*.c))
$(LAB_PROGRAMS): $(B)/tests/lab/%: $(B)/obj/tests/lab/%.c.o $(call archives,rdma)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(FV_CFLAGS) $(CFLAGS) $(LDFLAGS) $^ -o $@ $(CHECK_LIBS) $(LIBS)

.PHONY: lab lab-quick lab-deps lab-run
lab: lab-deps ## build, then test RDMA and nested paging between two emulated machines (30 min at most)
	$(SUBMAKE) lab-run
lab-quick: lab-deps ## the short form of it
	$(SUBMAKE) lab-run LAB_OPTIONS=--quick
lab-deps:
	@tools/deps.sh --lab
lab-run: all $(GUEST_PROGRAMS) $(LAB_PROGRAMS) $(filter $(B)/tests/unit/rdma/%,$(UNIT_PROGRAMS)) \
    $(B)/tests/unit/memserver/check_server
	@$(TEST_ENV) tests/lab/run.sh $(LAB_OPTIONS)

.PHONY: redis-suite redis-deps redis-run
redis-suite: redis-deps ## build, then run Redis's own test suite against redis-server in a guest (REDIS_CASES=)
	$(SUBMAKE) redis-run
redis-deps: deps
	@tools/deps.sh --redis
redis-run: all
	@$(TEST_ENV) tests/redis/run.sh $(REDIS_CASES)

.PHONY: lint
lint: deps ## formatting, static analysis, layering, sizes, manuals, messages, scripts (LINTS=)
	$(SUBMAKE) all
	@$(TEST_ENV) JOBS=$(JOBS) tests/lint/run.sh $(LINTS)

.PHONY: docs
docs: ## make the generated documents anew (docs/syscalls.md)
	$(Q)awk -f docs/gen-syscalls.awk vmm/io/table.def guest-os/syscalls.def > docs/syscalls.md

.PHONY: bench bench-quick bench-run bench-counted bench-counted-run
bench: deps ## measure everything, for hours: docs/benchmarks/full (SECTIONS=, RESUME=1, BENCH_OPTIONS=--help)
	$(SUBMAKE) bench-run
bench-quick: deps ## measure a little in less than five minutes: docs/benchmarks/quick
	$(SUBMAKE) bench-run BENCH_OPTIONS="--quick $(BENCH_OPTIONS)"
bench-run: all $(GUEST_PROGRAMS) $(BENCH_PROGRAMS)
	@$(TEST_ENV) tests/bench/bench.py $(if $(SECTIONS),--sections $(SECTIONS)) $(if $(RESUME),--resume) \
	    $(BENCH_OPTIONS)
bench-counted: lab-deps ## count instructions where times cannot be measured: docs/benchmarks/counted (SECTIONS=, RESUME=1)
	$(SUBMAKE) bench-counted-run
bench-counted-run: all $(GUEST_PROGRAMS) $(BENCH_PROGRAMS)
	@$(TEST_ENV) tests/lab/counted.sh docs/benchmarks/counted$(if $(SECTIONS),-$(subst $(comma),-,$(SECTIONS))) \
	    $(if $(SECTIONS),--sections $(SECTIONS)) $(if $(RESUME),--resume) $(BENCH_OPTIONS)

.PHONY: fuzz fuzz-run
fuzz: deps ## explore every fuzz target for FUZZ_SECONDS each (default 60)
	$(SUBMAKE) CC=$(FUZZ_CC) SANITIZE=fuzzer-no-link,address B=$(B)/fuzz fuzz-run
fuzz-run: $(FUZZ_PROGRAMS)
	@for name in $(FUZZ_NAMES); do \
	    mkdir -p $(B)/corpus/$$name; \
	    $(B)/tests/fuzz/fuzz_$$name -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
	        -rss_limit_mb=4096 -artifact_prefix=$(B)/corpus/ $(B)/corpus/$$name \
	        tests/fuzz/corpus/$$name >$(B)/corpus/$$name.log 2>&1 || \
	        { tail -n 60 $(B)/corpus/$$name.log; echo "FAIL  fuzz $$name"; exit 1; }; \
	    echo "ok    fuzz $$name ($$(grep -o 'Done.*' $(B)/corpus/$$name.log))"; \
	done

# --- installation: relocatable, the programs find the image relative to themselves ---
BINDIR := $(DESTDIR)$(PREFIX)/bin
LIBDIR := $(DESTDIR)$(PREFIX)/lib/farvisor
MANDIR := $(DESTDIR)$(PREFIX)/share/man/man1
MAN3DIR := $(DESTDIR)$(PREFIX)/share/man/man3
GUIDE_LIBDIR := $(DESTDIR)$(PREFIX)/lib
GUIDE_INCLUDEDIR := $(DESTDIR)$(PREFIX)/include/farvisor
GUIDE_HEADERS := guides-api/farvisor/guide.h
COMPLETIONDIR := $(DESTDIR)$(PREFIX)/share/bash-completion/completions

.PHONY: install
install: all ## install below DESTDIR and PREFIX (default /usr/local)
	install -d $(BINDIR) $(LIBDIR) $(MANDIR) $(MAN3DIR) $(COMPLETIONDIR) $(GUIDE_INCLUDEDIR) \
	    $(GUIDE_LIBDIR)/pkgconfig
	install -m 755 $(PROGRAMS) $(BINDIR)
	install -m 644 $(GUEST_IMAGE) $(LIBDIR)
	install -m 755 $(ALLOC_SHARED) $(LIBDIR)
	install -m 644 $(MAN_PAGES) $(MANDIR)
	install -m 644 $(MAN3_PAGES) $(MAN3DIR)
	install -m 644 $(GUIDE_HEADERS) $(GUIDE_INCLUDEDIR)
	install -m 755 $(GUIDE_SHARED) $(GUIDE_LIBDIR)
	install -d $(LIBDIR)/guides
	install -m 755 $(GUIDE_GUIDES) $(LIBDIR)/guides
	install -m 644 $(GUIDE_STATIC) $(GUIDE_LIBDIR)
	ln -sf $(notdir $(GUIDE_SHARED)) $(GUIDE_LIBDIR)/$(GUIDE_SONAME)
	ln -sf $(GUIDE_SONAME) $(GUIDE_LIBDIR)/libfarguide.so
	install -m 644 $(B)/libfarguide.pc $(GUIDE_LIBDIR)/pkgconfig
	$(B)/farvisor completion bash > $(COMPLETIONDIR)/farvisor

.PHONY: uninstall
uninstall: ## remove what install put there (with the same DESTDIR and PREFIX)
	rm -f $(PROGRAMS:$(B)/%=$(BINDIR)/%) $(MAN_PAGES:man/%=$(MANDIR)/%) $(COMPLETIONDIR)/farvisor
	rm -f $(MAN3_PAGES:man/%=$(MAN3DIR)/%) $(GUIDE_LIBDIR)/libfarguide.* \
	    $(GUIDE_LIBDIR)/pkgconfig/libfarguide.pc
	rm -rf $(LIBDIR) $(GUIDE_INCLUDEDIR)

.PHONY: clean
clean: ## remove what was built (B=, SANITIZE=: of that build alone)
	rm -rf $(B)
