#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Failure is bounded and clear: memory servers that die, freeze, fill up or are talked to by someone
# strange, and guests that vanish.
CASE_TIMEOUT=60
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

# start_busy OPTION...: a guest that uses four times its local memory until stopped; BUSY_PID.
start_busy() {
    : >busy.out
    "$FARVISOR" run "${SEE_GUESTS[@]}" --memory 160M --local 32M "$@" -- "$GUESTS/${BUSY_GUEST:-busy_writer}" 128 120 >busy.out 2>busy.err &
    BUSY_PID=$!
    at_exit "end_process $BUSY_PID"
    wait_until $((20 * ${TIME_FACTOR:-1})) grep -q running busy.out || fail "the guest did not get going: $(cat busy.err)"
}

busy_ended() {
    ! kill -0 "$BUSY_PID" 2>/dev/null
}

# expect_busy_ends SECONDS: by itself, in time, with 125 and one line that matches PATTERN.
expect_busy_ends() {
    local started=$SECONDS status
    wait_until "$1" busy_ended || fail "still running $1 s later"
    wait "$BUSY_PID"
    status=$?
    [ $status = 125 ] || fail "exit status $status, not 125: $(cat busy.err)"
    [ "$(grep -c . busy.err)" = 1 ] || fail "not one line: $(cat busy.err)"
    grep -qE "$2" busy.err || fail "message: $(cat busy.err)"
    echo "ended after $((SECONDS - started)) s"
}

# nothing_in_use: the server holds no memory for anyone; what it said is in status.out.
nothing_in_use() {
    "$MEMSERVER" --status "$MEMSERVER_ADDR" >status.out 2>&1 && grep -qE '^memory +0 B of ' status.out
}

lost() {
    start_memserver --capacity 1G
    local mode=$1
    shift
    start_busy --fault-mode "$mode" --transport "$1" --memserver "$MEMSERVER_ADDR"
    kill -"$2" "$MEMSERVER_PID"
    expect_busy_ends 10 'memory (node|server)|memserver'
}

test_server_killed_ofi_exit() { lost exit ofi KILL; }
test_server_killed_ofi_uffd() { lost uffd ofi KILL; }
test_server_stopped_ofi_exit() { lost exit ofi STOP; }
test_server_stopped_ofi_uffd() { lost uffd ofi STOP; }

# A move of pages is no place to get lost in either.
test_server_killed_during_mremap() { BUSY_GUEST=busy_mover lost exit ofi KILL; }

loopback_lost() {
    start_memserver --listen "unix:$PWD/socket" --capacity 1G
    start_busy --fault-mode exit --transport loopback --memserver "unix:$PWD/socket"
    kill -"$1" "$MEMSERVER_PID"
    expect_busy_ends 10 'memory (node|server)|memserver'
}

test_server_killed_loopback() { loopback_lost KILL; }
test_server_stopped_loopback() { loopback_lost STOP; }

test_timeout_is_settable() {
    start_memserver --capacity 1G
    start_busy --timeout 1s --transport ofi --memserver "$MEMSERVER_ADDR"
    kill -STOP "$MEMSERVER_PID"
    expect_busy_ends 4 'memory (node|server)|memserver'
}

# --timeout is what a user sees, whoever waits for what when the server stops: here also threads
# that are about to open a connection. The second on top is for ending the run.
test_timeout_bounds_late_threads() {
    local transport mode
    start_memserver --listen "unix:$PWD/socket" --capacity 1G
    for transport in ofi loopback; do
        for mode in exit uffd; do
            BUSY_GUEST=late_threads start_busy --timeout 2s --fault-mode "$mode" \
                --transport "$transport" --memserver "unix:$PWD/socket"
            # With its workers: as when the machine is gone.
            # shellcheck disable=SC2046 # a list
            kill -STOP "$MEMSERVER_PID" $(pgrep -P "$MEMSERVER_PID")
            expect_busy_ends 3 'memory node .*: (no sign of life for 2.0 s|a transfer did not finish within 2.0 s|cannot open a data connection: Connection timed out)'
            # shellcheck disable=SC2046
            kill -CONT "$MEMSERVER_PID" $(pgrep -P "$MEMSERVER_PID")
        done
    done
}

# SIGTERM: nobody new is let in, whoever is there may finish, and after the grace it ends anyway.
test_server_term_drains() {
    start_memserver --capacity 1G --grace 4s
    start_busy --transport ofi --memserver "$MEMSERVER_ADDR"
    kill -TERM "$MEMSERVER_PID"
    sleep 1
    ! busy_ended || fail "the guest was not left the grace: $(cat busy.err)"
    expect_status 125 far --memory 160M --local 32M --transport ofi --memserver "$MEMSERVER_ADDR" -- /bin/true
    server_gone() { ! kill -0 "$MEMSERVER_PID" 2>/dev/null; }
    wait_until 8 server_gone || fail 'still there 8 s later'
    expect_busy_ends 10 'memory (node|server)|memserver'
}

