"""Saved files: read, merged, refused; the command that makes a page of them; the terminal's table."""

from io import StringIO

import msgspec
import pytest
from msgspec.structs import replace
from rich.console import Console

from saga.load.cli import main
from saga.sim.bench import as_json
from saga.sim.figures import Report, ratios
from saga.sim.report.saved import SavedError, read_cache, read_details, read_report
from saga.sim.report.terminal import print_report


@pytest.fixture
def halves(tmp_path, report):
    """The report in two files, by system, with some runs in both."""
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, names in zip(paths, ({"saga", "kv-ttl"}, {"saga", "affinity+cap"}), strict=True):
        runs = [run for run in report.runs if run.system in names]
        path.write_bytes(as_json(Report(tuple(runs), ratios(runs))))
    return paths


def test_files_are_merged_and_ratios_computed_across_them(halves):
    merged = read_report(halves)
    assert len(merged.runs) == 3 * 18
    assert {(r.system, r.baseline) for r in merged.ratios} >= {("saga", "kv-ttl"), ("kv-ttl", "affinity+cap")}
    assert merged == read_report([*halves, halves[0]])


def test_files_that_contradict_each_other_are_refused(halves, report):
    runs = [replace(run, failures=1) for run in report.runs if run.system == "saga"]
    halves[1].write_bytes(as_json(Report(tuple(runs), ())))
    with pytest.raises(
        SavedError, match=r"b\.json: its run of saga on swe-bench, seed 42, differs from that in .*a\.json"
    ):
        read_report(halves)


def test_keys_that_were_added_later_may_be_missing_or_new(tmp_path, report):
    raw = msgspec.to_builtins(Report(report.runs[:1], ()))
    del raw["runs"][0]["by_class"]
    raw["runs"][0]["of_tomorrow"] = 1
    (tmp_path / "old.json").write_bytes(msgspec.json.encode(raw))
    assert read_report([tmp_path / "old.json"]).runs == report.runs[:1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"TCT 12", "not JSON"),
        (b'{"results": []}', "expected the --json file of `saga bench sim`: Object missing required field `runs`"),
        (b'{"runs": [{"workload": 1}], "ratios": []}', "Expected `str`, got `int` - at `$.runs[0].workload`"),
    ],
)
def test_other_files_are_refused_with_what_was_expected(tmp_path, capsys, content, said):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    assert main(["report", "--json", str(path), "--html", str(tmp_path / "x.html")]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"saga bench: {path}: ")
    assert said in message
    assert not (tmp_path / "x.html").exists()


def test_the_command_writes_a_page_with_everything_it_is_given(tmp_path, capsys, halves, details, cache, ablation):
    given = {
        "details": msgspec.json.encode(details),
        "cache": msgspec.json.encode(cache),
        "ablation": as_json(ablation),
    }
    flags = [part for path in halves for part in ("--json", str(path))]
    for name, content in given.items():
        (tmp_path / f"{name}.json").write_bytes(content)
        flags += [f"--{name}", str(tmp_path / f"{name}.json")]
    page = tmp_path / "page.html"
    assert main(["report", *flags, "--html", str(page)]) == 0
    assert "54 runs" in capsys.readouterr().out
    written = page.read_text(encoding="utf-8")
    assert all(f'<section id="{anchor}">' in written for anchor in ("glance", "kv", "workflow", "ablation", "cache"))


def test_details_and_cache_results_come_back_as_they_were(tmp_path, details, cache):
    (tmp_path / "d").write_bytes(msgspec.json.encode(details))
    (tmp_path / "c").write_bytes(msgspec.json.encode(cache))
    assert list(read_details(tmp_path / "d")) == details
    assert read_cache(tmp_path / "c") == cache


def test_a_page_for_a_folder_that_is_not_there_is_refused(tmp_path, capsys, halves):
    assert main(["report", "--json", str(halves[0]), "--html", str(tmp_path / "no" / "x.html")]) == 2
    assert "expected a file in a folder that exists" in capsys.readouterr().err


def test_the_terminal_shows_each_condition_with_the_best_baseline_as_one(report):
    out = Console(file=StringIO(), width=200)
    print_report(out, report)
    shown = out.file.getvalue()
    assert shown.count("tasks measured") == 6
    assert shown.count("host tier on") == 3
    lines = shown[shown.index("pressure 2 (40 users), 118") :].splitlines()
    (best,) = [line for line in lines if line.strip().startswith("affinity+cap ")][:1]
    assert best.rstrip().endswith(" 1")
