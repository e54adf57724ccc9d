"""docs/operations.md has a word on every alarm, service and variant that there is, and on none that there is not."""

import re
from pathlib import Path

TREE = Path(__file__).parents[2]
PAGE = (TREE / "docs" / "operations.md").read_text()
COMPOSE = (TREE / "docker-compose.yml").read_text()
ALARMS = (TREE / "compose" / "prometheus" / "alarms.yml").read_text()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Cells of the tables in it, without their heads."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [row for row in cells if not set("".join(row)) <= set("-| ")]


def test_every_alarm_is_explained_with_what_it_means_and_what_to_do():
    explained = {row[0].strip("`"): row[1:] for row in rows(section("Alarms")) if row[0].startswith("`")}

    assert set(explained) == set(re.findall(r"- alert: (\w+)", ALARMS))
    assert all(len(told) == 2 and all(len(part) > 15 for part in told) for told in explained.values())


def test_every_alarm_has_a_summary_and_an_expression():
    parts = ALARMS.split("- alert: ")[1:]

    assert parts
    assert all("expr: " in part and "annotations: {summary: " in part for part in parts)


def test_every_service_says_how_it_scales_and_what_its_container_may_use():
    services = set(
        re.findall(r"^  ([a-z]+):", COMPOSE.split("\nservices:\n")[1].split("\nvolumes:\n")[0], re.MULTILINE)
    )
    watching = {"prometheus", "grafana"}

    scaled = {name.lower() for row in rows(section("Scale")) for name in row[0].split(", ")} - {"service"}
    limited = {name.lower() for row in rows(section("What a container may do")) for name in row[0].split(", ")}

    assert scaled == services - watching
    assert services - {"grafana"} <= limited


def test_every_variant_is_named():
    named = set(re.findall(r"`compose/(\w+\.yml)`", section("Start")))

    assert named == {path.name for path in (TREE / "compose").glob("*.yml")}
