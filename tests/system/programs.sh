#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Unmodified programs give the same output and status in a guest as natively: with all of their
# memory here and with a quarter of it, over loopback and ofi, in both fault modes. `make check`
# runs three of the eight combinations for each program, so that all programs together meet all;
# --full runs all eight, with larger inputs. That takes hours, so it can be done in parts: CELLS
# names the combinations to run, e.g. CELLS='25%/ofi/exit 25%/loopback/exit', and each one run is a
# line of $BUILD/tests/matrix.log: program, combination, seconds natively and in the guest.

# The sizes and limits below depend on it, so it is looked at before the runner does.
[[ " $* " != *" --full "* ]] || export FULL=1
CASE_TIMEOUT=$([ "${FULL:-}" ] && echo 14400 || echo 120)
export CASE_TIMEOUT
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

PYTHON=/usr/bin/python3
export LC_ALL=C MEMTESTER_TEST_MASK=0

# text MIB: a file of reproducible text, made once for all cases.
text() {
    local file=$BUILD/tests/data/text-$1
    mkdir -p "${file%/*}"
    [ -s "$file" ] || { "$PYTHON" "$SYSTEM_DIR/data/make_text.py" "$1" >"$file.$$" && mv "$file.$$" "$file"; }
    ln -f "$file" "$2" 2>/dev/null || cp "$file" "$2"
}

# large FULL QUICK [EMULATED]: the size that suits the mode, and a smaller one for an emulated processor.
large() {
    if [ "$FULL" ]; then
        echo "$1"
    elif [ $# = 3 ] && [ "$TIME_FACTOR" != 1 ]; then
        echo "$3"
    else
        echo "$2"
    fi
}

same() {
    cat
}

# run_one LOCAL TRANSPORT MODE COMMAND...: one run in a guest, compared with the native one.
run_one() {
    local local_share=$1 transport=$2 mode=$3 peak limit
    shift 3
    # A guest has an environment of its own.
    local options=(--quiet --env LC_ALL=C --env "MEMTESTER_TEST_MASK=$MEMTESTER_TEST_MASK"
        --memory "$MEMORY" --local "$local_share" --fault-mode "$mode" --stats stats)
    case $transport in
    ofi) options+=(--transport ofi --memserver "$OFI_ADDR") ;;
    loopback) options+=(--transport loopback) ;;
    esac
    local started
    started=$(date +%s%N)
    far "${options[@]}" -- "$@" <"$INPUT" >far.out 2>far.err
    echo $? >far.status
    log_cell "$(basename "$1")" "$local_share/$transport/$mode" "$started"
    local where="at $local_share local, $transport, $mode"
    cmp -s native.status far.status ||
        fail "$where: status $(cat far.status), natively $(cat native.status): $(head -c 300 far.err)"
    "$FILTER" <far.out | cmp -s - native.out || fail "$where: output differs: $(head -c 300 far.err)"
    "$FILTER" <far.err | cmp -s - native.err || fail "$where: messages differ: $(head -c 300 far.err)"
    [ "$local_share" = 100% ] && return
    peak=$(($(stat_of stats paging resident_peak_pages) * 4096))
    limit=$(stat_of stats local_bytes)
    [ "$peak" -le "$limit" ] || fail "$where: $peak bytes resident, allowed $limit"
    [ ! "$PRESSURE" ] || [ "$(stat_of stats paging evicted_pages)" -gt 0 ] || fail "$where: nothing was evicted"
}

# log_cell PROGRAM CELL STARTED_NS
log_cell() {
    mkdir -p "$BUILD/tests"
    awk -v name="$1" -v cell="$2" -v native="$(cat native.ns)" -v ns=$(($(date +%s%N) - $3)) \
        'BEGIN {printf "%s %s %.1f %.1f\n", name, cell, native / 1e9, ns / 1e9}' >>"$BUILD/tests/matrix.log"
}

ALL_CELLS='100%/loopback/exit 100%/loopback/uffd 100%/ofi/exit 100%/ofi/uffd
    25%/loopback/exit 25%/loopback/uffd 25%/ofi/exit 25%/ofi/uffd'
CELLS=${CELLS:-$ALL_CELLS}

