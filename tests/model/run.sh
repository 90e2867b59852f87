#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Checks the page-state model with spin: every interleaving of the rules as they are is right, and
# with each rule broken spin finds the lost write, so the model can tell.
# usage: run.sh [--full]   (--full adds the largest configuration, minutes and 2 GiB of memory)
# Environment: BUILD (default build).
set -u -o pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=${BUILD:-$here/../../build}/tests/model
command -v spin >/dev/null || { echo '0 passed, 0 failed, 1 skipped'; exit 0; }
mkdir -p "$work" && cd "$work" || exit 1
passed=0 failed=0

# verify NAME DEFINES...: generates, builds and runs one verifier; its report is NAME.out.
verify() {
    local name=$1
    shift
    rm -f "$name.out"
    mkdir -p "$name" && (
        cd "$name" || exit 1
        spin "$@" -a "$here/page.pml" >generate.out 2>&1 &&
            gcc -O1 -DSAFETY -DCOLLAPSE -DMEMLIM=4000 -w pan.c -o pan &&
            timeout 300 ./pan -m100000 -w22 >"../$name.out" 2>&1
    )
    grep -q '^State-vector' "$name.out"
}

expect_right() {
    local states
    if verify "$@" && grep -q 'errors: 0' "$1.out" && ! grep -q 'search not completed\|max search depth' "$1.out"; then
        states=$(awk '/states, stored/ {print $1; exit}' "$1.out")
        passed=$((passed + 1))
        echo "ok    model $1 ($states states)"
    else
        echo "FAIL  model $1 - $(grep -m1 'pan:' "$1.out" || echo 'spin failed')"
        failed=$((failed + 1))
    fi
}

expect_lost_write() {
    if verify "$@" && grep -q 'assertion violated' "$1.out"; then
        passed=$((passed + 1))
        echo "ok    model $1 finds: $(grep -m1 -o 'assertion violated.*' "$1.out")"
    else
        echo "FAIL  model $1 - the broken rule was not noticed"
        failed=$((failed + 1))
    fi
}

expect_right anonymous -DFETCHES=0
expect_right file -DFILE_PAGE -DFETCHES=0
expect_right anonymous-prefetch -DOPS=1 -DFETCHES=2 -DEVICTIONS=3
if [ "${1:-}" = --full ]; then
    expect_right file-prefetch -DFILE_PAGE -DOPS=1 -DFETCHES=2 -DEVICTIONS=3
    expect_right anonymous-all
    expect_right file-all -DFILE_PAGE
fi
expect_lost_write no-epoch-rule -DNO_EPOCH_RULE
expect_lost_write epoch-before-clear -DEPOCH_BEFORE_CLEAR
expect_lost_write trust-after-install -DTRUST_AFTER_INSTALL
expect_lost_write classify-before-protect -DCLASSIFY_BEFORE_PROTECT
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]
