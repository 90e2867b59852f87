#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Measures farvisor against a native process and against swap to zram, and writes a report: whole
workloads, then sections that each look at one promise.

Runs in rounds: within a round every system runs every workload once, side by side, so that a noisy
moment of the host hits all of them. A cell that fails or takes too long is reported and does not
stop the rest. Every run is noted when it ends; --resume goes on where a bench stopped. Needs what `make bench` builds; zram and its memory cgroup need root and are removed
at the end, however it comes."""
import argparse
import contextlib
import datetime
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time

import figures
import machine
import plots
import report as reports
import section_report
import systems as known
import trials
import workloads as catalogue
from measure import COLUMNS, Cell, Runner
from summary import key_of

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent.parent
QUICK = {
    "runs": 3,
    "local": "12.5,100",
    "systems": "native,zram,exit,uffd,none",
    "limit": 10,
    "budget": 240,
    "mib": catalogue.QUICK_MIB,
    "sections": "workloads",
}
# The default prefetcher is auto: exit is the same.
FULL = {
    "runs": 5,
    "local": "12.5,25,50,100",
    "systems": ",".join(name for name in known.NAMES if name != "auto"),
    "limit": 120,
    "budget": 0,
    "mib": catalogue.FULL_MIB,
    "sections": ",".join(("workloads", *section_report.NAMES)),
}
# What is not known of runs whose about.json is lost.
UNKNOWN = {name: "not noted" for name in ("command", "date", "host", "version", "swap")}
UNKNOWN.update(form="form not noted", skipped={})


def words(text):
    return [word for word in text.split(",") if word]


def parse_arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="small sizes and few cells, in less than 5 minutes")
    add(
        "--sections",
        type=words,
        metavar="NAME,...",
        help=f"of workloads,{','.join(section_report.NAMES)} (default: all; quick: workloads)",
    )
    add("--cases", type=words, default=[], metavar="NAME,...", help="of the sections")
    add("--variants", type=words, default=[], metavar="NAME,...", help="runs of the sections")
    add(
        "--only",
        type=words,
        default=[],
        metavar="NAME,...",
        help="workloads or groups (overhead, micro, macro); --list names them",
    )
    add("--systems", type=words, metavar="NAME,...", help=f"of {','.join(known.NAMES)}")
    add("--local", metavar="PERCENT,...", help="shares of the working set that are local")
    add("--runs", type=int, metavar="N", help="rounds (quick 3, full 5)")
    add(
        "--transport",
        action="append",
        metavar="NAME",
        help="as farvisor's; repeatable; ofi gets a memory server of its own (default: loopback;"
        " the page touches of the full form also run with delay=20us and with ofi)",
    )
    add("--mib", type=int, metavar="MIB", help="size of the data")
    add("--limit", type=float, metavar="SECONDS", help="longest run of one program")
    add(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="no further round where it would not fit into this time (0: none)",
    )
    add(
        "--output",
        type=pathlib.Path,
        metavar="DIR",
        help="default: docs/benchmarks/quick or full, with the names of --sections",
    )
    add("--add", action="store_true", help="add rounds of workloads to the runs.csv that is there")
    add("--resume", action="store_true", help="make the runs that are missing in the output")
    add("--report-only", action="store_true", help="write the report of the CSV files there are")
    add(
        "--counted",
        action="store_true",
        help="this machine's clocks count instructions (tests/lab/counted.sh): the report says so",
    )
    add("--list", action="store_true", help="name workloads, systems and sections, and stop")
    options = parser.parse_args(argv)
    part = "".join(f"-{name}" for name in options.sections or ())
    for name, value in (QUICK if options.quick else FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, words(value) if name in ("systems", "sections") else value)
    unknown = set(options.sections) - {"workloads", *section_report.NAMES}
    if unknown:
        parser.error(f"--sections: unknown: {', '.join(sorted(unknown))}")
    options.shares = [float(share) for share in words(options.local)]
    options.form = "quick form" if options.quick else "full form"
    options.output = options.output or REPO / "docs/benchmarks" / (options.form.split()[0] + part)
    return options


def cells_of(workload, chosen, options):
    """The cells of a workload, without those that would need another transport to differ."""
    transports = options.transport or ["loopback"]
    if not options.transport and not options.quick and workload.group == "micro":
        transports = ["loopback", "loopback,delay=20us", "ofi"]
    cells = []
    for system in chosen:
        for share in known.shares_of(system, workload, options.shares, options.quick):
            remote = system.kind == "far" and share < 100
            for transport in transports if remote else [""]:
                if workload.group == "overhead" and transport != transports[0] and remote:
                    continue
                cells.append(Cell(workload, system, share, transport))
    return cells


class Bench:
    """One invocation: what to run, what was found."""

    def __init__(self, options, runner, rows):
        self.options, self.runner, self.rows = options, runner, rows
        self.path = options.output / "runs.csv"
        self.done = {(key_of(row), int(row["round"])) for row in rows}
        self.started = time.monotonic()
        # Cells that took too long: once is enough. Cells whose exits were told apart: likewise.
        self.dead = {key_of(row) for row in rows if row["status"].startswith("over")}
        self.probed = {key_of(row) for row in rows if row["exits_run"] != ""}
        self.checksums = {
            row["workload"]: row["checksum"] for row in reversed(rows) if row["status"] == "ok"
        }
        self.wrong = 0

    def say(self, text):
        print(f"[{time.monotonic() - self.started:5.0f} s] {text}", file=sys.stderr, flush=True)

    def judge(self, cell, row):
        """A wrong answer is a failure, whatever the time it took."""
        if row["status"] == "ok":
            expected = self.checksums.setdefault(cell.workload.name, row["checksum"])
            if row["checksum"] != expected:
                row["status"] = f"wrong result: checksum {row['checksum']}, not {expected}"
        if row["status"].startswith("over"):
            self.dead.add(cell.key())
        elif row["status"] != "ok":
            self.wrong += 1
        value = row[cell.workload.metric]
        self.say(
            f"round {row['round']}: {cell}: "
            + (f"{cell.workload.metric} {float(value):.4g}" if value else row["status"])
        )

    def run_cell(self, cell, turn, exit_us):
        row = self.runner.run(cell)
        row.update(round=turn, size_mib=self.options.mib)
        if cell.system.kind == "far":
            row["exit_us"] = exit_us or ""
        remote = cell.system.kind == "far" and cell.share < 100 and row["status"] == "ok"
        if remote and cell.workload.group != "overhead" and cell.key() not in self.probed:
            self.probed.add(cell.key())
            row["exits_run"] = (
                self.runner.exits_of_run(cell) if cell.workload.phases else row["exits"]
            )
        self.judge(cell, row)
        trials.append(self.path, COLUMNS, [row], heading=not self.path.exists())
        self.rows.append(row)

    def run_round(self, turn, plan):
        exit_us = self.runner.exit_us()
        for cells in plan:
            native, others = cells[:1], cells[1:]
            at = turn % max(1, len(others))
            for cell in native + others[at:] + others[:at]:
                if cell.key() not in self.dead and (cell.key(), turn) not in self.done:
                    self.run_cell(cell, turn, exit_us)

    def run(self, plan):
        budget, before = self.options.budget, 0
        if self.options.add:
            before = max((int(row["round"]) for row in self.rows), default=0)
        for turn in range(1, self.options.runs + 1):
            began = time.monotonic()
            self.run_round(before + turn, plan)
            now = time.monotonic()
            took = now - began
            self.say(f"round {turn} of {self.options.runs} took {took:.0f} s")
            if budget and turn < self.options.runs and now - self.started + took > budget:
                self.say(f"no further round: it would not fit into {budget:g} s")
                break

    def run_sections(self, no_swap):
        options, failed = self.options, 0
        path = options.output / "sections.csv"
        log = trials.Log(path, trials.load(path))
        lab = trials.Lab(self.runner, options.mib, options.quick, no_swap)
        for section in section_report.SECTIONS:
            if section.name in options.sections:
                self.say(f"section {section.name}")
                failed += trials.run_section(
                    lab, section, options.runs, log, self.say, options.cases, options.variants
                )
        self.wrong += failed


def write_report(options, about):
    """From the CSV files alone; `about` is kept beside them."""
    rows = [dict.fromkeys(COLUMNS, "") | row for row in trials.load(options.output / "runs.csv")]
    mib = int(rows[0]["size_mib"] or options.mib) if rows else options.mib
    listed = catalogue.catalogue(mib, options.quick)
    made = reports.Report(rows, listed, about, trials.load(options.output / "sections.csv"))
    (options.output / "README.md").write_text(made.markdown())
    figures.write_summary(options.output / "summary.csv", made)
    try:
        problem = plots.draw(made, options.output) if rows else ""
    except subprocess.SubprocessError as error:
        problem = f"plots: {error}"
    print(f"bench: report in {options.output}{'; ' + problem if problem else ''}", file=sys.stderr)


def describe(options, argv, farvisor, skipped, swap_words):
    version = subprocess.run([farvisor, "--version"], capture_output=True, text=True, check=True)
    made = {(): "make bench", ("--quick",): "make bench-quick"}
    command = made.get(tuple(argv)) or shlex.join(["tests/bench/bench.py", *argv])
    return {
        "form": options.form,
        "counted": options.counted,
        "command": command,
        "date": datetime.date.today().isoformat(),
        "host": machine.host_line(),
        "version": version.stdout.split("\n")[0],
        "skipped": skipped,
        "swap": swap_words,
    }


def measure(options, argv, build, farvisor, memserver, rows):
    chosen, skipped = known.choose(options.systems, farvisor)
    selected = []
    if "workloads" in options.sections:
        selected = catalogue.select(catalogue.catalogue(options.mib, options.quick), options.only)
    sections = [one for one in section_report.SECTIONS if one.name in options.sections]
    needs = {need for section in sections for need in section.needs}
    if options.variants and "zram" not in options.variants:
        needs.discard("zram")
    wants_zram = bool(selected) and any(system.kind == "zram" for system in chosen)
    wants_zram = wants_zram or "zram" in needs
    wants_server = "server" in needs or any(
        not cell.transport.startswith("loopback") and cell.transport
        for workload in selected
        for cell in cells_of(workload, chosen, options)
    )
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix="farvisor-bench."))
        runner = Runner(build, farvisor, pathlib.Path(work), options.limit)
        runner.swap, reason = stack.enter_context(machine.swap(wants_zram))
        runner.server = stack.enter_context(machine.memory_server(memserver, wants_server))
        no_swap = "" if runner.swap else reason or "not wanted"
        if wants_zram and not runner.swap:
            chosen = [system for system in chosen if system.kind != "zram"]
            skipped["zram"] = reason
        words_of_swap = runner.swap.kind if runner.swap else f"none: {no_swap}"
        about = describe(options, argv, farvisor, skipped, words_of_swap)
        (options.output / "about.json").write_text(json.dumps(about, indent=1) + "\n")
        bench = Bench(options, runner, rows)
        plan = []
        for workload in selected:
            bench.say(f"prepare {workload.name}")
            try:
                runner.prepare(workload)
                plan.append(cells_of(workload, chosen, options))
            except RuntimeError as error:
                bench.wrong += 1
                bench.say(f"left out: {error}")
        try:
            if plan:
                bench.run(plan)
            bench.run_sections(no_swap)
        except KeyboardInterrupt:
            bench.wrong += 1
            bench.say("interrupted: the report has what there is")
        write_report(options, about)
        bench.say("done" if not bench.wrong else f"{bench.wrong} failed")
        return bench.wrong


def interrupted(_signal, _frame):
    raise KeyboardInterrupt


def main(argv):
    options = parse_arguments(argv)
    build = REPO / os.environ.get("BUILD", "build")
    farvisor = os.environ.get("FARVISOR", str(build / "farvisor"))
    memserver = os.environ.get("MEMSERVER", str(build / "memserver"))
    if options.list:
        for workload in catalogue.catalogue(options.mib, options.quick):
            print(f"{workload.group:9} {workload.name:18} {workload.words}")
        for system in known.KNOWN:
            print(f"system    {system.name:18} {system.words}")
        for section in section_report.SECTIONS:
            print(f"section   {section.name:18} {section.title}")
        return 0
    if options.report_only:
        about = options.output / "about.json"
        write_report(
            options, {**UNKNOWN, **(json.loads(about.read_text()) if about.exists() else {})}
        )
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    for name in () if options.add or options.resume else ("runs.csv", "sections.csv"):
        (options.output / name).unlink(missing_ok=True)
    rows = trials.load(options.output / "runs.csv")
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    return 1 if measure(options, argv, build, farvisor, memserver, rows) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
