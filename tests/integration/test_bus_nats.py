"""What only a real server can show: first connect, restarts, bytes that are not ours."""

import asyncio
import socket
import time

import nats
import pytest

from saga.contract.messages import LeaderHello, encode
from saga.contract.subjects import Subjects
from saga.runtime.bus import UNDECODABLE, Entry, Incoming
from saga.runtime.bus_nats import NatsBus
from saga.runtime.errors import BusTimeout, KvConflict, StartError
from saga.runtime.nats_server import NatsServer

SUBJECTS = Subjects("main")


def hello(number: int) -> LeaderHello:
    """A small message that says `number`."""
    return LeaderHello(service="admission", fence=number)


async def test_no_server_is_a_start_error_within_three_seconds():
    started_s = time.monotonic()
    with pytest.raises(StartError, match=r"NATS is not reachable at nats://127\.0\.0\.1:1:"):
        await NatsBus.connect("nats://127.0.0.1:1")

    assert time.monotonic() - started_s < 3


async def test_a_server_that_says_nothing_is_a_start_error_within_three_seconds():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started_s = time.monotonic()
        with pytest.raises(StartError, match="not reachable"):
            await NatsBus.connect(f"nats://127.0.0.1:{silent.getsockname()[1]}")

        assert time.monotonic() - started_s < 3


async def test_bytes_that_are_not_ours_are_counted_and_the_subscription_lives(nats_url: str):
    bus = await NatsBus.connect(nats_url)
    raw = await nats.connect(nats_url)
    arrived: asyncio.Queue[Incoming] = asyncio.Queue()
    await bus.subscribe("saga.main.a", arrived.put_nowait)
    await bus.barrier()
    before = UNDECODABLE._value.get()

    # both over one connection: only there does NATS keep an order (and nats-py's flush may overtake a PUB)
    await raw.publish("saga.main.a", b"\xff\x00 garbage")
    await raw.publish("saga.main.a", encode(hello(1)))

    assert (await asyncio.wait_for(arrived.get(), 5)).message == hello(1)
    assert UNDECODABLE._value.get() == before + 1
    await raw.close()
    await bus.close()


async def test_everything_works_again_after_the_server_was_killed(nats_server: NatsServer):
    bus, other = await NatsBus.connect(nats_server.url), await NatsBus.connect(nats_server.url)
    arrived: asyncio.Queue[Incoming] = asyncio.Queue()
    again = asyncio.Event()
    await bus.subscribe("saga.main.a", arrived.put_nowait)
    await bus.barrier()
    store = await other.kv("things")
    kept = await store.create("kept", b"1")
    told: asyncio.Queue[tuple[str, Entry | None]] = asyncio.Queue()
    await (await bus.kv("things")).watch(lambda key, entry: told.put_nowait((key, entry)))
    assert await told.get() == ("kept", Entry(b"1", kept))
    sequence = await other.append(SUBJECTS.step_finished("w0"), hello(0), "step-0")
    bus.on_reconnect(again.set)

    await nats_server.kill()
    with pytest.raises(BusTimeout):
        await store.get("kept")
    with pytest.raises(BusTimeout):
        await other.request("saga.main.a", hello(1), timeout_s=0.05)
    assert not other.connected
    await other.publish("saga.main.a", hello(2))  # neither raises nor waits; at most once
    appending = asyncio.create_task(other.append(SUBJECTS.step_finished("w0"), hello(3), "step-3"))
    await nats_server.start()
    await asyncio.wait_for(again.wait(), 5)

    assert await asyncio.wait_for(appending, 5) == sequence + 1
    await other.publish("saga.main.a", hello(4))
    async with asyncio.timeout(5):
        while (await arrived.get()).message != hello(4):
            pass
    assert await store.update("kept", b"2", kept) > kept
    key, entry = await asyncio.wait_for(told.get(), 5)
    assert (key, entry and entry.value) == ("kept", b"2")
    assert len(await bus.replay(SUBJECTS.every_step_end(), 60)) == 2
    await bus.drain()
    await other.drain()


async def test_streams_and_buckets_come_back_on_a_server_that_lost_its_data(nats_server: NatsServer, tmp_path):
    bus = await NatsBus.connect(nats_server.url)
    store = await bus.kv("things")
    revision = await store.put("a", b"1")
    told: asyncio.Queue[tuple[str, Entry | None]] = asyncio.Queue()
    await store.watch(lambda key, entry: told.put_nowait((key, entry)))
    await told.get()

    await nats_server.kill()
    fresh = NatsServer(tmp_path / "fresh", port=nats_server.port)
    await fresh.start()
    try:
        assert await asyncio.wait_for(told.get(), 10) == ("a", None)
        with pytest.raises(KvConflict):
            await store.update("a", b"2", revision)
        assert await store.create("a", b"3") == 1
        assert await asyncio.wait_for(told.get(), 5) == ("a", Entry(b"3", 1))
        assert await bus.append(SUBJECTS.step_finished("w0"), hello(1), "step-1") == 1
    finally:
        await bus.close()
        await fresh.stop()


async def test_closing_while_the_server_is_away_is_quick(nats_server: NatsServer):
    bus = await NatsBus.connect(nats_server.url)
    subscription = await bus.subscribe("saga.main.a", lambda _incoming: None)
    await bus.barrier()
    await nats_server.kill()
    async with asyncio.timeout(5):
        while bus.connected:
            await asyncio.sleep(0.01)

    started_s = time.monotonic()
    await subscription.drain()
    await bus.drain()

    assert time.monotonic() - started_s < 3
