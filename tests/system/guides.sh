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

# upcalls MODE [OPTION...]: each fault asks a handler; the program finds its bytes, registers and errno as
# they have to be. Leaves stats, out, err.
upcalls() {
    local mode=$1
    shift
    far --memory 256M --local 16M --prefetch none --guide-time 100% --guide-accuracy 0% --stats stats "$@" -- \
        "$GUESTS/guide_faults" "$mode" 32 2 >out 2>err || fail "status $?: $(cat out err)"
    [ "$(stat_of stats paging evicted_pages)" -gt 1000 ] || fail 'little was evicted'
    [ "$(stat_of stats hints upcalls)" -gt 15 ] || fail "$(stat_of stats hints upcalls) upcalls"
}
# quiet_upcalls MODE [OPTION...]: the handler is good.
quiet_upcalls() {
    upcalls "$@"
    [ ! -s err ] || fail "it said: $(cat err)"
    [ "$(stat_of stats hints upcalls)" -gt 500 ] || fail "$(stat_of stats hints upcalls) upcalls"
}
test_upcalls_make_pages_come() {
    quiet_upcalls good
    [ "$(stat_of stats hints upcall_pages)" -gt 1000 ] || fail "$(stat_of stats hints upcall_pages) pages by upcalls"
    # Of four pages in a row one is demanded.
    [ "$(stat_of stats paging demand_fetched_pages)" -lt 8000 ] ||
        fail "$(stat_of stats paging demand_fetched_pages) demand fetches of 16384 touches"
}
test_upcalls_over_a_slow_network() { quiet_upcalls good --transport loopback,delay=200us,jitter=200us; }
test_upcalls_over_ofi() {
    start_memserver --capacity 1G
    quiet_upcalls good --transport ofi --memserver "$MEMSERVER_ADDR"
}
test_handlers_that_fault_themselves() { quiet_upcalls nested --transport loopback,delay=50us; }
test_signals_wait_for_the_end_of_an_upcall() { quiet_upcalls signals --transport loopback,delay=50us; }
test_upcalls_under_signals_from_outside() {
    "$FARVISOR" run "${SEE_GUESTS[@]}" --memory 256M --local 16M --prefetch none --guide-time 100% --guide-accuracy 0% --stats stats \
        --transport loopback,delay=50us -- "$GUESTS/guide_faults" good 32 4 >out 2>err &
    local run=$!
    sleep $((2 * TIME_FACTOR)) # it has its handler by then
    while kill -USR1 $run 2>/dev/null; do sleep 0.01; done
    wait $run || fail "status $?: $(cat out err)"
    [ ! -s err ] || fail "it said: $(cat err)"
    [ "$(stat_of stats hints upcalls)" -gt 500 ] || fail "$(stat_of stats hints upcalls) upcalls"
}
test_upcalls_of_several_threads() { quiet_upcalls threads --transport loopback,delay=100us,jitter=100us; }
test_handler_that_comes_back_by_longjmp() { quiet_upcalls reenter; }

# bad_handler MODE PATTERN: one warning, and the program is as if there had been no handler.
bad_handler() {
    upcalls "$1" --transport loopback,delay=50us
    expect_one_warning "guide .*: switched off: $2; the program goes on without it"
}
test_handler_that_crashes() { bad_handler crash 'it crashed'; }
test_handler_that_loops() { bad_handler loop 'it did not come back'; }
test_handler_that_sleeps() { bad_handler sleep 'it did not come back'; }
test_handler_that_aborts() { bad_handler abort 'it crashed'; }
test_handler_that_jumps_out() { bad_handler escape 'it crashed'; }
test_handler_that_makes_a_signalfd() { bad_handler signalfd 'it crashed'; }
test_handlers_that_would_take_signals() { quiet_upcalls take; }
test_handler_that_takes_too_much_time() {
    upcalls busy --guide-time 5%
    expect_one_warning 'guide .*: switched off: it took more of the program.s time than'
}
test_handler_that_ends_its_thread() {
    far --memory 256M --local 16M --prefetch none --guide-time 100% -- "$GUESTS/guide_faults" exit 32 2 >out 2>err ||
        fail "status $?: $(cat out err)"
    [ ! -s err ] || fail "it said: $(cat err)"
}
test_upcalls_are_not_made_in_uffd_mode() {
    far --memory 256M --local 16M --fault-mode uffd -- "$GUESTS/guide_faults" good 32 1 >out 2>err || true
    expect_one_warning 'guide .*: is not asked at faults: --fault-mode uffd has no exit for them'
    grep -q '^0 calls' out || fail "$(cat out)"
}

