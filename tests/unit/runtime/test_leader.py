"""One leader at a time, a fence that grows, and no harm from the ones that did not notice."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from saga.contract.subjects import kv_bucket
from saga.runtime.bus_memory import MemoryBus
from saga.runtime.leader import Leader
from saga.runtime.memory_broker import MemoryBroker

LEASE_S = 0.3


class Candidate:
    """A leader with its connection and what it was told."""

    def __init__(self, broker: MemoryBroker, name: str) -> None:
        self.bus = MemoryBus(broker, name)
        self.terms: list[int] = []  # fences
        self.told: list[str] = []
        self.changed = asyncio.Event()
        self.leader = Leader(
            self.bus, "admission", name, on_promoted=self.promoted, on_demoted=self.demoted, lease_s=LEASE_S
        )
        self.task = asyncio.create_task(self.leader.run())

    async def promoted(self, fence: int) -> None:
        """As given to Leader."""
        self.terms.append(fence)
        self.told.append("promoted")
        self.changed.set()

    def demoted(self) -> None:
        """As given to Leader; both kinds of callback are allowed."""
        self.told.append("demoted")
        self.changed.set()

    async def until(self, *told: str) -> None:
        """Returns once it was told exactly this."""
        async with asyncio.timeout(5):
            while self.told != list(told):
                self.changed.clear()
                await self.changed.wait()

    def kill(self) -> None:
        """As SIGKILL would."""
        self.task.cancel()
        self.bus.kill()


@pytest.fixture
async def broker() -> MemoryBroker:
    """A store of leases."""
    return MemoryBroker()


@pytest.fixture
async def pair(broker: MemoryBroker) -> AsyncIterator[tuple[Candidate, Candidate]]:
    """A leader and its standby."""
    first = Candidate(broker, "first")
    await first.until("promoted")
    second = Candidate(broker, "second")
    yield first, second
    for one in (first, second):
        one.kill()
        await asyncio.gather(one.task, return_exceptions=True)


async def elapsed_s(done: "asyncio.Future[None] | asyncio.Task[None]") -> float:
    """How long it took, in real seconds."""
    started_s = asyncio.get_running_loop().time()
    await done
    return asyncio.get_running_loop().time() - started_s


async def test_the_standby_waits_as_long_as_the_leader_renews(pair):
    first, second = pair
    await asyncio.sleep(3 * LEASE_S)

    assert first.leader.leading
    assert not second.leader.leading
    assert (first.told, second.told) == (["promoted"], [])


async def test_the_standby_takes_over_within_two_leases_of_a_kill(pair):
    first, second = pair
    await asyncio.sleep(LEASE_S)

    first.kill()
    took_s = await elapsed_s(asyncio.create_task(second.until("promoted")))

    assert took_s < 2 * LEASE_S
    assert second.leader.leading
    assert second.terms[0] > first.terms[0]


async def test_a_graceful_handover_is_immediate(pair):
    first, second = pair
    await asyncio.sleep(LEASE_S / 2)

    handover = asyncio.create_task(first.leader.release())
    took_s = await elapsed_s(asyncio.create_task(second.until("promoted")))
    await handover

    assert took_s < LEASE_S / 2
    assert first.told == ["promoted", "demoted"]
    assert not first.leader.leading
    assert second.terms[0] > first.terms[0]
    assert first.task.done()


async def test_a_leader_that_was_cut_off_goes_on_and_steps_down_when_it_sees_that_it_was_replaced(pair):
    first, second = pair

    first.bus.cut()
    await second.until("promoted")
    await asyncio.sleep(LEASE_S)
    assert first.leader.leading, "who cannot reach the store goes on"
    await first.bus.heal()
    await first.until("promoted", "demoted")

    assert second.leader.leading
    assert not first.leader.leading
    assert second.leader.fence > first.leader.fence


async def test_a_higher_fence_in_a_message_replaces_the_leader_at_once(pair):
    first, second = pair
    first.bus.cut()
    await second.until("promoted")

    first.leader.observe(first.leader.fence)
    assert first.leader.leading
    first.leader.observe(second.leader.fence)
    assert not first.leader.leading
    await first.until("promoted", "demoted")


async def test_with_the_store_away_for_all_the_leader_stays(pair):
    first, second = pair

    for one in pair:
        one.bus.cut()
    await asyncio.sleep(3 * LEASE_S)
    for one in (second, first):  # the standby is back first
        await one.bus.heal()
    await asyncio.sleep(3 * LEASE_S)

    assert (first.told, second.told) == (["promoted"], [])


async def test_fences_grow_even_if_the_store_lost_its_data(broker: MemoryBroker, pair):
    first, second = pair
    await asyncio.sleep(LEASE_S)
    highest = first.leader.fence
    bucket = broker.bucket(kv_bucket("main", "leaders"))
    assert bucket.revision > highest

    bucket.entries.clear()
    bucket.revision = 0
    async with asyncio.timeout(5):
        while max(first.terms + second.terms) == highest:
            await asyncio.sleep(0.01)

    leading = [one for one in pair if one.leader.leading]
    assert len(leading) == 1
    assert leading[0].leader.fence > highest


async def test_one_of_many_candidates_wins(broker: MemoryBroker):
    candidates = [Candidate(broker, f"c{number}") for number in range(5)]
    await asyncio.sleep(LEASE_S)

    assert sum(one.leader.leading for one in candidates) == 1
    (leader,) = [one for one in candidates if one.leader.leading]
    leader.kill()
    rest = [one for one in candidates if one is not leader]
    await asyncio.sleep(2 * LEASE_S)
    assert sum(one.leader.leading for one in rest) == 1
    for one in candidates:
        one.kill()


async def test_release_works_before_the_bus_is_there(broker: MemoryBroker):
    candidate = Candidate(broker, "early")
    candidate.bus.cut()
    await asyncio.sleep(0)

    await asyncio.wait_for(candidate.leader.release(), 2)

    assert candidate.told == []
    candidate.kill()
