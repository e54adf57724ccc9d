"""What the clients of `make chaos` write down, against gateways that answer what a test wants."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from saga.chaos.clients import Clients, Shape
from saga.chaos.transcript import answer_of

SHAPE = Shape(steps=1, opening_tokens=40, output_tokens=6, think_s=0.01)


class Scripted:
    """A gateway; the n-th request gets the n-th of `answers`, and once these are over the right one."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.keys: list[str] = []
        self.url = ""
        self.done = asyncio.Event()

    async def models(self, _request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers["Idempotency-Key"])
        text = answer_of((await request.json())["prompt"], SHAPE.output_tokens)
        kind = self.answers.pop(0) if self.answers else "right"
        if kind in ("stopping", "broken"):
            status, headers = (503, {"Retry-After": "0"}) if kind == "stopping" else (500, {})
            return web.json_response({"error": {"code": kind, "message": "."}}, status=status, headers=headers)
        response = web.StreamResponse(headers={"X-Saga-Step": "s"})
        await response.prepare(request)
        said = {"cut": text[:3], "died": text[:2], "doubled": text[:3] + text}.get(kind, text)
        for letter in said:
            await response.write(b'data: {"choices": [{"text": "%s"}]}\n\n' % letter.encode())
        if kind == "died":
            await response.write(b'data: {"error": {"type": "retryable_error", "code": "engine_died"}}\n\n')
        if kind in ("right", "doubled"):
            await response.write(
                b'data: {"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 16}}}\n\n'
            )
            await response.write(b"data: [DONE]\n\n")
            self.done.set()
        return response


@pytest.fixture
async def gateways() -> AsyncIterator[list[Scripted]]:
    scripted, runners = [Scripted(), Scripted()], []
    for one in scripted:
        app = web.Application()
        app.add_routes([web.get("/v1/models", one.models), web.post("/v1/completions", one.complete)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        one.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
        runners.append(runner)
    yield scripted
    for runner in runners:
        await runner.cleanup()


async def story_of(gateways):
    """The first step of one client who prefers the first gateway."""
    clients = Clients([one.url for one in gateways], {"red": "k"}, clients=1, seed=0, page_tokens=16, shape=SHAPE)
    running = asyncio.create_task(clients.run())
    await asyncio.wait([asyncio.create_task(one.done.wait()) for one in gateways], return_when="FIRST_COMPLETED")
    clients.stop()
    await asyncio.wait_for(running, 20.0)
    return clients.stories[0]


def outcomes(story):
    return [(attempt.gateway, attempt.outcome) for attempt in story.attempts]


async def test_an_answer_is_written_down_whole_with_what_was_cached(gateways):
    story = await story_of(gateways)
    assert outcomes(story) == [(0, "answered")]
    assert story.answered
    assert story.right
    assert story.cached_tokens == 16


async def test_a_typed_refusal_is_asked_again_at_the_same_gateway_with_the_same_key(gateways):
    gateways[0].answers = ["stopping"]
    story = await story_of(gateways)
    assert outcomes(story) == [(0, "retryable"), (0, "answered")]
    assert len(set(gateways[0].keys[:2])) == 1


async def test_a_stream_that_breaks_off_is_asked_again_at_the_other_gateway(gateways):
    gateways[0].answers = ["cut"]
    story = await story_of(gateways)
    assert outcomes(story) == [(0, "cut"), (1, "answered")]
    assert story.attempts[0].text == story.text[:3]
    assert story.right
    assert gateways[0].keys[0] == gateways[1].keys[0]


async def test_a_typed_error_in_the_stream_may_be_asked_again(gateways):
    gateways[0].answers = ["died"]
    assert outcomes(await story_of(gateways)) == [(0, "retryable"), (0, "answered")]


async def test_an_untyped_error_is_wrong_and_not_asked_again(gateways):
    gateways[0].answers = ["broken"]
    story = await story_of(gateways)
    assert outcomes(story) == [(0, "wrong")]
    assert "500 broken" in story.attempts[0].detail


async def test_doubled_tokens_show(gateways):
    gateways[0].answers = ["doubled"]
    story = await story_of(gateways)
    assert story.answered
    assert not story.right
