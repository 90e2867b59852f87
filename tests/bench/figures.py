# SPDX-License-Identifier: Apache-2.0
"""The figures behind a report as CSV: one line a cell."""
import csv

SUMMARY_COLUMNS = (
    "workload",
    "system",
    "share",
    "transport",
    "metric",
    "median",
    "ci_low",
    "ci_high",
    "min",
    "max",
    "runs",
    "ci_coverage",
    "ratio_own_100",
    "ratio_native",
    "ratio_zram",
    "exits_run",
    "exit_us",
    "seconds_at_fast_exits",
)


def summary_row(report, workload, key):
    figure = report.summary.figure(key, workload.metric)
    ratios = [
        report.summary.ratio(key, base, workload.metric) for base in ("own", "native", "zram")
    ]
    seconds = "wall_s" if workload.metric == "wall_s" else "run_s"
    fast = report.summary.with_fast_exits(key, seconds) if workload.threads == 1 else None
    cost = report.summary.figure(key, "exit_us")
    return (
        *key,
        workload.metric,
        figure.median,
        figure.low,
        figure.high,
        figure.least,
        figure.most,
        figure.count,
        figure.coverage(),
        *[r.median if r else "" for r in ratios],
        report.summary.first(key, "exits_run"),
        cost.median if cost else "",
        fast,
    )


def write_summary(path, report):
    with open(path, "w", newline="") as output:
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(SUMMARY_COLUMNS)
        for workload in report.workloads:
            for key in sorted(report.summary.keys(workload.name)):
                if report.summary.figure(key, workload.metric):
                    row = summary_row(report, workload, key)
                    writer.writerow(
                        [
                            ""
                            if value is None
                            else f"{value:.6g}"
                            if isinstance(value, float)
                            else value
                            for value in row
                        ]
                    )
