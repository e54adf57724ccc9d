"""A small replay against a whole mesh, for tests that break it meanwhile. Not the load generator.

The simulated engine's text is a function of prompt and seed alone, so whatever dies, the same sessions must yield the
same text, to the character.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Self

import aiohttp
import msgspec

from saga.cli.mesh import Mesh
from saga.contract.messages import Heartbeat, LeaderHello, StepFinished
from saga.contract.subjects import Subjects, kv_bucket
from saga.load.mesh_metrics import metrics_of
from saga.runtime.bus_nats import NatsBus
from saga.runtime.leader import Lease

STEPS = 6
OUTPUT_TOKENS = 40


def opening(session: int) -> str:
    """A session's first prompt: about 1,000 characters of its own."""
    return f"[session {session}] " + " ".join(f"fact {session * 1_000 + n}" for n in range(90))


async def model_of(http: aiohttp.ClientSession, url: str) -> str:
    """The one model that the mesh serves."""
    async with http.get(f"{url}/v1/models") as response:
        return (await response.json())["data"][0]["id"]


async def texts_of(response: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """The text of a stream, piece by piece. Raises for an error in it, and for a stream without an end."""
    async for line in response.content:
        if not line.startswith(b"data: "):
            continue
        payload = line[6:].strip()
        if payload == b"[DONE]":
            return
        chunk = json.loads(payload)
        if "error" in chunk:
            raise AssertionError(f"stream error: {chunk['error']}")
        for choice in chunk["choices"]:
            yield choice["text"]
    raise AssertionError("the stream broke off")


async def run_session(http: aiohttp.ClientSession, url: str, model: str, session: int, run: str) -> list[str]:
    """All steps of one session, one after another; the answers."""
    prompt, answers = opening(session), []
    for step in range(STEPS):
        body = {
            "model": model, "prompt": prompt, "max_tokens": OUTPUT_TOKENS, "stream": True,
            "ignore_eos": True, "seed": 7,
        }  # fmt: skip
        headers = {"X-Saga-Workflow": f"{run}-{session}", "X-Saga-Final": str(step == STEPS - 1).lower()}
        async with http.post(f"{url}/v1/completions", json=body, headers=headers) as response:
            assert response.status == 200, await response.text()
            answers.append("".join([text async for text in texts_of(response)]))
        prompt += answers[-1] + f" [tool result {session}.{step}] " + "x" * 200
        await asyncio.sleep(0.15)
    return answers


async def replay(url: str, sessions: int, run: str) -> list[list[str]]:
    """All sessions at once; their answers. Raises what any of them raised."""
    timeout = aiohttp.ClientTimeout(total=90)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        model = await model_of(http, url)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run_session(http, url, model, s, run)) for s in range(sessions)]
    return [task.result() for task in tasks]


async def leader_of(mesh: Mesh, service: str) -> str:
    """Name of the process that leads."""
    bus = await NatsBus.connect(mesh.nats_url, name="test", cell=mesh.settings.cell)
    try:
        entry = await (await bus.kv(kv_bucket(mesh.settings.cell, "leaders"))).get(service)
        assert entry is not None, f"nobody leads {service}"
        return msgspec.msgpack.decode(entry.value, type=Lease).holder
    finally:
        await bus.close()


async def leases_of_agents(mesh: Mesh, within_s: float = 5.0) -> dict[str, int]:
    """Leases that each worker agent holds, as its next heartbeat says."""
    bus = await NatsBus.connect(mesh.nats_url, name="test", cell=mesh.settings.cell)
    heard: dict[str, int] = {}
    everybody = asyncio.Event()

    def hear(incoming) -> None:
        if isinstance(incoming.message, Heartbeat):
            heard[incoming.message.worker.worker_id] = incoming.message.leases
            if len(heard) == mesh.settings.workers:
                everybody.set()

    try:
        await bus.subscribe(Subjects(mesh.settings.cell).worker_presence(), hear)
        async with asyncio.timeout(within_s):
            await everybody.wait()
        return heard
    finally:
        await bus.close()


async def ends_of(mesh: Mesh, run: str) -> Counter[str]:
    """How often each step of a replay finished, as the stream of step ends has it."""
    bus = await NatsBus.connect(mesh.nats_url, name="test", cell=mesh.settings.cell)
    try:
        ends = await bus.replay(Subjects(mesh.settings.cell).every_step_end(), 600.0)
    finally:
        await bus.close()
    finished = (end for end in ends if isinstance(end, StepFinished))
    return Counter(end.step_id for end in finished if end.root.startswith(f"default/{run}-"))


class TakeOver:
    """Hears when a new leader of a service says hello."""

    def __init__(self, mesh: Mesh, service: str) -> None:
        self._mesh, self._service = mesh, service
        self._heard_s = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._bus = await NatsBus.connect(self._mesh.nats_url, name="test", cell=self._mesh.settings.cell)
        await self._bus.subscribe(Subjects(self._mesh.settings.cell).leader_hello(), self._hear)
        await self._bus.barrier()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._bus.close()

    async def after_s(self, killed_s: float) -> float:
        """Seconds from then, on the monotonic clock."""
        return await asyncio.wait_for(self._heard_s, 30.0) - killed_s

    def _hear(self, incoming) -> None:
        hello = incoming.message
        if isinstance(hello, LeaderHello) and hello.service == self._service and not self._heard_s.done():
            self._heard_s.set_result(time.monotonic())


async def metric_of(mesh: Mesh, process: str, name: str) -> float:
    """A metric of a process that was told to serve its metrics on any port."""
    return (await metrics_of(mesh, process))[name]