# A guest that vanishes gives its memory back.
test_guest_killed() {
    start_memserver --capacity 1G
    start_busy --transport ofi --memserver "$MEMSERVER_ADDR"
    nothing_in_use && fail "nothing although a guest runs"
    grep -q "^memory" status.out || fail "although a guest runs: $(cat status.out)"
    end_process "$BUSY_PID"
    wait_until 5 nothing_in_use || fail "5 s later: $(cat status.out)"
}

test_guest_killed_loopback() {
    start_memserver --listen "unix:$PWD/socket" --capacity 1G
    MEMSERVER_ADDR=unix:$PWD/socket
    start_busy --transport loopback --memserver "$MEMSERVER_ADDR"
    nothing_in_use && fail "nothing although a guest runs"
    grep -q "^memory" status.out || fail "although a guest runs: $(cat status.out)"
    end_process "$BUSY_PID"
    wait_until 5 nothing_in_use || fail "5 s later: $(cat status.out)"
}

# The embedded server ends with its guest, whatever happens to that.
test_embedded_server_ends_with_guest() {
    start_busy --transport loopback
    local children
    children=$(pgrep -P "$BUSY_PID" | tr '\n' ' ')
    end_process "$BUSY_PID"
    children_gone() {
        local child
        for child in $children; do
            ! kill -0 "$child" 2>/dev/null || return 1
        done
    }
    wait_until 5 children_gone || fail "left behind: $children"
}

# Bytes that are no protocol at all, half messages, and connections that say nothing.
garbage() {
    local host=${MEMSERVER_ADDR%:*} port=${MEMSERVER_ADDR##*:} i
    for i in 1 2 3 4 5 6 7 8; do
        head -c $((i * 7001)) /dev/urandom >"/dev/tcp/$host/$port" 2>/dev/null
    done
    exec 5<>"/dev/tcp/$host/$port"
    sleep 5
}

test_twenty_guests_one_hostile() {
    start_memserver --capacity 2G
    local i pids=() wrong=0
    seq 1 160000 | shuf --random-source=<(yes) >input
    sort -n input >want
    garbage 2>/dev/null &
    at_exit "end_process $!"
    for i in $(seq 1 19); do
        far --quiet --memory 64M --local 8M --transport ofi --memserver "$MEMSERVER_ADDR" \
            --timeout $((5 * TIME_FACTOR))s --fault-mode "$([ $((i % 2)) = 0 ] && echo exit || echo uffd)" -- \
            sort -n --parallel=2 -S 24M input >"out.$i" 2>"err.$i" &
        pids+=($!)
    done
    for i in $(seq 1 19); do
        wait "${pids[$((i - 1))]}" && cmp -s want "out.$i" && continue
        wrong=$((wrong + 1))
        head -c 200 "err.$i" >&2
    done
    [ $wrong = 0 ] || fail "$wrong of 19 guests went wrong"
    wait_until 5 nothing_in_use || fail "memory left behind: $(cat status.out)"
}

# A guest that may need more than there is, is told before it starts.
test_capacity_exhausted() {
    start_memserver --capacity 64M
    expect_status 125 far --memory 512M --local 32M --transport ofi --memserver "$MEMSERVER_ADDR" -- \
        "$GUESTS/busy_writer" 256 30
    expect_stderr 'at most 64[.]0 MiB'
    wait_until 5 nothing_in_use || fail "memory left behind: $(cat status.out)"
}

# Two guests that fit one at a time: the second is told, the first is not hurt.
test_capacity_shared() {
    start_memserver --capacity 200M
    start_busy --transport ofi --memserver "$MEMSERVER_ADDR"
    far --memory 160M --local 32M --transport ofi --memserver "$MEMSERVER_ADDR" -- \
        "$GUESTS/busy_writer" 128 20 >out 2>err
    [ $? = 125 ] || fail "the second guest: $(cat err)"
    kill -0 "$BUSY_PID" 2>/dev/null || fail "the first guest was hurt: $(cat busy.err)"
}

# More memory than --memory allows is the program's own problem: malloc fails or it is killed.
test_quota_reached() {
    far --memory 64M --local 16M --transport loopback -- "$GUESTS/busy_writer" 128 20 >out 2>err
    local status=$?
    case $status in 0 | 124) fail "status $status" ;; esac
    [ -s err ] || fail 'no message'
}

# More memory than there is: as Linux's out-of-memory killer, and said, whoever solves the misses.
test_out_of_memory_is_said() {
    local mode
    for mode in exit uffd; do
        expect_status 137 far --memory 64M --local 16M --fault-mode "$mode" "$GUESTS/eat_memory"
        expect_stderr '^farvisor: guest: out of memory at 0x[0-9a-f]+: all 64.0 MiB are in use \(see --memory\)$'
    done
}

