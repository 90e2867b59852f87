# SPDX-License-Identifier: Apache-2.0
"""Sections about what the program or a guide tells the engine: look-ups with hints, live ranges,
chains, and guides that misbehave."""
import re

import measure
from trials import Failed, Metric, Section, case_of

AHEAD = 32  # look-ups that a hint is ahead of its own
PHASES = ("fill", "del", "get")
ALLOCATORS = {"own": "own", "whole pages": "far,whole-pages", "far": "far"}
BAD_GUIDES = ("none", "loop", "crash", "garbage")
CHAIN_LINE = re.compile(r"^(hop by hop|whole chain): median ([0-9.]+) us", re.M)


def looked_up(lab, structure, mib, count, run):
    """us a look-up; natively for zram, where hints go nowhere."""
    argv = ("lookups", str(mib), structure, str(count), str(AHEAD if run == "hints" else 0))
    if run == "zram":
        output, stats = lab.swapping(argv, mib // 8), None
    else:
        output, stats = lab.far(argv, mib * 3 // 2 + 64, mib // 8)
    lab.check((*argv[:-1], "0"), output)
    found = {"us_a_lookup": float(measure.key_values(output)["us_a_lookup"])}
    if stats:
        found["demand_fetched_pages"] = stats["paging"]["demand_fetched_pages"]
        found["hinted_pages"] = stats["hints"]["prefetch_pages"]
    return {run: found}


def lookup_cases(mib, quick):
    size, count = 2 * mib, 5000 if quick else 20000

    def one(structure):
        return case_of(
            structure,
            f"{count} random look-ups in a {structure} of {size} MiB, {size // 8} MiB local",
            ("none", "hints", "zram"),
            lambda lab, run: looked_up(lab, structure, size, count, run),
        )

    return [one("btree"), one("hash")]


def travelled(lab, argv, mib, local_mib, run):
    """Bytes of each phase: the difference of a run that stops after it and one that stops before."""
    options = ("--allocator", ALLOCATORS[run])
    found, before = {}, {"fetched_bytes": 0, "written_bytes": 0}
    for phase in PHASES:
        output, stats = lab.far(argv, mib * 4 + 64, local_mib, options=options, stop=phase)
        now = {name: stats["paging"][name] for name in before}
        parts = {name: now[name] - before[name] for name in now}
        found[f"{phase}_read_bytes"] = parts["fetched_bytes"]
        found[f"{phase}_written_bytes"] = parts["written_bytes"]
        found[f"{phase}_bytes"] = sum(parts.values())
        before = now
        if b"_s " not in output:
            raise Failed(f"phase {phase}: no time was printed")
    return {run: found}


def live_cases(mib, _quick):
    size, local_mib = max(16, mib * 3 // 8), max(10, mib // 8)
    argv = ("objects", str(size), "128")
    return [
        case_of(
            "objects",
            f"{size} MiB of objects of 128 bytes, {local_mib} MiB local; 70 % are freed at random (del), "
            "then the others are read at random (get)",
            ALLOCATORS,
            lambda lab, run: travelled(lab, argv, size, local_mib, run),
        )
    ]


def chained(lab, transport, rounds):
    argv = ("guide_chain", "time", "64", str(rounds))
    output, stats = lab.far(argv, 256, 32, transport=transport)
    medians = dict(CHAIN_LINE.findall(output.decode()))
    if len(medians) != 2:
        raise Failed(f"unexpected output: {output[:100]!r}")
    reads = stats["hints"]["chain_nodes"]
    return {
        "hop by hop": {"us": float(medians["hop by hop"])},
        "whole chain": {"us": float(medians["whole chain"]), "chain_nodes": reads},
    }


def chain_cases(_mib, quick):
    transport, rounds = "ofi,delay=20us", 10 if quick else 40
    return [
        case_of(
            "100 nodes",
            f"a list of 100 nodes of 64 bytes, all remote, {transport}; the median of {rounds} rounds of each "
            "way in one program",
            ("both",),
            lambda lab, _run: chained(lab, transport, rounds),
        )
    ]


def guided_badly(lab, argv, local_mib, mib, run):
    folder = lab.runner.guests.parent / "guides"
    guide = () if run == "none" else ("--guide", str(folder / f"{run}.so"))
    output, stats = lab.far(
        (str(folder / argv[0]), *argv[1:]), mib * 3 // 2 + 64, local_mib, options=guide
    )
    wall_s = float(lab.runner.used()["wall_s"])
    lab.check((str(folder / argv[0]), *argv[1:]), output)
    return {run: {"wall_s": wall_s, "hints_taken": stats["hints"]["taken"]}}


def bad_guide_cases(mib, quick):
    size, requests = max(32, mib * 3 // 4), 200 if quick else 500
    argv, local_mib = ("orders", str(size), str(requests)), max(10, size // 4)
    return [
        case_of(
            "orders",
            f"the tutorial's program, {size} MiB and {requests} requests, {local_mib} MiB local, beside guides "
            "that loop, crash or post garbage; the whole run",
            BAD_GUIDES,
            lambda lab, run: guided_badly(lab, argv, local_mib, size, run),
        )
    ]


LOOKUPS = Section(
    "lookups",
    "Look-ups with hints",
    f"The program names the page of the key that it looks up {AHEAD} look-ups later (hints), or nothing "
    "(none); zram is the program without hints in a memory cgroup of the same size.",
    (
        Metric("us_a_lookup", "us a look-up"),
        Metric("demand_fetched_pages", "demand pages"),
        Metric("hinted_pages", "pages named"),
    ),
    lookup_cases,
    ("zram",),
)
LIVE = Section(
    "live",
    "Live ranges",
    "MiB that travel in each phase: with the program's own allocator, with the far one and whole pages, and "
    "with only what lives (far).",
    tuple(
        Metric(f"{phase}{part}_bytes", f"{phase}{words}", 2**-20)
        for phase in PHASES[1:]
        for part, words in (("_read", ": read"), ("_written", ": written"), ("", ": both"))
    ),
    live_cases,
)
CHAIN = Section(
    "chain",
    "Chained reads",
    "`guide_read_chain`, which the memory node follows, against one `guide_read` a hop.",
    (Metric("us", "us a list"), Metric("chain_nodes", "nodes by chains")),
    chain_cases,
    ("server",),
)
BAD_GUIDES_SECTION = Section(
    "bad-guides",
    "Guides that misbehave",
    "Wall time of the program with each.",
    (Metric("wall_s", "s"), Metric("hints_taken", "hints taken")),
    bad_guide_cases,
)
SECTIONS = (LOOKUPS, LIVE, CHAIN, BAD_GUIDES_SECTION)
