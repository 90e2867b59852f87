#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Small guests, one behaviour each: what Linux promises a program holds in a guest, with all memory
# here and with far less than it uses, in both fault modes.
CASE_TIMEOUT=${CASE_TIMEOUT:-90}
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

# guest NAME [ARG...]: with all memory here, and with 16 MiB of it in both modes.
guest() {
    local name=$1 mode
    shift
    expect_status 0 far --memory 256M -- "$GUESTS/$name" "$@"
    grep -qx "$name: ok" out || fail "at 100 % local: $(cat out)"
    for mode in exit uffd; do
        expect_status 0 far --memory 256M --local 16M --fault-mode $mode -- "$GUESTS/$name" "$@"
        grep -qx "$name: ok" out || fail "at 16M local, $mode: $(cat out)"
    done
}

for name in guard_pages stack_overflow file_sigbus signal_threads signal_in_fault signal_interrupts signal_state \
    signal_retarget timer_stop timer_ends populate_left robust_main lock_replaced timed_waits masked_waits futex_raw \
    futex_shared futex_interrupted futex_orphans timers_refused kicks_elsewhere robust_cut \
    robust_mutex robust_inheriting thread_inherits thread_ends threads_many brk mmap_file mmap_space sysv_shm mprotect heap pipes polling messages sendmmsg recvmmsg unwaited signals_elsewhere clocks identity efault files \
    recursion random_calls; do
    eval "test_$name() { guest $name; }"
done

# What they wait for by time has come within these seconds.
test_timers() { guest timers $((5 * TIME_FACTOR)); }
test_condvars() { guest condvars $((5 * TIME_FACTOR)); }

test_epoll_kept() {
    guest epoll_kept
    ulimit -n 100
    expect_status 0 far --memory 256M -- "$GUESTS/epoll_kept" without-descriptors
    expect_stderr 'epoll: events that could not be told are lost: Too many open files$'
}

# A thread that ended is reused where it can be as it is, though another one ended before it.
test_threads_fit() {
    expect_status 0 far --memory 256M --stats stats -- "$GUESTS/threads_fit"
    grep -qx 'threads_fit: ok' out || fail "$(cat out)"
    local made
    made=$(stat_of stats vcpus host_threads)
    [ "$made" = 2 ] || fail "$made host threads were made for two at once"
}

# A populate that takes for ever natively too. Without a look at signals it takes minutes here.
test_populate_ends() {
    local before=$SECONDS
    expect_status 142 far --memory 256M -- "$GUESTS/populate_ends"
    grep -qx 'populate_ends: ok' out || fail "$(cat out)"
    expect_status 142 far --memory 256M -- "$GUESTS/populate_ends" beside
    [ $((SECONDS - before)) -lt $((8 * TIME_FACTOR)) ] || fail "took $((SECONDS - before)) s"
}

# Told to the VMM, and answered by the guest, whoever carries out the calls.
test_signalfd() {
    local name
    for name in signalfd signalfd_waits; do
        guest $name
        expect_status 0 far --memory 256M --polling on -- "$GUESTS/$name"
        grep -qx "$name: ok" out || fail "polling: $(cat out)"
    done
}

# As natively: a handler's frame never goes where its stack ends.
test_altstack_overflow() {
    expect_status 139 far -- "$GUESTS/altstack_overflow"
}

# These get a region larger than what may be here.
test_mremap() { guest mremap 24; }
test_replaced() { guest replaced 2; }
test_madvise() { guest madvise 48; }
test_string_ops() { guest string_ops 24; }
test_vector_gather() { guest vector_gather 64; }

