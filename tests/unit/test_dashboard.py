"""The dashboard and the alarms name metrics that some service has, without starting any."""

import json
import re
from pathlib import Path

TREE = Path(__file__).parents[2]
DASHBOARD = TREE / "compose" / "grafana" / "dashboards" / "cell.json"
ALARMS = TREE / "compose" / "prometheus" / "alarms.yml"
SUFFIX = re.compile("_(bucket|sum|count)$")


def named_in_code() -> list[re.Pattern[str]]:
    """Names in quotes; in an f-string, what is in braces may be anything."""
    sources = (path.read_text() for folder in ("services", "shared") for path in (TREE / folder).rglob("*.py"))
    names = {name for source in sources for name in re.findall(r'"(saga_[a-z_{}]+)"', source)}
    return [re.compile(re.sub(r"\{.*?\}", "[a-z_]+", name)) for name in sorted(names)]


def unknown(expressions: str) -> list[str]:
    """Metrics of ours in it that no service has."""
    asked = {SUFFIX.sub("", name) for name in re.findall(r"\bsaga_[a-z_]+", expressions)}
    known = named_in_code()
    names = {name: (name, f"{name}_total", name.removesuffix("_total")) for name in asked}
    return sorted(n for n, spellings in names.items() if not any(k.fullmatch(s) for k in known for s in spellings))


def panels() -> list[dict]:
    return json.loads(DASHBOARD.read_text())["panels"]


def test_what_nobody_has_is_found():
    assert unknown("sum(saga_no_such_thing_total)") == ["saga_no_such_thing_total"]


def test_the_dashboard_asks_for_metrics_that_exist():
    asked = [target["expr"] for panel in panels() for target in panel["targets"]]

    assert asked
    assert unknown("\n".join(asked)) == []


def test_the_alarms_ask_for_metrics_that_exist():
    assert unknown("\n".join(re.findall(r"expr: (.*)", ALARMS.read_text()))) == []


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    ids = [panel["id"] for panel in panels()]
    cells = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]

    assert len(set(ids)) == len(ids)
    assert len(set(cells)) == len(cells)


def test_tasks_come_first():
    first = [panel for panel in panels() if panel["gridPos"]["y"] == 0]

    assert all("saga_task" in panel["targets"][0]["expr"] for panel in first)