# races MODE TOUCHES [OPTION...]: things happen to what a handler is asked about. Leaves stats, out, err.
races() {
    local mode=$1 touches=$2
    shift 2
    far --memory 256M --local 8M --prefetch none --guide-time 100% --guide-accuracy 0% --stats stats \
        --transport loopback,delay=2ms "$@" -- "$GUESTS/guide_races" "$mode" "$touches" >out 2>err ||
        fail "status $?: $(cat out err)"
    [ ! -s err ] || fail "it said: $(cat err)"
    [ "$(stat_of stats hints upcalls)" -gt $((touches / 10)) ] || fail "$(stat_of stats hints upcalls) upcalls"
}
test_page_is_replaced_by_its_handler() { races replace 500; }
test_page_is_unmapped_by_its_handler() { races unmap 500; }
test_page_is_changed_by_another_thread_during_an_upcall() { races elsewhere 200; }
# left_early: of those that could.
left_early() {
    [ "$(sed -E 's/.* ([0-9]+) left early.*/\1/' out)" -gt 10 ] || fail "$(cat out)"
}
test_page_leaves_before_its_upcall_ends() { races leave 60 && left_early; }
test_handler_drives_out_what_the_instruction_needs() { races cross 60 && left_early; }
test_range_is_given_up_during_upcalls() {
    races toggle 2000
    [ "$(sed -E 's/.* ([0-9]+) toggles.*/\1/' out)" -gt 20 ] || fail "$(cat out)"
}
test_process_ends_in_a_handler() {
    local mode
    for mode in quit quit_elsewhere; do
        expect_status 7 far --memory 256M --local 8M --prefetch none -- "$GUESTS/guide_races" $mode 100
        [ ! -s err ] || fail "it said: $(cat err)"
    done
}
# node_lost SIGNAL TRANSPORT: while a handler runs, and its page is on its way.
node_lost() {
    start_memserver --listen "unix:$PWD/socket" --capacity 1G
    far --memory 256M --local 24M --prefetch none --guide-time 100% --timeout 2s --memserver "unix:$PWD/socket" \
        --transport "$2" -- "$GUESTS/guide_races" linger 1000 >out 2>err &
    local run=$! status
    wait_until $((20 * TIME_FACTOR)) grep -q asked out || fail "no handler ran: $(cat out err)"
    kill -"$1" "$MEMSERVER_PID"
    # What the node's loss may take, and the end of the run.
    wait_until 4 process_ended $run || fail 'still running 4 s later'
    wait $run
    status=$?
    [ $status = 125 ] || fail "exit status $status, not 125: $(cat err)"
    [ "$(grep -c . err)" = 1 ] || fail "not one line: $(cat err)"
    grep -qE 'memory node' err || fail "message: $(cat err)"
}
test_node_dies_during_an_upcall() { node_lost KILL ofi,delay=200ms; }
test_node_stops_during_an_upcall() { node_lost STOP ofi,delay=200ms; }
test_node_dies_during_an_upcall_over_loopback() { node_lost KILL loopback,delay=200ms; }

# graph_demands KIND COUNT [OPTION...]: demand fetches of the graph benchmark with less here than its arrays take; checksum in out.
graph_demands() {
    far --dir "$BUILD/tests/bench:ro" --memory 256M --local 8M --prefetch none --stats stats "${@:3}" -- \
        "$BUILD/tests/bench/graph" "$1" graph "$2" >out 2>err || fail "status $?: $(cat err)"
    [ ! -s err ] || fail "it said: $(cat err)"
    stat_of stats paging demand_fetched_pages
}
graph_guide_helps() {
    local with without checksum
    "$BUILD/tests/bench/graph" generate 17 8 graph
    without=$(graph_demands "$@") || exit 1
    checksum=$(grep checksum out)
    with=$(graph_demands "$@" --guide-time 100% --guide "$BUILD/guides/graph.so") || exit 1
    [ "$(grep checksum out)" = "$checksum" ] || fail "$(grep checksum out), not $checksum"
    [ "$(stat_of stats hints upcalls)" -gt 100 ] || fail "$(stat_of stats hints upcalls) upcalls"
    [ "$with" -lt $((without / 2)) ] || fail "$with demand fetches with the guide, $without without"
}
test_graph_guide_helps_pagerank() { graph_guide_helps pagerank 2; }

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
