"""Three NATS nodes: a bus that knows them all, and that has JetStream keep three copies, loses nothing with any one."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from mesh_replay import model_of, opening
from nats_cluster import NODES, Cluster

from saga.cli.mesh import Mesh, MeshSettings
from saga.contract.messages import LeaderHello
from saga.contract.subjects import Subjects
from saga.runtime.bus import Entry
from saga.runtime.bus_nats import NatsBus
from saga.runtime.errors import BusUnavailable, StartError

SUBJECT = Subjects("main").step_finished("w1")
AGAIN_WITHIN_S = 30.0  # electing another leader of a stream takes NATS up to 10 s when it is not starved of CPU
PAUSE_S = 10.0
WATCH_S = 15.0
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Three nodes; gone with the test."""
    cluster = Cluster(tmp_path)
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.close()


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


async def test_a_meshs_clients_wait_ten_seconds_at_most_when_the_node_that_leads_its_stream_dies(cluster, tmp_path):
    """How long it is when nothing else is on the machine: `bench/nats_node_loss.py`."""
    await (await connected(cluster.url)).close()
    settings = MeshSettings(workers=1, page_tokens=16, state_dir=tmp_path / "mesh", nats_url=cluster.url)
    waits: list[float] = []

    async def ask(http: aiohttp.ClientSession, url: str, model: str, user: int, until_s: float) -> None:
        while time.monotonic() < until_s:
            body = {"model": model, "prompt": opening(user), "max_tokens": 4}
            began_s = time.monotonic()
            async with http.post(f"{url}/v1/completions", json=body, headers={"X-Saga-Session": str(user)}) as answer:
                assert answer.status == 200, await answer.text()
            waits.append(time.monotonic() - began_s)
            await asyncio.sleep(0.2)

    async with (
        Mesh(settings, environ=os.environ | {"SAGA_NATS_REPLICAS": str(NODES)}) as mesh,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http,
    ):
        model = await model_of(http, mesh.gateway_url)
        bus = await connected(cluster.url)
        try:
            info = await persistently(lambda: bus._client.jetstream().stream_info("STEPS-main"))
        finally:
            await bus.close()
        async with asyncio.TaskGroup() as group:
            for user in range(4):
                group.create_task(ask(http, mesh.gateway_url, model, user, time.monotonic() + WATCH_S))
            await asyncio.sleep(2.0)
            await cluster.kill(cluster.node_named(info.cluster.leader))

    assert max(waits) < PAUSE_S
