# SPDX-License-Identifier: Apache-2.0
"""The sections of the report in Markdown, from the rows of sections.csv."""
import guide_sections
import paging_sections
import redis_section
from markdown import table, with_range
from targets import target_table

SECTIONS = (*paging_sections.SECTIONS, *guide_sections.SECTIONS, *redis_section.SECTIONS)
NAMES = tuple(section.name for section in SECTIONS)


def in_order(found, known):
    """Those of `known` first, in that order."""
    rest = [name for name in dict.fromkeys(found) if name not in known]
    return [name for name in known if name in found] + rest


def case_lines(section, case, rows, values, runs):
    variants = in_order([row["variant"] for row in rows if row["status"] == "ok"], runs)
    shown = [
        metric
        for metric in section.metrics
        if any(values.figure(section.name, case, variant, metric.name) for variant in variants)
    ]
    body = []
    for variant in variants:
        figures = [values.figure(section.name, case, variant, metric.name) for metric in shown]
        count = max((figure.count for figure in figures if figure), default=0)
        cells = [with_range(figure, metric.scale) for figure, metric in zip(figures, shown)]
        body.append((variant, *cells, count))
    return table(("", *[metric.heading for metric in shown], "runs"), body)


def failures(rows):
    """What did not end well, once each."""
    words = dict.fromkeys(
        f"- {row['case']}, {row['run']}: {row['status']}" for row in rows if row["status"] != "ok"
    )
    return [*words, ""] if words else []


def section_lines(section, rows, values, targets):
    known = {case.name: case.runs for case in section.cases(1024, False)}
    rows = [row for row in rows if row["section"] == section.name]
    if not rows:
        return []
    lines = [f"## Section {section.name}: {section.title}", "", section.words, ""]
    for name in in_order([row["case"] for row in rows], list(known)):
        mine = [row for row in rows if row["case"] == name]
        lines += [f"### {name}: {mine[-1]['what']}", ""]
        lines += case_lines(section, name, mine, values, list(known.get(name, ())))
    return lines + failures(rows) + target_table(section.name, values, targets)


def sections_lines(rows, values, targets):
    lines = []
    for section in SECTIONS:
        lines += section_lines(section, rows, values, targets)
    return lines
