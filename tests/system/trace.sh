#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Recording and replay of real runs: what is recorded is what --stats counts, the sandbox is no
# hindrance, and a trace is replayed to figures that make sense.
CASE_TIMEOUT=${CASE_TIMEOUT:-90}
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

COUNT='
import collections, json, struct, sys
data = open(sys.argv[1], "rb").read()[512:]
pages = collections.Counter()
for what, when in struct.iter_unpack("<QQ", data):
    kind, detail, value = what >> 48 & 15, what >> 52 & 7, when >> 40
    pages[kind, detail] += 1 if kind == 1 else value
assert kind == 15 and what & (1 << 40) - 1 == 0, "no end, or records were dropped"
paging = json.load(open(sys.argv[2]))["paging"]
for name, got in {
    "demand_fetched_pages": pages[1, 0],
    "zero_filled_pages": pages[3, 0],
    "file_filled_pages": pages[3, 1],
    "prefetched_pages": pages[4, 0],
    "evicted_pages": pages[6, 0] + pages[6, 1] + pages[6, 2],
    "evicted_clean_pages": pages[6, 0],
    "evicted_zero_pages": pages[6, 1],
}.items():
    near = abs(paging[name] - got) <= 2 + paging[name] // 50  # some came after the recording
    assert near, f"{name}: counted {paging[name]}, recorded {got}"
assert pages[1, 0] > 1000 and pages[6, 2] > 1000, pages'

# recorded OPTION...: a run that needs several times what may be here, with trace and stats.
recorded() {
    expect_status 0 far --memory 128M --local 8M --trace trace --stats stats "$@" -- \
        /usr/bin/python3 -c '
d = {i: str(i) * 3 for i in range(60000)}
print(sum(len(d[i * 7919 % 60000]) for i in range(20000)))'
    python3 -c "$COUNT" trace stats >&2 || fail "trace and statistics differ"
}

test_a_trace_says_what_the_statistics_say() {
    requires python3
    recorded --prefetch none
    expect_status 0 "$FARVISOR" replay --local 50%,90% --csv csv trace
    head -n 1 out | grep -q '^/usr/bin/python3: [0-9]* touches of .*, recorded with 8.0 MiB here, prefetch none, exit, ' ||
        fail "first line: $(head -n 1 out)"
    [ "$(wc -l <csv)" = 9 ] || fail "not four policies at two sizes: $(cat csv)"
    awk -F, 'NR > 1 {miss[$1, $3] = $6; touches[$1] = $4; size[$3]}
        END {for (s in size) if (miss["belady", s] > miss["lru", s] || miss["belady", s] > miss["clock", s]) exit 1}' csv ||
        fail "something is better than the optimum: $(cat csv)"
}

test_a_trace_with_prefetch_or_handler_thread() {
    requires python3
    recorded
    recorded --fault-mode uffd
    expect_status 0 "$FARVISOR" replay --prefetch none,readahead,trend,auto --local 32M trace
    grep -q 'recorded with --prefetch auto' err || fail "no warning: $(cat err)"
}

test_a_full_disk_ends_with_a_message() {
    expect_status 125 far --memory 128M --local 16M --trace /dev/full -- true
    expect_stderr '--trace /dev/full: cannot write: No space left on device$'
}

test_nothing_remote_is_said() {
    expect_status 0 far --memory 128M --trace trace -- true
    expect_stderr '--trace trace: nothing is remote, so there is next to nothing to record \(see --local\)$'
}

system_main "$@"
