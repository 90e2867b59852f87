#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Debian's redis-server in a guest under Redis's own test suite, which drives it from outside
# ("external server"): one case a file of that suite. Each runs against three servers one after
# another: a native one, which tells what the tests touch and that they can pass here; a guest with
# all its memory here; a guest with a quarter of what the native one touched, or the least that
# --local can be. What is left out, and why, is in excluded.txt. Each server is started afresh.
#
# `make redis-suite` gets the suite (source.sh) and runs this, in emulated machines where there is no
# KVM. As other system tests: suite.sh [--list | CASE...]; SERVERS="native here quarter" picks servers.
CASE_TIMEOUT=${CASE_TIMEOUT:-900}
# shellcheck source-path=SCRIPTDIR source=../system/lib.sh
. "$(dirname "$0")/../system/lib.sh"

HERE=127.0.0.1
SERVERS=${SERVERS:-native here quarter}
SOURCE=${SOURCE:-$("$REPO/tests/redis/source.sh")} || exit 1
export SERVERS SOURCE
LOCAL_MIN_KIB=8192 # of --local
MEMORY=2G

# Redis's own list of its files.
files_of_suite() {
    sed -n '/^set ::all_tests {/,/^}/s/^ *\([a-z]*\/.*\)/\1/p' "$SOURCE/tests/test_helper.tcl"
}

# EXCLUSIONS[N]: a line of excluded.txt. Looked through without a process, which costs too much where
# processors are emulated.
mapfile -t EXCLUSIONS < <(grep -v '^#' "$REPO/tests/redis/excluded.txt")

# excluded FILE: LEFT_OUT, the tests of it that excluded.txt names; "*" if that is all of them. A reason
# that begins with "emulated:" counts where processors are.
excluded() {
    local line file test reason
    LEFT_OUT=()
    for line in "${EXCLUSIONS[@]}"; do
        IFS=$'\t' read -r file test reason <<<"$line"
        [ "$TIME_FACTOR" != 1 ] || [[ $reason != emulated:* ]] || continue
        # shellcheck disable=SC2053 # a pattern
        [[ $1 != $file ]] || LEFT_OUT+=("$test")
    done
}

# A server that starts with an append-only file makes it by itself; told later, it forks for that.
of_file() { # FILE: options of the server for it
    case $1 in
    unit/expire | unit/other | unit/type/stream*) echo --appendonly yes ;;
    esac
}

# start_server FILE PORT OPTION...: natively without options, else with those of farvisor run.
start_server() {
    local port=$2 program
    read -ra program <<<"./redis-server redis.conf --port $port $(of_file "$1")"
    shift 2
    rm -rf appendonlydir dump.rdb
    cp "$(command -v redis-check-rdb)" redis-server # the same program; it goes by its name
    cp "$REPO/tests/redis/redis.conf" .
    if [ $# = 0 ]; then
        "${program[@]}" >server.out 2>server.err &
    else
        "$FARVISOR" run --memory $MEMORY "$@" --net host --publish "$HERE:$port" --stats stats -- \
            "${program[@]}" >server.out 2>server.err &
    fi
    SERVER_PID=$!
    at_exit "end_process $SERVER_PID"
    wait_until $((20 * TIME_FACTOR)) answering "$port" || fail "server did not start: $(tail -n 3 server.out server.err)"
}

answering() {
    [ "$(redis-cli -h $HERE -p "$1" ping 2>/dev/null)" = PONG ]
}

# drive FILE PORT: the tests of that file against the server there; what they say is in the file log.
# Durable: the tests after one that fails with a Tcl error run as well.
drive() {
    local skips=() name
    excluded "$1"
    for name in "${LEFT_OUT[@]}"; do
        skips+=(--skiptest "$name")
    done
    timeout $((300 * TIME_FACTOR)) tclsh tests/test_helper.tcl --host $HERE --port "$2" --single "$1" --durable \
        --timeout $((120 * TIME_FACTOR)) --tags "-needs:repl $SLOW" "${skips[@]}" >log.raw 2>&1
    DRIVEN=$?
    sed 's/\x1b\[[0-9;]*m//g' log.raw >log
}

# Tests tagged slow are the same operations many times over: too much for emulated processors.
if [ -z "${SLOW+set}" ]; then
    SLOW=
    [ "$TIME_FACTOR" = 1 ] || [ "$FULL" ] || SLOW=-slow
fi

# judge SERVER PORT TOUCHED: every test of the log passed, and the server is as well as before. What a
# native one touched, in KiB, goes to the file TOUCHED.
judge() {
    local passed
    passed=$(grep -c '^\[ok\]: ' log)
    grep -A 3 -E '^\[(err|exception|TIMEOUT)' log | cut -c 1-400 >bad
    [ ! -s bad ] || fail "$1: $(tr '\n' ' ' <bad | head -c 1500)"
    [ "$DRIVEN" = 0 ] || fail "$1: ended with status $DRIVEN after $passed tests, the last: $(tail -n 1 log)"
    [ "$passed" -gt 0 ] || skip 'every test of it is left out'
    answering "$2" || fail "$1: the server does not answer: $(tail -n 3 server.err)"
    [ "$1" != native ] || awk '$1 == "VmHWM:" { print $2 }' "/proc/$SERVER_PID/status" >"$3"
    redis-cli -h $HERE -p "$2" shutdown nosave >goodbye 2>&1
    wait "$SERVER_PID" || fail "$1: server ended badly: $(tail -n 3 server.out server.err)"
    SAID+="$1 $passed, "
}

run_file() {
    local file=$1 server port options quarter touched=$BUILD/redis/touched/${1//\//_}
    requires redis-check-rdb redis-cli tclsh
    cp -r "$SOURCE/tests" .
    mkdir -p "${touched%/*}"
    SAID=
    for server in $SERVERS; do
        options=()
        case $server in
        here) options=(--local "$MEMORY") ;;
        quarter)
            quarter=$(($(cat "$touched" 2>/dev/null || echo 0) / 4))
            quarter=$((quarter - quarter % 4)) # whole pages
            [ $quarter -ge $LOCAL_MIN_KIB ] || quarter=$LOCAL_MIN_KIB
            options=(--local "${quarter}K")
            ;;
        esac
        port=$(free_port)
        start_server "$file" "$port" "${options[@]}"
        drive "$file" "$port"
        judge "$server" "$port" "$touched"
    done
    [[ " $SERVERS " != *" quarter "* ]] ||
        SAID+="of $(($(cat "$touched" 2>/dev/null || echo 0) / 1024)) MiB $((quarter / 1024)) here, $(stat_of stats paging evicted_pages) pages out, "
    note "${SAID}left out $(grep -cE '^\[(skip|ignore)\]' log)"
}

# One case a file; those that are left out altogether are none.
while read -r file; do
    excluded "$file"
    [ "${LEFT_OUT[0]:-}" != '*' ] || continue
    name=${file#unit/}
    eval "test_${name//[\/-]/_}() { run_file $file; }"
done < <(files_of_suite)
system_main "$@"
