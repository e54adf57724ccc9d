"""Leadership over a real server."""

import asyncio

from saga.runtime.bus_nats import NatsBus
from saga.runtime.leader import Leader
from saga.runtime.nats_server import NatsServer

LEASE_S = 0.5


async def test_the_leader_outlives_its_server_and_a_standby_outlives_the_leader(nats_server: NatsServer):
    told: list[tuple[str, int]] = []
    first_up, second_up = asyncio.Event(), asyncio.Event()

    async def candidate(name: str, up: asyncio.Event) -> tuple[NatsBus, Leader, "asyncio.Task[None]"]:
        bus = await NatsBus.connect(nats_server.url, name=name)

        def promoted(fence: int) -> None:
            told.append((name, fence))
            up.set()

        def demoted() -> None:
            told.append((f"not {name}", 0))

        leader = Leader(bus, "placement", name, on_promoted=promoted, on_demoted=demoted, lease_s=LEASE_S)
        return bus, leader, asyncio.create_task(leader.run())

    first_bus, first, first_task = await candidate("first", first_up)
    await asyncio.wait_for(first_up.wait(), 5)
    second_bus, second, second_task = await candidate("second", second_up)

    await nats_server.kill()
    await asyncio.sleep(2 * LEASE_S)
    await nats_server.start()
    await asyncio.sleep(3 * LEASE_S)
    assert [name for name, _fence in told] == ["first"]
    assert first.leading

    first_task.cancel()
    await first_bus.close()
    await asyncio.wait_for(second_up.wait(), 3 * LEASE_S)
    assert [name for name, _fence in told] == ["first", "second"]
    assert second.fence > first.fence

    await second.release()
    await second_task
    assert told[-1] == ("not second", 0)
    await second_bus.drain()
