"""What MemoryBus adds for tests: faults, kills, networks that go away. The rest is in tests/integration/test_bus.py."""

import asyncio

import pytest

from saga.contract.messages import LeaderHello
from saga.runtime.bus import Incoming
from saga.runtime.bus_memory import MemoryBus
from saga.runtime.errors import BusTimeout
from saga.runtime.memory_broker import DELIVER, Delivery, MemoryBroker, Verdict, matches


def hello(number: int) -> LeaderHello:
    """A small message that says `number`."""
    return LeaderHello(service="admission", fence=number)


class Seen(list[int]):
    """A handler that keeps the numbers it was told."""

    def __call__(self, incoming: Incoming) -> None:
        assert isinstance(incoming.message, LeaderHello)
        self.append(incoming.message.fence)


async def settle() -> None:
    """Lets all handlers run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_fault_drops_and_duplicates_and_delays():
    later: list[tuple[float, object]] = []
    verdicts = {0: Verdict(copies=0), 1: Verdict(copies=2), 2: Verdict(delay_s=1.5)}
    deliveries: list[Delivery] = []

    def fault(delivery: Delivery) -> Verdict:
        deliveries.append(delivery)
        return verdicts.get(len(deliveries) - 1, DELIVER)

    broker = MemoryBroker(fault=fault, later=lambda delay_s, act: later.append((delay_s, act)))
    sender, receiver = MemoryBus(broker, "sender"), MemoryBus(broker, "receiver")
    seen = Seen()
    await receiver.subscribe("saga.main.a", seen)

    for number in range(4):
        await sender.publish("saga.main.a", hello(number))
    await settle()
    assert seen == [1, 1, 3]
    ((delay_s, act),) = later
    act()
    await settle()

    assert (seen, delay_s, broker.dropped) == ([1, 1, 3, 2], 1.5, 1)
    assert (deliveries[0].source, deliveries[0].target) == ("sender", "receiver")
    receiver.kill()


async def test_a_killed_connection_handles_nothing_more():
    broker = MemoryBroker()
    sender, victim = MemoryBus(broker), MemoryBus(broker)
    seen = Seen()
    await victim.subscribe("saga.main.a", seen)
    await sender.publish("saga.main.a", hello(1))

    victim.kill()
    await settle()

    assert seen == []
    with pytest.raises(BusTimeout):
        await victim.kv("things")


async def test_a_network_that_went_away_returns_with_what_was_kept():
    broker = MemoryBroker()
    bus, other = MemoryBus(broker), MemoryBus(broker)
    seen, seen_too, returned = Seen(), Seen(), []
    await bus.subscribe("saga.main.a", seen)
    await other.subscribe("saga.main.b", seen_too)
    store = await bus.kv("things")
    told = []
    await store.watch(lambda key, entry: told.append((key, entry and entry.value)))
    bus.on_reconnect(lambda: returned.append(True))

    bus.cut()
    await other.publish("saga.main.a", hello(1))
    await bus.publish("saga.main.b", hello(2))
    await (await other.kv("things")).put("k", b"v")
    await settle()
    assert (seen, seen_too, told, bus.connected) == ([], [], [], False)
    with pytest.raises(BusTimeout):
        await store.get("k")
    with pytest.raises(BusTimeout):
        await bus.append("saga.main.step.finished.w", hello(3), "id", timeout_s=0.01)
    await bus.heal()
    await settle()

    assert (seen, seen_too, told, returned) == ([], [2], [("k", b"v")], [True])
    bus.kill()
    other.kill()


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*.c", "a.b.c", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("*", "a.b", False),
        (">", "a", True),
        ("a.b.c", "a.b", False),
    ],
)
def test_subjects_match_as_in_nats(pattern: str, subject: str, expected: bool):  # noqa: FBT001 - a table
    assert matches(pattern, subject) is expected
