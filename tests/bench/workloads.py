# SPDX-License-Identifier: Apache-2.0
"""The workloads: what is run, at which size, and what is compared.

A size is the data in MiB; arguments are made from it so that the working set of every macro
workload is about that size. The real working set is measured, not computed.
"""
from dataclasses import dataclass

QUICK_MIB = 64
FULL_MIB = 128


@dataclass(frozen=True)
class Workload:
    """One program with its arguments, run in a directory that holds the inputs."""

    name: str
    group: str  # overhead, micro or macro
    words: str  # what it does, for the report
    argv: tuple
    inputs: tuple = ()  # (file, generator's argv); "-" as last argument: its standard output
    idle: tuple = ()  # arguments that make the program end at once: its memory without data
    metric: str = "run_s"  # what is compared
    extras: tuple = ()  # further figures that it prints
    shares: tuple = ()  # of the working set, where they are not those asked for
    output: str = ""  # a file whose hash is the checksum, for programs that print none
    threads: int = 1
    phases: bool = True  # prints the seconds of its phases
    working_set_mib: int = 0  # fixed instead of measured


def scale_of(mib):
    """Logarithm of the number of vertices whose graph, 56 edges a vertex, takes about mib."""
    return max(10, (mib * 4096).bit_length() - 1)


def touches(mib, pattern, operation, threads, count):
    """Page touches, `count` in all; 0: one for every page."""
    suffix, words = (f"-{threads}t", f", {threads} threads") if threads > 1 else ("", "")
    return Workload(
        f"{pattern}-{operation}{suffix}",
        "micro",
        f"{pattern} {operation}{words}",
        ("touch", str(mib), pattern, operation, str(count), str(threads)),
        metric="ns_per_page",
        threads=threads,
        extras=("mb_per_s", "miss_p50_us", "miss_p99_us", "miss_p999_us", "thread_spread"),
    )


def micro(mib, quick):
    """Page touches: patterns, directions, threads. Random ones are fewer, each costs more."""
    counts = {"random": mib * (128 if quick else 256)}
    forms = [
        ("seq", "read", 1),
        ("seq", "write", 1),
        ("reverse", "read", 1),
        ("stride", "read", 1),
        ("mixed", "read", 1),
        ("random", "read", 1),
        ("random", "write", 1),
    ]
    forms += [
        (pattern, "read", threads)
        for pattern in ("seq", "random")
        for threads in ((4,) if quick else (2, 4))
    ]
    return [
        touches(mib, pattern, operation, threads, counts.get(pattern, 0))
        for pattern, operation, threads in forms
    ]


def macro(mib, quick):
    """Whole programs. Their inputs are made once, outside of what is measured."""
    scale = scale_of(mib)
    graph, text, lines = f"graph.{scale}", f"text.{mib}", f"lines.{mib}"
    make_graph = (graph, ("graph", "generate", str(scale), "28", graph))
    make_text = (text, ("text", str(mib // 2), "12", "-"))
    make_lines = (lines, ("text", str(mib * 3 // 5), "16", "-"))
    rounds, sources = (3, 1) if quick else (10, 2)
    rows = mib * 8000
    taxi = (f"taxi.{rows}", ("taxi", "generate", str(rows), f"taxi.{rows}"))
    return [
        Workload("quicksort", "macro", "sorts random integers in place", ("quicksort", str(mib))),
        Workload(
            "kmeans", "macro", "k-means, 16 dimensions, 16 clusters, 6 rounds", ("kmeans", str(mib))
        ),
        Workload(
            "snappy-compress",
            "macro",
            "compresses text in memory",
            ("snappy", "compress", text),
            inputs=(make_text,),
        ),
        Workload(
            "snappy-decompress",
            "macro",
            "decompresses it again",
            ("snappy", "decompress", text),
            inputs=(make_text,),
        ),
        Workload(
            "sql-taxi",
            "macro",
            "six SQLite queries over taxi trips in memory",
            ("taxi", "query", taxi[0]),
            inputs=(taxi,),
        ),
        Workload(
            "pagerank",
            "macro",
            f"PageRank, {rounds} rounds, on a Kronecker graph",
            ("graph", "pagerank", graph, str(rounds)),
            inputs=(make_graph,),
        ),
        Workload(
            "betweenness",
            "macro",
            f"betweenness centrality, sources: {sources}, same" " graph",
            ("graph", "betweenness", graph, str(sources)),
            inputs=(make_graph,),
        ),
        Workload(
            "gnu-sort",
            "macro",
            "GNU sort of lines of text, one thread",
            ("/usr/bin/sort", "--parallel=1", "-S", f"{mib * 4}M", "-o", "sorted", lines),
            inputs=(make_lines,),
            idle=("--version",),
            output="sorted",
            phases=False,
            metric="wall_s",
        ),
    ]


def overhead():
    """What a guest costs when all memory is local; time with start-up, no paging but for `true`."""
    words = ("text.4", ("text", "4", "8", "-"))
    whole = {"phases": False, "metric": "wall_s", "shares": (100,), "working_set_mib": 512}
    return [
        Workload(
            "true",
            "overhead",
            "start to exit of an empty program; at 25 % with an embedded" " memory server",
            ("/bin/true",),
            phases=False,
            metric="wall_s",
            shares=(25, 100),
            working_set_mib=64,
        ),
        Workload(
            "calls",
            "overhead",
            "cheap system calls, ns each",
            ("clocks", "--costs"),
            phases=False,
            metric="getpid_ns",
            shares=(100,),
            working_set_mib=64,
            extras=("clock_gettime_ns", "mutex_ns", "futex_wake_nobody_ns"),
        ),
        Workload(
            "bc",
            "overhead",
            "bc: pi to 1200 digits",
            ("/usr/bin/bc", "-lq", "pi"),
            inputs=(("pi", ("sh", "-c", "echo 'scale=1200; 4*a(1)' >pi")),),
            **whole,
        ),
        Workload(
            "gzip",
            "overhead",
            "gzip -9 of 8 MiB of text",
            ("/usr/bin/gzip", "-9c", "text.4", "text.4"),
            inputs=(words,),
            **whole,
        ),
        Workload(
            "xz",
            "overhead",
            "xz -1 of 4 MiB of text",
            ("/usr/bin/xz", "-1", "-T1", "-c", "text.4"),
            inputs=(words,),
            **whole,
        ),
        Workload(
            "awk",
            "overhead",
            "mawk counts the words of 8 MiB of text",
            (
                "/usr/bin/mawk",
                "{ for (i = 1; i <= NF; i++) n[$i NR % 9]++ }" " END { print length(n) }",
                "text.4",
                "text.4",
            ),
            inputs=(words,),
            **whole,
        ),
    ]


def catalogue(mib, quick):
    """All workloads, in the order of the report."""
    return overhead() + micro(mib, quick) + macro(mib, quick)


def select(workloads, only):
    """Those whose name or group is in the list `only`; all if it is empty."""
    chosen = [w for w in workloads if not only or w.name in only or w.group in only]
    known = {w.name for w in workloads} | {w.group for w in workloads}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise ValueError(
            f"--only: unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}"
        )
    return chosen
