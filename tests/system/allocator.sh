#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# --allocator far: programs do what they do without it, a storm on malloc loses no byte on any transport and in
# either fault mode, and what was freed does not travel.
CASE_TIMEOUT=$([[ " $* " == *" --full "* ]] && echo 700 || echo 150)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

STORM_SECONDS=${STORM_SECONDS:-$([ "$FULL" ] && echo 600 || echo 8)}

# storm OPTION...: 8 threads, some 60 MiB of objects in 16 MiB.
storm() {
    expect_status 0 far --memory 320M --local 16M --allocator far --stats stats "$@" -- \
        "$GUESTS/heap_storm" 8 300000 "$STORM_SECONDS" "$RANDOM"
    grep -q ' mismatches=0$' out || fail "$(cat out)"
    [ "$(stat_of stats paging demand_fetched_pages)" -gt 1000 ] || fail 'hardly anything was fetched'
    [ "$(stat_of stats paging unwritten_dead_bytes)" -gt 100000 ] || fail 'all bytes were written'
    [ "$(stat_of stats paging unread_dead_bytes)" -gt 100000 ] || fail 'all bytes were read'
    [ "$(stat_of stats paging resident_peak_pages)" -le 4096 ] || fail 'more than --local was resident'
}

test_storm_loopback_exit() { storm --transport loopback,delay=20us,jitter=60us; }
test_storm_loopback_uffd() { storm --fault-mode uffd --transport loopback,delay=20us,jitter=60us; }

test_storm_ofi_exit() {
    start_memserver --capacity 1G
    storm --transport ofi --memserver "$MEMSERVER_ADDR"
}

# same COMMAND...: prints the same with the allocator as natively, at a quarter of its memory and at all of it.
same() {
    local share
    "$@" >native.out 2>native.err || fail "natively: status $?: $(head -c 300 native.err)"
    for share in 25% 100%; do
        expect_status 0 far --memory 128M --local $share --allocator far -- "$@"
        cmp -s native.out out || fail "at $share: another output: $(diff native.out out | head -n 3)"
    done
}

test_python() {
    # Its own allocator would take only large pieces of memory from malloc.
    cat >work.py <<'END'
import random
random.seed(7)
table = {i: b"%d" % i * 9 for i in range(60000)}
for key in list(table):
    if random.random() < 0.7:
        del table[key]
print(len(table), all(value == b"%d" % key * 9 for key, value in table.items()))
END
    PYTHONHASHSEED=0 PYTHONMALLOC=malloc same /usr/bin/python3 work.py
}

test_sqlite() {
    requires sqlite3
    same sqlite3 :memory: "create table t(a, b); with recursive c(x) as (select 1 union all select x + 1
        from c where x < 60000) insert into t select x, hex(x * 7919) from c;
        create index i on t(b); delete from t where a % 10 < 7;
        select count(*), sum(a), max(b) from t;"
}

test_sort() {
    seq 1 200000 | awk '{print $1 * 7919 % 200003}' >numbers
    same sort -n --parallel=2 numbers
}

test_cxx() { same "$GUESTS/cxx_exceptions"; }
test_heap() { same "$GUESTS/heap"; }
test_threads() { same "$GUESTS/threads_many"; }

test_freed_objects_do_not_travel() {
    local phase whole live base=(--dir "$BUILD/tests/bench:ro" --memory 96M --local 10M)
    for phase in del get; do
        expect_status 0 far "${base[@]}" --env BENCH_STOP=$phase --stats whole.$phase \
            --allocator far,whole-pages -- "$BUILD/tests/bench/objects" 16 128
        expect_status 0 far "${base[@]}" --env BENCH_STOP=$phase --stats live.$phase \
            --allocator far -- "$BUILD/tests/bench/objects" 16 128
    done
    whole=$(($(stat_of whole.get paging fetched_bytes) - $(stat_of whole.del paging fetched_bytes)))
    live=$(($(stat_of live.get paging fetched_bytes) - $(stat_of live.del paging fetched_bytes)))
    [ $((live * 100)) -le $((whole * 71)) ] || fail "get: $live bytes read, $whole as whole pages"
}

test_static_program_is_refused() {
    expect_status 126 far --allocator far -- "$GUESTS/static_hello"
    expect_stderr 'cannot run with --allocator far: a static program'
}

test_unknown_allocator_is_refused() {
    expect_status 125 far --allocator near -- true
    grep -q -- '--allocator near: not own, far or far,whole-pages' err || fail "$(cat err)"
}

system_main "$@"
