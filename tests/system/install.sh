#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# make install and uninstall: what is installed runs from where it is put, and all of it goes again.

. "$(dirname "$0")/lib.sh"
CASE_TIMEOUT=120

make_quietly() {
    env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make -s -C "$REPO" B="$BUILD" \
        SANITIZE="${SANITIZE:-}" PREFIX=/usr "$@" >make.out 2>&1 || fail "make $*: $(tail -n 5 make.out)"
}

test_installed_tree_runs_and_leaves_nothing() {
    local root=$PWD/root
    make_quietly DESTDIR="$root" install
    mv "$root" moved || fail 'nothing was installed'
    expect_status 0 moved/usr/bin/farvisor doctor
    grep -q 'This host can run guests' out || fail "not fit: $(cat out)"
    expect_status 0 moved/usr/bin/farvisor run --memory 64M --local 50% echo installed
    [ "$(cat out)" = installed ] || fail "output: $(cat out)"
    [ -s moved/usr/share/man/man1/farvisor.1 ] || fail 'no manual'
    bash -n moved/usr/share/bash-completion/completions/farvisor || fail 'no completion script'
    mv moved "$root"
    make_quietly DESTDIR="$root" uninstall
    [ -z "$(find "$root" -type f)" ] || fail "left behind: $(find "$root" -type f)"
}

system_main "$@"
