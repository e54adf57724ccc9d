from pathlib import Path

import pytest

from saga.sim.suites import SuiteError, known_suites, load_suite
from saga.sim.systems.registry import SYSTEMS, make_system


@pytest.mark.parametrize("name", known_suites())
def test_every_suite_that_comes_with_the_laboratory_can_be_read(name: str):
    comparisons = load_suite(name)
    assert comparisons
    for comparison in comparisons:
        assert all(make_system(system, users_at_one=4).name == system for system in comparison.systems)


def test_a_star_stands_for_all_systems(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('[[comparison]]\nsystems = ["*"]\npressures = [1.0]\n')
    assert load_suite(str(path))[0].systems == SYSTEMS


def test_recorded_sessions_need_not_be_named(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('[[comparison]]\nworkload = "coding-sessions"\npressures = [1.0]\n')
    assert load_suite(str(path))[0].sessions is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "comparison"),
        ("[[comparison]]\n", "either pressures or loads"),
        ("[[comparison]]\npressures = [1.0]\nloads = [0.5]\n", "either pressures or loads"),
        ("[[comparison]]\npressure = [1.0]\n", "unknown field `pressure`"),
        ('[[comparison]]\npressures = [1.0]\nhost_tiers = ["maybe"]\n', "maybe"),
        ("[[comparison\n", "mine.toml"),
    ],
)
def test_a_suite_that_cannot_be_read_says_what_is_wrong(tmp_path: Path, text: str, says: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(SuiteError, match=says):
        load_suite(str(path))


def test_an_unknown_suite_names_the_known_ones():
    with pytest.raises(SuiteError, match="quick"):
        load_suite("nonesuch")


def test_a_missing_file_says_so():
    with pytest.raises(SuiteError, match="No such file"):
        load_suite("/nonesuch.toml")


def test_recorded_sessions_are_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    suite = tmp_path / "mine.toml"
    suite.write_text(
        '[[comparison]]\nworkload = "coding-sessions"\ncluster = "long"\nsystems = ["saga"]\npressures = [1]\n'
    )
    monkeypatch.setenv("SAGA_SESSIONS", str(tmp_path / "day.jsonl"))

    assert [comparison.sessions for comparison in load_suite(str(suite))] == [tmp_path / "day.jsonl"]
