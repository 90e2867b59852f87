#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The lab's tests, on the compute node: guests on nested paging whose memory is on the other machine,
# by RDMA; what is measured of it; and how they end when devices, links and machines do. Runs in the
# machine that tests/lab/run.sh boots, in the harness of the system tests.
#   compute.sh [--quick] [CASE...]
# shellcheck disable=SC2016 # much is for the other machine to expand
CASE_TIMEOUT=400
QUICK=${QUICK:-} # cases run in shells of their own
if [ "${1:-}" = --quick ]; then
    export QUICK=1
    shift
fi
# shellcheck source-path=SCRIPTDIR source=../system/lib.sh
. "$(dirname "$0")/../system/lib.sh"

NODE=$LAB_PEER:7470

# on_memory TEXT: shell text for the memory node; prints what that printed, returns its status.
on_memory() {
    local number=1
    while [ -e "/lab/requests/$number" ]; do number=$((number + 1)); done
    printf '%s\n' "$1" >/lab/requests/new
    mv /lab/requests/new "/lab/requests/$number"
    wait_until 60 [ -e "/lab/answers/$number.status" ] || fail "the memory node does not answer: $1"
    cat "/lab/answers/$number.out"
    return "$(cat "/lab/answers/$number.status")"
}

# node_start: a memory server on the memory node, which ends with the case.
node_start() {
    on_memory "rm -f memserver.log
        $MEMSERVER --listen $NODE --capacity 1G >memserver.log 2>&1 &
        SERVER=\$!
        for i in \$(seq 100); do grep -q listening memserver.log && break; sleep 0.1; done
        grep -q listening memserver.log || { cat memserver.log; false; }" >node.out ||
        fail "memory server: $(cat node.out)"
    at_exit "on_memory 'kill -KILL \$SERVER; wait \$SERVER' >/dev/null 2>&1"
}

# over TRANSPORT MEMORY LOCAL [OPTION...] -- PROGRAM...
over() {
    local transport=$1 memory=$2 local=$3
    shift 3
    far --transport "$transport" --memserver "$NODE" --memory "$memory" --local "$local" \
        --stats stats "$@"
}

# Soft-RoCE makes no more connections after its interface was down (Linux 6.1): the device is made
# anew with it.
LINK_UP='rdma link delete rxe0; ip link set eth0 up; rdma link add rxe0 type rxe netdev eth0'

# Packets that rxe sent, as the device itself counts them.
device_packets() {
    rdma -j statistic show link rxe0/1 | jq '.[0].sent_pkts'
}

# Processor time of all of the server's processes, in clock ticks.
server_ticks() {
    on_memory 'for p in $SERVER $(cat /proc/$SERVER/task/*/children); do
        cut -d" " -f14,15 /proc/$p/stat; done | awk "{ sum += \$1 + \$2 } END { print sum }"'
}

# A guest that is busy with far memory until stopped; BUSY_PID.
busy_start() {
    : >busy.out
    "$FARVISOR" run "${SEE_GUESTS[@]}" --memory 160M --local 32M --memserver "$NODE" "$@" -- \
        "$GUESTS/busy_writer" 128 300 >busy.out 2>busy.err &
    BUSY_PID=$!
    at_exit "end_process $BUSY_PID"
    wait_until 90 grep -q running busy.out || fail "the guest did not get going: $(cat busy.err)"
}

busy_ended() { ! kill -0 "$BUSY_PID" 2>/dev/null; }

# busy_expect_end SECONDS: by itself, in time, with status 125 and one line about the memory node.
busy_expect_end() {
    local started=$SECONDS status
    wait_until "$1" busy_ended || fail "still there $1 s later: $(cat busy.err)"
    wait "$BUSY_PID"
    status=$?
    [ "$status" = 125 ] || fail "exit status $status, not 125: $(cat busy.err)"
    [ "$(grep -c . busy.err)" = 1 ] || fail "not one line: $(cat busy.err)"
    grep -q 'memory node' busy.err || fail "message: $(cat busy.err)"
    echo "after $((SECONDS - started)) s: $(cat busy.err)" >>/lab/endings.log
}

# ---- this host, and guests on it ----

test_doctor() {
    expect_status 0 "$FARVISOR" doctor
    grep -q 'host kind *AMD SVM, NPT' out || fail "host kind: $(grep 'host kind' out)"
    grep -q 'RDMA.*rxe0.*active' out || fail "RDMA device: $(grep RDMA out)"
}

# The vector units as the guest's CPUID and XCR0 have them: AVX and AVX2 work, and survive switches.
test_vector_units() {
    grep -q avx2 /proc/cpuinfo || fail 'this machine has no AVX2'
    expect_status 0 far --memory 64M -- /bin/grep -om1 'avx2' /proc/cpuinfo
    expect_status 0 far --memory 128M --local 16M -- "$GUESTS/vector_gather" 48 500
    grep -qx 'vector_gather: ok' out || fail "$(cat out err)"
}

