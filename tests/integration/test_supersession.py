"""A session that is compacted, and a sub-agent that is done, in a mesh of real processes: their old tags close."""

import asyncio
from contextlib import asynccontextmanager
from itertools import pairwise

import aiohttp
import pytest
from mesh_replay import leader_of, metric_of, model_of

from saga.cli.mesh import Mesh, MeshSettings
from saga.contract.messages import Heartbeat, LeaseTaken, SessionsReleased
from saga.contract.subjects import Subjects
from saga.runtime.bus_nats import NatsBus

pytestmark = pytest.mark.timeout(120)
PROFILE, PAGE_TOKENS = "h100x1-llama3-8b", 16
GAP_S = 2.0  # what the graph learns of gaps, so that tags stay open for a while
SYSTEM = "You compare stones. " * 20
LONG = [" ".join(f"stone {part * 1_000 + n} is hard." for n in range(120)) for part in range(2)]


class Overheard:
    """What is said on the bus about tags."""

    def __init__(self, bus: NatsBus, subjects: Subjects) -> None:
        self._bus = bus
        self._subjects = subjects
        self.tags: list[str] = []  # of each lease in turn
        self.open: list[int] = []  # tags of the worker, once a beat
        self.released: list[SessionsReleased] = []

    async def listen(self) -> None:
        for subject in (
            self._subjects.worker_presence(),
            self._subjects.every_lease(),
            self._subjects.every_sessions_released(),
        ):
            await self._bus.subscribe(subject, self._hear)
        await self._bus.barrier()

    def _hear(self, incoming) -> None:
        match incoming.message:
            case Heartbeat(open_session_tags=count):
                self.open.append(count)
            case LeaseTaken(session_tag=tag):
                self.tags.append(tag)
            case SessionsReleased() as released:
                self.released.append(released)

    async def beats(self, count: int) -> None:
        """Two beats at least, then until so many tags are open."""
        self.open.clear()
        async with asyncio.timeout(10):
            while len(self.open) < 2 or self.open[-1] != count:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def running(state_dir, **env):
    settings = MeshSettings(
        workers=1, profile=PROFILE, page_tokens=PAGE_TOKENS, speed=4.0, state_dir=state_dir,
        env={"placement": {"SAGA_METRICS_PORT": "0", **env}},
    )  # fmt: skip
    async with Mesh(settings) as mesh, aiohttp.ClientSession() as http:
        bus = await NatsBus.connect(mesh.nats_url, name="test", cell=mesh.settings.cell)
        overheard = Overheard(bus, Subjects(mesh.settings.cell))
        await overheard.listen()
        model = await model_of(http, mesh.gateway_url)

        async def ask(*said: str, tokens: int = 8, **headers: str) -> int:
            """One step of a session: how many tokens of its prompt were cached."""
            messages = [{"role": "system", "content": SYSTEM}, *({"role": "user", "content": text} for text in said)]
            body = {"model": model, "messages": messages, "max_tokens": tokens, "ignore_eos": True}
            named = {f"X-Saga-{name}": value for name, value in headers.items()}
            async with http.post(f"{mesh.gateway_url}/v1/chat/completions", json=body, headers=named) as response:
                assert response.status == 200, await response.text()
                return (await response.json())["usage"]["prompt_tokens_details"]["cached_tokens"]

        try:
            yield mesh, overheard, ask
        finally:
            await bus.close()


async def test_a_compacted_session_goes_on_under_a_fresh_tag_and_its_old_one_closes(tmp_path):
    async with running(tmp_path) as (mesh, overheard, ask):
        await ask(LONG[0], Workflow="w")
        await asyncio.sleep(GAP_S)
        await ask(*LONG, Workflow="w")
        compacted = asyncio.create_task(ask("They compared 240 stones.", tokens=1_500, Workflow="w"))
        await asyncio.sleep(0.5)
        # Goes on beside it, so that the fresh tag stays open while we look.
        last = asyncio.create_task(ask("They compared 240 stones.", "Go on.", tokens=20_000, Workflow="w"))
        await overheard.beats(2)

        cached_tokens = await compacted

        assert cached_tokens >= len(SYSTEM) // PAGE_TOKENS * PAGE_TOKENS, "the system prompt is shared"
        await overheard.beats(1)
        assert not last.done()
        last.cancel()
        first, second, third, fourth = overheard.tags
        assert first == second != third == fourth
        pages = await metric_of(mesh, await leader_of(mesh, "placement"), "saga_placement_superseded_pages")
        assert pages >= sum(map(len, LONG)) // PAGE_TOKENS - 1


async def test_a_sub_agent_that_has_answered_is_let_go_when_its_parent_goes_on(tmp_path):
    async with running(tmp_path) as (_mesh, overheard, ask):
        await ask(LONG[0], Workflow="w", Session="main")
        await ask(LONG[1], Workflow="w", Session="sub", Parent="main")
        await asyncio.sleep(1.0)  # its end travels
        assert overheard.released == []

        goes_on = asyncio.create_task(ask(LONG[0], "It says so.", tokens=20_000, Workflow="w", Session="main"))

        await overheard.beats(1)
        assert not goes_on.done()
        goes_on.cancel()
        (released,) = overheard.released
        assert ([session.rpartition("/")[2] for session in released.sessions], released.reason) == (
            ["sub"],
            "superseded",
        )


async def test_without_it_a_session_has_one_tag_for_life(tmp_path):
    async with running(tmp_path, SAGA_PLACEMENT_SUPERSEDE="off") as (_mesh, overheard, ask):
        for said in (LONG, ["They compared 240 stones."]):
            await ask(*said, Workflow="w")

        async with asyncio.timeout(5):
            while len(overheard.tags) < 2:
                await asyncio.sleep(0.05)
        assert all(one == other for one, other in pairwise(overheard.tags))
