"""Bad input over HTTP: OpenAI's error shape, the right status, the field and what to change; never a traceback."""

import asyncio

import pytest

from saga.contract.messages import Refused
from saga.gateway.tenants import Tenants
from saga.kv.pages import hash_pages, salt_seed
from saga.kv.tokens import encode_text

PROMPT = "Once upon a time there was a fox"
COMPLETION = {"model": "tiny", "prompt": PROMPT, "max_tokens": 4}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    ("api", "body", "status", "param", "code"),
    [
        ("chat", b"{", 400, None, "invalid_json"),
        ("chat", b"", 400, None, "invalid_json"),
        ("chat", b"\xff\xfe", 400, None, "invalid_json"),
        ("chat", b'{"model":"tiny","messages":[{"role":"user","content":"\xff"}]}', 400, None, "invalid_json"),
        ("chat", b'{"a":' * 50_000, 400, None, "invalid_json"),
        ("chat", b'{"model":"\\ud800","messages":[]}', 400, None, "invalid_json"),
        ("chat", b"[]", 400, None, "invalid_type"),
        ("chat", {"model": "tiny"}, 400, "messages", "missing_required_parameter"),
        ("chat", {"messages": []}, 400, "model", "missing_required_parameter"),
        ("chat", {**CHAT, "messages": []}, 400, "messages", "invalid_value"),
        ("chat", {**CHAT, "messages": "Hello"}, 400, "messages", "invalid_type"),
        ("chat", {**CHAT, "messages": [{"role": 1}]}, 400, "messages[0].role", "invalid_type"),
        ("chat", {**CHAT, "messages": [{}]}, 400, "messages[0].role", "missing_required_parameter"),
        ("chat", {**CHAT, "messages": [{"role": "user", "content": "x"}] * 8_001}, 400, "messages", "invalid_value"),
        ("chat", {**CHAT, "max_tokens": "many"}, 400, "max_tokens", "invalid_type"),
        ("chat", {**CHAT, "max_tokens": 0}, 400, "max_tokens", "invalid_value"),
        ("chat", {**CHAT, "max_completion_tokens": -1}, 400, "max_completion_tokens", "invalid_value"),
        ("chat", {**CHAT, "n": 0}, 400, "n", "invalid_value"),
        ("chat", {**CHAT, "stream": "yes"}, 400, "stream", "invalid_type"),
        ("chat", {**CHAT, "tools": [{"type": "function"}]}, 400, "tools[0].function", "missing_required_parameter"),
        ("chat", {**CHAT, "model": "gpt-9"}, 404, "model", "model_not_found"),
        ("chat", {**CHAT, "max_tokens": 4000}, 400, "messages", "context_length_exceeded"),
        ("completions", {**COMPLETION, "prompt": ""}, 400, "prompt", "invalid_value"),
        ("completions", {**COMPLETION, "prompt": ["a", "b"]}, 400, "prompt", "invalid_value"),
        ("completions", {**COMPLETION, "prompt": [-1]}, 400, "prompt", "invalid_value"),
        ("completions", {**COMPLETION, "prompt": 5}, 400, "prompt", "invalid_type"),
        ("completions", {**COMPLETION, "prompt": "x" * 4000}, 400, "prompt", "context_length_exceeded"),
        ("completions", {**COMPLETION, "session_id": "x" * 200}, 400, "session_id", "invalid_value"),
    ],
)
async def test_bad_bodies(mesh, api, body, status, param, code):
    response = await mesh.ask(body, api)
    error = (await response.json())["error"]
    assert (response.status, error["param"], error["code"]) == (status, param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert mesh.leaders.steps == []
    assert mesh.server.in_flight == 0


async def test_unknown_models_list_the_known(mesh):
    error = (await (await mesh.ask({**COMPLETION, "model": "gpt-9"})).json())["error"]
    assert "tiny" in error["message"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X_Saga_Workflow", "x" * 200),
        ("X_Saga_Session", "x" * 200),
        ("X_Saga_Deadline_S", "soon"),
        ("X_Saga_Deadline_S", "-1"),
        ("X_Saga_Deadline_S", "nan"),
        ("X_Saga_Final", "maybe"),
        ("Idempotency_Key", "x" * 200),
    ],
)
async def test_bad_headers(mesh, name, value):
    response = await mesh.ask(COMPLETION, **{name: value})
    assert response.status == 400
    assert (await response.json())["error"]["param"] == name.replace("_", "-")


async def test_body_limits(start):
    mesh = await start(body_limit_bytes=1000)
    response = await mesh.ask({**COMPLETION, "prompt": "x" * 2000})
    assert (response.status, (await response.json())["error"]["code"]) == (413, "body_too_large")

    async def pieces():
        for _ in range(20):
            yield b"x" * 100

    response = await mesh.client.post("/v1/completions", data=pieces())
    assert response.status == 413