test_nested_paging_guests() {
    local name names=(signal_registers signal_threads mmap_space string_ops guard_pages)
    [ "$QUICK" ] || names+=(condvars recursion efault random_calls)
    for name in "${names[@]}"; do
        expect_status 0 far --memory 128M --local 16M -- "$GUESTS/$name"
        grep -qx "$name: ok" out || fail "$name: $(cat out err)"
    done
}

# ---- the transport by itself ----

# conformance PROGRAM: a unit test program over verbs, both ends on this machine.
conformance() {
    cd "$REPO" || exit 1
    FARVISOR_TEST_RDMA=$LAB_ADDRESS CK_TIMEOUT_MULTIPLIER=4 "$BUILD/tests/$1" >/tmp/out 2>&1 ||
        fail "$(grep -E '^[0-9]+%|:[FE]:' /tmp/out | head -n 4)"
}

test_conformance_queue() { conformance unit/rdma/check_queue; }
test_conformance_threads() { conformance unit/rdma/check_threads; }
test_conformance_death() { conformance unit/rdma/check_death; }
test_tenants_are_apart() { conformance lab/check_verbs; }

# ---- real programs with three quarters of their memory on the other machine ----

# program MEMORY LOCAL COMMAND...: output over verbs is what it is natively; far memory was used.
program() {
    local memory=$1 local=$2
    shift 2
    "$@" <input >want 2>/dev/null || fail "natively: status $?"
    over verbs "$memory" "$local" -- "$@" <input >out 2>err || fail "status $?: $(cat err)"
    cmp -s want out || fail "another output than natively"
    [ "$(jq -r .memory_node.transport stats)" = verbs/rxe0 ] || fail 'another transport'
    echo "$1: $(jq -c .memory_node stats)" >>/lab/figures.log
    [ "$(stat_of stats memory_node read_bytes)" -gt $((1 << 20)) ] ||
        fail "hardly anything was read from far: $(jq -c .memory_node stats)"
}

test_sort() {
    node_start
    seq 1 250000 | shuf --random-source=<(yes) >input
    program 32M 8M sort -n --parallel=1 -S 28M
}

test_awk() {
    node_start
    : >input
    program 32M 8M mawk 'BEGIN { for (i = 0; i < 160000; i++) a[i] = i * 7 % 1009
        for (k = 1; k < 3; k++) for (i = 0; i < 160000; i++) s += a[i] * k
        print s }'
}

test_python() {
    node_start
    : >input
    program 96M 24M python3 -S -c '
import random
random.seed(5)
table = {i: str(i) * 3 for i in range(120000)}
total = 0
for _ in range(150000):
    total += len(table[random.randrange(120000)])
print(total, hash(tuple(sorted(len(v) for v in table.values()))))'
}

test_xz() {
    [ -z "$QUICK" ] || skip 'not in the short form'
    node_start
    seq 1 200000 >input
    program 64M 16M xz -4 -T1 -c
}

test_sqlite() {
    [ -z "$QUICK" ] || skip 'not in the short form'
    node_start
    : >input
    program 64M 16M sqlite3 :memory: "
        create table t(a integer primary key, b text);
        with recursive n(i) as (select 1 union all select i + 1 from n where i < 60000)
            insert into t select i, printf('%0200d', i * 7919 % 60000) from n;
        select count(*), sum(a * length(b)) from t where b > printf('%0200d', 30000);
        select a from t order by b limit 5 offset 40000;"
}

# storm SECONDS OPTION...
storm() {
    local seconds=$1 packets ticks
    shift
    node_start
    packets=$(device_packets)
    over verbs 128M 16M "$@" -- "$GUESTS/storm" --threads 4 --bytes 64 --seconds "$seconds" \
        --seed "$RANDOM" >out 2>err || fail "status $?: $(cat err)"
    grep -q ' mismatches=0$' out || fail "$(cat out)"
    packets=$(($(device_packets) - packets))
    # Every transfer is at least a request packet; the device counted them all.
    [ "$packets" -ge $(($(stat_of stats memory_node reads) + $(stat_of stats memory_node writes))) ] ||
        fail "the device sent $packets packets only: $(jq -c .memory_node stats)"
    echo "storm $*: $packets packets by the device; $(jq -c .memory_node stats)" >>/lab/figures.log
}

test_storm() { storm "$([ "$QUICK" ] && echo 15 || echo 60)"; }

test_storm_uffd() {
    [ -z "$QUICK" ] || skip 'not in the short form'
    storm 20 --fault-mode uffd
}

# Pages move, the server's processes rest: what they use is their heartbeat.
test_server_is_idle() {
    local before after
    node_start
    busy_start --transport verbs
    before=$(server_ticks)
    local reads_began=$SECONDS
    sleep 20
    after=$(server_ticks)
    busy_ended && fail "the guest ended: $(cat busy.err)"
    echo "server: $((after - before)) ticks of 10 ms in $((SECONDS - reads_began)) s of paging" \
        >>/lab/figures.log
    # Five in a hundred: its heartbeat and housekeeping, emulated. By TCP it would be all there is.
    [ $((after - before)) -le $(((SECONDS - reads_began) * 5)) ] || fail "the server used $((after - before)) ticks of 10 ms"
}

