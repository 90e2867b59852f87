# SPDX-License-Identifier: Apache-2.0
"""From rows to figures: medians, their confidence intervals, ratios of runs of the same round.

The confidence interval of a median is taken from order statistics (the sign test turned around): it
assumes nothing of the distribution. With n values in order, the k-th lowest and the k-th highest
enclose the true median with probability 1 - 2 P(Binomial(n, 1/2) < k). Of those that reach 95 % the
narrowest is taken; fewer than 6 values reach it with none, then it is the whole range, and the
probability it has is stated (5 values: 93.75 %).
"""
import math
from collections import defaultdict
from dataclasses import dataclass

FAST_EXIT_US = 1.5  # an exit with VMX or SVM, for the what-if column


@dataclass(frozen=True)
class Figure:
    median: float
    low: float  # of the confidence interval
    high: float
    least: float
    most: float
    count: int

    def coverage(self):
        return median_coverage(self.count, median_rank(self.count))


def median_coverage(count, rank):
    """Probability that the rank-th lowest and highest of count values enclose the median."""
    outside = sum(math.comb(count, i) for i in range(rank))
    return max(0.0, 1 - 2 * outside / 2**count)


def median_rank(count, wanted=0.95):
    """The highest rank, 1 the lowest, whose interval reaches the wanted coverage; else 1."""
    ranks = [rank for rank in range(1, count // 2 + 1) if median_coverage(count, rank) >= wanted]
    return max(ranks, default=1)


def figure_of(values):
    ordered = sorted(values)
    if not ordered:
        return None
    count, middle = len(ordered), len(ordered) // 2
    median = ordered[middle] if count % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    rank = median_rank(count)
    return Figure(median, ordered[rank - 1], ordered[-rank], ordered[0], ordered[-1], count)


def key_of(row):
    return tuple(row[name] for name in ("workload", "system", "share", "transport"))


def number(row, column):
    return float(row[column]) if row.get(column) not in ("", None) else None


class Summary:
    """All rows of a report, by cell."""

    def __init__(self, rows):
        self.cells = defaultdict(dict)  # key: {round: row}, runs that went well
        self.failures = {}  # key: words
        for row in rows:
            if row["status"] == "ok":
                self.cells[key_of(row)][int(row["round"])] = row
            else:
                self.failures[key_of(row)] = row["status"]

    def keys(self, workload=None, system=None, share=None):
        wanted = (workload, system, share)
        return [key for key in self.cells if all(w is None or w == k for w, k in zip(wanted, key))]

    def values(self, key, column):
        found = (number(row, column) for row in self.cells.get(key, {}).values())
        return [value for value in found if value is not None]

    def figure(self, key, column):
        return figure_of(self.values(key, column))

    def first(self, key, column):
        """A figure that is taken in one round only."""
        return next(iter(self.values(key, column)), None)

    def base_key(self, key, base):
        """The cell to compare with: "own", the same system with all memory local; or a system."""
        workload, system, share, transport = key
        if base == "native":
            return (workload, "native", "", "")
        if base == "own":
            full = [k for k in self.cells if k[:3] == (workload, owner_at_full(system), "100")]
            return full[0] if full else None
        same = [k for k in self.cells if k[:3] == (workload, base, share)]
        exact = [k for k in same if k[3] == transport]
        return (exact or same or [None])[0]

    def ratio(self, key, base, column):
        """Of each round's value to the same round's value of the base."""
        base_rows = self.cells.get(self.base_key(key, base), {})
        ratios = []
        for turn, row in self.cells.get(key, {}).items():
            mine, its = number(row, column), number(base_rows.get(turn, {}), column)
            if mine is not None and its:
                ratios.append(mine / its)
        return figure_of(ratios)

    def with_fast_exits(self, key, column):
        """Seconds as they would be at FAST_EXIT_US an exit: less exits x (cost now - that)."""
        exits = self.first(key, "exits_run")
        figure, cost_us = self.figure(key, column), self.figure(key, "exit_us")
        if exits is None or figure is None or cost_us is None:
            return None
        saved_s = exits * (cost_us.median - FAST_EXIT_US) / 1e6
        return max(0.0, figure.median - max(0.0, saved_s))


def owner_at_full(system):
    """With all memory local nothing is fetched: prefetchers share one 100 % row."""
    return "exit" if system in ("none", "readahead", "trend", "auto") else system
