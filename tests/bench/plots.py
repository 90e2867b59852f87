# SPDX-License-Identifier: Apache-2.0
"""The plots, by gnuplot, each as SVG and PNG. Error bars are the medians' confidence intervals."""
import shutil
import subprocess

from markdown import slug, transport_words

TERMINALS = (
    ("svg", "svg size {width},{height} dynamic background 'white' font 'sans,11'"),
    ("png", "pngcairo size {width},{height} font 'sans,10'"),
)
COLOURS = ("#555555", "#d95f02", "#1b9e77", "#7570b3", "#a6761d", "#66a61e", "#e6ab02", "#e7298a")


def gnuplot(script, target, width, height):
    """Draws once a format. Lines of SVG lose the blanks at their ends, that a linter may refuse."""
    for suffix, terminal in TERMINALS:
        path = target.with_suffix(f".{suffix}")
        head = (
            f"set terminal {terminal.format(width=width, height=height)}\n"
            f"set output '{path}'\nset encoding utf8\n"
        )
        subprocess.run(
            ["gnuplot"],
            input=head + script,
            text=True,
            check=True,
            timeout=120,
            capture_output=True,
        )
        if suffix == "svg":
            lines = path.read_text().splitlines()
            path.write_text("\n".join(line.rstrip() for line in lines) + "\n")


def block(name, rows):
    """A here-document that gnuplot reads data from; "NaN" where nothing was measured."""
    return f"${name} << END\n" + "".join(" ".join(map(str, row)) + "\n" for row in rows) + "END\n"


def figure_columns(figure, scale=1.0):
    if figure is None:
        return ("NaN", "NaN", "NaN")
    return tuple(f"{value * scale:.6g}" for value in (figure.median, figure.low, figure.high))


def colour(report, system):
    return COLOURS[report.systems.index(system) % len(COLOURS)]


def draw_micro(report, transport, target):
    """Throughput of each pattern as bars, one a system, at the lowest share."""
    workloads = report.group("micro")
    share = min(
        (float(r["share"]) for r in report.rows if r["group"] == "micro" and r["share"]), default=0
    )
    data, plots = "", []
    systems = [name for name in report.systems if name != "native"]
    for name in systems:
        rows = []
        for workload in workloads:
            keys = [
                k
                for k in report.keys_of(workload, transport)
                if k[1] == name and k[2] == f"{share:g}"
            ]
            figure = report.summary.figure(keys[0], "mb_per_s") if keys else None
            rows.append((f'"{workload.words}"', *figure_columns(figure)))
        if all(row[1] == "NaN" for row in rows):
            continue
        block_name = name.replace("-", "_")
        data += block(block_name, rows)
        plots.append(
            f"${block_name} using 2:3:4:xtic(1) title '{name}' lc rgb '{colour(report, name)}'"
        )
    if not plots:
        return
    gnuplot(
        data
        + f"""
set title "Page touches at {share:g} % local, {transport_words(transport)}\\n{report.about['host']}"
set ylabel 'MB/s, log scale (higher is better)'
set logscale y
set style data histograms
set style histogram errorbars gap 1 lw 1
set style fill solid 0.8
set grid ytics
set xtics rotate by -30 nomirror
set key outside top right
plot {", ".join(plots)}
""",
        target,
        1200,
        560,
    )


def panel(report, workload, transport, index):
    """(data, plot command) of one workload: slowdown over the share of local memory."""
    data, plots = "", []
    for name in report.systems:
        rows = []
        for key in report.keys_of(workload, transport):
            figure = report.summary.ratio(key, "native", workload.metric)
            if key[1] == name and key[2] and figure:
                rows.append((key[2], *figure_columns(figure)))
        if not rows:
            continue
        block_name = f"{name}{index}".replace("-", "_")
        data += block(block_name, rows)
        plots.append(
            f"${block_name} using 1:2:3:4 with yerrorlines pt 7 ps 0.5 "
            f"lc rgb '{colour(report, name)}' title '{name}'"
        )
    return data, plots


def draw_macro(report, transport, target):
    """Slowdown against native, a panel a workload."""
    workloads = report.group("macro")
    data, commands = "", ""
    for index, workload in enumerate(workloads):
        more, plots = panel(report, workload, transport, index)
        if plots:
            data += more
            commands += (
                f"set title '{workload.name}'\nplot {', '.join(plots)}, 1 lc 'grey' notitle\n"
            )
    if not commands:
        return
    columns = min(4, len(workloads))
    lines = -(-len(workloads) // columns)
    gnuplot(
        data
        + f"""
set multiplot layout {lines},{columns} title \
"Time against the native run, {transport_words(transport)}\\n{report.about['host']}"
set logscale xy
set xrange [10:120]
set xtics (12.5, 25, 50, 100)
set xlabel 'local memory, % of the working set'
set ylabel 'x native (lower is better)'
set yrange [0.5:*]
set grid
set key top right samplen 1
{commands}unset multiplot
""",
        target,
        1400,
        380 * lines + 60,
    )


def draw(report, folder):
    """All plots of a report; without gnuplot there are none, and the reason is returned."""
    if not shutil.which("gnuplot"):
        return "gnuplot is not installed: no plots"
    for transport in report.transports:
        draw_micro(report, transport, folder / f"micro-{slug(transport)}")
        draw_macro(report, transport, folder / f"macro-{slug(transport)}")
    return ""
