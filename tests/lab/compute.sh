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

# node_start [OPTION...]: a memory server on the memory node, which ends with the case.
node_start() {
    on_memory "rm -f memserver.log
        $MEMSERVER --listen $NODE --capacity 1G $* >memserver.log 2>&1 &
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

# KVM without nested paging: said by doctor, and guests run on its shadow page tables.
test_shadow_paging() {
    [ -z "$QUICK" ] || skip 'not in the short form'
    at_exit 'busybox rmmod kvm_amd; busybox insmod /lab/kvm-amd.ko'
    busybox rmmod kvm_amd || fail 'rmmod kvm_amd'
    busybox insmod /lab/kvm-amd.ko npt=0 || fail 'insmod kvm-amd.ko npt=0'
    expect_status 0 "$FARVISOR" doctor
    grep -q 'host kind *AMD SVM, NPT switched off' out || fail "host kind: $(grep 'host kind' out)"
    for name in signal_threads mmap_space string_ops; do
        expect_status 0 far --memory 128M --local 16M -- "$GUESTS/$name"
        grep -qx "$name: ok" out || fail "$name: $(cat out err)"
    done
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

PROGRAM_OPTIONS=()
# program MEMORY LOCAL COMMAND...: output over verbs is what it is natively; far memory was used.
program() {
    local memory=$1 local=$2
    shift 2
    "$@" <input >want 2>/dev/null || fail "natively: status $?"
    over verbs "$memory" "$local" "${PROGRAM_OPTIONS[@]}" -- "$@" <input >out 2>err || fail "status $?: $(cat err)"
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
    [ -z "$QUICK" ] || skip 'not in the short form'
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

# The thread that userfaultfd needs fetches by RDMA too.
test_sort_uffd() {
    [ -z "$QUICK" ] || skip 'not in the short form'
    PROGRAM_OPTIONS=(--fault-mode uffd)
    test_sort
}

# Bytes of remote pages (fault/peek.c), while the pages come, go and change; storms for some seconds.
test_bytes_of_pages() {
    node_start
    over verbs 128M 16M -- "$GUESTS/guide_reads" 32 8 >out 2>err || fail "status $?: $(cat err)"
    [ "$(stat_of stats hints reads)" -gt 100 ] || fail "$(stat_of stats hints reads) reads"
    echo "bytes of pages: $(jq -c .hints stats)" >>/lab/figures.log
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

huge_pages() { awk -v key="HugePages_$1:" '$1 == key { print $2 }' /proc/meminfo; }

# Registered buffers: on huge pages where there are any, else on others with one line for who asks.
test_buffers_on_huge_pages() {
    [ -z "$QUICK" ] || skip 'not in the short form'
    local total
    node_start
    over verbs 64M 16M --verbose -- /bin/true >out 2>err || fail "status $?: $(cat err)"
    [ "$(grep -c 'no 2 MiB pages are free for buffers' err)" = 1 ] || fail "not one line: $(cat err)"
    at_exit 'echo 0 >/proc/sys/vm/nr_hugepages'
    echo 16 >/proc/sys/vm/nr_hugepages
    total=$(huge_pages Total)
    [ "$total" -ge 8 ] || fail "only $total huge pages can be had"
    busy_start --transport verbs --verbose
    [ "$(huge_pages Free)" -lt "$total" ] || fail "none of $total huge pages is used"
    grep -q 'no 2 MiB pages' busy.err && fail "$(cat busy.err)"
    echo "huge pages used by buffers: $((total - $(huge_pages Free)))" >>/lab/figures.log
    end_process "$BUSY_PID"
    over verbs 128M 16M -- "$GUESTS/storm" --threads 4 --bytes 64 --seconds 8 --seed "$RANDOM" \
        >out 2>err || fail "status $?: $(cat err)"
    grep -q ' mismatches=0$' out || fail "$(cat out)"
}

# Pages move, the server's processes rest: what they use is their heartbeat.
test_server_is_idle() {
    local before after
    node_start
    busy_start --transport verbs
    before=$(server_ticks)
    local reads_began=$SECONDS
    sleep "$([ "$QUICK" ] && echo 8 || echo 20)"
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

# first_gid PATTERN: index of the first GID that has this form.
first_gid() {
    local gid
    for gid in /sys/class/infiniband/rxe0/ports/1/gids/*; do
        if grep -qsE "$1" "$gid"; then
            echo "${gid##*/}"
            return
        fi
    done
}

# The user's choice, on either side, of what there is and of what there is not.
test_device_port_and_gid() {
    local v4 v6
    v4=$(first_gid '^(0000:){5}ffff:')
    v6=$(first_gid '^fe80:')
    if [ -z "$v4" ] || [ -z "$v6" ]; then
        fail "GIDs: $(grep . /sys/class/infiniband/rxe0/ports/1/gids/* | head -n 4)"
    fi
    node_start --rdma "device=rxe0,port=1"
    expect_status 0 over "verbs,device=rxe0,port=1,gid=$v4" 64M 16M -- /bin/true
    [ "$(jq -r .memory_node.transport stats)" = verbs/rxe0 ] || fail "$(jq -c .memory_node stats)"
    expect_status 125 over "verbs,device=rxe0,gid=$v6" 64M 16M -- /bin/true
    expect_stderr 'memory node .*: cannot use RDMA: gid .* is not an IPv4 address'
    expect_status 125 over verbs,device=rxe7 64M 16M -- /bin/true
    expect_stderr "transport verbs: device 'rxe7': no such RDMA device \(this host has: rxe0\)"
    expect_status 125 over verbs,device=rxe0,port=2 64M 16M -- /bin/true
    expect_stderr 'transport verbs: port 2: device rxe0 has no such port'
    expect_status 125 over verbs,device=rxe0,gid=255 64M 16M -- /bin/true
    expect_stderr 'transport verbs: gid 255: rxe0 port 1 has none at that index'
}

test_server_keeps_to_its_gid() {
    node_start --rdma "device=rxe0,gid=$(first_gid '^fe80:')"
    expect_status 125 over verbs 64M 16M -- /bin/true
    expect_stderr 'refused: .*its --rdma names another device, port or GID'
    expect_status 0 over auto 64M 16M -- /bin/true
    [ "$(jq -r .memory_node.transport stats)" = ofi/tcp ] || fail "$(jq -c .memory_node stats)"
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
    [ -z "$QUICK" ] || skip 'not in the short form'
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

# Nothing comes back.
test_their_link_cut() {
    node_start
    busy_start --transport verbs
    at_exit "on_memory 'tc qdisc del dev eth0 root'"
    on_memory 'tc qdisc add dev eth0 root netem loss 100%'
    busy_expect_end 20
}

# Nothing even leaves: QEMU holds our packets instead of dropping them, and with them soft-RoCE's
# queue pairs, in the kernel, until the link is back. The keeper waits for that, not farvisor.
test_their_interface_down() {
    local keepers state
    node_start
    busy_start --transport verbs
    at_exit "on_memory '$LINK_UP'"
    on_memory 'ip link set eth0 down'
    busy_expect_end 20
    keepers=$(grep -lx farvisor-keeper /proc/[0-9]*/comm 2>/dev/null | tr -cd '0-9\n')
    for keeper in $keepers; do
        state=$(sed -n 's/^State:.//p' "/proc/$keeper/status" 2>/dev/null)
        state+=": $(awk '{ sub(/\+.*/, "", $2); print $2 }' "/proc/$keeper/stack" 2>/dev/null | xargs)"
        echo "keeper: $state" >>/lab/endings.log
    done
    on_memory "$LINK_UP"
    wait_until 30 no_keeper || fail "a keeper is left: $(grep . /proc/[0-9]*/comm | grep keeper)"
}

no_keeper() { ! grep -qsx farvisor-keeper /proc/[0-9]*/comm; }

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

# Theirs and ours by turns, so that what the host does meanwhile meets both; the median round counts.
test_read_latency() {
    local rounds=9 theirs=() ours=() ratios=() them us ratio
    [ "$QUICK" ] && rounds=3
    node_start
    while [ ${#ratios[@]} -lt "$rounds" ]; do
        them=$(perftest_read)
        us=$("$BUILD/tests/lab/read_latency" "$NODE" verbs 500 | cut -d' ' -f1)
        if [ -z "$them" ] || [ -z "$us" ]; then
            fail "no figures in round $((${#ratios[@]} + 1)): perftest '$them', ours '$us'"
        fi
        theirs+=("$them")
        ours+=("$us")
        ratios+=("$(awk "BEGIN { printf \"%.3f\", $us / $them }")")
    done
    ratio=$(median "${ratios[@]}")
    {
        echo "read of 4 KiB, p50 in us, $rounds rounds: ib_read_lat ${theirs[*]}" \
            "(median $(median "${theirs[@]}")), ours ${ours[*]} (median $(median "${ours[@]}"))"
        echo "ratio a round: ${ratios[*]}; median $ratio"
    } >>/lab/figures.log
    awk "BEGIN { exit !($ratio <= 1.3) }" || fail "$(tail -n 1 /lab/figures.log)"
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
