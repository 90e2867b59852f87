#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The command line: what is refused is refused with one clear message and status 125, and the help
# text, the manual and the completion script say the same as the option table. No guest runs here.

. "$(dirname "$0")/lib.sh"
CASE_TIMEOUT=60

# usage PATTERN ARG...: status 125, and on standard error a line that matches, then where help is.
usage() {
    local pattern=$1
    shift
    expect_status 125 "$FARVISOR" "$@"
    [ -s out ] && fail "standard output is the program's, but: $(head -c 200 out)"
    head -n 1 err | grep -qE -- "^farvisor: $pattern" || fail "no message like '$pattern' but: $(cat err)"
    [ "$(wc -l <err)" = 2 ] || fail "not two lines: $(cat err)"
    tail -n 1 err | grep -qE "^Try 'farvisor .*--help' for the (options|commands)\.$" || fail "second line: $(cat err)"
}

# refused PATTERN OPTION...: status 125 and exactly one line that matches.
refused() {
    local pattern=$1
    shift
    expect_status 125 "$FARVISOR" run "$@" true
    [ -s out ] && fail "standard output is the program's, but: $(head -c 200 out)"
    expect_stderr "^farvisor: $pattern"
}

test_commands_are_refused() {
    usage "no command given$"
    usage "unknown command 'start'$" start
    usage "unknown command ''$" ''
    usage "unknown command '--bogus'$" --bogus
    usage "run: no program given$" run
    usage "run: no program given$" run --quiet --
    usage "completion: the shell must be: bash$" completion
    usage "completion: the shell must be: bash$" completion tcsh
    usage "doctor: unexpected 'now'$" doctor now
    usage "replay: one trace is needed$" replay
    usage "replay: one trace is needed$" replay a b
    usage "unknown option '--fix'$" doctor --fix
}

test_unknown_options_are_refused() {
    usage "unknown option '--bogus'$" run --bogus true
    usage "unknown option '--mem'$" run --mem 1G true
    usage "unknown option '-x'$" run -x true
    usage "unknown option '-qv'$" run -qv true
    usage "option '--memory' needs a value: SIZE$" run --memory
    usage "option '--quiet' takes no value, but got 'yes'$" run --quiet=yes true
}

test_option_values_are_refused() {
    local threads="not a number from 1 to 1024$" timeout="not a duration from 100ms to 3600s"
    for value in 0 1025 -1 4x '' 99999999999999999999; do
        usage "--threads $value: $threads" run --threads "$value" true
    done
    for value in 5 0s 99ms 3601s 1h '' -1s 99999999999999s; do
        usage "--timeout $value: $timeout" run --timeout "$value" true
    done
    usage "--fault-mode both: unknown mode \(exit, uffd or uffd-spin\)$" run --fault-mode both true
    usage "--prefetch best: unknown prefetcher \(none, readahead, trend or auto\)$" run --prefetch best true
    usage "--map-ahead maybe: not on or off$" run --map-ahead maybe true
    usage "--polling maybe: unknown mode \(auto, on or off\)$" run --polling maybe true
    usage "--transport tcp: unknown transport" run --transport tcp true
    usage "--transport ofi2: unknown transport" run --transport ofi2 true
    usage "--memserver node1: not an address" run --memserver node1 true
    usage "--env A: not of the form NAME=VALUE$" run --env A true
    usage "--env =x: not of the form NAME=VALUE$" run --env =x true
    usage "--workdir tmp: not an absolute path$" run --workdir tmp true
    usage "--stats: the file name is empty$" run --stats '' true
    usage "--trace: the file name is empty$" run --trace '' true
    usage "--policy best: not a list of clock, fifo, lru and belady$" replay --policy best x
    usage "--policy : not a list of" replay --policy lru, x
    usage "--prefetch best: unknown prefetcher" replay --prefetch none,best x
    usage "--latency 11s: not a duration up to 10s" replay --latency 11s x
    local range
    for range in '' : 5 5: :5 6:5 5:5 0x10:0xg 0x:0x5 -1:5 ' 1:5' 1:2:3 0x10000000000000000:5 1:99999999999999999999; do
        usage "--range $range: not START:END, two addresses" replay --range "$range" x
    done
    usage "--local: more than 32 words$" replay --local "$(seq -s, 40)" x
}

test_directories_are_refused() {
    usage "--dir /no/such: /no/such: No such file or directory$" run --dir /no/such true
    usage "--dir /etc/passwd: /etc/passwd: [Nn]ot a directory$" run --dir /etc/passwd true
    usage "--dir /etc:x: not of the form" run --dir /etc:x true
    usage "--dir :/x: not of the form" run --dir :/x true
    usage "--dir /etc:/x:rx: not of the form" run --dir /etc:/x:rx true
    usage "--dir : not of the form" run --dir '' true
}

