"""One suite for both buses: what a service may rely on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from saga.contract.ids import SessionId, StepId
from saga.contract.messages import MAX_MESSAGE_BYTES, LeaderHello, StepChain
from saga.contract.subjects import Subjects
from saga.runtime.bus import Bus, Entry, Incoming
from saga.runtime.bus_memory import MemoryBus
from saga.runtime.bus_nats import NatsBus
from saga.runtime.errors import BusTimeout, KvConflict, MessageTooLarge, NoResponders
from saga.runtime.memory_broker import MemoryBroker
from saga.runtime.nats_server import NatsServer

Connect = Callable[[], Awaitable[Bus]]
SUBJECTS = Subjects("main")


def hello(number: int) -> LeaderHello:
    """A small message that says `number`."""
    return LeaderHello(service="admission", fence=number)


def number_of(message: Any) -> int:
    """What `hello` was given."""
    assert isinstance(message, LeaderHello)
    return message.fence


@pytest.fixture(params=["memory", "nats"])
async def connect(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    """Makes connections to one bus; all are closed at the end."""
    made: list[Bus] = []
    broker = MemoryBroker()
    server = NatsServer(tmp_path / "nats") if request.param == "nats" else None
    if server is not None:
        await server.start()

    async def connect() -> Bus:
        made.append(MemoryBus(broker) if server is None else await NatsBus.connect(server.url, name="test"))
        return made[-1]

    yield connect
    for bus in made:
        await bus.close()
    if server is not None:
        await server.stop()


class Seen:
    """A handler that keeps what it was given, and lets a test wait for a number of messages."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._more = asyncio.Event()

    def __call__(self, incoming: Incoming) -> None:
        self.numbers.append(number_of(incoming.message))
        self._more.set()

    async def wait_for(self, count: int) -> list[int]:
        """The messages, once there are `count`."""
        async with asyncio.timeout(5):
            while len(self.numbers) < count:
                self._more.clear()
                await self._more.wait()
        return self.numbers


