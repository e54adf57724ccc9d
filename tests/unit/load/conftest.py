"""A tiny gateway: an aiohttp server on a free port that speaks the same streams as ours, for tests of the clients."""

import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web


class FakeGateway:
    """Answers completions from `script`, handlers taken in turn; the last one stays. Keeps the requests."""

    def __init__(self):
        self.requests = []
        self.script = [stream_answer]
        self.url = ""
        self.facts = {
            "speed": 4.0,
            "shrink": 2,
            "context_tokens": 65536,
            "page_tokens": 16,
            "kv_tokens": 2**18,
            "workers": 2,
        }

    async def handle(self, request):
        body = await request.json()
        self.requests.append((dict(request.headers), body))
        handler = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        return await handler(request, body)


def event(**fields):
    return f"data: {json.dumps(fields)}\n\n".encode()


def usage(body, cached=0, completion=None):
    tokens = body["max_tokens"] if completion is None else completion
    details = {"prompt_tokens": len(body["prompt"]), "completion_tokens": tokens}
    return details | {"prompt_tokens_details": {"cached_tokens": cached}}


async def open_stream(request, **headers):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"} | headers)
    await response.prepare(request)
    return response


async def stream_answer(request, body):
    """One chunk per token, split in awkward places, then the usage and the end."""
    headers = {"X-Saga-Waited": "none", "X-Saga-Control-Ms": "1.25", "X-Saga-Worker": "w1"}
    response = await open_stream(request, **headers)
    await response.write(b": waiting\n\n")
    for index in range(body["max_tokens"]):
        data = event(choices=[{"index": 0, "text": "abc"[index % 3], "finish_reason": None}])
        await response.write(data[:9])
        await response.write(data[9:])
    await response.write(event(choices=[], usage=usage(body, cached=16)) + b"data: [DONE]\n\n")
    await response.write_eof()
    return response


@asynccontextmanager
async def running(gateway):
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/completions", gateway.handle)

    async def models(_request):
        return web.json_response({"object": "list", "data": [{"id": "m", "object": "model", "saga": gateway.facts}]})

    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    gateway.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield gateway
    finally:
        await runner.cleanup()


@pytest.fixture
async def gateway():
    async with running(FakeGateway()) as made:
        yield made
