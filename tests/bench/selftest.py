# SPDX-License-Identifier: Apache-2.0
"""The suite's own tests; run.sh starts it. A test is a function named test_*; see the end."""
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import figures
import plots
import report as reports
import section_report
import selftest_sections
import summary
import systems
import trials
import workloads
from selftest_lib import HERE, Skip, canned, expect, run
from targets import read_targets

HELP = """      --fault-mode MODE       exit or uffd: who solves a miss (default: exit)
      --prefetch NAME         none, readahead or auto: which pages
                              are fetched with a miss; also trend
      --timeout DURATION      longest wait
"""
ABOUT = {
    "form": "made up",
    "command": "selftest",
    "date": "2026-01-02",
    "host": "a host",
    "version": "farvisor 0",
    "skipped": {"trend": "no reason"},
    "swap": "cgroup v0",
}
# Checksums of the smallest sizes. Not that of compressed data, which may differ by library.
RESULTS = (
    (("quicksort", "1"), "1c68801ec2239fba"),
    (("kmeans", "1"), "f1b681488a1266aa"),
    (("taxi", "query", "taxi"), "1711168e398f733e"),
    (("graph", "pagerank", "graph", "3"), "2582e89d9ed685e0"),
    (("graph", "pagerank", "graph", "3", "4"), "2582e89d9ed685e0"),
    (("graph", "betweenness", "graph", "2"), "c3f20dda433a465f"),
    (("touch", "4", "seq", "read", "0"), "e61dfe8d0d5080f8"),
    (("touch", "4", "mixed", "read", "0"), "e61dfe8d0d5080f8"),
    (("touch", "4", "stride", "read", "0"), "e61dfe8d0d5080f8"),
    (("touch", "4", "random", "read", "0"), "2f533b1d0c8fd77a"),
    (("touch", "4", "seq", "write", "0", "4"), "d762b12e7e9c0662"),
    (("objects", "1", "128"), "0a06549462a5a48d"),
    (("lookups", "1", "btree", "1000", "0"), "3a971f4f0168efd2"),
    (("lookups", "1", "btree", "1000", "8"), "3a971f4f0168efd2"),
    (("lookups", "1", "hash", "1000", "0"), "eb4d2048ba021722"),
    (("scan", "2", "2"), "9377843d55a7334c"),
    (("scan", "2", "3"), "d7a9b839c777ab79"),
)


def canned_report(folder):
    return reports.Report(canned(), workloads.catalogue(64, False), ABOUT)


def test_a_median_has_the_interval_that_order_statistics_give():
    expect("coverage of 5 values", summary.median_coverage(5, 1), 0.9375)
    expect("rank for 5 values", summary.median_rank(5), 1)
    expect("rank for 8 values", summary.median_rank(8), 1)
    expect("rank for 9 values", summary.median_rank(9), 2)
    figure = summary.figure_of([9, 1, 8, 2, 7, 3, 6, 4, 5])
    expect(
        "figure",
        (figure.median, figure.low, figure.high, figure.least, figure.most),
        (5, 2, 8, 1, 9),
    )
    expect("even count", summary.figure_of([1, 2, 3, 10]).median, 2.5)
    expect("nothing", summary.figure_of([]), None)


def test_ratios_are_taken_within_a_round():
    found = summary.Summary(canned())
    key = ("quicksort", "exit", "12.5", "loopback,delay=20us")
    own = found.ratio(key, "own", "run_s")
    expect("own 100 %", (own.median, own.least, own.most), (2.0, 2.0, 2.0))
    expect("native", found.ratio(key, "native", "run_s").median, 4.0)
    expect("zram", found.ratio(key, "zram", "run_s").median, 0.5)
    expect(
        "a prefetcher's own",
        found.base_key(("quicksort", "none", "12.5", "x"), "own"),
        ("quicksort", "exit", "100", ""),
    )


def test_cheap_exits_are_subtracted_exit_by_exit():
    key = ("quicksort", "exit", "12.5", "loopback,delay=20us")
    seconds = summary.Summary(canned()).with_fast_exits(key, "run_s")
    if not math.isclose(seconds, 4 - 40000 * (31.5 - 1.5) / 1e6):
        raise AssertionError(f"seconds at 1.5 us an exit: {seconds}")


