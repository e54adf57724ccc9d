"""What goes into documents: tables in Markdown, curves as files."""

from xml.etree import ElementTree as ET

from msgspec.structs import replace

from saga.sim.figures import ClassFigures, Report, ratios
from saga.sim.report.compare import by_condition
from saga.sim.report.files import write_figures
from saga.sim.report.markdown import markdown


def rows(text: str) -> list[list[str]]:
    """Cells of all table rows."""
    return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_every_table_row_has_as_many_cells_as_its_head(report):
    width = 0
    for line in markdown(report).splitlines():
        if not line.startswith("|"):
            width = 0
        else:
            width = width or line.count("|")
            assert line.count("|") == width, line


def test_an_overview_has_one_row_a_system_and_marks_the_best_baseline_once_a_column(report):
    overview = markdown(report).split("<details>")[0]
    found = rows(overview)
    places = [c for c in by_condition(report.runs) if c.host_tier == report.runs[0].host_tier]
    assert found[0] == ["system", *(place.at for place in places)]
    assert [row[0] for row in found[2:]] == list(dict.fromkeys(run.system for run in report.runs))
    for column in range(1, len(found[0])):
        assert sum(row[column].startswith("**") for row in found[2:]) == 1
        assert not next(row for row in found if row[0] == "saga")[column].startswith("**")


def test_unstable_runs_are_marked_and_saga_gets_no_ratio_beside_them(report):
    runs = [replace(run, unstable=run.system == "saga") for run in report.runs]
    text = markdown(Report(tuple(runs), ratios(runs)))
    assert " u |" in text
    assert "none, one of them is unstable" in text


def test_classes_of_tasks_have_a_table_where_there_are_some(report):
    classes = (ClassFigures("heavy", 5, 100.0, 200.0, 0.5, 0.75, 0.2), ClassFigures("light", 5, 10.0, 20.0, 1.0))
    runs = [replace(run, by_class=classes) for run in report.runs]
    text = markdown(Report(tuple(runs), ratios(runs)))
    assert "| system | heavy: SLO %, class SLO %, P95 s | light: SLO %, class SLO %, P95 s |" in text
    assert "| saga | 50.0, 75.0, 200 | 100.0, -, 20 |" in text
    assert "| out of anyone's reach | -, 20.0, - | -, -, - |" in text
    assert "heavy" not in markdown(report)


def test_figures_are_whole_svg_files_with_their_colours_written_out(report, tmp_path):
    written = write_figures(tmp_path, report)
    assert {path.name for path in written} == {
        f"tct-swe-bench-on-small-pressure-tier-{tier}.svg" for tier in ("off", "on")
    }
    for path in written:
        root = ET.fromstring(path.read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in path.read_text()
        assert "mean TCT" in "".join(root.itertext())
    again = write_figures(tmp_path, report)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]


def test_tasks_a_minute_are_drawn_against_completion_time_where_the_share_of_kv_was_set(report, tmp_path):
    one = next(run for run in report.runs if run.system == "saga" and run.pressure == 2.0 and run.host_tier == "off")
    measured = {"saga-fills:0.5": (2_000.0, 3.1), "saga-fills:0.9": (1_400.0, 5.1), "saga": (1_390.0, 5.2)}
    runs = [
        replace(one, system=system, tct_s=replace(one.tct_s, mean=mean_s), tasks_per_min=per_min)
        for system, (mean_s, per_min) in measured.items()
    ]
    (path,) = write_figures(tmp_path, Report(tuple(runs), ratios(runs)))
    assert path.name == "throughput-swe-bench-on-small-pressure-2-tier-off.svg"
    text = "".join(ET.fromstring(path.read_text()).itertext())
    assert "50% of KV" in text
    assert "saga: learnt" in text
    assert "tasks a minute" in text


def test_service_of_each_tenant_is_drawn_for_every_run_with_details(details, tmp_path):
    several = [detail for detail in details if len(detail.tenants) > 1]
    written = write_figures(tmp_path, Report((), ()), details)
    assert len(written) == len({(d.workload, d.system) for d in several}) > 0
    for path in written:
        assert path.name.startswith("service-")
        assert ":" not in path.name
        assert several[0].tenants[0] in "".join(ET.fromstring(path.read_text()).itertext())


def test_ours_set_differently_is_told_against_ours(report):
    named = {"affinity+cap": "saga-las", "saga": "saga-age"}
    runs = [replace(run, system=named[run.system]) for run in report.runs if run.system in named]
    text = markdown(Report(tuple(runs), ratios(runs)))
    assert "Mean TCT over that of `saga-las`" in text
    (line,) = [line for line in text.splitlines() if line.startswith("- `saga-age`: pressure 0.5: ")][:1]
    assert line.count("pressure") == 3
    assert "Mean TCT over that of" not in markdown(report)
