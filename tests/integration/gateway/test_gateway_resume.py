"""Engines that die under a request: it goes on elsewhere, and its client sees one answer."""

import asyncio

import msgspec
import pytest
from structlog.testing import capture_logs

from saga.contract.messages import LeaseReturned, WorkerLeaving
from saga.contract.subjects import Subjects

COMPLETION = {"model": "tiny", "prompt": "Once upon a time", "max_tokens": 12, "stream": True}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, "stream": True}
USAGE = {"stream_options": {"include_usage": True}}


async def undisturbed(mesh, body, api):
    return mesh.text_of(await (await mesh.ask(body, api)).read())


@pytest.mark.parametrize(("api", "body"), [("completions", COMPLETION), ("chat", CHAT)])
@pytest.mark.parametrize("die_after", [0, 1, 5, 11])
@pytest.mark.parametrize("how", ["reset", "half", "abort"])
async def test_a_text_stream_goes_on_where_its_engine_died(mesh, api, body, die_after, how):
    expected = await undisturbed(mesh, body, api)
    first, second = mesh.engines
    if how == "abort":
        first.abort_after = die_after
    else:
        first.die_after, first.die_with = die_after, b'data: {"id":"x","choi' if how == "half" else b""
    data = await (await mesh.ask({**body, **USAGE}, api)).read()
    assert mesh.text_of(data) == expected
    assert data.endswith(b"data: [DONE]\n\n")
    assert len(second.bodies) == 1
    chunks = mesh.events(data)
    rid = first.bodies[-1]["rid"]
    told_before = die_after > 0 or api == "chat"
    assert {chunk["id"] for chunk in chunks} == {rid if told_before else rid[:-2] + "01"}
    assert len({chunk["created"] for chunk in chunks}) == 1
    assert (
        sum(chunk["choices"][0].get("delta", {}).get("role") is not None for chunk in chunks if chunk["choices"]) <= 1
    )
    usage = chunks[-1]["usage"]
    prompt_tokens = mesh.leaders.steps[-1].prompt_tokens
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt_tokens, 12)
    assert usage["total_tokens"] == prompt_tokens + 12
    finished = (await mesh.leaders.until(type(await mesh.leaders.finished()), 2))[1]
    assert (finished.attempt, finished.attempts, finished.output_tokens) == (1, 2, 12)
    assert second.bodies[0]["rid"] == rid[:-2] + "01"
    returned = (await mesh.leaders.until(LeaseReturned))[0]
    assert (returned.reason, returned.next_attempt) == ("engine_died", 1)


async def test_the_continuing_request_carries_what_was_sent(mesh):
    first, second = mesh.engines
    first.die_after = 5
    sent = mesh.text_of(await (await mesh.ask({**COMPLETION, "min_tokens": 8})).read())[:5]
    body = second.bodies[0]
    assert body["prompt"] == COMPLETION["prompt"] + sent
    assert (body["max_tokens"], body["min_tokens"]) == (7, 3)
    first.die_after = 5
    chat = {**CHAT, "max_completion_tokens": 12}
    del chat["max_tokens"]
    sent = mesh.text_of(await (await mesh.ask(chat, "chat")).read())[:5]
    body = second.bodies[1]
    assert body["messages"] == [*CHAT["messages"], {"role": "assistant", "content": sent}]
    assert body["continue_final_message"] is True
    assert body["max_tokens"] == 7
    assert "max_completion_tokens" not in body


async def test_a_client_that_continues_its_own_message_keeps_one_message(mesh):
    first, second = mesh.engines
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Well, "}]
    body = {**CHAT, "messages": messages, "continue_final_message": True}
    expected = await undisturbed(mesh, body, "chat")
    first.die_after = 4
    data = await (await mesh.ask(body, "chat")).read()
    assert mesh.text_of(data) == expected
    assert second.bodies[0]["messages"][1] == {"role": "assistant", "content": "Well, " + expected[:4]}


async def test_an_answer_that_lacks_only_its_end_gets_it_from_us(mesh):
    first, second = mesh.engines
    expected = await undisturbed(mesh, COMPLETION, "completions")
    first.die_after = 5
    data = await (await mesh.ask({**COMPLETION, "max_tokens": 5, **USAGE})).read()
    assert mesh.text_of(data) == expected[:5]
    assert second.bodies == []


