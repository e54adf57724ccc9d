"""The gateway over HTTP: what engines get, what clients get, what the mesh hears."""

import asyncio

import msgspec

from saga.contract.messages import LeaseTaken, StepStarted
from saga.kv.pages import hash_pages
from saga.kv.tokens import encode_text, render_chat

PROMPT = "The quick brown fox jumps over the lazy dog. " * 4
COMPLETION = {"model": "tiny", "prompt": PROMPT, "max_tokens": 12}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 12}


async def test_a_whole_answer_passes_through_and_the_mesh_hears_of_it(mesh):
    response = await mesh.ask(COMPLETION, X_Saga_Workflow="wf", X_Saga_Session="s1", X_Saga_Deadline_S="30")
    assert response.status == 200
    answer = await response.json()
    assert len(answer["choices"][0]["text"]) == 12
    step = mesh.leaders.steps[0]
    assert response.headers["X-Saga-Step"] == step.step_id
    assert response.headers["X-Saga-Worker"] == "w0"
    assert response.headers["X-Saga-Waited"] == "none"
    assert 0 < float(response.headers["X-Saga-Control-Ms"]) < 1000
    assert (step.root, step.session, step.deadline_s, step.final) == ("default/wf", "default/s1", 30.0, False)
    assert step.new_hashes == hash_pages(encode_text(PROMPT), 16)
    finished = await mesh.leaders.finished()
    assert (finished.prompt_tokens, finished.output_tokens, finished.finish_reason) == (len(PROMPT), 12, "length")
    assert finished.engine_s > 0
    kinds = [type(message) for message in mesh.leaders.heard]
    assert kinds.index(LeaseTaken) < kinds.index(StepStarted)


async def test_the_engine_gets_the_clients_body_with_our_control_fields(mesh):
    given = {
        **COMPLETION,
        "temperature": 0.25,
        "rid": "mine",
        "priority": 99,
        "session_id": "abc",
        "cache_salt": "x",
        "extra_key": "y",
        "bootstrap_room": 3,
    }
    response = await mesh.ask(given)
    assert response.status == 200
    body = mesh.engines[0].bodies[0]
    step = mesh.leaders.steps[0]
    assert body == {
        **COMPLETION,
        "temperature": 0.25,
        "rid": f"{step.step_id}-00",
        "priority": 7,
        "session_id": "saga-tag-0",
    }
    assert step.session == "default/abc"


async def test_a_stream_is_relayed_byte_for_byte_but_for_usage_nobody_asked_for(mesh):
    asked = await mesh.ask({**COMPLETION, "stream": True, "stream_options": {"include_usage": True}})
    full = await asked.read()
    assert asked.headers["Content-Type"].startswith("text/event-stream")
    rid = mesh.engines[0].bodies[0]["rid"].encode()
    chunks = mesh.events(full)
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    assert full.endswith(b"data: [DONE]\n\n")
    plain = await (await mesh.ask({**COMPLETION, "stream": True})).read()
    assert mesh.engines[0].bodies[1]["stream_options"] == {"include_usage": True}
    plain_rid = mesh.engines[0].bodies[1]["rid"].encode()
    usage = b"data: " + msgspec.json.encode(chunks[-1]) + b"\n\n"
    assert plain == full.replace(usage, b"").replace(rid, plain_rid).replace(b'"created":1', b'"created":2')
    assert len(mesh.text_of(plain)) == 12
    second = (await mesh.leaders.until(type(await mesh.leaders.finished()), 2))[1]
    assert (second.output_tokens, second.prompt_tokens, second.finish_reason) == (12, len(PROMPT), "length")


