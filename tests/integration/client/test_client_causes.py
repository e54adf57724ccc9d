"""Causes of misses as they happen: small engines, sessions that crowd each other out, engines that die."""

import asyncio
import signal
from contextlib import asynccontextmanager

import openai
import pytest

from saga.cli.mesh import Mesh, MeshSettings
from saga.cli.probe import models
from saga.client import Receipt, workflow

pytestmark = pytest.mark.timeout(150)
KV_TOKENS, PAGE = 8_192, 16
TEXT = "".join(f"stone {number} is hard. " for number in range(60))  # some 1,100 tokens


class Small:
    """A mesh whose engines hold about six of our sessions."""

    def __init__(self, mesh, model):
        self.mesh = mesh
        self.model = model

    async def step(self, session, *said, parent="", root=""):
        """The receipt of a session's next step."""
        headers = {"X-Saga-Workflow": root or parent or session, "X-Saga-Session": session, "X-Saga-Explain": "1"}
        headers |= {"X-Saga-Parent": parent} if parent else {}
        messages = [{"role": "system", "content": f"{session}: {TEXT}"}]
        messages += [{"role": "assistant" if n % 2 else "user", "content": one} for n, one in enumerate(said)]
        wf = workflow(base_url=self.mesh.gateway_url)
        async with openai.AsyncOpenAI(base_url=f"{self.mesh.gateway_url}/v1", api_key="any", max_retries=0) as client:
            raw = await client.chat.completions.with_raw_response.create(
                model=self.model, messages=messages, max_tokens=4, extra_headers=headers
            )
        return await asyncio.to_thread(lambda: wf.receipt(raw.headers["x-saga-step"]))

    async def crowd(self):
        """Others want all the room there is."""
        for number in range(KV_TOKENS // 1_000 + 1):
            await self.step(f"other-{number}", "Go.")
        await asyncio.sleep(1.0)  # residency travels


@asynccontextmanager
async def running(state_dir, workers=1, **worker_env):
    settings = MeshSettings(
        workers=workers, page_tokens=PAGE, state_dir=state_dir,
        env={"engine": {"SAGA_ENGINE_KV_TOKENS": str(KV_TOKENS)}, "worker": worker_env},
    )  # fmt: skip
    async with Mesh(settings) as mesh:
        (model,) = await models(mesh.gateway_url)
        yield Small(mesh, model.id)


def blamed(receipt: Receipt) -> tuple[str | None, bool]:
    """(the cause, whether it is to blame for nearly all that the session had sent)."""
    return receipt.miss, sum(receipt.missed_tokens.values()) >= len(TEXT) - 2 * PAGE


async def test_what_others_crowded_out_is_evicted_and_what_died_with_its_engine_is_said_so(tmp_path):
    async with running(tmp_path) as small:
        await small.step("a", "Go.")
        assert (await small.step("a", "Go.", "I do.", "On.")).miss is None
        await small.crowd()
        evicted = await small.step("a", "Go.", "I do.", "On.", "I do.", "And on.")
        await small.step("b", "Go.")
        small.mesh.kill("engine-0")
        await small.mesh.wait_ready(20)
        died = await small.step("b", "Go.", "I do.", "On.")
        assert blamed(evicted) == ("evicted", True)
        assert blamed(died) == ("engine_died", True)


async def test_what_was_let_go_in_time_is_expired(tmp_path):
    env = {"SAGA_WORKER_RETENTION": "tags", "SAGA_WORKER_TAG_TTL_S": "0.5", "SAGA_WORKER_TAG_CAP_S": "0.5"}
    async with running(tmp_path, **env) as small:
        await small.step("a", "Go.")
        await asyncio.sleep(1.5)
        await small.crowd()
        assert blamed(await small.step("a", "Go.", "I do.", "On.")) == ("expired", True)


async def test_a_sub_agents_that_ended_before_its_parent_went_on_is_superseded(tmp_path):
    # A tag that time alone would not close: on a slow machine the parent may go on late.
    env = {"SAGA_WORKER_RETENTION": "tags", "SAGA_WORKER_TAG_TTL_S": "60", "SAGA_WORKER_TAG_CAP_S": "60"}
    async with running(tmp_path, **env) as small:
        await small.step("parent", "Go.")
        await small.step("child", "Go.", parent="parent")
        await asyncio.sleep(1.0)  # its end travels
        await small.step("parent", "Go.", "I ask.", "It says so.")
        await small.crowd()
        assert blamed(await small.step("child", "Go.", "I do.", "On.", parent="parent")) == ("superseded", True)


async def test_what_stayed_at_an_old_home_has_moved(tmp_path):
    async with running(tmp_path, workers=2) as small:
        first = await small.step("a", "Go.")
        await asyncio.sleep(1.0)  # residency travels
        agent = f"worker-{first.worker.removeprefix('w')}"
        small.mesh.kill(agent, signal.SIGSTOP)
        try:
            moved = await until_moved(small)
        finally:
            small.mesh.kill(agent, signal.SIGCONT)
        assert (moved.moved_from, moved.worker != first.worker) == (first.worker, True)
        assert blamed(moved) == ("moved", True)


async def until_moved(small: Small) -> Receipt:
    """Of the first step that is not sent to a worker whose agent says nothing any more."""
    async with asyncio.timeout(30):
        while True:
            receipt = await small.step("a", "Go.", "I do.", "On.")
            if receipt.moved_from:
                return receipt
            assert receipt.miss is None
            await asyncio.sleep(0.5)