# main_thread_left PID: what is left of the process are threads that the host cannot end.
main_thread_left() {
    [ ! -e "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status"
}

# A file that no longer answers (its server hangs) is in the way of who waits for it, not of the end.
test_file_hangs() {
    local directory=$PWD/hung server pid
    [ "$(id -u)" = 0 ] || skip 'only root may mount'
    requires python3
    mkdir "$directory"
    python3 "$SYSTEM_DIR/data/hung_file.py" "$directory" >served 2>&1 &
    server=$!
    at_exit "end_process $server; umount -l '$directory' 2>/dev/null"
    wait_until 10 test -s served || fail 'the file system did not start'
    grep -q mounted served || skip "no file system of our own here: $(cat served)"
    "$FARVISOR" run "${SEE_GUESTS[@]}" --memory 64M --dir "$directory:/hung:rw" -- \
        "$GUESTS/hung_lock" /hung/file >out 2>err &
    pid=$!
    wait_until $((10 * TIME_FACTOR)) grep -q read served || fail "nobody reads the file: $(cat err)"
    wait_until $((10 * TIME_FACTOR)) main_thread_left $pid || fail 'not ended 10 s later'
    end_process $server
    expect_status 7 wait $pid
}

# A thread that cannot be had ends the start with one line, whichever of them it is.
test_threads_are_short() {
    local group=$PWD/cgroup limit what status=125 lines=0
    [ "$(id -u)" = 0 ] || skip 'only root may make a control group'
    mkdir "$group"
    # Where the first version bounds threads, the second does not.
    mount -t cgroup -o pids none "$group" 2>/dev/null || mount -t cgroup2 none "$group" 2>/dev/null ||
        skip 'no control groups here'
    at_exit "umount '$group'"
    if [ ! -e "$group/cgroup.subtree_control" ] || ! echo +pids >"$group/cgroup.subtree_control"; then
        [ -e "$group/release_agent" ] || skip 'threads cannot be bounded here'
    fi 2>/dev/null
    mkdir "$group/few.$$"
    at_exit "sleep 0.2; rmdir '$group/few.$$'"
    start_memserver --capacity 256M
    for ((limit = 1; limit < 16 && status == 125; limit++)); do
        echo $limit >"$group/few.$$/pids.max"
        (
            echo $BASHPID >"$group/few.$$/cgroup.procs"
            exec "$FARVISOR" run --memory 64M --local 32M --transport ofi --memserver "$MEMSERVER_ADDR" --polling on -- true
        ) >out 2>err
        status=$?
        [ $status = 0 ] || [ "$(grep -c . err)" = 1 ] || fail "$limit threads, status $status, not one line: $(cat err)"
        lines=$((lines + (status != 0)))
        cat err >>all
    done
    [ $status = 0 ] || fail "status $status with $((limit - 1)) threads: $(cat err)"
    for what in 'cannot start a thread' 'reclaimer thread' 'lander thread' 'events thread' 'poller thread'; do
        grep -q "$what" all || fail "nobody missed the $what: $(cat all)"
    done
    note "$lines limits"
}

# However few descriptors there are, the run works or says in one line why it does not.
test_descriptors_are_short() {
    local limit lines=0 status=125
    start_memserver --capacity 256M
    for ((limit = 4; limit < 300 && status != 0; limit += 1 + limit / 16)); do
        (
            ulimit -n $limit
            exec "$FARVISOR" run --memory 64M --local 32M --transport ofi --memserver "$MEMSERVER_ADDR" --polling on -- true
        ) >out 2>err
        status=$?
        [ $status = 0 ] && break
        [[ $status =~ ^12[567]$ ]] || fail "$limit descriptors: status $status: $(cat err)"
        [ "$(grep -c . err)" = 1 ] || fail "$limit descriptors, status $status, not one line: $(cat err)"
        lines=$((lines + 1))
    done
    [ $status = 0 ] || fail "status $status with $limit descriptors: $(cat err)"
    note "$lines limits"
}

# Each thread needs a timer, which counts like a queued signal of this user. So do those of guests beside
# it, which come and go: then it may be the first thread that gets none.
test_timers_are_short() {
    local queued attempt status
    start_memserver --capacity 256M
    (
        ulimit -i 0
        exec "$FARVISOR" run --memory 64M --local 32M --memserver "$MEMSERVER_ADDR" -- true
    ) >out 2>err
    [ $? = 125 ] || fail "status with no timer: $(cat err)"
    if [ "$(grep -c . err)" != 1 ] || ! grep -q 'host: vcpu 0: timer: .* (ulimit -i)' err; then
        fail "not one clear line: $(cat err)"
    fi
    for attempt in 1 2 3 4 5 6 7 8; do
        queued=$(sed -nE 's,^SigQ:\s*([0-9]+)/.*,\1,p' /proc/self/status)
        (
            ulimit -i $((queued + 2))
            exec "$FARVISOR" run "${SEE_GUESTS[@]}" --memory 64M --local 32M --memserver "$MEMSERVER_ADDR" -- "$GUESTS/thread_ends"
        ) >out 2>err
        status=$?
        [ $status = 1 ] && break
        sleep 0.7
    done
    [ $status = 1 ] || fail "a thread was made without a timer, $attempt times: $(cat err)"
    [ "$(grep -c 'ulimit -i' err)" = 1 ] || fail "not said once: $(cat err)"
}

system_main "$@"
