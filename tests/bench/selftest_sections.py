# SPDX-License-Identifier: Apache-2.0
"""The suite's own tests of sections and targets: made-up figures, made-up sections, real programs. Run
by selftest.py."""
import contextlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

import guide_sections
import paging_sections
import redis_section
import section_report
import targets
import trials
import workloads
from measure import Runner, with_children_gone
from selftest_lib import HERE, PROGRAMS, Skip, canned, expect

WORKLOADS = {workload.name: workload for workload in workloads.catalogue(64, False)}


def canned_sections():
    return trials.load(HERE / "data/sections.csv")


def verdicts():
    rows = [{**row, "transport": row["transport"] and "loopback"} for row in canned()]
    values = targets.Values(rows, canned_sections())
    return {target.words: targets.judge(target, values) for target in targets.read_targets()}


def test_targets_are_met_or_missed_by_the_median_of_rounds():
    found = verdicts()
    for words, met, median in (
        ("misses of the hot set, times Belady's", True, 1.125),
        ("loopback: median fault, exit over uffd with a blocking handler", True, 0.7),
        ("loopback: median fault, exit over uffd with a spinning handler", False, 1.1),
        ("B-tree: hints, times as fast as none", True, 3.0),
        ("LRANGE with the guide, times the best prefetcher", True, 1.6),
        ("GET 4 KiB with the guide, times none", False, 0.99),
        ("quicksort, slowdown at 12.5 % local", False, 2.0),
    ):
        expect(words, (found[words].met, round(found[words].figure.median, 9)), (met, median))
    expect("the best", found["LRANGE with the guide, times the best prefetcher"].against, "trend")


def test_what_was_not_measured_is_neither_met_nor_missed():
    found = verdicts()
    for words in (
        "ofi: median fault, exit over uffd with a blocking handler",
        "B-tree: hints, times as fast as zram",
        "GET 64 KiB with the guide, times the best prefetcher",  # one of the prefetchers is missing
        "throughput of 2 threads over that of one",
    ):
        expect(words, (found[words].met, found[words].figure), (None, None))


def test_a_ratio_to_nothing_is_not_met_unless_there_is_nothing():
    expect("both nothing", targets.ratio(0.0, 0.0), 1.0)
    expect("something", targets.ratio(1.0, 0.0), float("inf"))
    row = dict.fromkeys(trials.COLUMNS, "") | {"section": "scan", "case": "hot set", "status": "ok"}
    rows = [
        {**row, "round": "1", "variant": name, "metric": "miss_percent", "value": value}
        for name, value in (("clock", "0.5"), ("belady", "0"))
    ]
    target = next(one for one in targets.read_targets() if one.section == "scan")
    expect("met", targets.judge(target, targets.Values((), rows)).met, False)


def test_every_target_names_what_a_section_measures():
    sections = {section.name: section for section in section_report.SECTIONS}
    for target in targets.read_targets():
        if target.section == "workloads":
            expect(target.words, target.case in WORKLOADS, True)
            continue
        section = sections[target.section]
        names = {case.name: case.runs for case in section.cases(64, False)}
        expect(f"{target.words}: metric", target.metric in [m.name for m in section.metrics], True)
        runs = names[target.case]
        if len(runs) > 1:  # else one run gives all variants
            for variant in (target.variant, *target.over):
                expect(f"{target.words}: {variant} is a run", variant in runs, True)
    expect(
        "sections without a target",
        set(sections) - {t.section for t in targets.read_targets()},
        set(),
    )


def test_the_report_of_the_csv_files_alone_has_each_table():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for file in ("runs.csv", "sections.csv"):
            shutil.copy(HERE / "data" / file, folder)
        command = [sys.executable, "-B", HERE / "bench.py", "--report-only", "--output", folder]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        expect("status", (done.returncode, done.stderr if done.returncode else ""), (0, ""))
        text = (folder / "README.md").read_text()
    for wanted in (
        "Targets: 4 met, 2 missed, ",
        "| misses of the hot set, times Belady's | at most 1.2 | 1.12 [1.10-1.15] | yes | 2 |",
        "with a spinning handler | at most 1 | 1.10 [1.00-1.20] | **no** | 2 |",
        "| LRANGE with the guide, times the best prefetcher (trend) | at least 1.6 | 1.60 ",
        "| B-tree: hints, times as fast as zram | at least 1 | - | not measured | 0 |",
        "| quicksort, slowdown at 12.5 % local | at most 1.11 | - | not measured | 0 |",
        "- ofi, exit: over 10 s",
        "- btree, zram: left out: needs root",
        "## Section scan: ",
        "### hot set: made up",
        "Host: not noted",
    ):
        if wanted not in text:
            raise AssertionError(f"not in the report: {wanted}")
    if text.index("| B-tree: hints, times as fast as none |") < text.index("| hints | 10.0 "):
        raise AssertionError("the targets of a section come before its figures")


# ---- how sections run ----


