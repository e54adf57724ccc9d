"""What `make chaos` plays with: links on which messages are lost, doubled and late; clocks that can be set."""

import asyncio
import sys
from pathlib import Path
from random import Random

import pytest

from saga.chaos.clocks import Clocks
from saga.chaos.nats_link import CALM, NatsLink, Weather
from saga.cli.child import ProcessSpec
from saga.cli.plan import Plan
from saga.contract.messages import LeaderHello
from saga.contract.subjects import Subjects
from saga.runtime.bus_nats import NatsBus

SUBJECT = Subjects("main").leader_hello()
COUNT = 200


@pytest.fixture
async def link(nats_url):
    link = NatsLink(lambda: nats_url, Random(1))
    link.url = await link.open()
    yield link
    await link.close()


async def heard_over(link, nats_url, weather):
    """Numbers of messages that arrive over the link, of COUNT that are sent past it."""
    heard = []
    ours, its = await NatsBus.connect(nats_url), await NatsBus.connect(link.url)
    try:
        await its.subscribe(SUBJECT, lambda incoming: heard.append(incoming.message.fence))
        await its.barrier()
        link.weather = weather
        for number in range(COUNT):
            await ours.publish(SUBJECT, LeaderHello(service="admission", fence=number))
        await ours.barrier()
        await asyncio.sleep(weather.latest_s + 0.1)
        link.weather = CALM
        await its.barrier()
    finally:
        await ours.close()
        await its.close()
    return heard


async def test_in_calm_everything_passes_once_and_in_order(link, nats_url):
    assert await heard_over(link, nats_url, CALM) == list(range(COUNT))


async def test_some_messages_are_lost(link, nats_url):
    heard = await heard_over(link, nats_url, Weather(lose=0.3))
    assert heard == sorted(set(heard))
    assert COUNT - len(heard) == link.touched["lost"] > 20


async def test_some_messages_come_twice(link, nats_url):
    heard = await heard_over(link, nats_url, Weather(double=0.3))
    assert set(heard) == set(range(COUNT))
    assert len(heard) - COUNT == link.touched["doubled"] > 20


async def test_some_messages_are_late_and_overtaken(link, nats_url):
    heard = await heard_over(link, nats_url, Weather(late=0.3, latest_s=0.2))
    assert sorted(heard) == list(range(COUNT))
    assert heard != sorted(heard)
    assert link.touched["late"] > 20


# nats-py leaves the connection open on which it was told nothing.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_link_goes_with_its_nats_and_comes_back_with_it(link, nats_server):
    bus = await NatsBus.connect(link.url)
    try:
        await nats_server.kill()
        async with asyncio.timeout(60.0):
            while bus.connected:
                await asyncio.sleep(0.02)
            await nats_server.start()
            while not bus.connected:
                await asyncio.sleep(0.02)
    finally:
        await bus.close()


async def test_a_clock_can_be_set_before_a_process_starts_and_while_it_lives(tmp_path: Path):
    (tmp_path / "says_time.py").write_text(
        "import sys, time\nstarted = time.monotonic()\n"
        "for _ in sys.stdin: print(time.time(), time.monotonic() - started, flush=True)\n"
    )
    clocks = Clocks(tmp_path)
    spec = ProcessSpec(name="p", argv=(sys.executable, "-m", "says_time"), env={"PYTHONPATH": str(tmp_path)})
    ((rewritten,), *_) = (clocks.rewritten(Plan(specs=(spec,), gateway_url="", engine_urls=())).specs,)
    process = await asyncio.create_subprocess_exec(
        *rewritten.argv, env=rewritten.env, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )

    async def told() -> tuple[float, float]:
        process.stdin.write(b"\n")
        wall_s, lived_s = map(float, (await asyncio.wait_for(process.stdout.readline(), 60.0)).split())
        return wall_s, lived_s

    try:
        first_s, _ = await told()
        clocks.set("p", process.pid, -3600.0)
        async with asyncio.timeout(60.0):
            while (later := await told())[0] > first_s - 1800.0:
                await asyncio.sleep(0.02)
        assert later[0] == pytest.approx(first_s - 3600.0, abs=30.0)
        assert 0.0 <= later[1] < 30.0, "the monotonic clock goes on"
    finally:
        process.kill()
        await process.wait()
