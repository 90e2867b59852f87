# SPDX-License-Identifier: Apache-2.0
"""How a section of the bench is made and run.

A section has cases; a case is measured in runs that take turns (a run is a system, an option, a
guide), round after round. Every run gives the figures of one or more variants, which are appended to
sections.csv when it ends, so that what was interrupted goes on there. The report is made of that
file alone."""
import contextlib
import csv
import io
import json
import subprocess
from dataclasses import dataclass, field

import measure

COLUMNS = ("section", "case", "what", "run", "round", "variant", "status", "metric", "value")
OK = "ok"
LOCAL_LEAST_MIB = 8  # the least that farvisor takes
GONE = "left out"  # a run that cannot be made on this host: not asked for again


class Failed(Exception):
    """A run failed; the words are its status in the CSV."""


class LeftOut(Failed):
    """A run that this host has not got what it takes for."""


@dataclass(frozen=True)
class Case:
    """`start(lab, runs)` is a context manager that gives two functions from a run to {variant: {metric:
    value}}: one for each round, one (or None) for what is known at the end; that is noted as round 0.
    """

    name: str
    words: str
    runs: tuple
    start: callable


@dataclass(frozen=True)
class Metric:
    name: str
    heading: str
    scale: float = 1.0


@dataclass(frozen=True)
class Section:
    name: str
    title: str
    words: str  # method, for the report
    metrics: tuple
    cases: callable  # size in MiB, whether in the quick form -> list of Case
    needs: tuple = ()  # "server": a memory server on this host; "zram": swap for the run of that name


def case_of(name, words, runs, function):
    """A case without anything to set up: `function(lab, run)` does all."""

    @contextlib.contextmanager
    def start(lab, _runs):
        yield (lambda run: function(lab, run)), None

    return Case(name, words, tuple(runs), start)


@dataclass
class Lab:
    """What runs have at hand: the Runner of the workloads, and the form of the bench."""

    runner: measure.Runner
    mib: int
    quick: bool
    no_swap: str = ""  # why
    natively: dict = field(default_factory=dict)  # checksums, by command

    def server(self, transport):
        return [] if transport.startswith("loopback") else ["--memserver", self.runner.server]

    def far(self, argv, memory_mib, local_mib, transport="loopback", options=(), stop=""):
        """farvisor run: (its output, its statistics)."""
        runner = self.runner
        command = [runner.farvisor, "run", "--memory", f"{memory_mib}M", "--stats", "stats"]
        command += ["--local", f"{max(local_mib, LOCAL_LEAST_MIB)}M", "--transport", transport]
        command += [*self.server(transport), *options, "--env", "LC_ALL=C"]
        command += ["--env", f"BENCH_STOP={stop}"] if stop else []
        for folder in (runner.programs, runner.guests, runner.guests.parent / "guides"):
            command += ["--dir", f"{folder}:ro"]
        (runner.work / "stats").unlink(missing_ok=True)
        output = self.spawn([*command, "--", runner.path(argv[0]), *argv[1:]])
        return output, json.loads((runner.work / "stats").read_text())

    def spawn(self, command):
        """Started by `launch`, which leaves what it used in the file `used`."""
        status, output = self.runner.spawn(self.runner.launch(command))
        if status != OK:
            raise Failed(status)
        return output

    def swapping(self, argv, local_mib):
        """The program natively in the memory cgroup that swaps to zram."""
        swap = self.swap()
        swap.set_limit(None)
        swap.set_limit(max(local_mib, LOCAL_LEAST_MIB) << 20)
        command = [self.runner.path(argv[0]), *argv[1:]]
        status, output = self.runner.spawn(self.runner.launch(command, swap.group))
        if status != OK:
            raise Failed(status)
        return output

    def swap(self):
        if not self.runner.swap:
            raise LeftOut(self.no_swap or "no zram swap")
        return self.runner.swap

    def check(self, argv, output):
        """The result must be that of a native run."""
        if tuple(argv) not in self.natively:
            plain = self.spawn([self.runner.path(argv[0]), *argv[1:]])
            self.natively[tuple(argv)] = result_of(plain)
        found, wanted = result_of(output), self.natively[tuple(argv)]
        if found != wanted:
            raise Failed(f"wrong result: {found}, not {wanted}")