def test_a_system_that_the_program_does_not_know_is_left_out_with_a_reason():
    by_name = {system.name: system for system in systems.KNOWN}
    for name in ("native", "exit", "uffd", "none", "readahead", "trend", "auto"):
        expect(name, systems.missing_option(by_name[name], HELP), "")
    without = HELP.replace("--prefetch", "--other")
    expect(
        "no option",
        systems.missing_option(by_name["auto"], without),
        "this farvisor has no --prefetch",
    )
    expect(
        "no value",
        systems.missing_option(by_name["auto"], HELP.replace("auto", "else")),
        "this farvisor's --prefetch does not know auto",
    )


def test_the_report_names_transport_systems_and_failures():
    text = canned_report(None).markdown()
    for wanted in (
        "transport loopback,delay=20us\n",
        "| exit | 12.5 % | 4.00 [3.00-5.00] |",
        "2.00 [2.00-2.00]",
        "| native | - |",
        "system trend: no reason",
        "a host",
        "kmeans zram 12.5: over 10 s",
        "Fewer than five runs",
    ):
        if wanted not in text:
            raise AssertionError(f"not in the report: {wanted}")


def test_figures_are_drawn_in_both_formats():
    if not shutil.which("gnuplot"):
        raise Skip("gnuplot is not installed")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        made = canned_report(folder)
        figures.write_summary(folder / "summary.csv", made)
        expect("problem", plots.draw(made, folder), "")
        names = [f"{kind}-loopback-delay20us" for kind in ("macro", "micro")]
        for picture in [f"{name}.{suffix}" for name in names for suffix in ("svg", "png")]:
            if (folder / picture).stat().st_size < 1000:
                raise AssertionError(f"{picture} is empty")
        expect("rows", len((folder / "summary.csv").read_text().splitlines()), 6)


def test_programs_have_known_results():
    with tempfile.TemporaryDirectory() as work:
        run("taxi", "generate", "2000", "taxi", cwd=work)
        run("graph", "generate", "10", "8", "graph", cwd=work)
        for argv, wanted in RESULTS:
            lines = dict(line.split(" ") for line in run(*argv, cwd=work).splitlines())
            expect(" ".join(argv), lines["checksum"], wanted)


def test_snappy_gives_back_what_it_compressed():
    with tempfile.TemporaryDirectory() as work:
        text = run("text", "1", "8")
        (pathlib.Path(work) / "text").write_text(text)
        for direction in ("compress", "decompress"):
            if "checksum" not in run("snappy", direction, "text", cwd=work):
                raise AssertionError(f"{direction} without a checksum")


def test_a_program_stops_after_the_phase_it_is_told():
    found = run("quicksort", "1", env={"BENCH_STOP": "setup"}).split()
    expect("keys", found[::2], ["setup_s"])
    found = run("quicksort", "1", env={"BENCH_STOP": "run"}).split()
    expect("keys", found[::2], ["setup_s", "run_s"])


def swaps():
    return pathlib.Path("/proc/swaps").read_text()


def test_the_swap_goes_when_its_holder_is_killed():
    if os.geteuid() != 0 or not pathlib.Path("/sys/class/zram-control").exists():
        raise Skip("needs root and zram")
    before = swaps()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-B",
            "-c",
            "import machine, time; s = machine.Swap();"
            " print(s.group, flush=True); time.sleep(60)",
        ],
        cwd=HERE,
        stdout=subprocess.PIPE,
        text=True,
    )
    group = holder.stdout.readline().strip()
    if not group:
        raise Skip("no memory cgroup can be made here")
    if swaps() == before:
        raise AssertionError("no swap was added")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    deadline = time.monotonic() + 20
    while (swaps() != before or os.path.exists(group)) and time.monotonic() < deadline:
        time.sleep(0.1)
    expect("swaps", swaps(), before)
    expect("cgroup is left", os.path.exists(group), False)