test_sizes_are_refused() {
    local form='not a size \(4096, 64K, 512M, 2G\)$'
    for value in 512MB 1.5G -1 1g '' x 0x1000 ' 1G'; do
        refused "--memory $value: $form" --memory "$value"
        refused "--local $value: $form" --local "$value"
    done
    refused '--memory 99999T: too large: this host can address' --memory 99999T
    refused '--memory 99999999999T: too large' --memory 99999999999T
    refused '--memory 4M: too small to run a program \(at least 8.0 MiB\)$' --memory 4M
    refused '--memory 16777217: not a multiple of 4096 bytes$' --memory 16777217
    refused '--local 65M: larger than --memory, which is 64.0 MiB$' --local 65M --memory 64M
    refused '--local 1M: too small to run a program \(at least 8.0 MiB\)$' --local 1M --memory 64M
    refused '--local 0: too small' --local 0 --memory 64M
    refused '--local 5%: 3.2 MiB is too small to run a program \(at least 8.0 MiB\)$' \
        --local 5% --memory 64M
    for value in 0% 101% % 5%% -5% 5.5% 1000000000%; do
        refused "--local $value: not a share of --memory from 1% to 100%$" --local "$value"
    done
}

test_statistics_file_must_be_writable() {
    refused '--stats /no/such/file: cannot write: No such file or directory$' --stats /no/such/file
    refused '--stats /: cannot write: Is a directory$' --stats /
}

test_trace_file_must_be_writable() {
    local paged=(--memory 64M --local 16M)
    refused '--trace /no/such/file: cannot write: No such file or directory$' \
        "${paged[@]}" --trace /no/such/file
}

test_replay_refuses_what_is_no_trace() {
    local corpus=$REPO/tests/fuzz/corpus/trace
    for words in "/no/such: cannot read: No such file or directory" "/: cannot read: Is a directory" \
        "$corpus/other_magic: not usable: not a trace of farvisor's \(at byte 0\)" \
        "$corpus/unknown_type: not usable: damaged record \(at byte 512\)"; do
        expect_status 125 "$FARVISOR" replay "${words%%: *}"
        expect_stderr "^farvisor: $words\$"
    done
    expect_status 125 "$FARVISOR" replay --local 1000K "$corpus/mixed"
    expect_stderr '--local 1000K: less than 256 pages$'
    expect_status 125 "$FARVISOR" replay --local 1.5M "$corpus/mixed"
    expect_stderr '--local 1.5M: not a list of sizes \(64M,1G\) or shares \(50%\)$'
    expect_status 125 "$FARVISOR" replay --local 101% "$corpus/mixed"
    expect_stderr '--local 101%: not a share from 1% to 100%$'
    expect_status 125 "$FARVISOR" replay --local 16M --range 0x1000:8192 "$corpus/mixed"
    expect_stderr '--range 0x1000:8192: no touch of the trace is there$'
    expect_status 125 "$FARVISOR" replay --local 16M --csv /no/such/file "$corpus/mixed"
    expect_stderr '--csv /no/such/file: cannot write: No such file or directory$'
    expect_status 125 "$FARVISOR" replay --local 16M --csv /dev/full "$corpus/mixed"
    expect_stderr '--csv /dev/full: cannot write: No space left on device$'
}