def result_of(output):
    """The checksum that a program prints, or all of what it prints."""
    return measure.key_values(output).get("checksum", output.decode(errors="replace").strip())


class Log:
    """sections.csv: rows are appended a run at a time, in one write."""

    def __init__(self, path, rows):
        self.path, self.rows = path, rows
        self.done = {(r["section"], r["case"], r["run"], int(r["round"])) for r in rows}

    def add(self, rows):
        fresh = not self.path.exists() or not self.path.stat().st_size
        append(self.path, COLUMNS, rows, heading=fresh)
        self.rows += rows
        self.done |= {(r["section"], r["case"], r["run"], r["round"]) for r in rows}

    def has(self, section, case, run, turn):
        return (section, case, run, turn) in self.done

    def hopeless(self, section, case, run):
        """Took too long, or cannot be had here: once is enough."""
        return any(
            (r["section"], r["case"], r["run"]) == (section, case, run)
            and r["status"].startswith((GONE, "over"))
            for r in self.rows
        )


def append(path, columns, rows, heading=False):
    """One write(2): an interrupted bench leaves whole rows. `load` drops what a crash cut off."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if heading:
        writer.writeheader()
    writer.writerows(rows)
    with open(path, "ab", buffering=0) as output:
        output.write(text.getvalue().encode())


def load(path):
    """All rows of a CSV; a last line that was cut off is removed from the file too."""
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        path.write_bytes(whole)
    return list(csv.DictReader(io.StringIO(whole.decode())))


def rows_of(section, case, run, turn, status, found):
    """`found`: {variant: {metric: value}}; a run that failed is one row without a figure."""
    base = {"section": section.name, "case": case.name, "what": case.words, "run": run}
    base.update(round=turn, status=status)
    if not found:
        return [{**base, "variant": run, "metric": "", "value": ""}]
    return [
        {**base, "variant": variant, "metric": metric, "value": f"{value:.9g}"}
        for variant, figures in found.items()
        for metric, value in figures.items()
    ]


def attempt(take, run):
    """(status, figures) of one run."""
    try:
        return OK, take(run)
    except LeftOut as reason:
        return f"{GONE}: {reason}", {}
    except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as problem:
        words = str(problem) if isinstance(problem, Failed) else repr(problem)
        return words.replace("\n", " ")[:200], {}


def run_case(lab, section, case, rounds, log, say):
    """All rounds of a case, the order of its runs turning; returns how many runs failed."""
    failed = 0
    turns = range(1, rounds + 1)
    wanted = [
        run
        for run in case.runs
        if any(not log.has(section.name, case.name, run, turn) for turn in turns)
    ]
    if not wanted:
        return 0
    with case.start(lab, wanted) as (take, closing):
        for turn in turns:
            at = turn % len(wanted)
            for run in wanted[at:] + wanted[:at]:
                if log.has(section.name, case.name, run, turn):
                    continue
                if log.hopeless(section.name, case.name, run):
                    continue
                status, found = attempt(take, run)
                log.add(rows_of(section, case, run, turn, status, found))
                failed += status != OK and not status.startswith(GONE)
                say(f"round {turn}: {section.name} {case.name} {run}: {status}")
        for run in wanted if closing else ():
            status, found = attempt(closing, run)
            if status != OK or any(found.values()):
                log.add(rows_of(section, case, run, 0, status, found))
                failed += status != OK
    return failed


def run_section(lab, section, rounds, log, say, cases=(), runs=()):
    """`cases`, `runs`: only those; none: all. Returns how many runs failed."""
    failed = 0
    for case in section.cases(lab.mib, lab.quick):
        if cases and case.name not in cases:
            continue
        chosen = tuple(run for run in case.runs if not runs or run in runs)
        case = Case(case.name, case.words, chosen, case.start)
        try:
            failed += run_case(lab, section, case, rounds, log, say)
        except (Failed, OSError) as problem:
            failed += 1
            say(f"{section.name} {case.name}: left out: {problem}")
    return failed
