#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The redis guide beside Debian's redis-server: every answer is what it has to be while three quarters
# of the data are far away, and fewer pages are waited for than without the guide.
CASE_TIMEOUT=100
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

GUIDE=$BUILD/guides/redis.so
FOR_GUIDE=(--guide-time 100% --guide "$GUIDE")

# redis-check-rdb and redis-server are one program, which looks at its name.
redis_here() {
    local program
    requires python3
    program=$(command -v redis-server || command -v redis-check-rdb) || skip 'redis-server is not installed'
    cp "$(readlink -f "$program")" redis-server
}

# redis_answers STATS WORKLOAD REQUESTS OPTION...: a server that is asked; all it says is right.
redis_answers() {
    local stats=$1 workload=$2 requests=$3 port
    shift 3
    port=$(free_port)
    far --memory 128M --local "$LOCAL" --net host --publish "127.0.0.1:$port" --stats "$stats" "$@" -- \
        ./redis-server --port "$port" --bind 127.0.0.1 --save '' >server.out 2>server.err &
    local server=$!
    at_exit "end_process $server"
    timeout "$((CASE_TIMEOUT - 8))" python3 "$SYSTEM_DIR/redis_answers.py" "$port" "$workload" "$requests" >answers 2>&1 ||
        fail "$(tail -n 3 answers) $(tail -n 3 server.err)"
    wait "$server" || fail "the server ended with status $?: $(tail -n 3 server.err)"
    ! grep -E '^(farvisor|redis guide):' server.err || fail "$(cat server.err)"
}

# far_enough STATS: the data did not fit.
far_enough() {
    [ "$(stat_of "$1" paging evicted_pages)" -gt 2000 ] || fail "$(stat_of "$1" paging evicted_pages) pages were evicted"
}

# A quarter of the data is here, and whatever is asked the answers are those of a model.
mixed() {
    redis_here
    # Requests by chance, and less memory here than one command may name: much goes before its use.
    LOCAL=10M redis_answers stats mixed 3000 "${FOR_GUIDE[@]}" --guide-accuracy 1% "$@"
    far_enough stats
    [ "$(stat_of stats hints started_pages)" -gt 500 ] ||
        fail "$(stat_of stats hints started_pages) pages came on hints"
}
test_answers_are_right() { mixed; }
test_answers_are_right_with_nodes_read_from_afar() { mixed --env FARVISOR_REDIS_WALK=read; }

# fewer_fetches WORKLOAD REQUESTS: the guide saves demand fetches. LOCAL is a quarter of the data or so.
# With --full also where nothing else fetches ahead.
fewer_fetches() {
    local prefetch without with counts=
    redis_here
    for prefetch in auto ${FULL:+none}; do
        redis_answers without "$@" --prefetch "$prefetch" --transport loopback,delay=300us
        far_enough without
        redis_answers with "$@" --prefetch "$prefetch" --transport loopback,delay=300us "${FOR_GUIDE[@]}"
        without=$(stat_of without paging demand_fetched_pages)
        with=$(stat_of with paging demand_fetched_pages)
        [ "$(stat_of with hints started_pages)" -gt 500 ] || fail "$(stat_of with hints started_pages) pages came on hints"
        [ "$with" -lt "$without" ] || fail "--prefetch $prefetch: $with demand fetches with the guide, $without without"
        counts+="${counts:+; }--prefetch $prefetch: $without demand fetches, $with with the guide,"
        counts+=" which named $(stat_of with hints prefetch_pages) pages and started $(stat_of with hints started_pages);"
        counts+=" of its samples $(stat_of with hints sampled_used) were used and $(stat_of with hints sampled_unused) not"
    done
    note "$counts"
}
test_pipelined_gets_wait_for_fewer_pages() { LOCAL=10M fewer_fetches get 640; }
test_hgetall_waits_for_fewer_pages() { LOCAL=8M fewer_fetches hgetall 100; }
test_smembers_waits_for_fewer_pages() { LOCAL=8M fewer_fetches smembers 100; }
test_zrange_waits_for_fewer_pages() { LOCAL=8M fewer_fetches zrange 100; }
test_lrange_waits_for_fewer_pages() { LOCAL=8M fewer_fetches lrange 100; }
test_lrange_of_many_nodes_waits_for_fewer_pages() { LOCAL=8M fewer_fetches nodes 100; }

# What it takes to find the nodes of a skiplist: their own bytes, or whole pages that are touched in turn.
test_nodes_read_from_afar_are_few_bytes() {
    local touched read
    redis_here
    LOCAL=8M redis_answers touch zrange 100 "${FOR_GUIDE[@]}" --env FARVISOR_REDIS_WALK=touch
    LOCAL=8M redis_answers read zrange 100 "${FOR_GUIDE[@]}" --env FARVISOR_REDIS_WALK=read
    touched=$(($(stat_of touch paging demand_fetched_pages) * 4096))
    read=$(stat_of read hints read_bytes)
    [ "$read" -gt 100000 ] || fail "$read bytes of nodes were read"
    [ $((read * 8)) -le "$touched" ] || fail "$read bytes of nodes were read, $touched fetched where they are touched"
}

test_another_program_is_left_alone() {
    expect_status 0 far --guide "$GUIDE" -- /bin/true
    expect_stderr '^redis guide: this is not redis-server 7.0: nothing is looked ahead$'
}
test_another_version_is_left_alone() {
    expect_status 0 far --guide "$BUILD/tests/guides/newer.so" --guide "$GUIDE" -- /bin/true
    expect_stderr '^redis guide: this is redis-server 7.2.4, not 7.0: nothing is looked ahead$'
}

system_main "$@"