class Keys:
    """A watch handler that keeps the last value of each key."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.told: list[tuple[str, bytes | None]] = []
        self._more = asyncio.Event()

    def __call__(self, key: str, entry: Entry | None) -> None:
        self.told.append((key, entry.value if entry else None))
        if entry:
            self.values[key] = entry.value
        else:
            self.values.pop(key, None)
        self._more.set()

    async def until(self, values: dict[str, bytes]) -> None:
        """Returns when exactly these keys have these values."""
        async with asyncio.timeout(5):
            while self.values != values:
                self._more.clear()
                await self._more.wait()


async def test_messages_arrive_in_order_at_every_subscriber(connect):
    sender, one, other = await connect(), await connect(), await connect()
    seen, seen_too = Seen(), Seen()
    await one.subscribe("saga.main.a.*", seen)
    await other.subscribe("saga.main.>", seen_too)
    await one.barrier()
    await other.barrier()

    for number in range(50):
        await sender.publish("saga.main.a.b", hello(number))

    assert list(range(50)) == await seen.wait_for(50)
    assert list(range(50)) == await seen_too.wait_for(50)


async def test_wildcards_and_queues_choose_who_hears(connect):
    bus = await connect()
    exact, deeper, shared_a, shared_b = Seen(), Seen(), Seen(), Seen()
    await bus.subscribe("saga.main.a.*", exact)
    await bus.subscribe("saga.main.a.*.*", deeper)
    shared = [await bus.subscribe("saga.main.a.b", seen, queue="workers") for seen in (shared_a, shared_b)]
    await bus.barrier()

    for number in range(40):
        await bus.publish("saga.main.a.b", hello(number))
    await exact.wait_for(40)
    await bus.barrier()

    assert deeper.numbers == []
    for subscription in shared:
        await subscription.drain()
    assert sorted(shared_a.numbers + shared_b.numbers) == list(range(40))


async def test_handlers_of_one_subscription_run_one_at_a_time(connect):
    bus = await connect()
    running = most = 0
    done = asyncio.Event()

    async def handler(incoming: Incoming) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        if number_of(incoming.message) == 9:
            done.set()

    await bus.subscribe("saga.main.a", handler)
    await bus.barrier()
    for number in range(10):
        await bus.publish("saga.main.a", hello(number))
    await asyncio.wait_for(done.wait(), 5)

    assert most == 1


async def test_a_request_gets_its_answer(connect):
    client, server = await connect(), await connect()

    async def handler(incoming: Incoming) -> None:
        assert incoming.wants_answer
        await incoming.respond(hello(number_of(incoming.message) * 2))

    await server.subscribe("saga.main.double", handler)
    await server.barrier()

    answers = await asyncio.gather(*(client.request("saga.main.double", hello(n)) for n in range(20)))

    assert [number_of(answer) for answer in answers] == [2 * n for n in range(20)]


async def test_a_request_that_nobody_hears_or_answers_fails_as_such(connect):
    bus = await connect()
    await bus.subscribe("saga.main.silent", lambda _incoming: None)
    await bus.barrier()

    with pytest.raises(NoResponders):
        await bus.request("saga.main.nobody", hello(1))
    with pytest.raises(BusTimeout):
        await bus.request("saga.main.silent", hello(1), timeout_s=0.05)


async def test_a_message_above_the_limit_is_refused_before_sending(connect):
    bus = await connect()
    large = StepChain(step_id=StepId("s"), session=SessionId("s"), hashes=b"x" * MAX_MESSAGE_BYTES)

    with pytest.raises(MessageTooLarge):
        await bus.publish("saga.main.a", large)
    with pytest.raises(MessageTooLarge):
        await bus.request("saga.main.a", large)
    with pytest.raises(MessageTooLarge):
        await bus.append(SUBJECTS.step_finished("w"), large, "id")


async def test_drained_subscription_has_handled_what_came_and_hears_no_more(connect):
    bus, sender = await connect(), await connect()
    seen = Seen()
    subscription = await bus.subscribe("saga.main.a", seen)
    await bus.barrier()
    for number in range(20):
        await sender.publish("saga.main.a", hello(number))
    await sender.barrier()

    await subscription.drain()
    handled = list(seen.numbers)
    await sender.publish("saga.main.a", hello(99))
    await sender.barrier()
    await bus.barrier()

    assert handled == list(range(20))
    assert seen.numbers == handled


async def test_a_handler_that_raises_fails_the_bus(connect):
    bus = await connect()

    def handler(_incoming: Incoming) -> None:
        raise ValueError("broken")

    await bus.subscribe("saga.main.a", handler)
    await bus.barrier()
    await bus.publish("saga.main.a", hello(1))

    with pytest.raises(ValueError, match="broken"):
        await asyncio.wait_for(asyncio.shield(bus.failed), 5)


async def test_appended_messages_are_stored_once_and_replayed_in_order(connect):
    bus, other = await connect(), await connect()
    seen = Seen()
    await other.subscribe(SUBJECTS.every_step_end(), seen)
    await other.barrier()

    first = await bus.append(SUBJECTS.step_finished("w0"), hello(0), "step-0")
    again = await bus.append(SUBJECTS.step_finished("w0"), hello(0), "step-0")
    for number in range(1, 700):  # more than one batch of the replay
        await bus.append(SUBJECTS.step_finished("w0"), hello(number), f"step-{number}")
    last = await bus.append(SUBJECTS.step_cancelled("w1"), hello(1000), "step-1000")

    assert again == first
    assert last == first + 700
    assert set(await seen.wait_for(701)) >= set(range(700))
    whole = await other.replay(SUBJECTS.every_step_end(), since_s=60)
    assert [number_of(message) for message in whole] == [*range(700), 1000]
    one = await other.replay(SUBJECTS.step_cancelled("w1"), since_s=60)
    assert [number_of(message) for message in one] == [1000]
    assert await other.replay(SUBJECTS.step_finished("w7"), since_s=60) == []


async def test_keys_have_revisions_and_writes_compare_them(connect):
    bus, other = await connect(), await connect()
    mine, theirs = await bus.kv("things"), await other.kv("things")

    assert await mine.get("a") is None
    first = await mine.create("a", b"1")
    assert await theirs.get("a") == Entry(b"1", first)
    with pytest.raises(KvConflict):
        await theirs.create("a", b"2")
    second = await theirs.update("a", b"2", first)
    assert second > first
    with pytest.raises(KvConflict):
        await mine.update("a", b"3", first)
    with pytest.raises(KvConflict):
        await mine.delete("a", first)
    third = await mine.put("a", b"")
    assert await mine.get("a") == Entry(b"", third)
    await mine.delete("a", third)
    assert await theirs.get("a") is None
    with pytest.raises(KvConflict):
        await theirs.update("a", b"4", third)
    assert await theirs.create("a", b"5") > third


async def test_keys_and_items_list_what_exists(connect):
    bus = await connect()
    store = await bus.kv("things")
    assert await store.keys() == []
    for number in range(300):
        await store.put(f"k.{number:03d}", str(number).encode())
    await store.delete("k.000")
    await store.delete("never.there")

    assert await store.keys() == [f"k.{number:03d}" for number in range(1, 300)]
    assert {key: int(entry.value) for key, entry in (await store.items()).items()} == {
        f"k.{number:03d}": number for number in range(1, 300)
    }
    assert await bus.kv("things") is store


async def test_a_watch_tells_what_is_there_and_what_changes(connect):
    bus, other = await connect(), await connect()
    store, watched = await bus.kv("things"), await other.kv("things")
    await store.put("old", b"1")
    await store.put("gone", b"1")
    await store.delete("gone")
    keys = Keys()

    watch = await watched.watch(keys)
    assert keys.values == {"old": b"1"}
    revision = await store.create("new.one", b"1")
    with pytest.raises(KvConflict):
        await store.update("new.one", b"never", revision + 7)
    await store.update("new.one", b"2", revision)
    await store.delete("old")
    await keys.until({"new.one": b"2"})
    assert ("new.one", b"never") not in keys.told
    await watch.drain()
    await store.put("late", b"1")
    await store.get("late")

    assert keys.values == {"new.one": b"2"}


async def test_a_drained_bus_has_sent_all_it_was_given(connect):
    receiver, sender = await connect(), await connect()
    seen = Seen()
    await receiver.subscribe("saga.main.a", seen)
    await receiver.barrier()

    for number in range(100):
        await sender.publish("saga.main.a", hello(number))
    await sender.drain()
    await sender.publish("saga.main.a", hello(100))  # too late: dropped, no error

    assert await seen.wait_for(100) == list(range(100))
    assert not sender.connected