# Who carries out the calls makes no difference.
test_mixed_io() {
    guest mixed_io
    local polling posted=()
    for polling in on off; do
        expect_status 0 far --memory 256M --polling $polling --stats stats -- "$GUESTS/mixed_io"
        expect_status 0 far --memory 256M --local 16M --polling $polling -- "$GUESTS/mixed_io"
        posted[${#posted[@]}]=$(stat_of stats vcpus posted_calls)
    done
    [ "${posted[0]}" -gt 0 ] || fail 'nothing was posted'
    [ "${posted[1]}" = 0 ] || fail "${posted[1]} calls posted though that is off"
    expect_status 0 far --memory 256M --local 16M --polling on -- "$GUESTS/messages"
    expect_status 0 far --memory 256M --polling on -- "$GUESTS/random_calls"
}

# More threads than can all have a piece of their request here: none of them may hold what another
# waits for. 128 threads, a megabyte each, and 8 MiB.
test_crowded_io() {
    local mode
    for mode in exit uffd; do
        expect_status 0 far --threads 200 --memory 512M --local 8M --fault-mode $mode -- "$GUESTS/crowded_io" 64 1
        grep -qx 'crowded_io: ok' out || fail "$mode: $(cat out)"
    done
}

# More threads than can have a piece pinned wait for one another: 260 with four pages each or more,
# and no more than 512 pages of requests may be pinned of 8 MiB.
test_blocked_io() {
    local mode polling
    for mode in exit uffd; do
        for polling in on off; do
            expect_status 0 far --threads 300 --memory 512M --local 8M --timeout 5s --fault-mode $mode --polling $polling \
                -- "$GUESTS/blocked_io" 260
            grep -qx 'blocked_io: ok' out || fail "$mode, polling $polling: $(cat out)"
        done
    done
}

# As under systemd's MemoryDenyWriteExecute: no memory of the host may become executable.
test_executable_memory_denied() {
    local name local_memory
    for name in mprotect guard_pages mmap_file brk heap; do
        for local_memory in 256M 16M; do
            expect_status 0 "$GUESTS/deny_exec" "$FARVISOR" run "${SEE_GUESTS[@]}" --memory 256M \
                --local $local_memory -- "$GUESTS/$name"
            grep -qx "$name: ok" out || fail "$name, $local_memory local: $(cat out)"
        done
    done
}

test_fork_refused() {
    expect_status 0 far -- "$GUESTS/fork_refused"
    grep -q 'guest: fork: ' err || fail "no warning: $(cat err)"
}

test_arguments_and_environment() {
    export GUEST_INHERITED=yes
    expect_status 0 far --env GUEST_ADDED='a b=c' -- "$GUESTS/arguments" one 'two words' '' --env $'new\nline'
    printf '%s\n' 'argv[0]=(path)' 'argv[1]=one' 'argv[2]=two words' 'argv[3]=' 'argv[4]=--env' \
        $'argv[5]=new\nline' | cmp - <(grep -v ^GUEST_ out) || fail "arguments differ: $(cat out)"
    grep -qx 'GUEST_ADDED=a b=c' out || fail "--env had no effect"
}

test_exit_codes() {
    local code
    for code in 0 1 7 125 255; do
        expect_status $code far -- "$GUESTS/exits" $code
    done
    expect_status 9 far -- "$GUESTS/exit_from_thread"
}

test_death_by_signal() {
    local number
    for number in 1 2 3 6 9 10 13 14 15; do
        expect_status $((128 + number)) far --quiet -- "$GUESTS/exits" signal $number
    done
    expect_status 134 far --quiet -- "$GUESTS/exits" abort
}

test_crash_report() {
    expect_status 139 far -- "$GUESTS/exits" segv
    local word
    for word in SIGSEGV 0x123450 wild_store main rsp; do
        grep -qi $word err || fail "no $word in the report: $(cat err)"
    done
}

# Whatever becomes of the program's file meanwhile.
test_crash_report_of_a_cut_file() {
    local round cuts=0
    for round in 1 2 3 4 5 6; do
        cp "$GUESTS/crash_cut" cut
        expect_status 139 far -- ./cut "$PWD/cut"
        if ! grep -q 'SIGSEGV.*0x123450' err || ! grep -q '#0 ' err; then fail "round $round: $(cat err)"; fi
        ! grep -q 'was cut short' err || cuts=$((cuts + 1))
    done
    note "cut while it was read: $cuts of 6"
}

# outside SIGNAL STATUS [ARG]: a signal to farvisor reaches the program, OUTSIDE or wait_signal.
outside() {
    rm -f out # of the run before, which was ready, too
    # A shell starts background jobs with SIGINT ignored; a terminal does not.
    env --default-signal=INT "$FARVISOR" run "${SEE_GUESTS[@]}" -- "$GUESTS/${OUTSIDE:-wait_signal}" ${3:+"$3"} >out 2>err &
    local pid=$! status
    at_exit "end_process $pid"
    wait_until 10 grep -q ready out || fail "the guest did not start: $(cat err)"
    kill -"$1" $pid
    wait $pid
    status=$?
    [ $status = "$2" ] || fail "SIG$1: status $status, not $2: $(cat err)"
}

test_signals_from_outside() {
    outside TERM 55
    outside INT 42
    outside TERM 143 die
    OUTSIDE=signalfd outside TERM 55 epoll
}

# What is here is told in either case: the host kernel's own pages, or those of the engine.
test_progress_lines() {
    expect_status 0 far --memory 256M --progress -- sleep 3
    grep -qE '^farvisor: [0-9]+ s: [0-9.]+ MiB here, nothing is remote$' err || fail "$(cat err)"
    expect_status 0 far --memory 256M --local 16M --progress -- sleep 3
    grep -qE '^farvisor: [0-9]+ s: [0-9.]+ [KM]iB here of [^;]+; [0-9]+ faults; .* fetched, .* written back$' err ||
        fail "$(cat err)"
}

test_working_directory() {
    mkdir place && echo here >place/file
    expect_status 0 far --workdir "$PWD/place" -- /bin/cat file
    [ "$(cat out)" = here ] || fail "output: $(cat out)"
    (cd place && far -- /bin/pwd >../out 2>../err) || fail "pwd: $(cat err)"
    [ "$(cat out)" = "$PWD/place" ] || fail "pwd: $(cat out)"
}

test_standard_streams() {
    printf 'through the guest\n' | far -- /bin/cat >out 2>err || fail "cat: $(cat err)"
    [ "$(cat out)" = 'through the guest' ] || fail "output: $(cat out)"
    far -- /bin/cat </dev/null >out || fail 'cat at end of file'
    [ ! -s out ] || fail 'output out of nothing'
    # A reader that goes away kills the writer, as everywhere.
    far --quiet -- /usr/bin/yes 2>err | head -n 1 >out
    [ "${PIPESTATUS[0]}" = 141 ] || fail "yes ended with ${PIPESTATUS[0]}, not SIGPIPE"
}

system_main "$@"
