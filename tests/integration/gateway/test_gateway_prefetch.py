"""A worker agent asks, the gateway sends, the simulated engine loads: no output, no lease, and the next step hits."""

import contextlib

import pytest

from saga.contract.messages import PrefetchAsked, StepFinished
from saga.contract.subjects import Subjects
from saga.engine.config import EngineConfig
from saga.engine.http_server import serving

PROMPT = "It was a dark and stormy night; the rain fell in torrents. " * 6
ASK = {"model": "tiny", "prompt": PROMPT, "max_tokens": 8, "ignore_eos": True}
SESSION = {"X_Saga_Session": "s"}


@pytest.fixture
async def simulated():
    """One simulated engine."""
    settings = EngineConfig(profile="h100x1-llama3-8b", page_tokens=16, model_name="tiny", speed=20.0)
    async with contextlib.AsyncExitStack() as stack:
        yield await stack.enter_async_context(serving(settings))


@pytest.fixture
async def mesh(start, simulated):
    return await start(urls=(simulated.url,))


async def answered(mesh, count: int) -> StepFinished:
    """The last of so many steps."""
    assert (await mesh.ask(ASK, **SESSION)).status == 200
    return (await mesh.leaders.until(StepFinished, count))[-1]


async def ask_ahead(mesh, simulated, finished: StepFinished, **changes) -> None:
    asked = {
        "worker_id": finished.worker_id,
        "engine_url": simulated.url,
        "gateway_id": finished.gateway_id,
        "tenant": finished.tenant,
        "session": finished.session,
        "step_id": finished.step_id,
        "prompt_tokens": finished.prompt_tokens,
    }
    message = PrefetchAsked(**(asked | changes))
    await mesh.bus.publish(Subjects().gateway(mesh.leaders.gateway_id), message)


async def test_what_was_lost_is_there_again_before_the_session_returns(mesh, simulated):
    finished = await answered(mesh, 1)
    engine = simulated.engine
    assert engine.flush()
    said = engine.core.stats.generated_tokens

    await ask_ahead(mesh, simulated, finished)
    await mesh.until(lambda: engine.core.stats.requests == 2 and engine.core.idle)

    assert engine.core.stats.generated_tokens == said
    assert (await answered(mesh, 2)).cached_tokens == (finished.prompt_tokens - 1) // 16 * 16
    await mesh.until(lambda: len(mesh.desk.state.prefetches) == 0)


async def test_a_prompt_that_the_engine_counted_otherwise_is_left_alone(mesh, simulated):
    finished = await answered(mesh, 1)
    await ask_ahead(mesh, simulated, finished, prompt_tokens=finished.prompt_tokens + 1)
    await ask_ahead(mesh, simulated, finished, session="t/unknown")
    assert (await answered(mesh, 2)).cached_tokens > 0
    assert simulated.engine.core.stats.requests == 2


async def test_an_engine_that_is_gone_costs_nothing_but_the_guess(mesh, simulated):
    finished = await answered(mesh, 1)
    await ask_ahead(mesh, simulated, finished, engine_url="http://127.0.0.1:1")
    await mesh.until(lambda: len(mesh.desk.state.prefetches) == 0)
    assert (await answered(mesh, 2)).cached_tokens > 0
