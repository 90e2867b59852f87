# SPDX-License-Identifier: Apache-2.0
"""Sections about the paging engine itself: faults, delays, threads, a scan beside a hot set."""
import csv
import dataclasses
import json

import workloads
from measure import Cell
from systems import KNOWN
from trials import Failed, Metric, Section, case_of

SHARE = 12.5  # of the working set is local, in percent
STAGES = ("fault", "fetch", "flight", "install")
SYSTEMS = {system.name: system for system in KNOWN}
POLICIES = ("clock", "fifo", "lru", "belady")
RECORDED_LOCAL_MIB = 8  # the least: what stays there from touch to touch is not seen


def touches(*arguments):
    """A workload of page touches under its own name: working sets are known by names."""
    workload = workloads.touches(*arguments)
    return dataclasses.replace(workload, name=" ".join(workload.argv))


def touched(lab, workload, system, transport):
    """One run of `touch`: the numbers of its row, and the stages of a fault in us."""
    runner = lab.runner
    if workload.name not in runner.working_sets:
        try:
            runner.prepare(workload)
        except RuntimeError as error:
            raise Failed(str(error)) from error
    share = None if system == "native" else SHARE
    row = runner.run(Cell(workload, SYSTEMS[system], share, transport if share else ""))
    if row["status"] != "ok":
        raise Failed(row["status"])
    argv = workload.argv
    lab.check(argv, f"checksum {row['checksum']}\n".encode())
    found = {
        name: float(row[name])
        for name in (*workload.extras, "ns_per_page", "exits", "demand_fetched_pages")
        if row[name] != ""
    }
    for stage, values in json.loads(row["stages"] or "{}").items():
        if stage in STAGES and values["count"]:
            for part in ("p50", "p99"):
                found[f"{stage}_{part}_us"] = values[f"{part}_ns"] / 1e3
    return found


def fault_cases(mib, quick):
    count = min(mib * 512, 5000 if quick else 20000)
    workload = touches(2 * mib, "random", "read", 1, count)

    def one(transport):
        return case_of(
            transport,
            f"random reads of {2 * mib} MiB over {transport}",
            ("exit", "uffd", "uffd-spin"),
            lambda lab, run: {run: touched(lab, workload, run, transport)},
        )

    return [one("loopback"), one("ofi")]


def delay_cases(mib, _quick):
    workload = touches(2 * mib, "seq", "read", 1, 0)
    transports = {"undelayed": "loopback", "delay=20us": "loopback,delay=20us", "ofi": "ofi"}
    return [
        case_of(
            "seq-read",
            f"sequential read of {2 * mib} MiB",
            transports,
            lambda lab, run: {run: touched(lab, workload, "exit", transports[run])},
        )
    ]


def thread_cases(mib, quick):
    count = min(mib * 512, 5000 if quick else 20000)
    forms = {
        f"{threads} thread{'s' if threads > 1 else ''}": touches(
            2 * mib, "random", "read", threads, count
        )
        for threads in (1, 2, 4)
    }
    return [
        case_of(
            "random-read",
            f"random reads of {2 * mib} MiB, each thread of its own part, {count} in all",
            forms,
            lambda lab, run: {run: touched(lab, forms[run], "exit", "loopback")},
        )
    ]


def hot_misses(path):
    """From replay's CSV: {policy: figures of the touches in the range}."""
    found = {}
    with open(path, newline="", encoding="utf-8") as source:
        for row in csv.DictReader(source):
            again = int(row["touches"]) - int(row["first"])
            if not again:
                raise Failed("no touch of the hot set was recorded twice")
            found[row["policy"]] = {
                "touches": again,
                "misses": int(row["misses"]),
                "miss_percent": 100 * int(row["misses"]) / again,
            }
    if sorted(found) != sorted(POLICIES):
        raise Failed(f"replay: policies {', '.join(found)}")
    return found


def scan_once(lab, local_mib, passes):
    """Records the program where nearly every touch misses, and plays that in `local_mib`."""
    work = lab.runner.work
    argv = ("scan", str(local_mib), str(passes))
    options = ("--prefetch", "none", "--trace", "trace")
    output, _ = lab.far(argv, local_mib * 5 + 64, RECORDED_LOCAL_MIB, options=options)
    lab.check(argv, output)
    hot = dict(line.split(" ", 1) for line in output.decode().splitlines())["hot_range"]
    replay = [lab.runner.farvisor, "replay", "--policy", ",".join(POLICIES), "--range", hot]
    lab.spawn([*replay, "--local", f"{local_mib}M", "--csv", "csv", "trace"])
    found = hot_misses(work / "csv")
    (work / "trace").unlink()
    return found


def scan_cases(mib, quick):
    local_mib = max(2 * RECORDED_LOCAL_MIB, mib // 2)
    passes = (1 if mib < 64 else 2) if quick else 4
    return [
        case_of(
            "hot set",
            f"{local_mib} MiB local: {local_mib // 2} MiB read at random, {local_mib * 4} MiB scanned "
            f"{passes} times",
            ("recording",),
            lambda lab, _run: scan_once(lab, local_mib, passes),
        )
    ]


FAULTS = Section(
    "faults",
    "Demand faults",
    "Single random reads. `miss` is what the program sees; fault, fetch and install are what the engine "
    "spends on it (`--stats`); the difference is leaving and entering the guest. us.",
    (
        Metric("miss_p50_us", "miss p50"),
        Metric("miss_p99_us", "miss p99"),
        Metric("fault_p50_us", "fault p50"),
        Metric("fault_p99_us", "fault p99"),
        Metric("fetch_p50_us", "fetch p50"),
        Metric("fetch_p99_us", "fetch p99"),
        Metric("install_p50_us", "install p50"),
        Metric("install_p99_us", "install p99"),
        Metric("demand_fetched_pages", "demand pages"),
    ),
    fault_cases,
    ("server",),
)
DELAY = Section(
    "delay",
    "A slow network",
    "A sequential read with 20 us added to every transfer, and over TCP on this host.",
    (
        Metric("ns_per_page", "us a page", 1e-3),
        Metric("mb_per_s", "MB/s"),
        Metric("demand_fetched_pages", "demand pages"),
    ),
    delay_cases,
    ("server",),
)
THREADS = Section(
    "threads",
    "Several threads that fault",
    "Random reads; the same number in all, shared by the threads.",
    (
        Metric("mb_per_s", "MB/s"),
        Metric("thread_spread", "slowest / fastest thread"),
        Metric("miss_p50_us", "miss p50, us"),
        Metric("miss_p99_us", "miss p99, us"),
    ),
    thread_cases,
)
SCAN = Section(
    "scan",
    "A hot set beside a scan",
    "A run is recorded with 8 MiB local and without prefetching, so that nearly every touch is seen, and "
    "played against the local memory named; counted are the touches of the hot set alone "
    "(`farvisor replay --range`). `clock` is the engine's own policy.",
    (
        Metric("touches", "touches of known pages"),
        Metric("misses", "misses"),
        Metric("miss_percent", "of 100 touches"),
    ),
    scan_cases,
)
SECTIONS = (SCAN, FAULTS, DELAY, THREADS)
