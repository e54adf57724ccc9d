"""One page size in a pool: the agent that comes later with another is refused, and the rest of the mesh goes on."""

import asyncio
import contextlib

import pytest

from saga.contract.errors import StartError
from saga.contract.messages import Heartbeat, WorkerHello, WorkerLeaving
from saga.contract.subjects import Subjects
from saga.engine.config import EngineConfig
from saga.engine.http_server import serving
from saga.runtime.app import App
from saga.runtime.bus_memory import MemoryBus
from saga.runtime.config import Shared
from saga.runtime.memory_broker import MemoryBroker
from saga.worker.config import WorkerConfig
from saga.worker.service import serve

SUBJECTS = Subjects("main")


@contextlib.asynccontextmanager
async def agent(broker, engine_url, name, folder):
    """An agent in this process; the task ends when it gives up."""
    config = WorkerConfig(engine_url=engine_url, id=name, journal=folder / name, poll_s=0.1)
    async with asyncio.TaskGroup() as group:
        app = App("worker", Shared(), group)
        bus = MemoryBus(broker)
        app.attach(bus)
        task = asyncio.create_task(serve(app, config, bus))
        try:
            yield task
        finally:
            app.stopping.set()
            await asyncio.wait([task])
            await bus.close()
            app.cancel_all()


@pytest.fixture
async def heard():
    """(broker, everything said about presence)."""
    broker, messages = MemoryBroker(), []
    bus = MemoryBus(broker)
    await bus.subscribe(SUBJECTS.worker_presence(), lambda incoming: messages.append(incoming.message))
    yield broker, messages
    await bus.close()


def engine(page_tokens, model="m"):
    return serving(EngineConfig(page_tokens=page_tokens, model_name=model, speed=50.0))


async def test_the_newcomer_with_other_pages_goes_with_a_goodbye_and_the_first_stays(heard, tmp_path, until):
    broker, messages = heard
    async with engine(16) as small, engine(32) as large, agent(broker, small.url, "first", tmp_path) as first:
        await until(lambda: any(isinstance(message, WorkerHello) for message in messages))
        async with agent(broker, large.url, "second", tmp_path) as second:
            await asyncio.wait_for(asyncio.wait([second]), 10)

            with pytest.raises(StartError, match=r"pages of 32 .* first .* pages of 16: start it with --page-size 16"):
                second.result()
        goodbyes = [message.worker_id for message in messages if isinstance(message, WorkerLeaving)]
        assert goodbyes == ["second"]
        messages.clear()
        await until(lambda: any(isinstance(m, Heartbeat) and m.worker.worker_id == "first" for m in messages))
        assert not first.done()


async def test_another_pool_may_have_other_pages(heard, tmp_path, until):
    broker, messages = heard
    async with (
        engine(16) as small,
        engine(32, "another") as large,
        agent(broker, small.url, "first", tmp_path) as first,
        agent(broker, large.url, "second", tmp_path) as second,
    ):
        beats = lambda: [m.worker.worker_id for m in messages if isinstance(m, Heartbeat)]  # noqa: E731 - a question
        await until(lambda: beats().count("first") >= 4 and beats().count("second") >= 4)
        assert not first.done()
        assert not second.done()
