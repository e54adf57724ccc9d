"""The console over a real bus: what it answers, what it streams, and what it refuses."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys

import aiohttp
import pytest
from console_process import console, spoken
from console_story import finished, grant, ready, remembered

from saga.contract.ids import WorkerId
from saga.contract.messages import GraphAsk
from saga.contract.subjects import Subjects
from saga.graph.config import GraphConfig
from saga.graph.service import Graph
from saga.runtime.app import App
from saga.runtime.bus_nats import NatsBus
from saga.runtime.clock import MonotonicClock
from saga.runtime.config import Shared
from saga.runtime.errors import BusUnavailable

SUBJECTS = Subjects("main")


class Page:
    """What a browser would do."""

    def __init__(self, session, port):
        self.session = session
        self.url = f"http://127.0.0.1:{port}"

    async def get(self, path, **headers):
        """Status and body."""
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.text()

    async def error(self, path, **headers):
        """Status and what it says is wrong."""
        status, body = await self.get(path, **headers)
        return status, json.loads(body)["error"]

    @contextlib.asynccontextmanager
    async def events(self, **headers):
        """The stream of (id, kind, data)."""
        async with self.session.get(f"{self.url}/api/events", headers=headers) as answer:
            assert answer.status == 200, await answer.text()

            async def told():
                event = {}
                async for line in answer.content:
                    name, _, value = line.decode().rstrip("\n").partition(": ")
                    if name:
                        event[name] = value
                    elif "data" in event:
                        yield event["id"], event["event"], json.loads(event["data"])
                        event = {}

            yield told()


@pytest.fixture
async def watched(nats_url):
    """A console and a way to ask it."""
    async with console(nats_url, max_viewers=2) as made, aiohttp.ClientSession(read_bufsize=2**22) as session:
        made.page = Page(session, made.port)
        yield made


@pytest.fixture
async def bus(nats_url):
    """Somebody who speaks."""
    connected = await NatsBus.connect(nats_url, name="test", cell="main")
    yield connected
    await connected.close()


async def say_a_step(bus, step="s1", root="acme/fix"):
    await bus.publish(SUBJECTS.step_ready(), ready(step, root))
    await bus.publish(SUBJECTS.gateway("g"), grant(step, root))
    await bus.append(SUBJECTS.step_finished(WorkerId("w1")), finished(step, root, at=0.0), f"{step}-0")


async def test_a_page_is_told_everything_and_then_what_changes(watched, bus):
    async with watched.page.events() as events:
        _id, kind, whole = await anext(events)
        assert (kind, whole["cell"], whole.get("workflows", [])) == ("whole", "main", [])
        await say_a_step(bus)
        steps = {}
        async for _id, kind, frame in events:
            assert kind == "change"
            steps |= {step[1]: step for step in frame.get("steps", [])}
            if any(step[3] == "finished" for step in steps.values()):
                break

    assert watched.state.table.gathering is True
    await asyncio.sleep(0.3)
    assert (watched.viewers, watched.state.table.gathering) == (0, False)


async def test_frames_come_at_a_bounded_rate_however_much_happens(nats_url, watched):
    async with spoken(nats_url, workflows=200, steps_per_s=150), watched.page.events() as events:
        await anext(events)
        loop = asyncio.get_running_loop()
        began_s, frames = loop.time(), 0
        async for _ in events:
            frames += 1
            if loop.time() - began_s > 3.0:
                break

    assert 5 <= frames <= 17


async def test_who_comes_back_gets_what_it_missed_and_nothing_twice(watched, bus):
    async with watched.page.events() as events, watched.page.events() as others:
        first, _, _ = await anext(events)
        await anext(others)
        await say_a_step(bus)
        async for now, _, frame in others:
            last = now
            if frame.get("steps"):
                break
    async with watched.page.events(**{"Last-Event-ID": first}) as events:
        missed, kind, _ = await anext(events)

    assert kind == "change"
    assert int(missed.split("-")[1]) == int(first.split("-")[1]) + 1 <= int(last.split("-")[1])


@pytest.mark.parametrize("event_id", ["00000000-5", "BOOT-999999"])
async def test_who_saw_what_nobody_keeps_is_told_everything(watched, event_id):
    async with watched.page.events(**{"Last-Event-ID": event_id.replace("BOOT", watched.frames.boot)}) as events:
        _id, kind, _data = await anext(events)

    assert kind == "whole"


async def test_what_cannot_be_answered_says_why_and_what_can(watched, bus):
    page = watched.page
    await say_a_step(bus)
    async with asyncio.timeout(10):
        while watched.state.workflow("fix") is None:
            await asyncio.sleep(0.02)

    assert await page.error("/api/events", **{"Last-Event-ID": "seven"}) == (
        400,
        "Last-Event-ID 'seven' is none of a console: they are <8 hexadecimal digits>-<number>.",
    )
    assert await page.error("/api/workflow?root=acme/fax") == (
        404,
        "No workflow 'acme/fax' is known here. There are: acme/fix.",
    )
    assert await page.error("/api/workflow") == (
        400,
        "root=NAME is missing: the workflow's name, as the page shows it.",
    )
    assert await page.error("/api/workflow/graph.svg?root=fix&of=x") == (
        400,
        "of='x' is none of class, steps, declared.",
    )
    assert (await page.error("/nothing"))[0] == 404
    assert "/api/events" in (await page.error("/nothing"))[1]
    assert (await page.error("/page/..%2Fservice.py"))[0] == 404
    assert (await page.error("/", Host="evil.example:8090"))[0] == 421
    async with page.session.post(f"{page.url}/api/state") as answer:
        assert (answer.status, (await answer.json())["error"]) == (
            405,
            "POST is not answered here: a console only reads.",
        )
    async with page.events() as one, page.events() as two:
        await anext(one)
        await anext(two)
        assert await page.error("/api/events") == (
            503,
            "2 pages look already (SAGA_CONSOLE_MAX_VIEWERS): close one, or start a console.",
        )


async def test_without_a_graph_service_a_workflow_is_shown_and_its_graph_is_missed(watched, bus):
    await say_a_step(bus)
    async with asyncio.timeout(10):
        while watched.state.workflow("fix") is None:
            await asyncio.sleep(0.02)

    _status, body = await watched.page.get("/api/workflow?root=acme/fix")
    status, why = await watched.page.error("/api/workflow/graph.svg?root=acme/fix")

    told = json.loads(body)
    assert [step[3] for step in told["steps"]] == ["finished"]
    assert told["no_graph"].startswith("The graph service does not answer")
    assert (status, why.startswith("The graph service does not answer")) == (503, True)


async def test_a_step_is_explained_by_what_leaders_remember(watched, bus):
    page, step_id = watched.page, "0" * 32
    assert await page.error(f"/api/step?id={step_id}") == (
        404,
        "No leader remembers this step: it is too long ago, or they have changed since.",
    )
    assert await page.error("/api/step?id=s1") == (400, "id='s1' is no step: they are 32 hexadecimal digits.")

    async def answer(incoming):
        await incoming.respond(remembered())

    await bus.subscribe(SUBJECTS.placement_ask(), answer)
    await bus.barrier()
    status, body = await page.get(f"/api/step?id={step_id}")

    told = json.loads(body)
    assert (status, told["admission"]) == (200, None)
    assert told["placement"]["weighed"][1]["barred"] == "draining"


async def answers(bus):
    """Whether a graph service listens."""
    try:
        return await bus.request(SUBJECTS.graph_ask(), GraphAsk(what="show", name="nothing"))
    except BusUnavailable:
        return None


async def test_a_workflows_graph_is_drawn_with_what_its_class_mostly_does(nats_url, watched, bus):
    async with asyncio.TaskGroup() as group:
        app = App("graph", Shared(), group)
        graph = Graph(GraphConfig(id="graph"), bus, MonotonicClock())
        living = app.spawn(graph.live(app), name="graph")
        async with asyncio.timeout(20):
            while not await answers(bus):
                await asyncio.sleep(0.05)
        for number in range(6):
            await say_a_step(bus, f"s{number}")
        learnt = (0, "")
        async with asyncio.timeout(20):
            while "bash" not in learnt[1]:
                await asyncio.sleep(0.1)
                learnt = await watched.page.get("/api/workflow/graph.svg?root=acme/fix&of=class")
        _status, told = await watched.page.get("/api/workflow?root=acme/fix")
        did = await watched.page.get("/api/workflow/graph.svg?root=acme/fix&of=steps")
        undeclared = await watched.page.get("/api/workflow/graph.svg?root=acme/fix&of=declared")
        app.stopping.set()
        await living
        app.cancel_all()

    assert learnt[0] == did[0] == 200
    assert json.loads(told)["drawings"] == ["class", "steps"]
    assert "% of steps" in learnt[1]
    assert "<style>" not in learnt[1], "the page's own style holds"
    assert "6 steps" in did[1]
    assert undeclared == (204, ""), "nothing to draw"


async def test_a_console_that_starts_late_shows_the_last_minutes(nats_url, bus):
    for number in range(5):
        await bus.append(
            SUBJECTS.step_finished(WorkerId("w1")),
            finished(f"s{number}", at=asyncio.get_running_loop().time()),
            f"{number}",
        )
    async with console(nats_url) as late:
        assert late.state.workflow("acme/fix").steps_ended == 5


async def test_a_port_that_is_taken_ends_the_start_with_its_name(nats_url, watched):
    second = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "saga.console"),
        env=os.environ | {"SAGA_NATS_URL": nats_url, "SAGA_CONSOLE_PORT": str(watched.port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _output, errors = await second.communicate()

    assert second.returncode == 2
    assert f"SAGA_CONSOLE_HOST=127.0.0.1, SAGA_CONSOLE_PORT={watched.port}" in errors.decode()


async def test_top_prints_one_frame_of_the_cell(nats_url):
    async with spoken(nats_url, workflows=40, steps_per_s=20):
        await asyncio.sleep(2.0)
        top = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "saga.cli.main", "top", "--once"),
            env=os.environ | {"SAGA_NATS_URL": nats_url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, errors = await top.communicate()

    said = output.decode()
    assert (top.returncode, errors.decode()) == (0, "")
    assert "workers 4/4" in said
    assert "evergreen" in said
    assert "steps/s 0.0" not in said


async def test_top_says_what_is_wrong_in_a_line(nats_url):
    for environ, flags, says, code in (
        ({"SAGA_NATS_URL": nats_url}, ["--every", "0"], "saga top: --every 0 must be 0.2 or more\n", 2),
        ({"SAGA_NATS_URL": "nats://127.0.0.1:1"}, [], "saga top: NATS is not reachable at nats://127.0.0.1:1", 2),
    ):
        top = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "saga.cli.main", "top", *flags),
            env=os.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        _output, errors = await top.communicate()
        assert (top.returncode, errors.decode().startswith(says)) == (code, True), errors
