"""The clients against a tiny gateway: what they send, what they read, and what counts as a failure."""

import re

import pytest
from aiohttp import web

from saga.load.client import GatewayClient, GatewayError, StepRequest
from saga.load.lean_client import LeanClient


async def complete(gateway, **changes):
    fields = {"model": "m", "prompt": "p" * 40, "max_tokens": 5, "workflow": "w", "session": "s"}
    firsts = []
    async with GatewayClient(gateway.url, api_key="key") as client:
        answer = await client.complete(StepRequest(**fields | changes), lambda: firsts.append(1))
    return answer, len(firsts)


def scripted(*parts, status=200, headers=None):
    async def handler(request, _body):
        response = web.StreamResponse(status=status, headers=headers or {})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        await response.write_eof()
        return response

    return handler


async def test_a_step_as_sent_and_as_read(gateway):
    answer, firsts = await complete(gateway, parent="root", final=True)
    ((headers, body),) = gateway.requests
    assert body == {
        "model": "m",
        "prompt": "p" * 40,
        "max_tokens": 5,
        "stream": True,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }
    names = ("X-Saga-Workflow", "X-Saga-Session", "X-Saga-Parent", "X-Saga-Final", "Authorization")
    assert [headers[name] for name in names] == ["w", "s", "root", "1", "Bearer key"]
    assert (answer.text, answer.error, firsts) == ("abcab", "", 1)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens) == (40, 5, 16)
    assert (answer.control_ms, answer.waited, answer.worker) == (1.25, "none", "w1")
    assert answer.sent_s <= answer.first_s <= answer.last_s


async def test_what_came_too_late_for_headers_is_read_from_comments(gateway):
    said = b": waiting\n\n: X-Saga-Worker: w3\n\n: X-Saga-Waited: inactive\n\n: X-Saga-Control-Ms: 9.5\n\n"
    end = b'data: {"choices":[{"text":"abcab"}]}\n\ndata: [DONE]\n\n'
    gateway.script = [scripted(said, end)]
    answer, _ = await complete(gateway)
    assert (answer.worker, answer.waited, answer.control_ms) == ("w3", "inactive", 9.5)


async def test_optional_headers_are_left_out(gateway):
    await complete(gateway)
    ((headers, _),) = gateway.requests
    assert not {"X-Saga-Parent", "X-Saga-Final"} & headers.keys()


async def test_a_refusal_with_retry_after_is_waited_out(gateway):
    refused = scripted(b"{}", status=429, headers={"Retry-After": "0.02"})
    gateway.script = [refused, refused, *gateway.script]
    answer, _ = await complete(gateway)
    assert answer.error == ""
    assert answer.refused_wait_s == pytest.approx(0.04)
    assert answer.last_s - answer.sent_s >= 0.04
    assert len(gateway.requests) == 3


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (scripted(b'{"error": {"message": "no"}}', status=429), "HTTP 429"),
        (scripted(b"oops", status=500), "HTTP 500: oops"),
        (scripted(b'data: {"choices":[{"text":"a"}]}\n\n'), r"ended before its last event"),
        (scripted(b'data: {"error":{"message":"engine died"}}\n\n', b"data: [DONE]\n\n"), "engine died"),
        (scripted(b"data: {broken\n\n"), "DecodeError"),
        (
            scripted(b'data: {"choices":[],"usage":{"completion_tokens":3}}\n\ndata: [DONE]\n\n'),
            "expected 5 tokens, got 3",
        ),
        (scripted(b'data: {"choices":[{"text":"abc"}]}\n\ndata: [DONE]\n\n'), "expected 5 tokens, got 3"),
    ],
)
async def test_what_counts_as_a_failure(gateway, handler, said):
    gateway.script = [handler]
    answer, _ = await complete(gateway)
    assert re.search(said, answer.error)
    assert answer.last_s > 0


async def test_a_gateway_that_is_not_there():
    async with GatewayClient("http://127.0.0.1:9") as client:
        with pytest.raises(GatewayError, match=r"127\.0\.0\.1:9"):
            await client.models()
        answer = await client.complete(StepRequest("m", "p", 1, "w", "s"), lambda: None)
    assert "ClientConnectorError" in answer.error


async def test_models_say_what_the_engines_are(gateway):
    async with GatewayClient(gateway.url) as client:
        (model,) = await client.models()
    assert (model.id, model.saga.speed, model.saga.kv_tokens, model.saga.workers) == ("m", 4.0, 2**18, 2)


async def test_the_lean_client_reuses_its_connection_and_sees_the_end(gateway):
    client = LeanClient(gateway.url)
    body = b'{"prompt": "pp", "max_tokens": 7}'
    answers = [await client.post("/v1/completions", {"X-Saga-Session": "s"}, body) for _ in range(3)]
    client.close()
    assert all(answer.complete for answer in answers)
    assert [answer.control_ms for answer in answers] == [1.25] * 3
    assert answers[0].waited == "none"
    assert b'"completion_tokens": 7' in answers[0].tail
    assert gateway.requests[0][0]["X-Saga-Session"] == "s"


async def test_the_lean_client_reads_a_plain_error_and_goes_on(gateway):
    async def refuse(_request, _body):
        return web.json_response({"error": {}}, status=400)

    gateway.script = [refuse, *gateway.script]
    client = LeanClient(gateway.url)
    body = b'{"prompt": "pp", "max_tokens": 2}'
    first = await client.post("/v1/completions", {}, body)
    second = await client.post("/v1/completions", {}, body)
    client.close()
    assert (first.status, first.complete, second.complete) == (400, False, True)
