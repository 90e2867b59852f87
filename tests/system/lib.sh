# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Harness of the system tests. A test file sources this, defines functions named test_*, and ends
# with `system_main "$@"`. Each case runs in a shell of its own, in a fresh temporary directory,
# under a timeout that ends all its processes; its last word on standard error is the reason when
# it fails. Prints one line a case (ok, FAIL, skip) and a summary, and runs alone:
#
#   tests/system/failures.sh [--full] [--list | CASE...]
#
# Environment: BUILD (default build), FARVISOR, MEMSERVER, FULL=1 (as --full: the long forms),
# SANITIZE (as make's): a report of a sanitizer in any process of a case fails the case.

SYSTEM_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$SYSTEM_DIR/../.." && pwd)
BUILD=${BUILD:-build}
case $BUILD in /*) ;; *) BUILD=$REPO/$BUILD ;; esac
FARVISOR=${FARVISOR:-$BUILD/farvisor}
MEMSERVER=${MEMSERVER:-$BUILD/memserver}
# shellcheck source-path=SCRIPTDIR source=../sanitizers.sh
. "$REPO/tests/sanitizers.sh"
export GUESTS=$BUILD/tests/guests
FULL=${FULL:-}
# Slow machines (tests/lab/emulated.sh) get a multiple of every time limit that guards against hangs.
TIME_FACTOR=${TIME_FACTOR:-1}
CASE_TIMEOUT=$((${CASE_TIMEOUT:-60} * TIME_FACTOR)) # seconds; a file may set it before it sources this
export BUILD FARVISOR MEMSERVER FULL

# ---- for cases ----

# fail REASON: the case failed.
fail() {
    echo "$*" >&2
    exit 1
}

# skip REASON: something the case needs is not here.
skip() {
    echo "$*" >&2
    exit 77
}

# requires PROGRAM...: skips the case unless all are installed.
requires() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || skip "$program is not installed"
    done
}

# at_exit COMMAND: run when the case ends, in whatever way; the last one first.
AT_EXIT=
at_exit() {
    AT_EXIT="$1; $AT_EXIT"
    # shellcheck disable=SC2064 # the commands as they are now
    trap "$AT_EXIT" EXIT
}

# end_process PID: without the shell's word about it.
end_process() {
    { kill -KILL "$1" && wait "$1"; } 2>/dev/null
}

# end_memserver PID: with a sanitizer it gets to end by itself, and so to look for leaks.
end_memserver() {
    if [ "${SANITIZE:-}" ]; then
        kill -CONT "$1" 2>/dev/null && kill -TERM "$1" 2>/dev/null
        wait_until 5 process_ended "$1"
    fi
    end_process "$1"
}

process_ended() {
    ! kill -0 "$1" 2>/dev/null
}

# start_memserver [OPTION...]: one that ends with the case, its address in MEMSERVER_ADDR.
start_memserver() {
    local ready
    ready=$(mktemp -u ready.XXXXXX) && mkfifo "$ready"
    local listen=(--listen 127.0.0.1:0)
    [[ " $* " == *" --listen "* ]] && listen=()
    "$MEMSERVER" "${listen[@]}" --ready-fd 9 "$@" 9>"$ready" 2>memserver.err &
    MEMSERVER_PID=$!
    export MEMSERVER_ADDR
    at_exit "end_memserver $MEMSERVER_PID"
    read -r -t $((10 * TIME_FACTOR)) MEMSERVER_ADDR <"$ready" || fail "memserver did not start: $(cat memserver.err)"
    rm -f "$ready"
}

# What every guest here gets to see beside its current directory and the system's: our own guests.
SEE_GUESTS=(--dir "$GUESTS:ro")

# far OPTION... -- PROGRAM...: farvisor run. Its own limit is below the case's, so that a hang is
# this run's failure and not the case's.
far() {
    timeout --foreground -k 2 "${FAR_TIMEOUT:-$((CASE_TIMEOUT - 5))}" \
        "$FARVISOR" run "${SEE_GUESTS[@]}" "$@"
}

# note TEXT: shown behind the name of a case that passes; the last one counts.
note() {
    echo "note: $*"
}

# free_port: one that nobody listens on now.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# expect_status N COMMAND...: runs it with output to files out and err.
expect_status() {
    local want=$1 got
    shift
    "$@" >out 2>err
    got=$?
    [ "$got" = "$want" ] || fail "exit status $got, not $want: $* ($(head -c 300 err))"
}

# expect_stderr PATTERN: the last expect_status printed one line that matches the pattern.
expect_stderr() {
    grep -qE -- "$1" err || fail "no message like '$1' but: $(head -c 300 err)"
    [ "$(grep -c . err)" = 1 ] || fail "more than one line: $(head -c 500 err)"
}

# stat_of FILE KEY...: a number of a --stats report, e.g. stat_of stats paging faults.
stat_of() {
    python3 -c '
import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2:]:
    value = value[key]
print(value)' "$@"
}

# wait_until SECONDS COMMAND...: polls until it succeeds.
wait_until() {
    local limit=$((SECONDS + $1 + 1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$limit" ] || return 1
        sleep 0.1
    done
}

# ---- the runner ----

# What sanitizers print, in whatever file a case sent it to: a finding in a process whose status
# nobody asks for, a tenant's worker say, would go unseen otherwise. Keeps the whole of it.
SANITIZER_REPORT='^==[0-9]+==ERROR: |^WARNING: ThreadSanitizer: |:[0-9]+:[0-9]+: runtime error: '
fail_on_reports() {
    local directory=$1 kept=$BUILD/sanitizer-reports/$2 found
    found=$(find "$directory" -type f -size -1024k -exec grep -lIE "$SANITIZER_REPORT" {} +)
    [ "$found" ] || return 0
    mkdir -p "${kept%/*}"
    xargs -d '\n' cat <<<"$found" >"$kept"
    rm -rf "$directory"
    fail "$(grep -hoE -m 1 "($SANITIZER_REPORT).*" "$kept") (all of it: $kept)"
}

# Runs one case of this file in a fresh directory; ends with the case's status.
system_case() {
    local directory
    directory=$(mktemp -d "${TMPDIR:-/tmp}/farvisor-test.XXXXXX") || exit 1
    at_exit "rm -rf '$directory'"
    [ ! "${SANITIZE:-}" ] || at_exit "fail_on_reports '$directory' '$(basename "$0" .sh)-$1'"
    cd "$directory" || exit 1
    "$1"
    exit $?
}

system_report() {
    local name=$1 status=$2 seconds=$3 output=$4 reason
    reason=$(printf '%s' "$output" | tail -n 3 | tr '\n' ' ')
    case $status in
    0) echo "ok    $name (${seconds} s)$(sed -n 's/^note: / - /p' <<<"$output" | tail -n 1)" ;;
    77) echo "skip  $name - $reason" ;;
    124 | 137) echo "FAIL  $name - took longer than its time limit; last words: $reason" ;;
    *) echo "FAIL  $name - $reason" ;;
    esac
}

system_main() {
    local cases=() passed=0 failed=0 skipped=0 name output status started
    if [ "${1:-}" = --case ]; then
        system_case "$2"
    fi
    while [ $# -gt 0 ]; do
        case $1 in
        --full) export FULL=1 ;;
        --list)
            declare -F | sed -n 's/^declare -f test_//p'
            return
            ;;
        *) cases+=("test_${1#test_}") ;;
        esac
        shift
    done
    if [ ${#cases[@]} = 0 ]; then
        mapfile -t cases < <(declare -F | sed -n 's/^declare -f \(test_.*\)/\1/p')
    fi
    for name in "${cases[@]}"; do
        started=$SECONDS
        output=$(timeout -k 5 "$CASE_TIMEOUT" bash "$0" --case "$name" 2>&1 </dev/null)
        status=$?
        case $status in
        0) passed=$((passed + 1)) ;;
        77) skipped=$((skipped + 1)) ;;
        *) failed=$((failed + 1)) ;;
        esac
        system_report "$(basename "$0" .sh) ${name#test_}" "$status" $((SECONDS - started)) "$output"
    done
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}