# ---- choice of the transport ----

test_auto_takes_verbs() {
    node_start
    expect_status 0 over auto 64M 16M -- /bin/true
    [ "$(jq -r .memory_node.transport stats)" = verbs/rxe0 ] || fail "$(jq -c .memory_node stats)"
}

# Without a device on the other side: quietly by TCP, or one line if RDMA was asked for.
test_memory_node_without_device() {
    on_memory 'rdma link delete rxe0' || fail 'rdma link delete'
    at_exit "on_memory 'rdma link add rxe0 type rxe netdev eth0'"
    node_start
    expect_status 0 over auto 64M 16M -- /bin/true
    [ ! -s err ] || fail "not quiet: $(cat err)"
    [ "$(jq -r .memory_node.transport stats)" = ofi/tcp ] || fail "$(jq -c .memory_node stats)"
    expect_status 125 over verbs 64M 16M -- /bin/true
    expect_stderr 'memory node .*: refused: the memory server cannot use RDMA'
}

# ---- endings ----

test_server_killed() {
    node_start
    busy_start --transport verbs
    on_memory 'kill -KILL $SERVER'
    busy_expect_end 10
}

test_server_stopped() {
    node_start
    busy_start --transport verbs
    on_memory 'kill -STOP $SERVER'
    busy_expect_end 15
}

test_worker_killed() {
    node_start
    busy_start --transport verbs
    on_memory 'kill -KILL $(cat /proc/$SERVER/task/*/children)'
    busy_expect_end 10
}

# Nothing comes back. Not by taking their interface down: QEMU then holds our packets instead of
# dropping them, and with them soft-RoCE's queue pairs, in the kernel, until the link is back.
test_their_link_cut() {
    node_start
    busy_start --transport verbs
    at_exit "on_memory 'tc qdisc del dev eth0 root'"
    on_memory 'tc qdisc add dev eth0 root netem loss 100%'
    busy_expect_end 20
}

test_our_link_cut() {
    node_start
    busy_start --transport verbs
    at_exit "$LINK_UP"
    ip link set eth0 down
    busy_expect_end 20
}

test_lossy_network() {
    [ -z "$QUICK" ] || skip 'not in the short form'
    node_start
    at_exit 'tc qdisc del dev eth0 root'
    tc qdisc add dev eth0 root netem loss 1% || fail 'tc qdisc add'
    seq 1 250000 | shuf --random-source=<(yes) >input
    program 32M 8M sort -n --parallel=1 -S 28M
}

# ---- figures ----

# perftest's own line: bytes, iterations, min, max, typical (the median), average, ...
perftest_read() {
    on_memory 'ib_read_lat -d rxe0 -x 1 -s 4096 -n 500 -F >/dev/null 2>&1 &'
    sleep 1
    ib_read_lat -d rxe0 -x 1 -s 4096 -n 500 -F "$LAB_PEER" 2>/dev/null | awk '$1 == 4096 { print $5 }'
}

median() {
    printf '%s\n' "$@" | grep . | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

test_read_latency() {
    local theirs=() ours=() them us
    node_start
    for _ in 1 2 3; do
        theirs+=("$(perftest_read)")
        ours+=("$("$BUILD/tests/lab/read_latency" "$NODE" verbs 500 | cut -d' ' -f1)")
    done
    theirs+=("$(perftest_read)")
    them=$(median "${theirs[@]}")
    us=$(median "${ours[@]}")
    if [ -z "$them" ] || [ -z "$us" ]; then
        fail "no figures: perftest ${theirs[*]}, ours ${ours[*]}"
    fi
    {
        echo "read of 4 KiB, p50 in us: ib_read_lat ${theirs[*]} (median $them), ours ${ours[*]}" \
            "(median $us), ratio $(awk "BEGIN { printf \"%.2f\", $us / $them }")"
    } >>/lab/figures.log
    awk "BEGIN { exit !($us <= 1.3 * $them) }" || fail "$(tail -n 1 /lab/figures.log)"
}

# The whole machine at once, and last: there is no way back.
test_zz_memory_node_dies() {
    node_start
    busy_start --transport verbs
    : >/lab/memory.may-end
    echo 'echo b >/proc/sysrq-trigger' >/lab/requests/new
    local number=1
    while [ -e "/lab/requests/$number" ]; do number=$((number + 1)); done
    mv /lab/requests/new "/lab/requests/$number"
    AT_EXIT="end_process $BUSY_PID" # nobody is there to end the server
    trap 'end_process $BUSY_PID' EXIT
    busy_expect_end 25
}

[ "${1:-}" = --case ] || {
    until busybox ping -c 1 -W 1 "$LAB_PEER" >/dev/null 2>&1; do sleep 0.2; done
    : >/lab/figures.log
    : >/lab/endings.log
} # what was measured, and how guests ended: shown by run.sh
system_main "$@"
status=$?
: >/lab/memory.may-end
: >/lab/finished
exit $status
