"""What operators ask and say while a mesh serves: `saga why`, `saga workers`, `saga drain`; and a worker that joins."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import aiohttp
import pytest
import pytest_asyncio
from mesh_replay import leader_of, model_of, opening, replay

from saga.cli.mesh import Mesh, MeshSettings
from saga.cli.plan import free_ports
from saga.contract.messages import Heartbeat, LeaseTaken, WorkerHello
from saga.contract.subjects import Subjects
from saga.runtime.bus import Incoming
from saga.runtime.bus_nats import NatsBus

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
SESSIONS = 8
WITHIN_S = 30.0  # on a machine that has much else to do


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def recordings(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("recordings")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory, recordings) -> AsyncIterator[Mesh]:
    settings = MeshSettings(workers=2, page_tokens=16, state_dir=tmp_path_factory.mktemp("mesh"))
    async with Mesh(settings, environ=os.environ | {"SAGA_RECORD": str(recordings)}) as mesh:
        yield mesh


async def saga(mesh: Mesh, *words: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "saga.cli.main", *words,
        env=os.environ | {"SAGA_NATS_URL": mesh.nats_url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def done(mesh: Mesh, *words: str) -> str:
    code, out, err = await saga(mesh, *words)
    assert code == 0, err
    return out


async def ask(mesh: Mesh, workflow: str, prompt: str) -> tuple[str, str, str]:
    """One step: its text, its id, its worker."""
    async with aiohttp.ClientSession() as http:
        body = {"model": await model_of(http, mesh.gateway_url), "prompt": prompt, "max_tokens": 8, "ignore_eos": True}
        headers = {"X-Saga-Workflow": workflow}
        async with http.post(f"{mesh.gateway_url}/v1/completions", json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            text = (await response.json())["choices"][0]["text"]
            return text, response.headers["X-Saga-Step"], response.headers["X-Saga-Worker"]


async def workers(mesh: Mesh) -> dict[str, dict]:
    return {one["worker"]: one for one in json.loads(await done(mesh, "workers", "--json"))}


async def test_a_step_is_explained_from_its_arrival_to_its_last_token(mesh):
    text, first, home = await ask(mesh, "geology", opening(1))
    await asyncio.sleep(1.0)  # residency travels
    _, second, worker = await ask(mesh, "geology", opening(1) + text + " Go on.")
    assert worker == home

    (story,) = json.loads(await done(mesh, "why", second, "--json"))["steps"]

    words = [line["what"] for line in story["lines"]]
    assert words == ["ready", "admitted", "granted", "taken", "started", "finished"]
    times = [line["at_s"] for line in story["lines"]]
    assert times == sorted(times)
    assert (story["root"], story["over"], story["told_by"]) == ("default/geology", True, ["admission", "placement"])
    (granted,) = (line for line in story["lines"] if line["what"] == "granted")
    assert (granted["worker"], granted["facts"]["reason"]) == (home, "home")
    cached = story["cached"]
    assert cached["expected_tokens"] == cached["cached_tokens"] > 0, "it was told what the worker has, and it has it"
    assert "loss" not in cached or cached["loss"] is None
    shown = await done(mesh, "why", second)
    assert f"{home}: its session is at home there" in shown
    assert f"cached: {cached['cached_tokens']:,} of" in shown

    (story,) = json.loads(await done(mesh, "why", first, "--json"))["steps"]
    assert story["missed_tokens"].keys() == {"cold"}
    assert {one["worker"] for one in story["weighed"]} == {"w0", "w1"}
    assert [one["worker"] for one in story["weighed"] if one["chosen"]] == [home]
    assert f"{home}: admission bound its workflow there" in await done(mesh, "why", first)


async def test_a_workflow_tells_its_newest_steps_and_how_it_stands(mesh):
    _, first, _ = await ask(mesh, "botany", opening(2))
    _, second, _ = await ask(mesh, "botany", opening(2) + " and more")

    why = json.loads(await done(mesh, "why", "--workflow", "default/botany", "--json"))

    assert [step["step_id"] for step in why["steps"]] == [first, second]
    assert why["workflow"]["state"] == "active"
    assert why["workflow"]["moments"][0]["what"] == "joined"
    assert "workflow default/botany: active" in await done(mesh, "why", "--workflow", "default/botany")


async def test_what_nobody_remembers_is_said_so_with_how_far_they_remember(mesh):
    code, _, err = await saga(mesh, "why", "0" * 32)

    assert code == 1
    assert "nothing is known of step" in err
    assert "placement has led for" in err
    assert "docs/recordings.md" in err


async def test_a_step_from_before_the_leaders_died_has_its_end_in_the_stream_and_its_story_in_the_recording(
    mesh, recordings
):
    _, step, worker = await ask(mesh, "history", opening(3))
    await asyncio.sleep(2.5)  # a recording is written once a second
    for service in ("admission", "placement"):
        mesh.kill(await leader_of(mesh, service))
    await mesh.wait_ready(30)
    await ask(mesh, "history", opening(3) + " and more")

    (story,) = json.loads(await done(mesh, "why", step, "--json"))["steps"]
    assert story["told_by"] == ["stream"]
    assert story["lines"][0]["worker"] == worker

    files = [str(file) for file in sorted(recordings.iterdir())]
    (story,) = json.loads(await done(mesh, "why", step, "--json", "--recording", *files))["steps"]
    assert [line["what"] for line in story["lines"]][:3] == ["ready", "admitted", "granted"]
    assert story["told_by"] == ["admission", "placement"]


class Ear:
    """Hears which workers are there, and on which leases are taken."""

    def __init__(self) -> None:
        self.hello_s: dict[str, float] = {}
        self.taken_s: dict[str, list[float]] = {}

    def hear(self, incoming: Incoming) -> None:
        match incoming.message:
            case WorkerHello(worker_id=worker_id) | Heartbeat(worker=WorkerHello(worker_id=worker_id)):
                self.hello_s.setdefault(worker_id, time.monotonic())
            case LeaseTaken(worker_id=worker_id):
                self.taken_s.setdefault(worker_id, []).append(time.monotonic())

    async def until_taken(self, worker_id: str, since_s: float) -> float:
        """Seconds from then until a lease was taken there."""
        async with asyncio.timeout(WITHIN_S):
            while not (after := [at_s for at_s in self.taken_s.get(worker_id, []) if at_s > since_s]):
                await asyncio.sleep(0.01)
        return after[0] - since_s


@pytest_asyncio.fixture(loop_scope="module")
async def ear(mesh) -> AsyncIterator[Ear]:
    bus = await NatsBus.connect(mesh.nats_url, name="test", cell="main")
    ear, subjects = Ear(), Subjects("main")
    for subject in (subjects.worker_presence(), subjects.every_lease()):
        await bus.subscribe(subject, ear.hear)
    await bus.barrier()
    yield ear
    await bus.close()


async def test_a_worker_is_drained_under_load_and_nothing_is_lost(mesh, ear):
    calm = await replay(mesh.gateway_url, SESSIONS, "calm")
    running = asyncio.create_task(replay(mesh.gateway_url, SESSIONS, "drained"))
    await ear.until_taken("w0", time.monotonic())

    shown = await done(mesh, "drain", "w0", "--wait", "--within", "60")

    assert shown.splitlines()[-1] == "w0 is empty."
    empty_s = time.monotonic()
    assert await running == calm, "no step failed, and no text changed"
    assert max(ear.taken_s["w0"]) < empty_s
    told = (await workers(mesh))["w0"]
    assert (told["standing"], told["leases"], told["waiting_steps"], told["homed_sessions"]) == ("draining", 0, 0, 0)

    code, _, err = await saga(mesh, "drain", "w1")
    assert code == 1
    assert "the last worker that serves" in err


async def test_it_stays_so_when_its_agent_is_started_again(mesh, ear):
    pid = mesh.kill("worker-0")
    async with asyncio.timeout(WITHIN_S):
        while mesh.processes.get("worker-0", pid) == pid:
            await asyncio.sleep(0.05)
    await mesh.wait_ready(30)

    assert {(await ask(mesh, f"new-{number}", opening(10 + number)))[2] for number in range(6)} == {"w1"}
    assert "w0" not in ear.taken_s


async def test_and_serves_again_within_two_seconds_of_the_word(mesh, ear):
    newcomers = asyncio.create_task(new_workflows(mesh))
    await ear.until_taken("w1", time.monotonic())
    assert "w0" not in ear.taken_s

    assert await done(mesh, "drain", "w0", "--undo") == "w0 serves again.\n"

    assert await ear.until_taken("w0", time.monotonic() - 2.0) < 4.0, "two for the command, two for the worker"
    newcomers.cancel()


async def new_workflows(mesh: Mesh) -> None:
    """One after the other, until cancelled."""
    number = 0
    while True:
        number += 1
        await ask(mesh, f"newcomer-{time.monotonic()}-{number}", opening(100 + number))


async def start_worker(mesh: Mesh, worker_id: str, folder: Path) -> list[asyncio.subprocess.Process]:
    """An engine and its agent beside those of the mesh."""
    port = free_ports(1, Random())[0]
    environ = os.environ | {"SAGA_NATS_URL": mesh.nats_url, "SAGA_ENGINE_PORT": str(port)}
    environ |= {"SAGA_ENGINE_PAGE_TOKENS": "16", "SAGA_WORKER_ID": worker_id}
    environ |= {"SAGA_WORKER_ENGINE_URL": f"http://127.0.0.1:{port}", "SAGA_WORKER_JOURNAL": str(folder / "journal")}
    return [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"saga.{service}", env=environ,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )
        for service in ("engine", "worker")
    ]  # fmt: skip


async def test_a_worker_that_joins_receives_work_within_two_seconds(mesh, ear, tmp_path):
    newcomers = asyncio.create_task(new_workflows(mesh))
    processes = await start_worker(mesh, "late", tmp_path)
    try:
        async with asyncio.timeout(60):
            while "late" not in ear.hello_s:
                await asyncio.sleep(0.01)

        assert await ear.until_taken("late", ear.hello_s["late"]) < 2.0
    finally:
        newcomers.cancel()
        for process in reversed(processes):
            process.terminate()
            await process.wait()


async def test_a_second_worker_with_the_same_id_does_not_start_and_says_who_has_it(mesh, tmp_path):
    engine, agent = await start_worker(mesh, "w1", tmp_path)
    try:
        async with asyncio.timeout(60):
            _, said = await agent.communicate()
    finally:
        engine.terminate()
        await engine.wait()

    assert agent.returncode == 2
    assert "worker id 'w1' is taken by the worker of" in said.decode()
    async with asyncio.timeout(WITHIN_S):
        while (await workers(mesh))["w1"]["standing"] != "serving":  # the one that was there first goes on
            await asyncio.sleep(0.1)
    assert (await ask(mesh, "afterwards", opening(5)))[2] in ("w0", "w1")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("why", "xyz"), 2, "is no step id: 32 hexadecimal digits"),
        (("why",), 2, "name a STEP, or a workflow"),
        (("why", "--workflow", "geology"), 2, "is no workflow: TENANT/ID"),
        (("why", "0" * 32, "--recording", "nothing.record.gz"), 2, "nothing.record.gz"),
        (("drain", "w 0"), 2, "1 to 64 letters, digits"),
        (("drain", "w0", "--within", "0"), 2, "--within 0 must be above 0"),
        (("drain", "w9"), 1, "no worker w9 is known; known are"),
        (("drain", "w0", "--undo"), 1, "w0 is not being drained"),
    ],
)
async def test_bad_words_are_refused_with_a_line_that_says_why(mesh, words, code, told):
    got, _, err = await saga(mesh, *words)

    assert got == code
    assert told in err
    assert err.count("\n") == 1