async def test_dead_after_the_last_token(mesh, monkeypatch):
    first, second = mesh.engines
    first.die_after, first.die_with = 12, b""
    said = "x" * 12

    async def one_more(request, body, _said, usage, api):
        return await type(first).stream(first, request, body, said + "never", usage, api)

    monkeypatch.setattr(first, "stream", one_more)
    data = await (await mesh.ask({**COMPLETION, **USAGE})).read()
    assert mesh.text_of(data) == said
    assert second.bodies == []
    chunks = mesh.events(data)
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert data.endswith(b"data: [DONE]\n\n")
    assert (await mesh.leaders.finished()).output_tokens == 12


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "n above 1"),
        ({"response_format": {"type": "json_object"}}, "grammar"),
        ({"regex": "a*"}, "grammar"),
    ],
)
async def test_what_cannot_be_continued_is_a_typed_error_in_the_stream(mesh, more, why):
    mesh.engines[0].die_after = 3
    data = await (await mesh.ask({**CHAT, **more}, "chat")).read()
    error = mesh.events(data)[-1]["error"]
    assert (error["type"], error["code"]) == ("retryable_error", "engine_died")
    assert why in error["message"]
    assert len(mesh.text_of(data)) == 3
    assert (await mesh.leaders.cancelled()).failed
    assert mesh.engines[1].bodies == []


async def test_a_begun_tool_call_cannot_be_continued(mesh):
    mesh.engines[0].tool = "search"
    mesh.engines[0].die_after = 0
    data = await (await mesh.ask(CHAT, "chat")).read()
    assert "tool call" in mesh.events(data)[-1]["error"]["message"]


async def test_what_has_not_begun_starts_again_whatever_it_is(mesh):
    mesh.engines[0].die_after = 0
    data = await (await mesh.ask({**CHAT, "logprobs": True}, "chat")).read()
    assert len(mesh.text_of(data)) == 12
    roles = [chunk for chunk in mesh.events(data) if chunk["choices"] and chunk["choices"][0]["delta"].get("role")]
    assert len(roles) == 1


@pytest.mark.parametrize("status", [502, 503])
async def test_an_engine_that_is_not_there_is_left_for_another(mesh, status):
    mesh.engines[0].refuse = (status, b"{}")
    assert (await mesh.ask({**COMPLETION, "stream": False})).status == 200
    mesh.engines[0].refuse = None
    await mesh.engines[0].stop()
    response = await mesh.ask({**COMPLETION, "stream": False})
    assert response.status == 200
    assert response.headers["X-Saga-Worker"] == "w1"


@pytest.mark.parametrize(
    ("raw", "sent"),
    [
        (b"SSH-2.0-x\r\n", 0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n", 0),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\nnot a size\r\n", 1),
    ],
)
async def test_an_engine_that_talks_nonsense_is_left_with_a_line_in_the_log(mesh, raw, sent):
    expected = await undisturbed(mesh, COMPLETION, "completions")
    if sent:
        choice = {"index": 0, "text": expected[:sent], "finish_reason": None}
        event = b"data: " + msgspec.json.encode({"id": "x", "created": 1, "choices": [choice]}) + b"\n\n"
        raw %= (len(event) + 10, event + b'data: {"id')  # whole events go out, half of one does not
    mesh.engines[0].raw = raw
    with capture_logs() as lines:
        data = await (await mesh.ask(COMPLETION)).read()
    assert mesh.text_of(data) == expected
    assert mesh.engines[1].bodies[0]["max_tokens"] == 12 - sent
    lost = [line for line in lines if line["event"] == "engine.lost"]
    assert len(lost) == 1
    assert (lost[0]["worker"], lost[0]["attempt"]) == ("w0", 0)
    assert "no valid answer" in lost[0]["why"]
    assert all("exc_info" not in line for line in lines)


async def test_a_silent_engine_whose_worker_says_it_died_is_left(mesh):
    mesh.engines[0].hang_after = 3
    expected = mesh.text_of(await (await mesh.ask({**COMPLETION, "max_tokens": 3})).read())
    asking = asyncio.ensure_future(mesh.ask(COMPLETION))
    await mesh.engines[0].hanging.wait()
    leaving = WorkerLeaving(worker_id="w0", epoch=1, engine_died=True)
    await mesh.leaders.bus.publish(Subjects().worker_presence(), leaving)
    data = await (await asking).read()
    assert mesh.text_of(data)[:3] == expected
    assert len(mesh.text_of(data)) == 12


async def test_an_engine_that_is_never_there_ends_in_an_error(start):
    mesh = await start(engines=1)
    await mesh.engines[0].stop()
    response = await mesh.ask({**COMPLETION, "stream": False})
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (502, "engine_failed")
    assert "Retry-After" in response.headers
    assert mesh.desk.state.waiting == 0


async def test_an_engines_own_refusal_passes_through(mesh):
    mesh.engines[0].refuse = (400, b'{"object":"error","message":"bad top_k","type":"BadRequestError","code":400}')
    response = await mesh.ask({**COMPLETION, "stream": False})
    assert response.status == 400
    assert (await response.json())["error"]["message"] == "bad top_k"
    assert (await mesh.leaders.cancelled()).failed
    assert mesh.engines[1].bodies == []
