# SPDX-License-Identifier: Apache-2.0
"""The report in Markdown."""
import json

from markdown import plain, share_words, slug, table, transport_words, with_range
from section_report import sections_lines
from summary import FAST_EXIT_US, Summary, median_coverage, median_rank, number
from systems import KNOWN
from targets import Values, count_line, read_targets, target_table

COUNTED = (
    "**These are not times.** The machine is emulated and its clocks count instructions, a "
    "nanosecond each: the host kernel's, KVM's, farvisor's, the memory server's and the program's. "
    "A second is a thousand million of them. Nothing here knows of caches, of memory latency or of "
    "what an exit costs a real processor, and there is one processor: what would run beside the "
    "program on a second one is counted as if the program waited for it."
)
WORDS = {system.name: system.words for system in KNOWN}


class Report:
    """Everything that the text needs: the rows of runs.csv and of sections.csv, and `about`, what the
    harness knows of the run."""

    def __init__(self, rows, workloads, about, section_rows=()):
        self.rows = rows
        self.section_rows = section_rows
        self.values, self.targets = Values(rows, section_rows), read_targets()
        self.summary = Summary(rows)
        self.workloads = [w for w in workloads if any(r["workload"] == w.name for r in rows)]
        self.about = about
        self.systems = [s.name for s in KNOWN if any(r["system"] == s.name for r in rows)]
        self.transports = sorted(
            {r["transport"] for r in rows if r["transport"]},
            key=lambda name: (not name.startswith("loopback"), len(name)),
        )

    def group(self, name):
        return [w for w in self.workloads if w.group == name]

    def keys_of(self, workload, transport):
        """Its cells under a transport, with those that need none, in the order of the systems."""
        keys = [
            k
            for k in {**self.summary.cells, **self.summary.failures}
            if k[0] == workload.name and k[3] in ("", transport)
        ]
        return sorted(keys, key=lambda k: (self.systems.index(k[1]), float(k[2] or 0)))

    # ---- parts ----

    def head(self):
        runs = [len(cell) for cell in self.summary.cells.values()]
        runs += [len(found) for key, found in self.values.by_round.items() if key[0] != "workloads"]
        few = min(runs, default=0)
        lines = [f"# farvisor benchmark, {self.about['form']}", ""]
        lines += [
            f"Made by `{self.about['command']}` on {self.about['date']}; "
            "this file and those beside it are written by it.",
            "",
        ]
        if self.about.get("counted"):
            lines += [COUNTED, ""]
        lines += [
            f"- Host: {self.about['host']}. The memory server runs on the same host.",
            f"- farvisor: {self.about['version']}.",
            f"- Swap: {self.about['swap']}.",
            f"- Runs: {few} to {max(runs, default=0)} a cell, in rounds: within a round every "
            "system runs a workload once, in an order that turns from round to round.",
            f"- Brackets: confidence interval of the median, from order statistics; {few} runs "
            f"give {median_coverage(few, median_rank(few)) * 100:.4g} %.",
        ]
        if few < 5:
            lines.append("- **Fewer than five runs: good for a look, not for quoting.**")
        rescues = [number(row, "oom_rescues") or 0 for row in self.rows]
        if any(rescues):
            lines.append(
                f"- The kernel would have killed programs in the cgroup {sum(rescues):.0f} "
                f"times in {sum(map(bool, rescues))} runs although swap was free; the "
                "harness made it try again (`machine.py`, OomRescue)."
            )
        lines.append(
            f"- {count_line(self.values, self.targets)} (A table at the end of each part.)"
        )
        costs = self.exit_costs()
        if costs:
            lines.append(
                f"- One exit to the VMM and back costs {plain(min(costs))}-"
                f"{plain(max(costs))} us on this host, measured once a round by a guest "
                "that does nothing else (`exit_cost.c`)."
            )
        lines += [
            "- `runs.csv` and `sections.csv` have every run, `summary.csv` every figure of the "
            "workloads; the method is in [the README](../README.md).",
            "",
        ]
        return lines

    def exit_costs(self):
        found = (number(row, "exit_us") for row in self.rows)
        return [value for value in found if value is not None]

    def bars(self):
        rows = [(name, WORDS[name]) for name in self.systems]
        return ["## What each bar is", ""] + table(("system", "is"), rows)

    def working_sets(self):
        rows = []
        for workload in self.group("micro")[:1] + self.group("macro"):
            sizes = [
                int(r["working_set_bytes"]) for r in self.rows if r["workload"] == workload.name
            ]
            locals_ = {
                float(r["share"]): int(r["local_bytes"])
                for r in self.rows
                if r["workload"] == workload.name and r["local_bytes"]
            }
            rows.append(
                (
                    workload.name,
                    workload.words,
                    f"{sizes[0] / 2**20:.1f}",
                    ", ".join(
                        f"{share:g} %: {locals_[share] / 2**20:.1f}" for share in sorted(locals_)
                    ),
                )
            )
        return [
            "## Working sets, MiB",
            "",
            "Measured: peak resident memory of a native run less that of the program without "
            "data. Local memory is the share of it plus the program without data, the same "
            "for farvisor and for the cgroup.",
            "",
        ] + table(("workload", "does", "working set", "local"), rows)

    def overhead(self):
        if not self.group("overhead"):
            return []
        lines = [
            "## Nothing paged: what a guest costs (transport: none, but for `true` at 25 %)",
            "",
        ]
        rows = []
        for workload in self.group("overhead"):
            columns = (
                ("wall_s",) if workload.metric == "wall_s" else (workload.metric, *workload.extras)
            )
            for column in columns:
                scale, unit = (1e3, "ms") if column == "wall_s" else (1, "ns")
                name = workload.words if column == "wall_s" else column[:-3]
                native = self.summary.figure((workload.name, "native", "", ""), column)
                for key in self.summary.keys(workload.name, "exit"):
                    rows.append(
                        (
                            name,
                            unit,
                            share_words(key[2]),
                            with_range(native, scale),
                            with_range(self.summary.figure(key, column), scale),
                            with_range(self.summary.ratio(key, "native", column)),
                        )
                    )
        return lines + table(("what", "unit", "local", "native", "exit", "exit / native"), rows)

    def touches(self, transport):
        rows = []
        shorts = sorted(
            {float(r["share"]) for r in self.rows if r["group"] == "micro" and r["share"]}
        )
        for workload in self.group("micro"):
            for share in shorts:
                for key in self.keys_of(workload, transport):
                    if key[2] == f"{share:g}":
                        rows.append(self.touch_row(workload, key))
            rows += [self.touch_row(workload, (workload.name, "native", "", ""))]
        title = f"## Page touches, 4 KiB: {transport_words(transport)}"
        return [title, "", f"![throughput](micro-{slug(transport)}.svg)", ""] + table(
            (
                "pattern",
                "system",
                "local",
                "MB/s",
                "us a page",
                "x zram's time",
                "miss p50, us",
                "miss p99, us",
                "slowest / fastest thread",
            ),
            rows,
        )

    def touch_row(self, workload, key):
        if key in self.summary.failures and key not in self.summary.cells:
            return (
                workload.words,
                key[1],
                share_words(key[2]),
                self.summary.failures[key],
                *["-"] * 5,
            )
        figure = self.summary.figure
        spread = figure(key, "thread_spread") if workload.threads > 1 else None
        tail = [figure(key, name) for name in ("miss_p50_us", "miss_p99_us")]
        return (
            workload.words,
            key[1],
            share_words(key[2]),
            with_range(figure(key, "mb_per_s")),
            with_range(figure(key, "ns_per_page"), 1e-3),
            with_range(self.summary.ratio(key, "zram", "ns_per_page")),
            *[plain(f.median) if f else "-" for f in tail],
            plain(spread.median) if spread else "-",
        )

    def stages(self):
        """Parts of a fault as --stats tells them, for single random reads; median of the runs."""
        rows = []
        for transport in self.transports:
            for key in self.summary.keys("random-read"):
                if key[3] != transport:
                    continue
                found = [
                    json.loads(r["stages"]) for r in self.summary.cells[key].values() if r["stages"]
                ]
                for stage in found[0] if found else ():
                    middle = [
                        sorted(one[stage].get(part, 0) for one in found)[len(found) // 2]
                        for part in ("p50_ns", "p90_ns", "p99_ns", "p99_9_ns")
                    ]
                    rows.append(
                        (
                            key[1],
                            transport,
                            share_words(key[2]),
                            stage,
                            *[plain(ns / 1e3) if ns else "-" for ns in middle],
                        )
                    )
        title = "## Fault latency by stage, random reads: transport in the table, us"
        return [
            title,
            "",
            "What the program itself saw is `miss` in the table of page touches; the "
            "difference is leaving and entering the guest.",
            "",
        ] + table(("system", "transport", "local", "stage", "p50", "p90", "p99", "p99.9"), rows)

    def programs(self, transport):
        title = f"## Whole programs: {transport_words(transport)}"
        lines = [
            title,
            "",
            f"![slowdown](macro-{slug(transport)}.svg)",
            "",
            "Seconds of the measured phase (GNU sort: of the whole run).",
            "",
        ]
        for workload in self.group("macro"):
            rows = [self.program_row(workload, key) for key in self.keys_of(workload, transport)]
            lines += [f"### {workload.name}: {workload.words}", ""]
            lines += table(
                (
                    "system",
                    "local",
                    "s, median [CI]",
                    "min-max",
                    "wall s",
                    "x own 100 % [CI]",
                    "x native [CI]",
                    "runs",
                ),
                rows,
            )
        return lines

    def glance(self, transport):
        """One table of what most readers come for: slowdown where memory is shortest."""
        share = min(float(r["share"]) for r in self.rows if r["group"] == "macro" and r["share"])
        names = [name for name in self.systems if name != "native"]
        rows = []
        for workload in self.group("macro"):
            cells = []
            for name in names:
                keys = [
                    k
                    for k in self.keys_of(workload, transport)
                    if k[1] == name and k[2] == f"{share:g}"
                ]
                ratio = self.summary.ratio(keys[0], "own", workload.metric) if keys else None
                failed = self.summary.failures.get(keys[0], "-") if keys else "-"
                cells.append(with_range(ratio) if ratio else failed)
            rows.append((workload.name, *cells))
        title = f"## At a glance: {share:g} % local, {transport_words(transport)}"
        return [
            title,
            "",
            "Time of the measured phase, as a multiple of the same system's own time with "
            "all memory local.",
            "",
        ] + table(("workload", *names), rows)

    def program_row(self, workload, key):
        name = (key[1], share_words(key[2]))
        figure = self.summary.figure(key, workload.metric)
        if figure is None:
            return (*name, self.summary.failures.get(key, "-"), *["-"] * 4, 0)
        wall = self.summary.figure(key, "wall_s")
        return (
            *name,
            with_range(figure),
            f"{plain(figure.least)}-{plain(figure.most)}",
            plain(wall.median),
            with_range(self.summary.ratio(key, "own", workload.metric)),
            with_range(self.summary.ratio(key, "native", workload.metric)),
            figure.count,
        )

    def paging(self):
        """What moved, and what the ratio would be where an exit is cheap."""
        rows = []
        for workload in self.group("micro") + self.group("macro"):
            for key in self.summary.keys(workload.name):
                if key[3]:
                    rows.append(self.paging_row(workload, key))
        return [
            "## Paging, whole runs (setup and check included), and the price of exits",
            "",
            f"`s at {FAST_EXIT_US} us`: the measured phase less its exits x (this host's cost "
            f"of an exit - {FAST_EXIT_US} us), the exits of the phase being the difference "
            "of a run that stops after it and one that stops before. One thread only.",
            "",
        ] + table(
            (
                "workload",
                "system",
                "local",
                "transport",
                "faults",
                "demand pages",
                "prefetched",
                "accuracy",
                "coverage",
                "timeliness",
                "frame waits",
                "MB read",
                "MB written",
                "exits",
                "of the phase",
                "s",
                f"s at {FAST_EXIT_US} us",
                "x own 100 %",
                "then",
            ),
            rows,
        )

    def paging_row(self, workload, key):
        def median(column, scale=1.0):
            figure = self.summary.figure(key, column)
            return None if figure is None else figure.median * scale

        counts = [median(name) for name in ("faults", "demand_fetched_pages", "prefetched_pages")]
        quality = [median(name) for name in ("accuracy", "coverage", "timeliness")]
        waits = median("frame_waits")
        seconds = "wall_s" if workload.metric == "wall_s" else "run_s"
        fast = self.summary.with_fast_exits(key, seconds) if workload.threads == 1 else None
        full = self.summary.base_key(key, "own")
        full_s = self.summary.figure(full, seconds) if full else None
        own = self.summary.ratio(key, "own", seconds)
        phase = self.summary.first(key, "exits_run")
        then = fast / full_s.median if fast is not None and full_s else None
        return (
            key[0],
            key[1],
            share_words(key[2]),
            key[3],
            *[f"{value:.0f}" if value is not None else "-" for value in counts],
            *[plain(value) for value in quality],
            "-" if waits is None else f"{waits:.0f}",
            plain(median("fetched_bytes", 1e-6)),
            plain(median("written_bytes", 1e-6)),
            f"{median('exits') or 0:.0f}",
            "-" if phase is None else f"{phase:.0f}",
            plain(median(seconds)),
            plain(fast),
            plain(own.median if own else None),
            plain(then),
        )

    def left_out(self):
        lines = [f"- system {name}: {reason}" for name, reason in self.about["skipped"].items()]
        lines += [
            f"- {' '.join(part for part in key if part)}: {words}"
            for key, words in sorted(self.summary.failures.items())
        ]
        return ["## Left out or failed", ""] + (lines or ["Nothing."]) + [""]

    def markdown(self):
        lines = self.head()
        lines += self.workload_lines() if self.rows else []
        lines += sections_lines(self.section_rows, self.values, self.targets) + self.left_out()
        return "\n".join(lines).rstrip() + "\n"

    def workload_lines(self):
        lines = self.bars() + self.working_sets()
        for transport in self.transports:
            if any(r["group"] == "micro" and r["transport"] == transport for r in self.rows):
                lines += self.touches(transport)
        lines += self.stages() if self.group("micro") else []
        for transport in self.transports:
            if any(r["group"] == "macro" and r["transport"] == transport for r in self.rows):
                lines += self.glance(transport) + self.programs(transport)
        lines += self.paging() + self.overhead() + ["## Targets of the workloads", ""]
        return lines + target_table("workloads", self.values, self.targets)