class Script:
    """A section whose runs note that they were made, and end as they are told."""

    def __init__(self, folder, endings=None):
        self.made, self.endings, self.path = [], endings or {}, folder / "sections.csv"
        cases = lambda _mib, _quick: [trials.case_of("c", "words", ("a", "b", "d"), self.take)]
        self.section = trials.Section("made-up", "Made up", "", (), cases)

    def take(self, _lab, run):
        ending = self.endings.get((run, sum(made == run for made in self.made) + 1))
        if ending:
            raise ending
        self.made.append(run)
        return {run: {"metric": 0.1 * len(self.made)}}

    def run(self, rounds=3):
        self.made = []
        log = trials.Log(self.path, trials.load(self.path))
        with contextlib.suppress(KeyboardInterrupt):
            return trials.run_section(
                trials.Lab(None, 1, True), self.section, rounds, log, lambda _text: None
            )
        return None


def test_runs_take_turns_and_an_interrupted_bench_goes_on():
    with tempfile.TemporaryDirectory() as name:
        script = Script(pathlib.Path(name), {("a", 2): KeyboardInterrupt()})
        expect("interrupted", script.run(), None)
        expect("before", script.made, ["b", "d", "a", "d"])
        with open(script.path, "a", encoding="utf-8") as output:
            output.write("made-up,c,words,a,2,a,o")  # what a crash leaves
        script.endings = {}
        expect("failed", script.run(), 0)
        expect("after", script.made, ["a", "b", "a", "b", "d"])
        rows = trials.load(script.path)
        expect("rows", len(rows), 9)
        expect(
            "rounds", sorted((r["run"], r["round"]) for r in rows)[:3], [("a", i) for i in "123"]
        )
        expect("nothing is left", (script.run(), script.made), (0, []))


def test_what_cannot_be_had_is_left_out_and_what_fails_is_counted():
    endings = {("b", 1): trials.LeftOut("no such thing"), ("d", 1): trials.Failed("status 1")}
    with tempfile.TemporaryDirectory() as name:
        script = Script(pathlib.Path(name), endings)
        expect("failed", script.run(2), 2)
        rows = trials.load(script.path)
        expect(
            "statuses",
            sorted((r["run"], r["status"]) for r in rows),
            [("a", "ok")] * 2 + [("b", "left out: no such thing")] + [("d", "status 1")] * 2,
        )


def test_the_hot_sets_misses_are_read_from_replays_csv():
    heading = "policy,prefetch,local_pages,touches,first,misses,late,refaults\n"
    lines = [
        f"{name},none,4096,1000,200,{8 * i},0,0\n"
        for i, name in enumerate(paging_sections.POLICIES)
    ]
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / "csv"
        path.write_text(heading + "".join(lines))
        found = paging_sections.hot_misses(path)
        expect("clock", found["clock"], {"touches": 800, "misses": 0, "miss_percent": 0.0})
        expect("belady", found["belady"]["miss_percent"], 3.0)
        path.write_text(heading + lines[0])
        with contextlib.suppress(trials.Failed):
            paging_sections.hot_misses(path)
            raise AssertionError("three policies are missing, and it was not said")


def test_the_words_of_guide_chain_are_understood():
    text = (
        "hop by hop: median 2400.5 us, quartiles 2000.0 .. 2600.0 us\n"
        "whole chain: median 80.0 us, quartiles 70.0 .. 90.0 us\n"
    )
    expect(
        "medians",
        dict(guide_sections.CHAIN_LINE.findall(text)),
        {"hop by hop": "2400.5", "whole chain": "80.0"},
    )


def test_redis_answers_are_checked():
    program = shutil.which("redis-check-rdb")
    if not program:
        raise Skip("redis-server is not installed")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(program, f"{folder}/redis-server")
        port = redis_section.free_port()
        command = [
            f"{folder}/redis-server",
            "--port",
            str(port),
            "--save",
            "",
            "--bind",
            "127.0.0.1",
        ]
        server = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True
        )
        try:
            client = redis_section.Client(port, lambda: server.poll() is None)
            for workload in (
                redis_section.Lrange(1),
                redis_section.Get(1),
                redis_section.Get(1, 4096),
            ):
                workload.fill(client)
                found = redis_section.block_of(workload, client, 1, 20)
                expect("rate", found["requests_per_s"] > 0, True)
            client.ask("SET", "s:0", "wrong")
            with contextlib.suppress(trials.Failed):
                redis_section.block_of(workload, client, 1, 2000)
                raise AssertionError("a wrong value went unseen")
        finally:
            with_children_gone(server)


# ---- programs ----


def test_a_wrong_result_is_a_failure():
    with tempfile.TemporaryDirectory() as name:
        build = PROGRAMS.parent.parent
        runner = Runner(build, str(build / "farvisor"), pathlib.Path(name), 60)
        lab, argv = trials.Lab(runner, 1, True), ("lookups", "1", "btree", "1000", "0")
        lab.check(argv, lab.spawn([runner.path(argv[0]), *argv[1:]]))
        with contextlib.suppress(trials.Failed):
            lab.check(argv, b"checksum 1\n")
            raise AssertionError("a wrong checksum went unseen")


def test_the_scan_tells_where_its_hot_set_lies():
    done = subprocess.run(
        [PROGRAMS / "scan", "4", "2"], capture_output=True, text=True, timeout=60, check=True
    )
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    start, end = (int(word, 16) for word in found["hot_range"].split(":"))
    expect("bytes", end - start, 2 << 20)
    expect("the scan is never ahead", int(found["hot_reads"]) >= 2 * 4 * 4 * 256 - 64, True)
