# SPDX-License-Identifier: Apache-2.0
"""What the project wants of each section (targets.csv), and whether the runs reach it.

A target compares a metric of one variant with a bound, or its ratio to another variant's of the same
round. `over` may name several variants: then the one that makes it hardest counts. Variants of the
workloads are written SYSTEM@SHARE; of their runs those over plain loopback count."""
import csv
import math
import pathlib
from collections import defaultdict
from dataclasses import dataclass

from markdown import table, with_range
from summary import Figure, figure_of, number

TABLE = pathlib.Path(__file__).resolve().parent / "targets.csv"


@dataclass(frozen=True)
class Target:
    section: str
    case: str
    metric: str
    variant: str
    over: tuple
    relation: str  # ">=" or "<="
    bound: float
    words: str


@dataclass(frozen=True)
class Verdict:
    figure: Figure | None
    met: bool | None  # None: not measured
    against: str  # the variant compared with, or ""


def read_targets(path=TABLE):
    with open(path, newline="", encoding="utf-8") as source:
        return [target_of(row) for row in csv.DictReader(source)]


def target_of(row):
    if row["relation"] not in (">=", "<="):
        raise ValueError(f"targets.csv: {row['words']}: relation {row['relation']!r}")
    over = tuple(word for word in row["over"].split("|") if word)
    fields = (row["section"], row["case"], row["metric"], row["variant"], over)
    return Target(*fields, row["relation"], float(row["bound"]), row["words"])


class Values:
    """Figures of all sections: by section, case, variant and metric, of each round."""

    def __init__(self, workload_rows=(), section_rows=()):
        self.by_round = defaultdict(dict)
        for row in section_rows:
            if row["status"] == "ok" and row["metric"]:
                key = (row["section"], row["case"], row["variant"], row["metric"])
                self.by_round[key][int(row["round"])] = float(row["value"])
        for row in workload_rows:
            if row["status"] == "ok" and row["transport"] in ("", "loopback"):
                self.add_workload(row)

    def add_workload(self, row):
        variant = f"{row['system']}@{row['share']}" if row["share"] else row["system"]
        for column in row:
            try:
                value = number(row, column)
            except ValueError:
                continue
            if value is not None:
                key = ("workloads", row["workload"], variant, column)
                self.by_round[key][int(row["round"])] = value

    def figure(self, section, case, variant, metric):
        return figure_of(self.by_round.get((section, case, variant, metric), {}).values())


def ratio(value, base):
    """Nothing over nothing is no difference."""
    if base:
        return value / base
    return math.inf if value else 1.0


def judge(target, values):
    key = (target.section, target.case)
    mine = values.by_round.get((*key, target.variant, target.metric), {})
    if not target.over:
        return verdict(target, mine.values(), "")
    verdicts = []
    for name in target.over:
        base = values.by_round.get((*key, name, target.metric), {})
        ratios = [ratio(mine[turn], base[turn]) for turn in mine if turn in base]
        verdicts.append(verdict(target, ratios, name))
    known = [one for one in verdicts if one.figure]
    if len(known) < len(verdicts):  # the hardest might be the one that is missing
        return Verdict(None, None, "")
    hardest = min if target.relation == ">=" else max
    return hardest(known, key=lambda one: one.figure.median)


def verdict(target, found, against):
    figure = figure_of(found)
    if figure is None:
        return Verdict(None, None, against)
    above = figure.median >= target.bound
    below = figure.median <= target.bound
    return Verdict(figure, above if target.relation == ">=" else below, against)


def target_table(section, values, targets):
    """The lines that end a section of the report; nothing if it has no targets."""
    rows = []
    for target in targets:
        if target.section != section:
            continue
        found = judge(target, values)
        best = f" ({found.against})" if len(target.over) > 1 and found.against else ""
        met = {None: "not measured", True: "yes", False: "**no**"}[found.met]
        runs = found.figure.count if found.figure else 0
        bound = f"{'at least' if target.relation == '>=' else 'at most'} {target.bound:g}"
        rows.append((target.words + best, bound, with_range(found.figure), met, runs))
    return table(("what", "target", "measured", "met?", "runs"), rows) if rows else []


def count_line(values, targets):
    """How many targets are met, in words."""
    found = [judge(target, values).met for target in targets]
    return (
        f"Targets: {found.count(True)} met, {found.count(False)} missed, "
        f"{found.count(None)} not measured."
    )
