#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Checks the page-state model with spin: every interleaving of the rules as they are is right, and
# with each rule broken spin finds what goes wrong, so the model can tell.
# usage: run.sh [--full]   (--full adds the largest configuration, minutes and 2 GiB of memory)
# Environment: BUILD (default build).
set -u -o pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${BUILD:-$here/../../build}/tests/model
command -v spin >/dev/null || { echo '0 passed, 0 failed, 1 skipped'; exit 0; }
mkdir -p "$work" && cd "$work" || exit 1
rm -f ./*.verdict
begun=0

# verify NAME DEFINES...: generates, builds and runs one verifier; its report is NAME.out. With
# order=-DT_REVERSE it tries the last choice first, which finds some errors much sooner.
verify() {
    local name=$1
    shift
    rm -f "$name.out"
    mkdir -p "$name" && (
        cd "$name" || exit 1
        spin "$@" -a "$here/page.pml" >generate.out 2>&1 &&
            gcc -O1 -DSAFETY -DCOLLAPSE -DMEMLIM=4000 ${order:+"$order"} -w pan.c -o pan &&
            timeout 300 ./pan -m100000 -w22 >"../$name.out" 2>&1
    )
    grep -q '^State-vector' "$name.out"
}

# One verifier a processor, of at most 0.7 GiB; verdict says what came of it, in NAME.verdict.
in_turn() {
    [ "$(jobs -rp | wc -l)" -lt "$(nproc)" ] || wait -n
    begun=$((begun + 1))
    "$@" &
}

verdict() {
    printf '%-5s model %s %s\n' "$@" | tee "$2.verdict"
}

is_right() {
    if verify "$@" && grep -q 'errors: 0' "$1.out" && ! grep -q 'search not completed\|max search depth' "$1.out"; then
        verdict ok "$1" "($(awk '/states, stored/ {print $1; exit}' "$1.out") states)"
    else
        verdict FAIL "$1" "- $(grep -m1 'pan:' "$1.out" || echo 'spin failed')"
    fi
}

# A rule is broken, and an assertion says so.
is_found() {
    if verify "$@" && grep -q 'assertion violated' "$1.out"; then
        verdict ok "$1" "finds: $(grep -m1 -o 'assertion violated.*' "$1.out")"
    else
        verdict FAIL "$1" '- the broken rule was not noticed'
    fi
}

expect_right() { in_turn is_right "$@"; }
expect_found() { in_turn is_found "$@"; }

expect_right anonymous -DFETCHES=0
expect_right file -DFILE_PAGE -DFETCHES=0
expect_right anonymous-prefetch -DOPS=1 -DFETCHES=2 -DEVICTIONS=3
expect_right mappings -DMAPPINGS -DFETCHES=0 -DEVICTIONS=1 -DOPS_OTHER=1
expect_right heap -DHEAP -DFETCHES=0 -DEVICTIONS=1 -DOPS_OTHER=1
expect_right chains -DCHAINS -DOPS=1
if [ "${1:-}" = --full ]; then
    expect_right file-prefetch -DFILE_PAGE -DOPS=1 -DFETCHES=2 -DEVICTIONS=3
    expect_right anonymous-all
    expect_right file-all -DFILE_PAGE
    expect_right mappings-evicted -DMAPPINGS -DFETCHES=0 -DOPS_OTHER=1
    expect_right heap-prefetch -DHEAP -DOPS_OTHER=1
    expect_right chains-two -DCHAINS -DOPS_OTHER=1
fi
expect_found no-epoch-rule -DNO_EPOCH_RULE
expect_found epoch-before-clear -DEPOCH_BEFORE_CLEAR
expect_found trust-after-install -DTRUST_AFTER_INSTALL
expect_found classify-before-protect -DCLASSIFY_BEFORE_PROTECT
expect_found clean-when-rescued -DFETCHES=0 -DCLEAN_WHEN_RESCUED
expect_found drop-before-written -DFETCHES=0 -DDROP_BEFORE_WRITTEN
expect_found discard-in-flight -DFETCHES=0 -DDISCARD_IN_FLIGHT
expect_found discard-pinned -DFETCHES=0 -DDISCARD_PINNED
expect_found discard-keeps-copy -DFILE_PAGE -DFETCHES=0 -DDISCARD_KEEPS_COPY
expect_found zero-file-forgotten -DMAPPINGS -DFETCHES=0 -DEVICTIONS=1 -DZERO_FILE_FORGOTTEN
expect_found unpin-without-pin -DMAPPINGS -DFETCHES=0 -DEVICTIONS=1 -DUNPIN_WITHOUT_PIN
expect_found no-second-look -DMAPPINGS -DFETCHES=0 -DEVICTIONS=0 -DOPS_OTHER=1 -DNO_SECOND_LOOK
expect_found count-after-fill -DMAPPINGS -DFETCHES=0 -DEVICTIONS=0 -DOPS_OTHER=1 -DCOUNT_AFTER_FILL
expect_found map-before-protect -DHEAP -DFETCHES=0 -DEVICTIONS=1 -DMAP_BEFORE_PROTECT
order=-DT_REVERSE expect_found map-before-claim -DHEAP -DOPS_OTHER=1 -DMAP_BEFORE_CLAIM
expect_found depart-after-word -DCHAINS -DOPS=1 -DDEPART_AFTER_WORD
expect_found departed-before-state -DCHAINS -DOPS=1 -DDEPARTED_BEFORE_STATE
wait
passed=$(cat ./*.verdict | grep -c '^ok')
failed=$((begun - passed))
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
