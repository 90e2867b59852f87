# SPDX-License-Identifier: Apache-2.0
"""Runs one cell: one workload on one system with one share of local memory. The result is a row."""
import hashlib
import json
import os
import signal
import subprocess
from dataclasses import dataclass

from systems import System
from workloads import Workload

COLUMNS = (
    "round",
    "workload",
    "group",
    "system",
    "share",
    "transport",
    "threads",
    "size_mib",
    "working_set_bytes",
    "local_bytes",
    "status",
    "checksum",
    "setup_s",
    "run_s",
    "wall_s",
    "user_s",
    "system_s",
    "peak_rss_bytes",
    "major_faults",
    "oom_rescues",
    "ns_per_page",
    "mb_per_s",
    "miss_p50_us",
    "miss_p99_us",
    "miss_p999_us",
    "thread_spread",
    "getpid_ns",
    "clock_gettime_ns",
    "mutex_ns",
    "futex_wake_nobody_ns",
    "exits",
    "exits_run",
    "faults",
    "demand_fetched_pages",
    "prefetched_pages",
    "frame_waits",
    "fetched_bytes",
    "written_bytes",
    "accuracy",
    "coverage",
    "timeliness",
    "stages",
    "exit_us",
)
PAGING = (
    "faults",
    "demand_fetched_pages",
    "prefetched_pages",
    "frame_waits",
    "fetched_bytes",
    "written_bytes",
)
PREFETCH = ("accuracy", "coverage", "timeliness")
SLACK_BYTES = (
    64 << 20
)  # --memory beyond the working set: it is a quota, not a bound on what is here
PAGE_BYTES = 4096


@dataclass(frozen=True)
class Cell:
    workload: Workload
    system: System
    share: float | None  # of the working set, in percent; None: natively
    transport: str  # "" where it does not matter

    def key(self):
        share = "" if self.share is None else f"{self.share:g}"
        return (self.workload.name, self.system.name, share, self.transport)

    def __str__(self):
        return " ".join(part for part in self.key() if part)


