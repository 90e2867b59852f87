#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# In a machine that emulated.sh booted: takes jobs from the list that all its machines share, and runs
# them one by one. Usage: tester.sh [--full]
set -u
cd "$(dirname "$0")/../.." || exit 1
# What a limit guards against is a hang: emulated processors get more time for the same work. Bounds
# that farvisor promises stay as they are.
export TIME_FACTOR=10 CK_TIMEOUT_MULTIPLIER=8 UNIT_TIMEOUT=1500
# shellcheck source=/dev/null # BUILD and SANITIZE, as emulated.sh had them
. /lab/environment

run_job() {
    case $1 in
    unit) tests/unit/run.sh "${2##*/unit/}" ;;
    bench) tests/bench/run.sh "$2" ;;
    redis) bash tests/redis/suite.sh "${@:4}" "$2" ;;
    system) bash "tests/system/$2" "${@:4}" "$3" ;;
    esac
}

# Its lines are for people, who see them as they come.
run_demo() {
    local result='0 1 0'
    ! tests/demo/demo.sh --emulated </dev/null 2>&1 || result='1 0 0'
    echo "$result" >"/lab/results/$number"
}

number=0
while read -r kind file name; do
    number=$((number + 1))
    mkdir "/lab/taken/$number" 2>/dev/null || continue
    if [ "$kind" = demo ]; then
        run_demo
        continue
    fi
    run_job "$kind" "$file" "$name" "$@" >/tmp/job.out 2>&1 </dev/null
    sed '$d' /tmp/job.out
    tail -n 1 /tmp/job.out |
        sed -nE 's/^([0-9]+) passed, ([0-9]+) failed, ([0-9]+) skipped$/\1 \2 \3/p' >/tmp/result
    [ -s /tmp/result ] || { # what it said instead is worth seeing
        tail -n 1 /tmp/job.out
        echo "FAIL  $kind $file $name - ended before its summary"
        echo '0 1 0' >/tmp/result
    }
    cp /tmp/result "/lab/results/$number"
done </lab/jobs