async def test_chat_hashes_our_rendering_and_names_its_tools(mesh):
    mesh.engines[0].tool = "search"
    tools = [{"type": "function", "function": {"name": "search", "parameters": {}}}]
    response = await mesh.ask({**CHAT, "tools": tools, "stream": True}, "chat")
    data = await response.read()
    assert mesh.events(data)[1]["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "search"
    assert mesh.engines[0].bodies[0]["tools"] == tools
    assert mesh.leaders.steps[0].new_hashes == hash_pages(encode_text(render_chat(CHAT["messages"])), 16)
    finished = await mesh.leaders.finished()
    assert (finished.tools, finished.finish_reason) == (("search",), "tool_calls")


async def test_a_sessions_next_step_sends_only_its_new_pages(mesh):
    for text in (PROMPT, PROMPT + "and more " * 10, PROMPT[:64] + "another way" * 9):
        assert (await mesh.ask({**COMPLETION, "prompt": text}, X_Saga_Session="s")).status == 200
    first, second, third = mesh.leaders.steps
    assert first.base_pages == 0
    assert second.base_pages == len(PROMPT) // 16
    assert second.base_tip == first.new_hashes[-8:]
    assert first.new_hashes + second.new_hashes == hash_pages(encode_text(PROMPT + "and more " * 10), 16)
    assert (third.base_pages, third.base_tip) == (4, first.new_hashes[24:32])
    assert first.new_hashes[:32] + third.new_hashes == hash_pages(encode_text(PROMPT[:64] + "another way" * 9), 16)
    assert first.gap_s < 0 < second.gap_s


async def test_large_prompts_are_hashed_in_a_thread_alike(start):
    mesh = await start(engines=1)
    text = "x" * 70_000
    response = await mesh.ask({**COMPLETION, "prompt": text})
    error = (await response.json())["error"]
    assert (response.status, error["code"], error["param"]) == (400, "context_length_exceeded", "prompt")
    assert "70012" in error["message"]
    assert "4000" in error["message"]


async def test_a_waiting_stream_shows_signs_of_life_and_then_its_answer(start):
    mesh = await start(keepalive_s=0.02)
    mesh.leaders.paused = True
    response = await mesh.ask({**COMPLETION, "stream": True})
    assert response.status == 200
    assert await response.content.readuntil(b"\n\n") == b": waiting\n\n"
    await mesh.leaders.grant(mesh.leaders.steps[0])
    data = await response.read()
    assert len(mesh.text_of(data)) == 12
    assert b"\n: X-Saga-Worker: " in data  # what its headers could not say yet
    assert b"\n: X-Saga-Waited: " in data


async def test_a_client_that_leaves_ends_its_step_here_and_at_the_engine(mesh):
    mesh.engines[0].hang_after = 3
    response = await mesh.ask({**COMPLETION, "stream": True})
    await response.content.readuntil(b"\n\n")
    await mesh.engines[0].hanging.wait()
    response.close()
    cancelled = await mesh.leaders.cancelled()
    assert (cancelled.failed, cancelled.worker_id) == (False, "w0")
    await mesh.until(lambda: mesh.engines[0].aborted and mesh.engines[0].closed_early)
    assert mesh.engines[0].aborted == [mesh.engines[0].bodies[0]["rid"]]
    mesh.desk.state.check()
    assert mesh.desk.state.running == 0


async def test_a_client_that_has_its_last_event_may_leave_before_the_stream_ends(mesh):
    """Many do: an answer that was told in full is finished, and counts, however quickly its client closes."""
    mesh.engines[0].lingers = True
    response = await mesh.ask({**COMPLETION, "stream": True})
    await response.content.readuntil(b"data: [DONE]\n\n")
    response.close()

    finished = await mesh.leaders.finished()
    assert (finished.output_tokens, finished.finish_reason) == (12, "length")
    assert mesh.engines[0].aborted == []
    mesh.desk.state.check()
    assert mesh.desk.state.running == 0


async def test_a_client_that_leaves_while_it_waits_is_forgotten(mesh):
    mesh.leaders.paused = True
    asking = asyncio.ensure_future(mesh.ask(COMPLETION))
    await mesh.until(lambda: mesh.leaders.steps)
    asking.cancel()
    assert (await mesh.leaders.cancelled()).worker_id == ""
    assert mesh.server.in_flight == 0
    assert mesh.desk.state.waiting == 0


async def test_requests_wait_while_nats_is_away(mesh):
    mesh.bus.cut()
    asking = asyncio.ensure_future(mesh.ask(COMPLETION))
    await asyncio.sleep(0.1)
    assert not asking.done()
    ready = await mesh.client.get("/readyz")
    assert (ready.status, (await ready.json())["missing"]) == (503, ["nats"])
    await mesh.bus.heal()
    assert (await asking).status == 200


async def test_models_and_probes(mesh, start):
    models = (await (await mesh.client.get("/v1/models")).json())["data"]
    assert [model["id"] for model in models] == ["tiny"]
    assert models[0]["saga"] == {
        "speed": 10.0,
        "shrink": 16,
        "context_tokens": 4000,
        "page_tokens": 16,
        "kv_tokens": 20_000,
        "workers": 2,
    }
    assert (await mesh.client.get("/healthz")).status == 200
    ready = await mesh.client.get("/readyz")
    assert (ready.status, await ready.json()) == (200, {"status": "ready", "workers": 2})
    await mesh.ask(COMPLETION)
    metrics = await (await mesh.client.get("/metrics")).text()
    assert 'saga_gateway_requests_total{outcome="completed"}' in metrics
    empty = await start(engines=0)
    ready = await empty.client.get("/readyz")
    assert (ready.status, (await ready.json())["missing"]) == (503, ["healthy worker"])


async def test_stopping_finishes_what_runs_and_tells_the_rest(start):
    mesh = await start(engines=1)
    mesh.engines[0].hang_after = 3
    response = await mesh.ask({**COMPLETION, "stream": True})
    await mesh.engines[0].hanging.wait()
    draining = asyncio.ensure_future(mesh.server.drain(0.2))
    await asyncio.sleep(0)
    assert (await mesh.client.get("/readyz")).status == 503
    assert (await mesh.ask(COMPLETION)).status == 503
    data = await response.read()
    assert mesh.events(data)[-1]["error"]["code"] == "stopping"
    await draining
    assert (await mesh.leaders.cancelled()).failed
    assert mesh.server.in_flight == 0


async def test_a_slow_client_slows_its_engine_and_loses_nothing(mesh):
    engine = mesh.engines[0]
    engine.flood = 6_000
    response = await mesh.ask({**COMPLETION, "stream": True})
    stalled = -1
    while stalled < engine.flooded:  # until a while brings nothing new
        stalled = engine.flooded
        await asyncio.sleep(0.3)
    assert stalled < engine.flood
    text = mesh.text_of(await response.read())
    assert len(text) == 6_000 * 10_000 + 12
