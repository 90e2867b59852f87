#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs the system tests, two files at a time: the real programs on the real KVM. On a host without, they
# run in emulated machines that have it (tests/lab/emulated.sh).
# Usage: tests/system/run.sh [--full] [FILE...]     e.g. tests/system/run.sh failures
# Without --full the matrix is thinned out and the storm is short, so that `make check` stays quick.
set -uo pipefail
cd "$(dirname "$0")" || exit 1

# shellcheck source-path=SCRIPTDIR source=../kvm.sh
. ../kvm.sh
passed=0 failed=0 skipped=0 options=() files=()
for argument in "$@"; do
    case $argument in
    --full) options+=(--full) ;;
    *) files+=("$(basename "$argument" .sh).sh") ;;
    esac
done
if [ ${#files[@]} = 0 ]; then
    for file in *.sh; do
        [ "$file" = lib.sh ] || [ "$file" = run.sh ] || files+=("$file")
    done
fi
if ! kvm_here; then
    exec ../lab/emulated.sh "${options[@]}" "${files[@]/#/system/}"
fi
# Most cases wait more than they work: two files at a time, if there are as many processors.
outputs=$(mktemp -d)
trap 'rm -rf "$outputs"' EXIT
run_file() {
    local outputs=$1 file=$2
    shift 2
    bash "$file" "$@" | tee "$outputs/$file" | sed -u '$d'
}
export -f run_file
lanes=$(nproc)
# make install may link anew what the others run.
for file in "${files[@]}"; do
    [ "$file" != install.sh ] || run_file "$outputs" "$file" "${options[@]}"
done
printf '%s\n' "${files[@]}" | sed '/^install[.]sh$/d' | xargs -r -I FILE -P $((lanes < 2 ? lanes : 2)) \
    bash -c 'run_file "$@"' run_file "$outputs" FILE "${options[@]}"
for file in "${files[@]}"; do
    summary=$(tail -n 1 "$outputs/$file")
    if [[ $summary =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + BASH_REMATCH[3]))
    else
        echo "FAIL  $file - ended before its summary"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
