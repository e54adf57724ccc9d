"""Graph processes on one bus: forecasts, shared partitions, models that outlive them."""

import asyncio
import contextlib

import pytest

from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import Forecast, StepFinished
from saga.contract.subjects import Subjects, kv_bucket
from saga.graph.config import GraphConfig
from saga.graph.partitions import PARTITIONS
from saga.graph.service import Graph
from saga.graph.state import GLOBAL, model_key
from saga.runtime.app import App
from saga.runtime.bus_nats import NatsBus
from saga.runtime.clock import MonotonicClock
from saga.runtime.config import Shared

W = WorkerId("w1")
SUBJECTS = Subjects("main")


def finished(number, root="r", *, gap_s=2.0, final=False):
    return StepFinished(
        step_id=StepId(f"{root}-{number}"),
        attempt=0,
        lease_id=LeaseId(f"lease-{number}"),
        worker_id=W,
        gateway_id=GatewayId("g"),
        tenant=TenantId("t"),
        root=RootId(root),
        session=SessionId(f"session of {root}"),
        pool=PoolId("m"),
        agent_class="coder",
        prompt_tokens=100 * number,
        output_tokens=1,
        cached_tokens=0,
        finish_reason="tool_calls",
        tools=("bash",),
        gap_s=gap_s,
        final=final,
        at=1000.0 + number,
    )


class Mesh:
    """A bus with a listener, and graph processes that come and go."""

    def __init__(self, nats_url):
        self.nats_url = nats_url
        self.forecasts: list[Forecast] = []

    async def connect(self, name):
        return await NatsBus.connect(self.nats_url, name=name, cell="main")

    async def __aenter__(self):
        self.bus = await self.connect("test")
        await self.bus.subscribe(SUBJECTS.every_forecast(), self.heard)
        await self.bus.barrier()
        self.models = await self.bus.kv(kv_bucket("main", "graph"))
        self.members = await self.bus.kv(kv_bucket("main", "graph-members"))
        return self

    async def __aexit__(self, *_):
        await self.bus.close()

    def heard(self, incoming):
        self.forecasts.append(incoming.message)

    async def say(self, message):
        await self.bus.append(SUBJECTS.step_finished(W), message, f"{message.step_id}-0")

    @contextlib.asynccontextmanager
    async def graph(self, name):
        async with asyncio.TaskGroup() as group:
            app = App("graph", Shared(), group)
            bus = await self.connect(name)
            app.attach(bus)
            graph = Graph(GraphConfig(id=name), bus, MonotonicClock())
            serving = group.create_task(graph.live(app))
            try:
                async with asyncio.timeout(10):
                    while name not in await self.members.keys():
                        await asyncio.sleep(0.02)
                yield graph
            finally:
                app.stopping.set()
                await serving
                await bus.drain()
                app.cancel_all()


@pytest.fixture
async def mesh(nats_url):
    async with Mesh(nats_url) as made:
        yield made


async def test_forecasts_follow_steps_and_models_outlive_the_process(mesh, until):
    async with mesh.graph("a"):
        for number in range(1, 6):
            await mesh.say(finished(number))
        await until(lambda: len(mesh.forecasts) == 5)
        said = mesh.forecasts[-1]
        assert said.samples == 4
        assert said.gap_p50_s == pytest.approx(2.0, rel=0.03)
        assert said.new_tokens == pytest.approx(100.0)
    assert await mesh.models.get(model_key(GLOBAL)) is not None
    assert await mesh.members.keys() == []
    await mesh.say(finished(6))  # while nobody listens
    async with mesh.graph("b"):
        await mesh.say(finished(7))
        await until(lambda: len(mesh.forecasts) == 6)
        assert mesh.forecasts[-1].samples == 6  # what was stored, the step replayed, and this one


async def test_two_processes_share_the_roots_and_one_takes_over(mesh, until):
    roots = [f"root-{n}" for n in range(20)]
    async with mesh.graph("a") as a:
        async with mesh.graph("b") as b:
            await until(lambda: not a.partitions & b.partitions and len(a.partitions | b.partitions) == PARTITIONS)
            for root in roots:
                await mesh.say(finished(1, root))
            await until(lambda: len(mesh.forecasts) >= 20)
            assert sorted(f.root for f in mesh.forecasts) == sorted(roots)
        await until(lambda: len(a.partitions) == PARTITIONS)
        for root in roots:
            await mesh.say(finished(2, root))
        await until(lambda: len(mesh.forecasts) >= 40)
    assert sorted(f.root for f in mesh.forecasts) == sorted(roots * 2)
