"""The HTML page as a structure: whole, self-contained, complete, escaped, the same every time."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace

from saga.sim.figures import ClassFigures, Report, ratios
from saga.sim.report.page import as_html, write_html

VOID = {"meta"}


@dataclass
class Node:
    name: str
    attributes: dict[str, str]
    children: list["Node"] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    def all(self, name: str) -> list["Node"]:
        found = [self] if self.name == name else []
        return found + [node for child in self.children for node in child.all(name)]

    def text(self) -> str:
        return " ".join([*self.texts, *(child.text() for child in self.children)])


class Tree(HTMLParser):
    """Fails on anything that is not balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Node("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        node = Node(tag, {key: value or "" for key, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].children.append(Node(tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop().name == tag

    def handle_data(self, data):
        self.open[-1].texts.append(data)


def parse(html: str) -> Node:
    tree = Tree()
    tree.feed(html)
    tree.close()
    assert tree.open == [tree.root]
    return tree.root


def section(page: Node, anchor: str) -> Node:
    (found,) = [node for node in page.all("section") if node.attributes["id"] == anchor]
    return found


@pytest.fixture(scope="module")
def html(report, details, cache, ablation):
    return as_html(report, details, cache=cache, ablation=ablation)


@pytest.fixture(scope="module")
def page(html):
    return parse(html)


def test_every_section_is_there_says_how_to_read_it_and_is_linked_to(page):
    anchors = [node.attributes["id"] for node in page.all("section")]
    assert anchors == ["glance", "curves", "tables", "cdf", "kv", "workflow", "tenants", "ablation", "cache", "words"]
    assert [link.attributes["href"] for link in page.all("a")] == [f"#{anchor}" for anchor in anchors]
    assert all(node.children[0].name == "h2" and node.children[1].text().strip() for node in page.all("section"))


def test_a_system_has_one_row_in_each_condition_and_one_for_each_seed(page, report):
    tables = section(page, "tables").all("table")
    summaries, seeds = tables[::2], tables[1::2]
    assert len(summaries) == len(seeds) == 6
    systems = {run.system for run in report.runs}
    for summary, every in zip(summaries, seeds, strict=True):
        names = [row.children[0].texts[0] for row in summary.all("tbody")[0].children]
        assert names[:2] == ["KV bound", "saga"]
        assert sorted(names[1:]) == sorted(systems)
        assert len(every.all("tbody")[0].children) == 3 * len(systems)


def test_columns_have_units_and_rows_have_all_columns(page):
    for table in page.all("table"):
        heads = table.all("thead")[0].all("th")
        assert all(head.children[0].text().strip() for head in heads[1:] if head.texts[0] != "Policy")
        assert all(len(row.children) == len(heads) for row in table.all("tbody")[0].children)


def test_the_best_baseline_is_marked_and_what_collapsed_beside_it(page):
    table = next(t for t in section(page, "tables").all("table") if "pressure 2, host tier off" in t.text())
    marks = {
        row.children[0].texts[0]: [badge.text() for badge in row.children[0].all("span")]
        for row in table.all("tbody")[0].children
    }
    assert marks["affinity+cap"] == ["best baseline"]
    assert marks["session-affinity"] == ["collapsed"]
    assert marks["saga"] == marks["srpt+affinity"] == []


def test_unstable_and_failed_runs_are_marked_and_get_no_ratio(report):
    runs = [replace(run, unstable=True, failures=2) if run.system == "kv-ttl" else run for run in report.runs]
    page = parse(as_html(Report(tuple(runs), ratios(runs))))
    table = section(page, "tables").all("table")[0]
    (row,) = [row for row in table.all("tbody")[0].children if row.children[0].texts[0] == "kv-ttl"]
    assert [badge.text() for badge in row.children[0].all("span")][:2] == ["unstable", "6 failed"]
    assert row.children[1].text() == "\N{EN DASH}"


def test_at_a_glance_ours_stands_beside_the_best_and_the_slowest_baseline(page):
    (drawing,) = section(page, "glance").all("svg")
    tips = [node.text() for node in drawing.all("title")]
    assert len(tips) == 6
    assert tips[4].startswith("swe-bench on small, pressure 2, host tier off: 1.19")
    last = section(page, "glance").all("tbody")[0].children[4]
    assert "affinity+cap" in last.text()
    assert "round-robin" in last.text()
    assert [node.text() for node in last.all("b") if node.attributes.get("class") == "faster"] == ["1.19", "4.14"]


def test_curves_name_every_system_and_the_bound_one_panel_for_each_host_tier(page, report):
    drawings = section(page, "curves").all("svg")
    assert len(drawings) == 2
    for drawing, tier in zip(drawings, ("off", "on"), strict=True):
        texts = [node.text() for node in drawing.all("text")]
        assert f"Host tier {tier}" in texts
        assert "KV bound" in texts
        assert "affinity+cap (best)" in texts
        assert {run.system for run in report.runs} - {"affinity+cap"} <= set(texts)
        assert any("TCT (s" in text for text in texts)
        tips = [node.text() for node in drawing.all("title")]
        assert "KV bound at 2: 774 s" in tips


def test_charts_over_time_show_saga_and_the_best_baseline(page):
    for anchor, drawings in (("kv", 2), ("tenants", 2), ("workflow", 1), ("cdf", 2)):
        shown = section(page, anchor).all("svg")
        assert len(shown) == drawings
        assert "affinity+cap" in section(page, anchor).text()
    texts = [node.text() for node in section(page, "workflow").all("text")]
    assert {"main", "explore-1", "explore-2"} <= set(texts)
    assert any("(minutes)" in text for text in texts)


def test_ablation_and_cache_say_their_figures(page):
    tips = [node.text() for node in section(page, "ablation").all("title")]
    assert any(re.match(r"saga-no-tags: 1\.\d+ x the mean TCT of saga, 95 % interval", tip) for tip in tips)
    rows = section(page, "cache").all("tbody")[0].children
    assert [row.children[0].text() for row in rows] == ["lru", "walru", "ttl", "saga"] * 2
    texts = [node.text() for node in section(page, "cache").all("text")]
    assert {"Belady oracle", "best causal", "lru", "walru", "ttl", "saga"} <= set(texts)


def test_without_data_sections_are_left_out(report):
    anchors = [node.attributes["id"] for node in parse(as_html(report)).all("section")]
    assert anchors == ["glance", "curves", "tables", "words"]
    assert [node.attributes["id"] for node in parse(as_html(Report((), ()))).all("section")] == ["words"]


def test_nothing_is_fetched_and_no_id_is_used_twice(html):
    assert not re.search(r"https?:|<script|@import|src=|<link", html)
    assert all(target.startswith("#") for target in re.findall(r"(?:href=\"|url\()([^\")]+)", html))
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert {target[1:] for target in re.findall(r"(?:href=\"|url\()(#[^\")]+)", html)} <= set(ids)


def test_colours_are_variables_of_the_page(html):
    assert "#0100" not in html
    assert "prefers-color-scheme: dark" in html
    names = set(re.findall(r"var\(--([a-z]+)", html))
    assert names <= set(re.findall(r"--([a-z]+):", html))


def test_odd_names_are_shown_as_they_are(report, details):
    odd = "<b>&\"'x$y_1$"
    runs = [replace(run, system=odd, workload=odd) if run.system == "kv-ttl" else run for run in report.runs]
    renamed = [replace(details[0], tenants=(odd, "a", "b"), spans=(replace(details[0].spans[0], session=odd),))]
    html = as_html(Report(tuple(runs), ratios(runs)), [*renamed, *details[1:]])
    page = parse(html)
    assert odd in [node.texts[0] for node in section(page, "tables").all("th")]
    assert f"{odd} (best)" in [node.text() for node in section(page, "curves").all("text")]
    assert odd in [node.text() for node in section(page, "workflow").all("text")]
    assert "<b>&" not in html


def test_the_same_report_gives_the_same_bytes(tmp_path, html, report, details, cache, ablation):
    write_html(tmp_path / "page.html", report, details, cache=cache, ablation=ablation)
    assert (tmp_path / "page.html").read_bytes() == html.encode()


def test_one_pressure_one_system_and_nothing_measured_still_make_a_page(report):
    run = report.runs[0]
    parse(as_html(Report((run,), ())))
    nothing = replace(run.tct_s, mean=None, p50=None, p95=None, p99=None)
    parse(as_html(Report((replace(run, tct_s=nothing, kv_bound_ratio=None),), ())))


def test_tasks_of_several_classes_get_a_table_of_them(report):
    classes = (ClassFigures("heavy", 60, 900.0, 1_800.0, 0.5), ClassFigures("light", 20, 90.0, None, 1.0))
    runs = tuple(replace(run, by_class=classes) for run in report.runs[:8])
    _, table, _ = section(parse(as_html(Report(runs, ()))), "tables").all("table")
    assert [head.texts[0] for head in table.all("th")[:3]] == ["System", "heavy", "light"]
    cells = [cell.text() for cell in table.all("tbody")[0].children[0].children[1:]]
    assert [" ".join(cell.split()) for cell in cells] == ["900 / 1,800 ; 50 %", "90 / \N{EN DASH} ; 100 %"]
