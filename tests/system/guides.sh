#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Hints and guides: that they help, and that those which do harm harm nobody. orders is the tutorial's
# program; what it prints without a guide is what it has to print with any.
CASE_TIMEOUT=90
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

GUIDES=$BUILD/tests/guides
ORDERS=(96 300) # MiB, requests

# expect_orders OPTION...: runs orders under far memory; its total is right.
expect_orders() {
    local total
    total=$("$GUIDES/orders" "${ORDERS[@]}" 2>/dev/null)
    far --dir "$GUIDES:ro" --memory 256M --local 24M --stats stats "$@" -- \
        "$GUIDES/orders" "${ORDERS[@]}" >out 2>err || fail "status $?: $(cat err)"
    [ "$(cat out)" = "$total" ] || fail "printed '$(cat out)', not '$total'"
}

# expect_one_warning PATTERN: beside what orders itself says.
expect_one_warning() {
    [ "$(grep -c '^farvisor:' err)" = 1 ] || fail "not one line: $(cat err)"
    grep -qE "^farvisor: $1" err || fail "no line like '$1' but: $(cat err)"
}

test_guide_makes_pages_come_before_they_are_touched() {
    expect_orders
    local before
    before=$(stat_of stats paging demand_fetched_pages)
    # Slow enough that the hints of a request fly together; a touch that comes first is a demand.
    expect_orders --transport loopback,delay=300us --guide-time 100% --guide "$GUIDES/example.so"
    [ "$(stat_of stats hints taken)" -gt 9000 ] || fail "$(stat_of stats hints taken) hints taken"
    [ "$(stat_of stats paging demand_fetched_pages)" -lt $((before / 2)) ] ||
        fail "$(stat_of stats paging demand_fetched_pages) demand fetches with, $before without"
}

test_guide_that_crashes_before_the_call() {
    expect_orders --guide "$GUIDES/crash.so"
    expect_one_warning 'guide crash: switched off: it crashed; the program goes on without it'
}

test_guide_that_crashes_after_the_call() {
    expect_orders --env CRASH=after --guide "$GUIDES/crash.so"
    expect_one_warning 'guide crash: switched off: it crashed'
}

test_guide_that_crashes_at_its_start() {
    expect_orders --env CRASH=start --guide "$GUIDES/crash.so"
    expect_one_warning 'guide crash: switched off: it crashed'
}

test_guide_that_loops() {
    expect_orders --guide "$GUIDES/loop.so"
    expect_one_warning 'guide loop: switched off: it did not come back'
}

test_guide_that_sleeps() {
    expect_orders --env LOOP=asleep --guide "$GUIDES/loop.so"
    expect_one_warning 'guide loop: switched off: it did not come back'
}

# Its time is over while the library makes a hook: that is not left half done.
test_guide_that_loops_while_hooks_are_made() {
    for _ in 1 2 3; do
        expect_orders --guide "$GUIDES/half.so"
        expect_one_warning 'guide half: switched off: it did not come back'
    done
}

test_guide_that_posts_garbage() {
    expect_orders --guide-time 100% --guide "$GUIDES/garbage.so"
    expect_one_warning 'hints: switched off: 0% of the pages they named were used'
}

test_guide_that_takes_too_much_time() {
    expect_orders --guide-accuracy 0% --guide-time 5% --guide "$GUIDES/garbage.so"
    expect_one_warning 'guide garbage: switched off: it took more of the program.s time than'
}

# One function has one hook: the guide named last starts first. A preload of the user's own stays.
test_two_guides_and_a_preload_of_the_users_own() {
    expect_orders --guide-time 100% --env LD_PRELOAD=libpthread.so.0 --guide "$GUIDES/example.so" \
        --guide "$GUIDES/loop.so"
    grep -q 'example guide: orders_total cannot be hooked (error 16)' err || fail "$(cat err)"
    far --env LD_PRELOAD=libm.so.6 --guide "$GUIDES/loop.so" --dump-config true >out
    grep -qx 'env=LD_PRELOAD=.*/libfarguide.so.0:.*/loop.so:libm.so.6' out || fail "$(cat out)"
}

