"""Three NATS nodes: a bus that knows them all, and that has JetStream keep three copies, loses nothing with any one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from saga.cli.plan import free_ports
from saga.contract.messages import LeaderHello
from saga.contract.subjects import Subjects
from saga.runtime.bus import Entry
from saga.runtime.bus_nats import NatsBus
from saga.runtime.errors import BusUnavailable, StartError
from saga.runtime.nats_server import find_binary

NODES = 3
SUBJECT = Subjects("main").step_finished("w1")
AGAIN_WITHIN_S = 30.0  # electing another leader of a stream takes NATS up to 10 s when it is not starved of CPU
pytestmark = pytest.mark.timeout(180)


class Cluster:
    """Processes by node."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(2 * NODES, Random())
        self._folder, self._clients, self._routes = folder, ports[:NODES], ports[NODES:]
        self.processes: list[asyncio.subprocess.Process] = []

    @property
    def url(self) -> str:
        """Of all nodes."""
        return ",".join(f"nats://127.0.0.1:{port}" for port in self._clients)

    async def start(self) -> None:
        """All nodes."""
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in self._routes)
        for node in range(NODES):
            store = str(self._folder / f"node-{node}")
            with (self._folder / f"node-{node}.log").open("ab") as log:
                self.processes.append(
                    await asyncio.create_subprocess_exec(
                        *(str(find_binary()), "-a", "127.0.0.1", "-p", str(self._clients[node]), "-js", "-sd", store),
                        *("--name", f"node-{node}", "--cluster_name", "test", "--routes", routes),
                        *("--cluster", f"nats://127.0.0.1:{self._routes[node]}"),
                        stdout=log,
                        stderr=log,
                    )
                )

    def node_at(self, port: int) -> int:
        """The one whose clients connect there."""
        return self._clients.index(port)

    async def kill(self, node: int) -> None:
        """SIGKILL; it stays away."""
        with contextlib.suppress(ProcessLookupError):
            self.processes[node].kill()
        await self.processes[node].wait()


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three nodes; gone with the test."""
    cluster = Cluster(tmp_path)
    try:
        await cluster.start()
        yield cluster
    finally:
        for node in range(len(cluster.processes)):
            await cluster.kill(node)


async def connected(url: str) -> NatsBus:
    """A bus, once the nodes have chosen who leads them."""
    async with asyncio.timeout(AGAIN_WITHIN_S):
        while True:
            with contextlib.suppress(StartError):
                return await NatsBus.connect(url, replicas=NODES)


async def persistently(act):
    """Its result, as soon as JetStream can give one."""
    async with asyncio.timeout(AGAIN_WITHIN_S):
        while True:
            try:
                return await act()
            except BusUnavailable:
                await asyncio.sleep(0.1)


async def test_any_one_of_three_nodes_may_die_and_nothing_is_lost(cluster):
    bus = await connected(cluster.url)
    try:
        store = await persistently(lambda: bus.kv("things"))
        revision = await persistently(lambda: store.put("kept", b"1"))
        first = await bus.append(SUBJECT, LeaderHello(service="admission", fence=1), "one", timeout_s=AGAIN_WITHIN_S)
        kept = [(await bus._client.jetstream().stream_info(name)).config for name in ("STEPS-main", "KV_things")]
        assert [config.num_replicas for config in kept] == [NODES, NODES]

        await cluster.kill(cluster.node_at(bus._client.connected_url.port))  # the one that this bus talks to

        again = await bus.append(SUBJECT, LeaderHello(service="admission", fence=2), "two", timeout_s=AGAIN_WITHIN_S)
        assert again == first + 1
        assert await persistently(lambda: store.get("kept")) == Entry(b"1", revision)
        assert await persistently(lambda: store.update("kept", b"2", revision)) == revision + 1
    finally:
        await bus.close()


async def test_a_node_that_is_away_at_the_start_does_not_matter(cluster):
    await (await connected(cluster.url)).close()
    await cluster.kill(0)

    bus = await connected(cluster.url)
    assert bus.connected
    await bus.close()
