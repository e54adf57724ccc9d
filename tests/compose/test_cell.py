"""One composed cell: whole after its start, whole again after each death, larger and smaller on demand.

The simulated engine's text is a function of prompt and seed, so the same sessions must yield the same text whatever
happens meanwhile: no step lost, no token doubled.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from composed_cell import ComposedCell, Container, until
from docker_engine import DockerEngine
from mesh_replay import replay

SESSIONS = 6
TREE = Path(__file__).parents[2]
LONG_REPLAY = ("--workload", "swe-bench", "--limit", "3", "--max-steps", "24", "--gap-cap", "5")


@pytest.fixture(scope="module")
def cell(engine: DockerEngine) -> Iterator[ComposedCell]:
    """Two workers; room for more gateways."""
    cell = ComposedCell(engine, TREE, "saga", {"SAGA_PORT": "8080-8089", "SAGA_PROMETHEUS_PORT": "9090"})
    try:
        cell.up(worker=2)
        until(lambda: cell.workers() == 2, 90)
        yield cell
    finally:
        cell.down()


def replaying(cell: ComposedCell, run: str, gateway: int = 0) -> Future[list[list[str]]]:
    """Begins to replay the sessions through a gateway."""
    url = cell.gateway_urls()[gateway]
    return cell.network.start(lambda: asyncio.run(replay(url, SESSIONS, run)))


@pytest.fixture(scope="module")
def undisturbed(cell: ComposedCell) -> list[list[str]]:
    """What the sessions answer when nothing happens."""
    answers = replaying(cell, "undisturbed").result()
    assert all(len(answer) == 40 for session in answers for answer in session)
    return answers


@pytest.fixture(scope="module")
def long_replay(
    cell: ComposedCell, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[subprocess.Popen, Path]]:
    """`saga bench live` through the cell while everything below happens to it."""
    report = tmp_path_factory.mktemp("bench") / "live.json"
    command = (
        sys.executable,
        "-m",
        "saga.cli.main",
        "bench",
        "live",
        "--gateway",
        cell.gateway_urls()[0],
        *LONG_REPLAY,
    )
    inside = cell.network.command(*command, "--json", str(report))
    with report.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(inside, stdout=log, stderr=log)
    yield process, report
    process.kill()
    process.wait()


def nothing_is_left(cell: ComposedCell) -> bool:
    """No lease is out and no step is open but those of the long replay that run right now."""
    leases = sum(cell.metric(one, "saga_worker_leases") for one in cell.containers("worker"))
    placed = cell.metric(cell.leader("placement"), "saga_placement_leases")
    return leases == placed == cell.metric(cell.leader("admission"), "saga_admission_steps") == 0


def test_a_fresh_cell_is_whole_and_watched(cell):
    status, _ = cell.get(f"{cell.gateway_urls()[0]}/readyz")
    assert status == 200

    def answering() -> dict[str, int]:
        found: dict[str, int] = {}
        _status, body = cell.get("http://127.0.0.1:9090/api/v1/query?query=up")
        for one in json.loads(body)["data"]["result"]:
            found[one["metric"]["job"]] = found.get(one["metric"]["job"], 0) + int(one["value"][1])
        return found

    wanted = {"gateway": 1, "console": 1, "admission": 2, "placement": 2, "graph": 1, "worker": 2, "engine": 2}
    wanted |= {"prometheus": 1}
    until(lambda: answering() == wanted, 60, lambda: str(answering()))


def test_the_console_shows_what_ran(cell, undisturbed):
    status, page = cell.get("http://127.0.0.1:8090/")
    assert (status, "SAGA console" in page) == (200, True)
    _status, state = cell.get("http://127.0.0.1:8090/api/state")
    shown = json.loads(state)
    assert len(shown["workers"]) == 2
    assert len(shown["workflows"]) >= SESSIONS


def test_a_container_may_do_no_more_than_it_must(cell):
    for one in cell.containers():
        host = one.host_config
        assert one.config.user == "10001:10001", one.name
        assert host.readonly_rootfs, one.name
        assert host.cap_drop == ["ALL"], one.name
        assert not host.privileged, one.name
        assert host.memory > 0, one.name
        assert host.nano_cpus > 0, one.name
        assert all(place == "127.0.0.1" for place, _port in one.published), one.name
    assert {one.service for one in cell.containers() if one.published} == {"gateway", "console", "prometheus"}


def test_the_dashboard_and_the_alarms_ask_for_what_is_there(cell, undisturbed):
    dashboard = json.loads((TREE / "compose" / "grafana" / "dashboards" / "cell.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    _status, rules = cell.get("http://127.0.0.1:9090/api/v1/rules")
    alarms = [rule for group in json.loads(rules)["data"]["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in alarms if rule["state"] == "firing"] == []
    assert all(rule["health"] == "ok" for rule in alarms)

    def empty() -> list[str]:
        answers = {expr: cell.query(expr) for expr in asked}
        return [expr for expr, answer in answers.items() if not answer]

    until(lambda: empty() == [], 60, lambda: str(empty()))


@pytest.mark.parametrize("victim", ["worker", "placement", "admission", "graph", "console", "nats"])
def test_a_container_killed_during_a_replay_costs_no_step(cell, undisturbed, long_replay, victim):
    killed = cell.leader(victim) if victim in ("placement", "admission") else cell.containers(victim)[0]
    running = replaying(cell, f"without-{victim}")
    time.sleep(1.5)
    cell.kill(killed)

    assert running.result() == undisturbed
    cell.wait_healthy()
    until(lambda: cell.workers() == 2, 90)
    again = next(one for one in cell.containers(victim) if one.id == killed.id)
    assert again.restart_count == killed.restart_count + 1
    assert again.state.pid != killed.state.pid


def test_what_was_replayed_all_the_while_lost_nothing(cell, long_replay):
    process, report = long_replay

    assert process.wait(timeout=300) == 0, report.with_suffix(".log").read_text()[-2000:]
    (run,) = json.loads(report.read_text())["systems"]
    assert run["steps_failed"] == 0
    until(lambda: nothing_is_left(cell), 30)


def test_more_of_a_service_is_a_word_and_so_is_less(cell, undisturbed):
    cell.up(worker=4, graph=2, gateway=2)
    until(lambda: cell.workers() == 4, 90)
    assert len({one.network_settings.networks.popitem()[1].address for one in cell.containers("worker")}) == 4

    running = [replaying(cell, f"gateway-{number}", number) for number in range(2)]
    assert [one.result() for one in running] == [undisturbed, undisturbed]

    running = [replaying(cell, "shrinking")]
    time.sleep(1.5)
    cell.up(worker=2, graph=1, gateway=1)
    assert running[0].result() == undisturbed
    until(lambda: cell.workers() == 2, 90)


def test_stopping_ends_every_container_in_order(cell):
    cell.compose("stop")

    def how(one: Container) -> tuple[bool, int]:
        return one.state.running, one.state.exit_code

    assert {one.name: how(one) for one in cell.containers()} == {one.name: (False, 0) for one in cell.containers()}
