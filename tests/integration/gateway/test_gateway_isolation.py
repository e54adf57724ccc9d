"""Tenants do not find each other's KV: the same prompt is other pages for each, whatever a client says of salts."""

import asyncio
import contextlib
import json

import pytest

from saga.gateway.tenants import Tenants

TENANTS = Tenants.parse('[tenants.red]\nkeys = ["k1"]\n[tenants.blue]\nkeys = ["k2"]\n', "t.toml")
WORDS = "the same secret words " * 40
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": WORDS}]}
ASKED = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "tiny", "prompt": WORDS},
    "/v1/responses": {"model": "tiny", "input": WORDS},
}


async def ask_thrice(start, path: str):
    """Red, blue and red again, each claiming to be red as far as a body can."""
    mesh = await start(tenants=TENANTS)
    for key in ("k1", "k2", "k1"):
        body = ASKED[path] | {"cache_salt": "tenant:red", "extra_key": "red"}
        answer = await mesh.client.post(path, data=json.dumps(body), headers={"Authorization": f"Bearer {key}"})
        await answer.read()
    return mesh


@pytest.mark.parametrize("path", ASKED)
async def test_the_same_prompt_of_two_tenants_has_no_page_in_common(start, path: str):
    mesh = await ask_thrice(start, path)

    red, blue, again = mesh.leaders.steps[:3]
    pages = [{step.new_hashes[at : at + 8] for at in range(0, len(step.new_hashes), 8)} for step in (red, blue)]
    assert len(pages[0]) == len(pages[1]) > 10
    assert not pages[0] & pages[1]
    assert (red.tenant, blue.tenant, again.tenant) == ("red", "blue", "red")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_the_engine_is_told_the_tenants_salt_whatever_the_client_asks_for(start, path: str):
    mesh = await ask_thrice(start, path)

    bodies = [body for engine in mesh.engines for body in engine.bodies]
    red, blue, again = [body["cache_salt"] for body in bodies]
    assert red == again != blue
    assert not any("extra_key" in body for body in bodies)


async def test_an_idempotency_key_that_another_tenant_uses_right_now_is_free(start):
    """Or else it could be found out which keys others use."""
    mesh = await start(tenants=TENANTS)
    mesh.leaders.paused = True

    async def ask(key: str) -> int:
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "job-1"}
        async with mesh.client.post("/v1/completions", json=ASKED["/v1/completions"], headers=headers) as answer:
            return answer.status

    waiting = []
    for number, key in enumerate(("k1", "k2"), start=1):
        waiting.append(asyncio.create_task(ask(key)))
        await mesh.until(lambda number=number: len(mesh.leaders.steps) == number)

    assert [step.tenant for step in mesh.leaders.steps] == ["red", "blue"]
    assert await ask("k1") == 409
    for task in waiting:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
