"""A second cell is one more compose project; here on three NATS nodes, of which any may die."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from composed_cell import ComposedCell, until
from docker_engine import DockerEngine
from mesh_replay import replay

SESSIONS = 4
TREE = Path(__file__).parents[2]
NODES = ("nats", "nats-2", "nats-3")


@pytest.fixture(scope="module")
def cells(engine: DockerEngine) -> Iterator[tuple[ComposedCell, ComposedCell]]:
    """Two on one engine: the first on one NATS node, the second on three."""
    first = ComposedCell(engine, TREE, "cell-a", {"SAGA_CELL": "a", "SAGA_PORT": "8080"})
    ports = {"SAGA_PORT": "8180", "SAGA_CONSOLE_PORT": "8190"}
    second = ComposedCell(engine, TREE, "cell-b", {"SAGA_CELL": "b"} | ports, ("compose/ha.yml",))
    try:
        for cell in (first, second):
            cell.up(worker=1, prometheus=0)
            until(lambda cell=cell: cell.workers() == 1, 90)
        yield first, second
    finally:
        second.down()
        first.down()


def answers(cell: ComposedCell, run: str):
    """Begins to replay the sessions."""
    url = cell.gateway_urls()[0]
    return cell.network.start(lambda: asyncio.run(replay(url, SESSIONS, run)))


@pytest.fixture(scope="module")
def undisturbed(cells: tuple[ComposedCell, ComposedCell]) -> list[list[str]]:
    """What the sessions answer when nothing happens."""
    return answers(cells[1], "undisturbed").result()


def test_two_cells_share_nothing(cells):
    first, second = cells
    for service in ("admission", "placement"):
        assert first.leader(service).id != second.leader(service).id
    assert first.workers() == second.workers() == 1
    networks = [set(cell.containers("gateway")[0].network_settings.networks) for cell in cells]
    assert networks[0].isdisjoint(networks[1])


@pytest.mark.parametrize("node", NODES)
def test_losing_one_of_three_nats_nodes_costs_no_step(cells, undisturbed, node):
    first, second = cells
    (killed,) = second.containers(node)
    running, beside = answers(second, f"without-{node}"), answers(first, f"beside-{node}")
    time.sleep(1.5)
    second.compose("kill", node)  # and it stays away for the whole replay

    assert running.result() == undisturbed
    assert beside.result() == undisturbed
    second.compose("start", node)
    second.wait_healthy()
    assert second.containers(node)[0].state.pid != killed.state.pid
