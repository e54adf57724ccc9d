"""SGLang's KV events over real ZMQ sockets: gaps, losses and restarts, as the worker agent sees them."""

import asyncio
import contextlib
import time

import pytest
import zmq.asyncio

from saga.contract.messages import AllCleared, PagesRemoved, PagesStored
from saga.engine.zmq_events import BlockRemoved, BlockStored, KvEventPublisher
from saga.worker.events import KvEvents, KvEventsLost
from saga.worker.zmq_events import KvEventStream, Restarted

HOST = "127.0.0.1"


def page(number):
    return number.to_bytes(8, "big")


class Engine:
    """Publishes as the simulated engine does, and loses what it is told to lose."""

    def __init__(self, port=0, replay_port=0):
        self.publisher = KvEventPublisher(HOST, port, replay_port, "kv")
        self.replays = asyncio.create_task(self.publisher.serve_replays())

    def store(self, number):
        event = BlockStored([number], None, list(range(16)), 16, None, "GPU")
        self.publisher.publish([event])

    def store_unheard(self, *numbers):
        """Only in the replay buffer: lost on the way to subscribers."""
        publisher = self.publisher
        publisher._pub, kept = _Void(), publisher._pub
        for number in numbers:
            self.store(number)
        publisher._pub = kept

    async def close(self):
        self.replays.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.replays
        self.publisher.close()


class _Void:
    def send_multipart(self, *_args):
        """Nobody hears it."""


class Follower:
    """What comes out of the stream."""

    def __init__(self, engine, *, replay=True):
        self.context = zmq.asyncio.Context()
        publisher = engine.publisher
        replay_endpoint = f"tcp://{HOST}:{publisher.replay_port}" if replay else ""
        self.stream = KvEventStream(self.context, f"tcp://{HOST}:{publisher.port}", replay_endpoint, "kv")
        self.events = []
        self.task = asyncio.create_task(self.follow())

    async def follow(self):
        async for event in self.stream.follow():
            self.events.append(event)

    def pages(self):
        return [
            c.hashes for e in self.events if isinstance(e, KvEvents) for c in e.changes if isinstance(c, PagesStored)
        ]

    async def close(self):
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task
        self.stream.close()
        self.context.destroy(linger=0)


@pytest.fixture
async def engine():
    made = Engine()
    yield made
    await made.close()


@pytest.fixture
async def follow():
    made = []

    async def start(engine, **options):
        follower = Follower(engine, **options)
        made.append(follower)
        return follower

    yield start
    for follower in made:
        await follower.close()


async def test_the_past_comes_first_then_what_happens(engine, follow, until):
    engine.store(1)
    follower = await follow(engine)
    await until(lambda: follower.pages() == [page(1)])
    assert follower.events[0] == KvEvents((AllCleared(),))
    engine.store(2)
    engine.publisher.publish([BlockRemoved([1, 2], "GPU"), BlockRemoved([1], "CPU_PINNED")])
    await until(lambda: len(follower.events) == 4)
    assert follower.events[-1].changes == (PagesRemoved(page(1) + page(2)),)
    assert 0.0 <= time.time() - follower.events[-1].published_at < 5.0


async def test_a_gap_is_replayed(engine, follow, until):
    follower = await follow(engine)
    await until(lambda: follower.events)
    engine.store(1)
    await until(lambda: follower.pages() == [page(1)])
    engine.store_unheard(2, 3)
    engine.store(4)
    engine.store(5)
    await until(lambda: follower.pages() == [page(n) for n in range(1, 6)])
    assert KvEventsLost() not in follower.events


async def test_what_is_lost_last_is_found_in_silence(engine, follow, until):
    follower = await follow(engine)
    engine.store_unheard(1)
    await until(lambda: follower.pages() == [page(1)])


async def test_what_the_engine_no_longer_has_is_lost(engine, follow, until, monkeypatch):
    follower = await follow(engine)
    engine.store(1)
    await until(lambda: follower.pages() == [page(1)])
    engine.store_unheard(2, 3)
    engine.publisher._buffer.clear()
    engine.store(4)
    await until(lambda: follower.pages() == [page(1), page(4)])
    assert follower.events[-2] == KvEventsLost()


async def test_without_replay_a_gap_is_a_loss(engine, follow, until):
    follower = await follow(engine, replay=False)

    async def hear(number):
        async with asyncio.timeout(10):
            while page(number) not in follower.pages():
                engine.store(number)
                await asyncio.sleep(0.05)

    await hear(1)
    losses = follower.events.count(KvEventsLost())
    engine.store_unheard(2)
    engine.store(3)
    await until(lambda: page(3) in follower.pages())
    assert follower.events.count(KvEventsLost()) == losses + 1


async def test_another_engine_process_ends_the_stream(engine, follow, until):
    follower = await follow(engine)
    for number in range(100):
        engine.store(number)
    await until(lambda: len(follower.pages()) == 100)
    await until(lambda: follower.stream._sequence.expected == 101)
    broken = asyncio.create_task(follower.stream.disconnected())
    port, replay_port = engine.publisher.port, engine.publisher.replay_port
    await engine.close()
    await asyncio.wait_for(broken, 10)
    other = Engine(port, replay_port)
    try:
        async with asyncio.timeout(20):
            while not follower.task.done():  # until the subscription is back
                other.store(7)
                await asyncio.sleep(0.1)
    finally:
        await other.close()
    assert follower.events[-1] == Restarted()
