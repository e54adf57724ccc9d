"""The residency audit over a simulated engine as a process; tests/real_sglang/test_audit.py does it over a real one."""

import statistics

import pytest
from audited_engine import SimulatedServer
from residency_audit import Scene

from saga.cli.sglang import ports_for

SIZES = {"page_tokens": 16, "kv_tokens": 4_096, "speed": 20.0, "model_name": "m"}
RIGHT_AGAIN_S = 5.0


@pytest.fixture
async def scene(nats_server, tmp_path):
    async with (
        SimulatedServer(ports_for(1)[0], tmp_path, **SIZES) as engine,
        Scene(engine, nats_server.url, tmp_path) as scene,
    ):
        yield scene
        scene.listener.index.check()


async def test_after_a_random_workload_claims_are_what_the_engine_has(scene):
    await scene.workload.run(scene.engine, 150)

    found = await scene.audit(40)

    assert found.evicted_pages > 500, "nothing was proven about eviction"
    assert found.probed_hit_tokens > 2_000, "nothing was proven about hits"
    assert found.wrong == 0, found
    assert scene.listener.resyncs == 0
    staleness_s = scene.listener.staleness_s
    assert len(staleness_s) > 20  # how many batches one delta carries is a matter of load
    assert statistics.quantiles(staleness_s, n=100)[98] <= 1.0


async def test_after_each_death_claims_are_right_again(scene):
    await scene.workload.run(scene.engine, 40)

    assert await scene.event_stream_dies() <= RIGHT_AGAIN_S
    assert await scene.agent_dies() <= RIGHT_AGAIN_S
    assert await scene.engine_dies() <= RIGHT_AGAIN_S

    await scene.workload.run(scene.engine, 20)
    found = await scene.audit(15)
    assert found.wrong == 0, found
