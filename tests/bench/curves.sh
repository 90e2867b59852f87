#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Miss-ratio curves: records programs with the smallest cache and no prefetch, plays the traces
# against each replacement policy, and prints the Markdown of docs/performance.md, section "Which
# pages leave". With KEEP=DIR the traces stay there, and those that are there are not made again.
# Usage: tests/bench/curves.sh [NAME...]     Environment: BUILD, FARVISOR, KEEP.
set -uo pipefail
export LC_ALL=C

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../system/lib.sh
. "$here/../system/lib.sh"
PATTERNS=$BUILD/tests/bench/patterns
SIZES=25%,40%,50%,60%,75%,90%

work=$(mktemp -d "${TMPDIR:-/tmp}/farvisor-curves.XXXXXX")
at_exit "rm -rf '$work'"
traces=${KEEP:-$work}
mkdir -p "$traces"
cd "$work" || exit 1

die() {
    echo "curves: $*: $(head -c 300 err)" >&2
    exit 1
}

# record NAME COMMAND...: the trace of a run whose touches are visible as far as they can be.
record() {
    local trace=$traces/$1.trace
    shift
    [ -s "$trace" ] && return
    timeout 600 "$FARVISOR" run --memory 1G --local 8M --prefetch none --trace "$trace.part" \
        --dir "$BUILD" -- "$@" >out 2>err </dev/null || die "$*"
    grep -q dropped err && cat err >&2
    mv "$trace.part" "$trace"
}

make_inputs() {
    local name
    for name in "$@"; do
        case $name in
        sort | sqlite) [ -e text ] || python3 "$here/../system/data/make_text.py" 16 >text ;;
        esac
    done
}

trace_of() {
    case $1 in
    scan | loop | zipf | kmeans | phases) record "$1" "$PATTERNS" "$1" 64 4 ;;
    sort) record sort sort --parallel=1 -S 128M text ;;
    sqlite)
        record sqlite sqlite3 :memory: '.mode list' 'create table t(word text, n integer);' \
            '.separator \t' '.import text t' 'create index i on t(word);' \
            'select count(distinct word), sum(length(word)) from t;' \
            'select count(*) from t a join t b on a.rowid = b.rowid + 1000 and a.word < b.word;'
        ;;
    python)
        record python python3 -c '
import random
random.seed(3)
d = {i: str(i) for i in range(200000)}
s = 0
for _ in range(200000): s += len(d[int(random.paretovariate(0.5)) % 200000])
for k in list(d)[::3]: del d[k]
print(s, sum(map(len, d.values())))'
        ;;
    *) die "no program is called $1" ;;
    esac
}

# rows NAME: one line a cache size, from the CSV.
rows() {
    awk -F, -v name="$1" '
        NR > 1 {
            again = $4 - $5
            miss[$3, $1] = again ? 100 * $6 / again : 0
            if (!($3 in seen)) { seen[$3] = 1; sizes[++n] = $3 }
        }
        END {
            for (i = 1; i <= n; i++) {
                s = sizes[i]
                printf "| %s | %.0f MiB | %.1f | %.1f | %.1f | %.1f |\n", i == 1 ? name : "",
                    s / 256, miss[s, "clock"], miss[s, "fifo"], miss[s, "lru"], miss[s, "belady"]
            }
        }' csv
}

names=("$@")
[ $# -gt 0 ] || names=(scan kmeans loop zipf phases sort sqlite python)
make_inputs "${names[@]}"
echo '| trace | cache | clock | FIFO | LRU | Belady |'
echo '|---|---|---|---|---|---|'
for name in "${names[@]}"; do
    trace_of "$name"
    "$FARVISOR" replay --local $SIZES --csv csv "$traces/$name.trace" >out 2>err || die "replay $name"
    rows "$name"
done