async def test_the_budget_of_waiting_bodies(start):
    mesh = await start(waiting_body_bytes=3000)
    mesh.leaders.paused = True
    waiting = asyncio.ensure_future(mesh.ask({**COMPLETION, "prompt": "x" * 2000}))
    await mesh.until(lambda: mesh.leaders.steps)
    response = await mesh.ask({**COMPLETION, "prompt": "x" * 2000})
    assert (response.status, (await response.json())["error"]["code"]) == (503, "overloaded")
    assert "Retry-After" in response.headers
    await mesh.leaders.grant(mesh.leaders.steps[0])
    assert (await waiting).status == 200
    mesh.leaders.paused = False
    assert (await mesh.ask({**COMPLETION, "prompt": "x" * 2000})).status == 200


async def test_no_workers(start):
    mesh = await start(engines=0)
    response = await mesh.ask(COMPLETION)
    assert (response.status, (await response.json())["error"]["code"]) == (503, "no_workers")
    assert "Retry-After" in response.headers


@pytest.mark.parametrize(
    ("reason", "status"), [("too_many_waiting", 429), ("wait_bound", 429), ("unknown_model", 404), ("stopping", 503)]
)
async def test_refusals_of_admission(mesh, reason, status):
    mesh.leaders.refusal = Refused(step_id="", attempt=0, fence=1, reason=reason, detail="why", retry_after_s=3.2)
    response = await mesh.ask(COMPLETION)
    error = (await response.json())["error"]
    assert (response.status, error["message"]) == (status, "why")
    assert response.headers.get("Retry-After") == ("4" if status != 404 else None)
    assert mesh.desk.state.waiting == 0


async def test_unknown_paths_and_methods(mesh):
    response = await mesh.client.get("/v1/nothing")
    assert (response.status, (await response.json())["error"]["code"]) == (404, "unknown_url")
    response = await mesh.client.get("/v1/completions")
    assert (response.status, (await response.json())["error"]["code"]) == (405, "method_not_allowed")


async def test_api_keys(start):
    tenants = Tenants.parse('[tenants.red]\nkeys = ["k1"]\n[tenants.blue]\nkeys = ["k2", "k3"]\n', "t.toml")
    mesh = await start(tenants=tenants)
    for given, code in [({}, "missing_api_key"), ({"Authorization": "Bearer no"}, "invalid_api_key")]:
        response = await mesh.ask(COMPLETION, **given)
        assert (response.status, (await response.json())["error"]["code"]) == (401, code)
    assert (await mesh.client.get("/v1/models")).status == 401
    for key in ("k1", "k3"):
        assert (await mesh.ask(COMPLETION, Authorization=f"Bearer {key}", X_Saga_Session="s")).status == 200
    red, blue = mesh.leaders.steps
    assert (red.tenant, red.session, blue.tenant, blue.session) == ("red", "red/s", "blue", "blue/s")
    assert [body["cache_salt"] for body in mesh.engines[0].bodies] == ["red", "blue"]
    assert red.new_hashes == hash_pages(encode_text(PROMPT), 16, salt_seed("red"))
    assert red.new_hashes != blue.new_hashes


async def test_idempotency_keys(mesh):
    mesh.leaders.paused = True
    first = asyncio.ensure_future(mesh.ask(COMPLETION, Idempotency_Key="k"))
    await mesh.until(lambda: mesh.leaders.steps)
    assert (await mesh.ask(COMPLETION, Idempotency_Key="k")).status == 409
    await mesh.leaders.grant(mesh.leaders.steps[0])
    assert (await first).status == 200
    mesh.leaders.paused = False
    assert (await mesh.ask(COMPLETION, Idempotency_Key="k")).status == 200


async def test_what_nobody_foresaw_is_a_500_without_a_traceback(mesh, monkeypatch):
    def broken(*_):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(mesh.desk, "submit", broken)
    response = await mesh.ask(COMPLETION)
    assert response.status == 500
    text = await response.text()
    assert "internal_error" in text
    assert "secret" not in text
    assert mesh.server.in_flight == 0


async def test_compressed_bodies_are_refused(mesh):
    headers = {"Content-Encoding": "gzip"}
    response = await mesh.client.post("/v1/completions", data=b"whatever", headers=headers)
    assert (response.status, (await response.json())["error"]["code"]) == (415, "compressed_body")
    assert mesh.server.in_flight == 0


async def test_what_is_no_http_is_refused_and_harms_nobody(mesh):
    host, port = str(mesh.client._base_url.host), mesh.client._base_url.port
    chunked = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for raw in (b"\x00\x01\r\n\r\n", chunked + b"zz\r\nhello\r\n"):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(raw)
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await writer.wait_closed()
    assert (await mesh.ask(COMPLETION)).status == 200