class Runner:
    """Where programs are, and what they run in."""

    def __init__(self, build, farvisor, work, limit_s):
        self.programs = build / "tests/bench"
        self.guests = build / "tests/guests"
        self.farvisor = farvisor
        self.work = work
        self.limit_s = limit_s
        self.swap = None
        self.server = ""
        self.working_sets = {}  # of a workload: (bytes, bytes of the program without data)
        self.environment = {
            "LC_ALL": "C",
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(work),
        }

    def path(self, program):
        for folder in (self.programs, self.guests):
            if (folder / program).is_file():
                return str(folder / program)
        return program

    def spawn(self, argv, stop="", output=None):
        """(status, standard output); status is a number or the words of a failure."""
        environment = dict(self.environment, **({"BENCH_STOP": stop} if stop else {}))
        with open(self.work / "stdout", "w+b") as out, open(self.work / "stderr", "w+b") as err:
            process = subprocess.Popen(
                argv,
                cwd=self.work,
                env=environment,
                stdout=output or out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                status = process.wait(timeout=self.limit_s)
            except subprocess.TimeoutExpired:
                status = f"over {self.limit_s:g} s"
            finally:
                with_children_gone(process)
            out.seek(0)
            err.seek(0)
            if status == 0:
                return "ok", out.read()
            if isinstance(status, int):
                words = err.read(300).decode(errors="replace").split("\n")[0]
                status = f"status {status}: {words}"
            return status.replace(str(self.work), "."), out.read()

    def launch(self, argv, group=None):
        return [
            self.path("launch"),
            *(["-g", group] if group else []),
            str(self.work / "used"),
            *argv,
        ]

    def prepare(self, workload):
        """Makes the inputs that are missing and measures the working set."""
        for name, generator in workload.inputs:
            if (self.work / name).exists():
                continue
            argv = [self.path(generator[0]), *generator[1:]]
            if argv[-1] == "-":
                with open(self.work / name, "wb") as output:
                    status, _ = self.spawn(argv[:-1], output=output)
            else:
                status, _ = self.spawn(argv)
            if status != "ok":
                raise RuntimeError(f"input {name}: {status}")
        if workload.working_set_mib:
            self.working_sets[workload.name] = (workload.working_set_mib << 20, 8 << 20)
            return
        program = [self.path(workload.argv[0])]
        self.spawn(self.launch(program + list(workload.idle)))
        idle = int(self.used()["peak_rss_bytes"])
        status, _ = self.spawn(self.launch(program + list(workload.argv[1:])))
        if status != "ok":
            raise RuntimeError(f"{workload.name} natively: {status}")
        self.working_sets[workload.name] = (int(self.used()["peak_rss_bytes"]) - idle, idle)

    def used(self):
        return key_values((self.work / "used").read_bytes())

    def local_bytes(self, cell):
        working_set, idle = self.working_sets[cell.workload.name]
        exact = int(working_set * cell.share / 100) + idle
        return (exact + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES

    def far_argv(self, cell, stop):
        working_set, idle = self.working_sets[cell.workload.name]
        memory = (working_set + idle + SLACK_BYTES) // PAGE_BYTES * PAGE_BYTES
        options = ["--memory", str(memory), "--stats", "stats"]
        options += [*cell.system.options, "--env", "LC_ALL=C"]
        for folder in (self.programs, self.guests):
            options += ["--dir", f"{folder}:ro"]
        if stop:
            options += ["--env", f"BENCH_STOP={stop}"]
        if cell.share < 100:
            options += ["--local", str(self.local_bytes(cell)), "--transport", cell.transport]
            if not cell.transport.startswith("loopback"):
                options += ["--memserver", self.server]
        return [self.farvisor, "run", *options, "--"]

    def start(self, cell, stop=""):
        argv = [self.path(cell.workload.argv[0]), *cell.workload.argv[1:]]
        if cell.system.kind == "far":
            return self.spawn(self.launch(self.far_argv(cell, stop) + argv), stop)
        if cell.system.kind == "zram":
            self.swap.set_limit(None)
            self.swap.set_limit(self.local_bytes(cell) if cell.share < 100 else None)
            return self.spawn(self.launch(argv, self.swap.group), stop)
        return self.spawn(self.launch(argv), stop)

    def run(self, cell):
        for name in ("used", "stats", cell.workload.output or "used"):
            (self.work / name).unlink(missing_ok=True)
        status, output = self.start(cell)
        if cell.system.kind == "zram" and status.startswith("status 137"):
            status = "killed: out of memory in its cgroup"
        row = dict.fromkeys(COLUMNS, "")
        row.update(zip(("workload", "system", "share", "transport"), cell.key()))
        row.update(
            group=cell.workload.group,
            threads=cell.workload.threads,
            status=status,
            working_set_bytes=self.working_sets[cell.workload.name][0],
        )
        if cell.share is not None and cell.share < 100:
            row["local_bytes"] = self.local_bytes(cell)
        if status != "ok":
            return row
        found = {**self.used(), **key_values(output)} if has_keys(output) else self.used()
        row.update((key, value) for key, value in found.items() if key in COLUMNS)
        row["checksum"] = row["checksum"] or self.checksum(cell, output)
        if cell.system.kind == "zram":
            row["oom_rescues"] = self.swap.rescues()
        if cell.system.kind == "far":
            row.update(far_counters(json.loads((self.work / "stats").read_text())))
        return row

    def checksum(self, cell, output):
        if cell.workload.metric == "getpid_ns":
            return ""
        if cell.workload.output:
            output = (self.work / cell.workload.output).read_bytes()
        return hashlib.sha256(output).hexdigest()[:16]

    def exits_of_run(self, cell):
        """Exits of the measured phase alone: two runs that end before and after it differ by them."""
        counts = []
        for stop in ("setup", "run"):
            if self.start(cell, stop)[0] != "ok":
                return ""
            counts.append(json.loads((self.work / "stats").read_text())["vcpus"]["exits"])
        return max(0, counts[1] - counts[0])

    def exit_us(self, calls=3000):
        """Cost of one exit on this host now, by a guest that does nothing else."""
        status, output = self.spawn(
            [
                self.farvisor,
                "run",
                "--polling",
                "off",  # or the call would be answered without an exit
                "--dir",
                f"{self.programs}:ro",
                "--",
                self.path("exit_cost"),
                str(calls),
            ]
        )
        return float(key_values(output)["exit_us"]) if status == "ok" else None


def with_children_gone(process):
    """Ends what is left of a process and of its session, and waits for it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(timeout=30)


def has_keys(output):
    return any(line.split(b" ")[0].endswith((b"_s", b"_ns")) for line in output.splitlines()[:3])


def key_values(output):
    pairs = (line.split(" ", 1) for line in output.decode(errors="replace").splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def far_counters(stats):
    """The columns that come from --stats. Stages are all members of paging with a median."""
    paging = stats.get("paging", {})
    stages = {
        name: {key: value[key] for key in value if key.endswith("_ns") or key == "count"}
        for name, value in paging.items()
        if isinstance(value, dict) and "p50_ns" in value
    }
    found = {name: paging.get(name, 0) for name in PAGING}
    found.update((name, stats["prefetch"][name]) for name in PREFETCH if "prefetch" in stats)
    return {
        **found,
        "exits": stats["vcpus"]["exits"],
        "stages": json.dumps(stages) if stages else "",
    }