def test_one_cell_from_end_to_end():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skip("no /dev/kvm")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-B",
                HERE / "bench.py",
                "--quick",
                "--only",
                "random-read",
                "--systems",
                "native,exit",
                "--runs",
                "1",
                "--mib",
                "16",
                "--local",
                "75",
                "--output",
                folder,
            ],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        expect("status", (done.returncode, done.stderr if done.returncode else ""), (0, ""))
        rows = trials.load(pathlib.Path(folder) / "runs.csv")
        expect(
            "rows",
            [(row["system"], row["status"]) for row in rows],
            [("native", "ok"), ("exit", "ok")],
        )
        expect("checksums", rows[0]["checksum"], rows[1]["checksum"])
        if not int(rows[1]["exits_run"]) or not float(rows[1]["exit_us"]):
            raise AssertionError("exits were not counted")


def run_bench(folder, name, *more):
    """One round of a section at the smallest size that misses."""
    mib = "2" if name == "redis" else "32"
    command = [
        sys.executable,
        "-B",
        HERE / "bench.py",
        "--quick",
        "--sections",
        name,
        "--runs",
        "1",
    ]
    command += ["--mib", mib, "--limit", "600", "--output", folder, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2400, check=False)
    expect("status", (done.returncode, done.stderr if done.returncode else ""), (0, ""))
    return trials.load(pathlib.Path(folder) / "sections.csv")


def section_from_end_to_end(section):
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise Skip("no /dev/kvm")
    if section.name == "redis" and not shutil.which("redis-check-rdb"):
        raise Skip("redis-server is not installed")
    with tempfile.TemporaryDirectory() as folder:
        rows = run_bench(folder, section.name)
        for row in rows:
            if row["status"] != "ok" and (row["run"], row["status"][:8]) != ("zram", "left out"):
                raise AssertionError(f"{row['case']} {row['run']}: {row['status']}")
        wanted = {(case.name, run) for case in section.cases(32, True) for run in case.runs}
        expect("runs", {(row["case"], row["run"]) for row in rows}, wanted)
        left_out = any(row["status"] != "ok" for row in rows)
        text = (pathlib.Path(folder) / "README.md").read_text()
        lines = [line for line in text.splitlines() if line.count("|") == 6 and "at " in line]
        targets = [t for t in read_targets() if t.section == section.name]
        expect("targets", len(lines), len(targets))
        for line, target in zip(lines, targets):
            zram = "zram" in (target.variant, *target.over)
            if "not measured" in line and not (zram and left_out):
                raise AssertionError(line)
        expect("rows after --resume", run_bench(folder, section.name, "--resume"), rows)


def end_to_end(section):
    return lambda: section_from_end_to_end(section)


# Run in a machine of their own where the host has no KVM: KVM_TESTS=apart leaves them out.
NEEDS_KVM = [test_one_cell_from_end_to_end]
# Minutes each where KVM is emulated: only by name, or all with --full.
LONG = []
for _section in section_report.SECTIONS:
    _name = f"test_section_{_section.name.replace('-', '_')}_from_end_to_end"
    LONG.append(globals().setdefault(_name, end_to_end(_section)))


def main():
    full = "--full" in sys.argv[1:]
    named = [word for word in sys.argv[1:] if not word.startswith("--")]
    if "--list-kvm" in sys.argv[1:]:
        wanted = NEEDS_KVM + (LONG if full else [])
        names = [name for name, test in globals().items() if test in wanted]
        return print("\n".join(name.removeprefix("test_") for name in names))
    counts = {"ok": 0, "FAIL": 0, "skip": 0}
    apart = os.environ.get("KVM_TESTS") == "apart"
    tests = {**globals(), **vars(selftest_sections)}
    for name, test in tests.items():
        if not name.startswith("test_") or (named and name[5:] not in named):
            continue
        if apart and test in NEEDS_KVM + LONG or test in LONG and not (named or full):
            continue
        words, outcome = "", "ok"
        try:
            test()
        except Skip as reason:
            outcome, words = "skip", f" - {reason}"
        except Exception as problem:  # whatever it is, the other tests still run
            outcome, words = "FAIL", f" - {type(problem).__name__}: {problem}"
        counts[outcome] += 1
        print(f"{outcome:5} bench {name[5:]}{words}", flush=True)
    print(f"{counts['ok']} passed, {counts['FAIL']} failed, {counts['skip']} skipped")
    return counts["FAIL"] > 0


if __name__ == "__main__":
    sys.exit(main())