# matrix COMMAND...: natively, then in guests. MEMORY, INPUT, FILTER and PRESSURE may be set.
MEMORY=128M INPUT=/dev/null FILTER=same PRESSURE=
matrix() {
    local started
    started=$(date +%s%N)
    "$@" <"$INPUT" >raw.out 2>raw.err
    echo $? >native.status
    echo $(($(date +%s%N) - started)) >native.ns
    "$FILTER" <raw.out >native.out
    "$FILTER" <raw.err >native.err
    start_memserver --capacity 8G
    OFI_ADDR=$MEMSERVER_ADDR
    if [ "$FULL" ]; then
        local cell share transport mode
        for cell in $CELLS; do
            IFS=/ read -r share transport mode <<<"$cell"
            run_one "$share" "$transport" "$mode" "$@"
        done
        return
    fi
    # One of the two diagonals of {loopback, ofi} x {exit, uffd}, by the program's name.
    if [ $(($(printf '%s' "$(basename "$1")" | cksum | cut -d' ' -f1) % 2)) = 0 ]; then
        run_one 100% loopback exit "$@"
        run_one 25% loopback exit "$@"
        run_one 25% ofi uffd "$@"
    else
        run_one 100% ofi uffd "$@"
        run_one 25% ofi exit "$@"
        run_one 25% loopback uffd "$@"
    fi
}

test_sort() {
    text "$(large 32 32 10)" input
    MEMORY=$(large 112M 112M 48M) PRESSURE=1
    matrix sort --parallel=2 -S "$(large 100M 100M 36M)" input
}

# 1 GiB of records of 512 bytes, as a log has, sorted in memory: every comparison at the upper levels
# of the merge looks at two far records, so the time goes with their number.
[ ! "$FULL" ] || test_sort_1g() {
    local cell share transport mode started
    "$PYTHON" "$SYSTEM_DIR/data/make_records.py" $((1 << 21)) 512 >input
    local command=(sort --parallel=2 -S 3G -k '1.1,1.10' input)
    started=$(date +%s%N)
    "${command[@]}" | sha256sum >native.sum
    echo $(($(date +%s%N) - started)) >native.ns
    start_memserver --capacity 8G
    for cell in $CELLS; do
        IFS=/ read -r share transport mode <<<"$cell"
        [ "$share" = 25% ] && share=256M
        local options=(--memory 4G --local "$share" --transport "$transport" --fault-mode "$mode" --env LC_ALL=C)
        [ "$transport" = ofi ] && options+=(--memserver "$MEMSERVER_ADDR")
        started=$(date +%s%N)
        far "${options[@]}" -- "${command[@]}" | sha256sum >far.sum
        log_cell sort_1g "$share/$transport/$mode" "$started"
        cmp -s native.sum far.sum || fail "sorting 1 GiB over $transport, $mode: output differs"
    done
}

test_python() {
    requires "$PYTHON"
    cp "$SYSTEM_DIR/data/work.py" .
    MEMORY=$(large 512M 128M 64M) PRESSURE=1
    matrix "$PYTHON" work.py "$(large 300 56 22)"
}

test_sqlite() {
    requires sqlite3
    sed "s/ROWS/$(large 1100000 130000 45000)/" "$SYSTEM_DIR/data/work.sql" >work.sql
    MEMORY=$(large 768M 112M 48M) INPUT=work.sql PRESSURE=1
    matrix sqlite3 :memory:
}

test_xz() {
    requires xz
    text "$(large 64 8)" input
    MEMORY=$(large 512M 128M) PRESSURE=1
    matrix xz -T2 -2 --block-size=4MiB -c input
}

# Figures differ from run to run, and what the processor offers in a guest and outside; which
# algorithms were measured does not.
without_numbers() {
    sed -E 's/0x[0-9a-f]+|[0-9]+([.][0-9]+)?k?/N/g; s/  +/ /g'
}

test_openssl_speed() {
    requires openssl
    FILTER=without_numbers
    matrix openssl speed -seconds 1 -bytes 1024 -evp sha256
}

test_openssl_digest() {
    requires openssl
    text 8 input
    matrix openssl enc -aes-256-ctr -pbkdf2 -S 0102030405060708 -pass pass:far -in input
}

# shellcheck disable=SC2016 # awk's own variables, here and below
AWK_PROGRAM='{ for (i = 2; i < NF; i++) n[$i]++; sum += $1 }
END { for (w in n) if (n[w] > max) { max = n[w]; best = w } print NR, sum, best, max, length(n) }'

test_gawk() {
    requires gawk
    text 8 input
    MEMORY=64M
    matrix gawk "$AWK_PROGRAM" input
}