# Two parts of the address space have all the touches and all the misses between them.
test_replay_counts_a_range() {
    local trace=$REPO/tests/fuzz/corpus/trace/sequences range middle
    middle=$(python3 -c '
import struct, sys
data = open(sys.argv[1], "rb").read()[512:]
pages = [word & (1 << 40) - 1 for word, _ in struct.iter_unpack("<QQ", data) if word >> 48 & 15 in (1, 2)]
print(sorted(pages)[len(pages) // 2] << 12)' "$trace") || fail 'no middle'
    for range in 0:0xffffffffffff "0:$middle" "$middle:0xffffffffffff"; do
        expect_status 0 "$FARVISOR" replay --local 16M --csv csv --range "$range" "$trace"
        grep -q '^counted: the [0-9]* touches of ' out || fail "$(cat out)"
        awk -F, 'NR == 2 {print $4, $5, $6}' csv >>parts
    done
    awk 'NR == 1 {t = $1; f = $2; m = $3} NR > 1 {t -= $1; f -= $2; m -= $3; if (!$1) exit 1}
        END {if (t || f || m) exit 1}' parts || fail "parts do not add up: $(cat parts)"
}

test_replay_warns_of_a_biased_trace() {
    local corpus=$REPO/tests/fuzz/corpus/trace
    expect_status 0 "$FARVISOR" replay --local 16M "$corpus/mixed"
    [ -s err ] && fail "a warning without reason: $(cat err)"
    expect_status 0 "$FARVISOR" replay --local 15M "$corpus/mixed"
    expect_stderr 'recorded with 8.0 MiB here: smaller caches'
    expect_status 0 "$FARVISOR" replay --local 16M "$corpus/sequences"
    expect_stderr '3 events were dropped while it was recorded$'
    expect_status 0 "$FARVISOR" replay --local 16M "$corpus/unfinished"
    expect_stderr 'the recording did not come to its end$'
    sed 's/none/auto/' "$corpus/mixed" >ahead
    expect_status 0 "$FARVISOR" replay --local 16M ahead
    expect_stderr 'ahead: recorded with --prefetch auto: touches of pages fetched ahead are missing'
}

test_static_probes_are_in_the_program() {
    local header
    header=$(echo '#include <sys/sdt.h>' | gcc -E - 2>/dev/null) || skip "built without systemtap-sdt-dev"
    [ "$header" ] || skip "built without systemtap-sdt-dev"
    readelf -n "$FARVISOR" >notes
    for probe in fault_begin fault_end fetch land install evict; do
        grep -A1 'Provider: farvisor$' notes | grep -qx "    Name: $probe" || fail "no probe $probe"
    done
}

test_version_and_help_go_to_standard_output() {
    for words in --version --help "run --help" "run --version" "run -h" "doctor --help" "replay --help" \
        "completion bash"; do
        # shellcheck disable=SC2086 # words
        expect_status 0 "$FARVISOR" $words
        [ -s out ] || fail "$words printed nothing"
        [ -s err ] && fail "$words printed on standard error: $(cat err)"
    done
    "$FARVISOR" --version | grep -qE '^farvisor [0-9]+\.[0-9]+\.[0-9]+$' || fail "version"
    expect_status 125 sh -c "'$FARVISOR' --help >/dev/full"
    expect_stderr 'cannot write to standard output: No space left on device$'
}

# The options of a help text: one "--name ARG" a line.
option_lines() {
    sed -nE 's/^  (-[a-z], |    )(--[a-z-]+( [^ ]+)?).*/\2/p'
}

help_options() {
    "$FARVISOR" "$1" --help | option_lines
}

# The options a manual explains, in the same form.
manual_options() {
    sed -E 's/\\f[BIR]//g; s/\\-/-/g; s/\\\././g' "$REPO/man/$1.1" |
        sed -nE 's/^(-[a-z], )?(--[a-z-]+( [^ ]+)?)$/\2/p'
}

test_manual_explains_every_option() {
    { help_options run && help_options replay; } | sort -u >help
    [ -s help ] || fail "no options found in the help text"
    manual_options farvisor | sort -u >manual
    diff help manual >&2 || fail "help and farvisor(1) differ"
    "$FARVISOR" run --help | grep -oE '^  -[a-z], --[a-z-]+' | sort -u >short_help
    sed -E 's/\\f[BIR]//g; s/\\-/-/g' "$REPO/man/farvisor.1" |
        grep -oE '^-[a-z], --[a-z-]+' | sed 's/^/  /' | sort -u >short_manual
    diff short_help short_manual >&2 || fail "one-letter forms in help and farvisor(1) differ"
}

test_memserver_manual_explains_every_option() {
    "$MEMSERVER" --help | option_lines | sort >help
    [ -s help ] || fail "no options found in the help text"
    manual_options memserver | sort >manual
    diff help manual >&2 || fail "help and memserver(1) differ"
}

test_completion_knows_every_option() {
    "$FARVISOR" completion bash >script
    bash -n script || fail "not a script"
    for option in $({ help_options run && help_options replay; } | sed 's/ .*//'); do
        grep -qe " $option\b" script || fail "$option is missing"
    done
    # shellcheck disable=SC2016,SC1091 # run by a fresh shell
    bash -c '. ./script
        complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _farvisor; printf "%s\n" "${COMPREPLY[@]}"; }
        complete_words farvisor r | grep -qx run || exit 1
        complete_words farvisor run --me | grep -qx -- --memory || exit 2
        complete_words farvisor run --fault-mode u | grep -qx uffd || exit 3
        complete_words farvisor run --memory 1G true --me | grep -qx -- --memory && exit 4
        complete_words farvisor replay --po | grep -qx -- --policy || exit 6
        complete_words farvisor replay --policy be | grep -qx belady || exit 7
        complete_words farvisor doctor --j | grep -qx -- --json || exit 5' ||
        fail "completion gives the wrong words ($?)"
}

test_dump_config_shows_what_the_options_mean() {
    expect_status 0 env -i PATH=/bin HOME=/h SECRET=1 LC_ALL=C "$FARVISOR" run -m 64M --local 50% \
        --memserver h:1 --transport loopback,delay=1us --fault-mode uffd --prefetch trend --map-ahead off --polling off --timeout 2s --threads 3 \
        --env A=1 --env A=2 --env PATH=/x --dir /usr:/u:rw -d /etc --workdir /w --stats s --trace t \
        --progress --dump-config -- prog --local
    cat >expected <<'EXPECTED'
memory_bytes=67108864
local_bytes=33554432
memserver=h:1
transport=loopback,delay=1us
fault_mode=uffd
prefetch=trend
map_ahead=off
polling=off
timeout_ns=2000000000
threads=3
workdir=/w
stats=s
trace=t
allocator=own
guides=0
guide_accuracy_percent=10
guide_time_percent=20
progress=yes
dir=/usr:/u:rw
dir=/etc:/etc:ro
net=none
env=PATH=/x
env=HOME=/h
env=LC_ALL=C
env=A=2
argv=prog
argv=--local
EXPECTED
    diff expected out >&2 || fail "configuration differs"
    expect_status 0 "$FARVISOR" run --dump-config true
    [ "$(grep -c '^local_bytes' out)" = 1 ] || fail "no local_bytes"
    [ "$(sed -n 's/^local_bytes=//p' out)" = "$(sed -n 's/^memory_bytes=//p' out)" ] ||
        fail "the default is not all local"
}

test_doctor_finds_this_host_fit() {
    expect_status 0 "$FARVISOR" doctor
    for topic in /dev/kvm 'host kind' 'kvm features' 'address bits' kernel userfaultfd memory \
        'huge pages' memlock 'RDMA device' 'guest image' memserver; do
        grep -qE "^(ok|warn) +$topic " out || fail "no line for $topic: $(cat out)"
    done
    grep -qx 'This host can run guests.' out || fail "no verdict"
}

# A kernel with KVM built in has both folders, whatever the processor.
test_doctor_tells_host_kinds_apart() {
    local pvm=
    if [ -e /sys/module/kvm_pvm ]; then
        pvm=1
        expect_status 0 "$FARVISOR" doctor
        grep -qE '^ok +host kind +PVM ' out || fail "$(grep 'host kind' out)"
    fi
    [ "$(id -u)" = 0 ] || skip "needs root to show it other modules"
    # shellcheck disable=SC2016 # $0 is the inner shell's
    expect_status 0 unshare --mount sh -ec '
        mount -t tmpfs none /sys/module
        mkdir -p /sys/module/kvm_intel/parameters /sys/module/kvm_amd/parameters
        echo Y >/sys/module/kvm_intel/parameters/ept
        echo N >/sys/module/kvm_amd/parameters/npt
        exec "$0" doctor' "$FARVISOR"
    if [ "$pvm" ]; then
        grep -qE '^warn +host kind +neither' out || fail "$(grep 'host kind' out)"
    elif grep -qw svm /proc/cpuinfo; then
        grep -qE '^warn +host kind +AMD SVM, NPT switched off' out || fail "$(grep 'host kind' out)"
    else
        grep -qE '^ok +host kind +Intel VMX, EPT' out || fail "$(grep 'host kind' out)"
    fi
}

# KVM of Linux 6.12 can have more vCPUs than a guest can.
test_doctor_promises_threads_that_run_accepts() {
    local threads
    expect_status 0 "$FARVISOR" doctor
    threads=$(sed -nE 's/^ok +kvm features .* up to ([0-9]+) threads$/\1/p' out)
    [ "$threads" ] || fail "no number of threads: $(cat out)"
    expect_status 0 "$FARVISOR" run --threads "$threads" --dump-config true
}

test_doctor_reports_json() {
    expect_status 0 "$FARVISOR" doctor --json
    python3 - <<'PYTHON' || fail "not the expected JSON"
import json
report = json.load(open("out"))
assert report["fit"] is True
assert {"verdict", "topic", "found"} <= set(report["checks"][0])
PYTHON
}

test_doctor_names_the_remedy_and_ends_with_1() {
    expect_status 1 env FARVISOR_GUEST=/no/image "$FARVISOR" doctor
    grep -qE '^FAIL +guest image' out || fail "the missing image is not reported"
    grep -qE -- '-> make all' out || fail "no remedy"
    # A user without rights: neither /dev/kvm nor userfaultfd can be had.
    [ "$(id -u)" = 0 ] || skip "needs root to become somebody without rights"
    chmod 755 . && cp "$FARVISOR" ./farvisor
    local status=0
    setpriv --reuid 65534 --regid 65534 --clear-groups ./farvisor doctor >out 2>err || status=$?
    [ "$status" = 1 ] || fail "exit status $status without rights: $(cat out err)"
    grep -qE '^FAIL +/dev/kvm +no permission' out || fail "/dev/kvm: $(cat out)"
    grep -qE '^FAIL +userfaultfd +no right' out || fail "userfaultfd: $(cat out)"
    grep -q 'usermod -aG kvm' out || fail "no remedy for /dev/kvm"
}

system_main "$@"
