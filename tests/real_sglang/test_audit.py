"""The residency audit over a real SGLang server: after a random workload, and after each death. One server."""

import statistics

import pytest
import pytest_asyncio
from residency_audit import Scene
from sglang_server import SglangServer, settings

from saga.cli.sglang import ports_for
from saga.runtime.nats_server import NatsServer

pytestmark = pytest.mark.asyncio(loop_scope="module")
RIGHT_AGAIN_S = 5.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    nats = NatsServer(folder / "nats")
    await nats.start()
    async with (
        SglangServer(settings(), ports_for(1)[0], folder) as engine,
        Scene(engine, nats.url, folder) as scene,
    ):
        yield scene
        scene.listener.index.check()
    await nats.stop()


async def test_after_a_random_workload_claims_are_what_the_server_has(scene):
    await scene.workload.run(scene.engine, 100)

    found = await scene.audit(30)

    assert found.evicted_pages > 500, "nothing was proven about eviction"
    assert found.probed_hit_tokens > 1_000, "nothing was proven about hits"
    assert found.wrong == 0, found
    assert scene.listener.resyncs == 0
    assert len(scene.listener.staleness_s) > 20
    assert statistics.quantiles(scene.listener.staleness_s, n=100)[98] <= 1.0


@pytest.mark.parametrize("victim", ["event_stream", "agent", "engine"])
async def test_after_a_death_claims_are_right_again(scene, victim):
    await scene.workload.run(scene.engine, 10)

    assert await getattr(scene, f"{victim}_dies")() <= RIGHT_AGAIN_S

    await scene.workload.run(scene.engine, 10)
    found = await scene.audit(10)
    assert found.wrong == 0, found