test_mawk() {
    requires mawk
    text 4 input
    MEMORY=64M
    # shellcheck disable=SC2016
    matrix mawk '{ for (i = 1; i <= NF; i++) n[$i NR % 3]++ } END { print NR, length(n) }' input
}

test_memtester() {
    requires memtester
    # All tests take minutes at a quarter of the memory; these four touch every page many times. An
    # emulated processor does one of them.
    [ "$FULL" ] || MEMTESTER_TEST_MASK=$(large 0x107 0x107 0x1)
    MEMORY=$(large 320M 48M 36M) PRESSURE=1
    matrix memtester "$(large 256M 32M 24M)" 1
}

test_bc() {
    requires bc
    echo 'scale=1200; 4*a(1); e(1); for (i = 1; i < 40; i++) 2^(i*i)' >input
    INPUT=input MEMORY=64M
    matrix bc -lq
}

test_static_glibc() {
    MEMORY=64M
    matrix "$GUESTS/static_hello" argument
}

test_static_pie() {
    MEMORY=64M
    matrix "$GUESTS/staticpie_hello" argument
}

test_cxx_exceptions() {
    MEMORY=64M
    matrix "$GUESTS/cxx_exceptions"
}

test_openmp() {
    MEMORY=$(large 512M 96M) PRESSURE=1
    matrix "$GUESTS/openmp_sum" "$(large 400 80)"
}

test_grep() {
    text 8 input
    matrix grep -nE '^[0-9]*7 .*(ab|cd)[a-f]+ .*9$' input
}

test_sed() {
    text 4 input
    matrix sed -nE 's/^([0-9]+) ([a-z]+) (.*)/\2-\1/; /a.*z/p' input
}

test_tar() {
    mkdir tree && cp -r "$SYSTEM_DIR" "$REPO/tests/guests" tree
    matrix tar --sort=name --numeric-owner -cf - tree
}

test_gzip() {
    text 8 input
    matrix gzip -6nc input
}

test_zstd() {
    requires zstd
    text 16 input
    MEMORY=256M
    matrix zstd -q -T2 -9 -c input
}

test_bzip2() {
    requires bzip2
    text 3 input
    MEMORY=64M
    matrix bzip2 -c input
}

test_lz4() {
    requires lz4
    text 8 input
    matrix lz4 -q -c input
}

test_sha256sum() {
    text 16 input
    MEMORY=64M
    matrix sha256sum input
}

test_find() {
    mkdir -p tree/{a,b}/{c,d}/e && touch tree/{a,b}/{c,d}/e/file{1..40}
    MEMORY=64M
    matrix find tree -type f -name '*[37]' -printf '%p %s %m\n'
}

test_ls() {
    mkdir tree && touch -d '2020-01-02 03:04:05' tree/file{1..200}
    MEMORY=64M
    matrix ls -lnR --time-style=full-iso tree
}

test_jq() {
    requires jq
    "$PYTHON" -c 'import json; print(json.dumps([{"n": i, "s": str(i) * 4} for i in range(60000)]))' >input
    matrix jq '[.[] | select(.n % 7 == 0) | {k: .s, v: (.n * 2)}] | length, .[100], (map(.v) | add)' input
}

test_perl() {
    requires perl
    text 4 input
    # shellcheck disable=SC2016 # Perl's own variables
    matrix perl -ne 'for (split) { $n{$_}++ } END { print join(" ", map { "$_$n{$_}" } (sort { $n{$b} <=> $n{$a} || $a cmp $b } keys %n)[0..9]), "\n" }' input
}

# A compiler proper: the largest program here, and it forks nothing.
test_cc1() {
    local cc1
    cc1=$(gcc -print-prog-name=cc1)
    [ -x "$cc1" ] || skip "no C compiler proper"
    gcc -E -I"$REPO/tests/guests" -D_GNU_SOURCE "$REPO/tests/guests/storm_ops.c" -o input.i
    MEMORY=192M
    matrix "$cc1" -quiet -O2 -fpreprocessed input.i -o -
}

test_diff() {
    text 4 one
    sed '500s/a/b/; 9000d; 20000a new' one >two
    MEMORY=64M
    matrix diff one two
}

test_factor() {
    MEMORY=64M
    matrix factor 18446744073709551557 1000000016000000063 1000000000100000000002379
}

system_main "$@"
