"""The Messages and Responses APIs through the gateway: bytes pass as they are, and a dead engine is mended or told."""

import asyncio
import json

import pytest
from scripted_engine import ScriptedEngine

from saga.contract.messages import StepFinished
from saga.gateway.tenants import Tenants
from saga.kv.pages import hash_pages
from saga.kv.tokens import encode_text, render_chat

MESSAGE = {"model": "tiny", "max_tokens": 32, "messages": [{"role": "user", "content": "Hi"}]}
RESPONSE = {"model": "tiny", "input": "Hi"}


def named(fields):
    return f"event: {fields['type']}\ndata: {json.dumps(fields, separators=(',', ':'))}\n\n".encode()


def started(name="msg_1"):
    usage = {"input_tokens": 5, "cache_read_input_tokens": 16, "output_tokens": 0}
    return named({"type": "message_start", "message": {"id": name, "role": "assistant", "content": [], "usage": usage}})


def block(index, fields):
    return named({"type": "content_block_start", "index": index, "content_block": fields})


def delta(index, **fields):
    return named({"type": "content_block_delta", "index": index, "delta": fields})


def text(words):
    return delta(0, type="text_delta", text=words)


def ended(reason="end_turn", tokens=3):
    return named({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": tokens}})


STOP = named({"type": "message_stop"})
TEXT = block(0, {"type": "text", "text": ""})
TEXT_ENDS = named({"type": "content_block_stop", "index": 0})
THOUGHT = (
    block(0, {"type": "thinking", "thinking": ""})
    + delta(0, type="thinking_delta", thinking='hm "event: error"\n')
    + delta(0, type="signature_delta", signature="abc")
    + TEXT_ENDS
)
CALL = block(1, {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}) + delta(
    1, type="input_json_delta", partial_json='{"a":1}'
)


def response_event(kind, number, **more):
    return named({"type": f"response.{kind}", **more, "sequence_number": number})


def begun(name):
    response = {"id": name, "status": "in_progress", "output": []}
    return response_event("created", 0, response=response) + response_event("in_progress", 1, response=response)


def opened(number=2):
    return response_event(
        "output_item.added", number, output_index=0, item={"type": "message", "id": "m", "content": []}
    )


def said(words, number=3):
    return response_event("output_text.delta", number, delta=words)


def completed(name, number=4, output=(), status="completed", **more):
    usage = {"input_tokens": 21, "input_tokens_details": {"cached_tokens": 16}, "output_tokens": 3}
    response = {"id": name, "status": status, "output": list(output), "usage": usage, **more}
    return response_event(status, number, response=response)


@pytest.fixture
async def two(start):
    """A gateway over two scripted engines."""
    engines = [ScriptedEngine(), ScriptedEngine()]
    for engine in engines:
        await engine.start()
    mesh = await start(urls=tuple(engine.url for engine in engines))
    mesh.engines = engines
    yield mesh
    for engine in engines:
        await engine.stop()


async def post(mesh, path, body, **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return await mesh.client.post(path, data=data, headers=named_headers)


async def streamed(mesh, path, body):
    response = await post(mesh, path, {**body, "stream": True})
    assert response.status == 200
    return await response.read()


async def finished(mesh, count=1):
    return (await mesh.leaders.until(StepFinished, count))[-1]


# --- what passes ---------------------------------------------------------------------------------------------------


async def test_the_engine_gets_the_clients_bytes_and_our_fields(two):
    two.engines[0].answers = [(200, b'{"id":"msg_1","content":[],"stop_reason":"end_turn"}')]
    image = b'{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}'
    messages = b'[ {"role":"user","content":[' + image + b',{"type":"text","text":"\\u00e9 \xc3\xa9"}]} ]'
    tools = b'[{"name":"look","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}}]'
    body = b'{"model":"tiny","max_tokens":4,"messages":%b,"tools":%b,"temperature":1.0000,"new":{"x" : 1e2},' % (
        messages,
        tools,
    )
    answer = await post(two, "/v1/messages", body + b'"rid":"mine","cache_salt":"theirs","priority":9}')

    assert answer.status == 200
    path, sent = two.engines[0].requests[0]
    assert path == "/v1/messages"
    for part in (b'"messages":' + messages, b'"tools":' + tools, b'"temperature":1.0000', b'"new":{"x" : 1e2}'):
        assert part in sent
    fields = json.loads(sent)
    step = two.leaders.steps[0]
    assert fields["rid"] == f"{step.step_id}-00"
    assert (fields["priority"], fields["session_id"]) == (7, "saga-tag-0")
    assert "cache_salt" not in fields


async def test_a_response_is_called_as_our_request(two):
    two.engines[0].answers = [(200, b'{"id":"x","status":"completed","output":[]}')]
    await post(two, "/v1/responses", RESPONSE | {"request_id": "mine"})
    path, sent = two.engines[0].requests[0]
    assert (path, json.loads(sent)["request_id"]) == ("/v1/responses", f"{two.leaders.steps[0].step_id}-00")


async def test_a_stream_passes_byte_for_byte_and_is_understood(two):
    told = started() + THOUGHT + CALL + named({"type": "content_block_stop", "index": 1}) + ended("tool_use") + STOP
    two.engines[0].answers = [told]
    assert await streamed(two, "/v1/messages", MESSAGE) == told
    done = await finished(two)
    assert (done.prompt_tokens, done.cached_tokens, done.output_tokens) == (21, 16, 3)
    assert (done.finish_reason, done.tools) == ("tool_calls", ("look",))

    item = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    told = begun("r") + opened() + said("event: response.failed\n") + completed("r", output=[item])
    two.engines[0].answers = [told]
    assert await streamed(two, "/v1/responses", RESPONSE) == told
    done = await finished(two, 2)
    assert (done.prompt_tokens, done.cached_tokens, done.output_tokens) == (21, 16, 3)
    assert (done.finish_reason, done.tools) == ("tool_calls", ("look",))


async def test_long_streams_are_still_understood(two):
    told = started() + TEXT + text("word ") * 3000 + TEXT_ENDS + ended("max_tokens", 3000) + STOP
    two.engines[0].answers = [told]
    assert await streamed(two, "/v1/messages", MESSAGE) == told
    done = await finished(two)
    assert (done.prompt_tokens, done.output_tokens, done.finish_reason) == (21, 3000, "length")


async def test_keys_come_as_x_api_key_too(start):
    mesh = await start(tenants=Tenants.parse('[tenants.red]\nkeys = ["k1"]\n', "t.toml"), engines=0)
    refused = await post(mesh, "/v1/messages", MESSAGE, x_api_key="no")
    assert (refused.status, (await refused.json())["error"]["type"]) == (401, "authentication_error")
    for headers in ({"x_api_key": "k1"}, {"Authorization": "Bearer k1", "x_api_key": "no"}):
        assert (await post(mesh, "/v1/responses", RESPONSE, **headers)).status == 503, "known, but nobody can answer"


async def test_tenants_share_no_kv_where_an_engine_would_share_it(start):
    tenants = Tenants.parse('[tenants.red]\nkeys = ["k1"]\n', "t.toml")
    refused = await post(await start(tenants=tenants), "/v1/messages", MESSAGE, x_api_key="k1")
    error = (await refused.json())["error"]
    assert (refused.status, error["type"], error["code"]) == (403, "permission_error", "kv_not_apart")
    assert "SAGA_GATEWAY_MESSAGES_SHARE_KV" in error["message"]

    mesh = await start(tenants=tenants, messages_share_kv=True)
    mesh.leaders.paused = True
    words = [{"role": "user", "content": "word " * 20}]
    waiting = asyncio.ensure_future(post(mesh, "/v1/messages", {**MESSAGE, "messages": words}, x_api_key="k1"))
    await mesh.until(lambda: mesh.leaders.steps)
    waiting.cancel()
    assert mesh.leaders.steps[0].new_hashes == hash_pages(encode_text(render_chat(words)), 16), "pages without salt"


async def test_counting_tokens_asks_an_engine_and_takes_no_place(two):
    for engine in two.engines:
        engine.answers = [(200, b'{"input_tokens":7}')]
    answer = await post(two, "/v1/messages/count_tokens", {"model": "tiny", "messages": [], "rid": "x", "new": 1})
    assert await answer.json() == {"input_tokens": 7}
    (request,) = two.engines[0].requests + two.engines[1].requests
    assert request[0] == "/v1/messages/count_tokens"
    assert json.loads(request[1]) == {"model": "tiny", "messages": [], "new": 1}
    assert two.leaders.steps == []
    for engine in two.engines:
        engine.answers = [(400, b'{"type":"error","error":{"type":"invalid_request_error","message":"no messages"}}')]
    refused = await post(two, "/v1/messages/count_tokens", {"model": "tiny"})
    assert (refused.status, (await refused.json())["error"]["message"]) == (400, "no messages")


# --- engines that die ----------------------------------------------------------------------------------------------


async def test_a_message_that_had_only_begun_is_started_again(two):
    first, second = two.engines
    first.answers, first.breaks = [started("msg_1")], 1
    second.answers = [started("msg_2") + TEXT + text("Hello") + TEXT_ENDS + ended() + STOP]
    told = await streamed(two, "/v1/messages", MESSAGE)
    assert told == started("msg_1") + TEXT + text("Hello") + TEXT_ENDS + ended() + STOP


@pytest.mark.parametrize("sent", [TEXT, TEXT + text("Hel"), THOUGHT, CALL], ids=["block", "text", "thought", "call"])
async def test_a_message_that_said_something_ends_in_a_retryable_error(two, sent):
    two.engines[0].answers, two.engines[0].breaks = [started() + sent], 1
    told = await streamed(two, "/v1/messages", MESSAGE)
    assert told.startswith(started() + sent + b"event: error\n")
    error = json.loads(told.rpartition(b"data: ")[2])["error"]
    assert (error["type"], error["code"]) == ("overloaded_error", "engine_died")
    assert two.engines[1].requests == []


async def test_a_message_that_lacks_only_its_end_gets_it(two):
    two.engines[0].answers, two.engines[0].breaks = [started() + TEXT + text("Hi") + TEXT_ENDS + ended()], 1
    told = await streamed(two, "/v1/messages", MESSAGE)
    assert told == started() + TEXT + text("Hi") + TEXT_ENDS + ended() + STOP


async def test_an_engines_error_in_a_message_goes_elsewhere_or_to_the_client(two):
    first, second = two.engines
    first.answers = [named({"type": "error", "error": {"type": "api_error", "message": "out of memory"}}) + STOP]
    second.answers = [started() + ended() + STOP]
    assert await streamed(two, "/v1/messages", MESSAGE) == started() + ended() + STOP
    refusal = {"type": "invalid_request_error", "message": "bad schema"}
    first.answers = [named({"type": "error", "error": refusal})]
    answer = await post(two, "/v1/messages", {**MESSAGE, "stream": True})
    assert (answer.status, (await answer.json())["error"]["message"]) == (400, "bad schema")


async def test_a_response_that_had_only_begun_is_started_again_under_its_id(two):
    first, second = two.engines
    first.answers, first.breaks = [begun("STEP-00")], 1
    second.answers = [b""]

    async def answer(request):
        rid = json.loads(await request.read())["request_id"]
        second.answers = [begun(rid) + opened() + said("Hello") + completed(rid)]
        return await ScriptedEngine._answer(second, request)

    second._runner.app.router._resources[0]._routes["POST"]._handler = answer
    told = await streamed(two, "/v1/responses", RESPONSE)
    assert told == begun("STEP-00") + opened() + said("Hello") + completed("STEP-00")


async def test_a_response_that_said_something_ends_in_a_retryable_error(two):
    two.engines[0].answers, two.engines[0].breaks = [begun("r") + opened() + said("Hel")], 1
    told = await streamed(two, "/v1/responses", RESPONSE)
    assert told.startswith(begun("r") + opened() + said("Hel") + b"event: error\n")
    event = json.loads(told.rpartition(b"data: ")[2])
    assert (event["type"], event["code"], event["error"]["type"]) == ("error", "engine_died", "retryable_error")


async def test_a_failed_response_goes_elsewhere(two):
    failed = completed("r", status="failed", error={"code": "server_error", "message": "Aborted"})
    two.engines[0].answers = [begun("r") + failed]
    two.engines[1].answers = [begun("r") + completed("r")]
    assert await streamed(two, "/v1/responses", RESPONSE) == begun("r") + completed("r")
    whole = {"id": "r", "status": "failed", "output": [], "error": {"code": "server_error", "message": "Aborted"}}
    two.engines[0].answers = [(200, json.dumps(whole).encode())]
    two.engines[1].answers = [(200, b'{"id":"r","status":"completed","output":[]}')]
    assert (await (await post(two, "/v1/responses", RESPONSE)).json())["status"] == "completed"


# --- bad input -----------------------------------------------------------------------------------------------------

DEEP = b'{"model":"tiny","max_tokens":1,"messages":' + b"[" * 50_000


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/messages", b"{", "not valid JSON"),
        ("/v1/messages", b'{"model":"\xff","max_tokens":1,"messages":[]}', "UTF-8"),
        ("/v1/messages", DEEP, "limit of about 1,000 levels"),
        ("/v1/messages", {"model": "tiny", "max_tokens": 4}, "messages"),
        ("/v1/messages", {**MESSAGE, "max_tokens": 0}, "at least 1"),
        ("/v1/messages", {**MESSAGE, "messages": []}, "at least one"),
        ("/v1/messages", {**MESSAGE, "messages": MESSAGE["messages"] * 10_000}, "the limit is 8000"),
        ("/v1/messages", {**MESSAGE, "messages": [{"role": "user"}]}, "content"),
        ("/v1/messages", {**MESSAGE, "max_tokens": 4_000}, "4000 tokens"),
        ("/v1/responses", b'{"model":"tiny","input":"\xff"}', "UTF-8"),
        ("/v1/responses", {"model": "tiny"}, "input"),
        ("/v1/responses", {**RESPONSE, "input": []}, "at least one"),
        ("/v1/responses", {**RESPONSE, "input": [{"role": "user", "content": "x"}] * 10_000}, "the limit is 8000"),
        ("/v1/responses", {**RESPONSE, "previous_response_id": "r"}, "previous_response_id"),
        ("/v1/responses", {**RESPONSE, "background": True}, "background"),
        ("/v1/messages/count_tokens", b'{"model":', "not valid JSON"),
        ("/v1/messages/count_tokens", {"messages": []}, "model"),
    ],
)
async def test_bad_bodies_are_told_what_is_wrong(two, path, body, words):
    answer = await post(two, path, body)
    assert answer.status == 400
    told = await answer.json()
    assert words in told["error"]["message"]
    assert told["error"]["type"] == "invalid_request_error"
    assert (told.get("type") == "error") == path.startswith("/v1/messages")
    assert two.engines[0].requests == two.engines[1].requests == []


@pytest.mark.parametrize(
    "headers", [{"X-Big": "x" * 20_000}, {f"X-{n}": "x" * 1_000 for n in range(100)}], ids=["one", "many"]
)
async def test_header_bombs_are_refused_with_the_limit(two, headers):
    answer = await two.client.post("/v1/messages", data=json.dumps(MESSAGE), headers=headers)
    assert answer.status in (400, 431)
    told = await answer.text()
    assert "Traceback" not in told
    assert "8190" in told or "32768" in told
    two.engines[0].answers = [(200, b'{"id":"m","content":[]}')]
    assert (await post(two, "/v1/messages", MESSAGE)).status == 200
