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
    [ -s moved/usr/share/man/man3/libfarguide.3 ] || fail 'no manual of libfarguide'
    # A guide built outside of the tree, with nothing but what is installed.
    local flags
    read -r -a flags < <(PKG_CONFIG_SYSROOT_DIR=$PWD/moved \
        PKG_CONFIG_PATH=$PWD/moved/usr/lib/pkgconfig pkg-config --cflags --libs libfarguide)
    gcc -shared -fPIC -o guide.so "$REPO/guides-api/examples/example.c" "${flags[@]}" ||
        fail 'the example guide does not build'
    gcc -O2 -rdynamic -o orders "$REPO/guides-api/examples/orders.c"
    expect_status 0 moved/usr/bin/farvisor run --memory 64M --local 50% --guide guide.so ./orders 4 10
    grep -q 'example guide:' err && fail "$(cat err)"
    bash -n moved/usr/share/bash-completion/completions/farvisor || fail 'no completion script'
    mv moved "$root"
    make_quietly DESTDIR="$root" uninstall
    [ -z "$(find "$root" -type f)" ] || fail "left behind: $(find "$root" -type f)"
}

system_main "$@"