test_guides_are_refused_where_they_cannot_be_loaded() {
    expect_status 126 far --guide "$GUIDES/example.so" -- "$GUESTS/static_hello"
    expect_stderr 'static_hello: cannot run with --guide: a static program'
    expect_status 125 far --guide missing.so -- true
    grep -q -- '--guide missing.so: No such file' err || fail "$(cat err)"
    expect_status 125 far --guide . -- true
    expect_status 125 far --guide-time 101% -- true
    grep -q -- '--guide-time 101%: not a share from 0% to 100%' err || fail "$(cat err)"
    expect_status 125 far --guide-accuracy 10 -- true
}

test_guide_works_natively() {
    local total
    total=$("$GUIDES/orders" 8 50 2>/dev/null)
    LD_LIBRARY_PATH=$BUILD LD_PRELOAD=$GUIDES/example.so "$GUIDES/orders" 8 50 >out 2>err ||
        fail "status $?: $(cat err)"
    [ "$(cat out)" = "$total" ] || fail "printed '$(cat out)'"
    "$GUESTS/guide_reads" 16 1 >out 2>err || fail "$(cat err)"
}

# An unmapping does not wait for the pins of other memory, and ends its own.
test_pins_keep_nobody_waiting() {
    local mode
    for mode in exit uffd; do
        expect_status 0 far --memory 256M --local 32M --fault-mode $mode --transport loopback,delay=5ms -- \
            "$GUESTS/guide_pins"
    done
}

# Bytes are right while their pages come, go, change and are discarded.
reads() {
    far --memory 256M --local 16M --stats stats "$@" -- "$GUESTS/guide_reads" 64 5 >out 2>err ||
        fail "status $?: $(cat err)"
    [ "$(stat_of stats paging evicted_pages)" -gt 0 ] || fail 'nothing was evicted'
    [ "$(stat_of stats hints reads)" -gt 500 ] || fail "$(stat_of stats hints reads) reads"
}
test_reads_under_eviction() { reads; }
test_reads_under_eviction_over_a_slow_network() { reads --transport loopback,delay=50us,jitter=50us; }
test_reads_under_eviction_in_uffd_mode() { reads --fault-mode uffd; }
test_reads_over_ofi() {
    start_memserver --capacity 1G
    reads --transport ofi --memserver "$MEMSERVER_ADDR"
}

# chains OPTION...: over the network, the memory node follows the chain; what it cannot know is looked at.
chains() {
    start_memserver --capacity 1G
    far --memory 256M --local 16M --stats stats --memserver "$MEMSERVER_ADDR" "$@" -- \
        "$GUESTS/guide_chain" check 64 5 >out 2>err || fail "status $?: $(cat err)"
    [ "$(stat_of stats paging evicted_pages)" -gt 1000 ] || fail 'little was evicted'
    [ "$(stat_of stats hints chain_nodes)" -gt 500 ] || fail "$(stat_of stats hints chain_nodes) nodes by chains"
    [ "$(stat_of stats hints chain_stale_nodes)" -gt 0 ] || fail 'no node was out of date'
}
test_chains_while_their_nodes_change() { chains --transport ofi; }
test_chains_while_their_nodes_change_far_away() { chains --transport ofi,delay=200us; }
test_chains_while_their_nodes_change_in_uffd_mode() { chains --transport ofi --fault-mode uffd; }

test_chain_is_one_round_trip() {
    start_memserver --capacity 1G
    far --memory 256M --local 32M --stats stats --memserver "$MEMSERVER_ADDR" --transport ofi,delay=300us -- \
        "$GUESTS/guide_chain" time 64 5 >out 2>err || fail "status $?: $(cat err)"
    [ "$(stat_of stats memory_node transport)" = 'ofi/tcp (simulated delay=300000ns)' ] ||
        fail "the delay is not named: $(stat_of stats memory_node transport)"
    # 100 nodes in two round trips; the rest is what a busy machine may add.
    awk '/times as fast/ && $(NF - 3) >= 10 { good = 1 } END { exit !good }' out || fail "$(cat out)"
}
test_chains_where_nothing_is_remote() {
    far --memory 256M -- "$GUESTS/guide_chain" check 16 1 >out 2>err || fail "$(cat err)"
    "$GUESTS/guide_chain" check 16 1 >out 2>err || fail "$(cat err)"
}
test_reads_where_nothing_is_remote() {
    far --memory 256M -- "$GUESTS/guide_reads" 16 1 >out 2>err || fail "$(cat err)"
}

system_main "$@"
