"""What the fuzzer found, each kept from coming back; and streams: who leaves, who stalls, who trickles."""

import asyncio

import msgspec
import pytest
import structlog
from fuzz_gateway import unhindered_s

COMPLETION = {"model": "tiny", "prompt": "Once upon a time there was a fox", "max_tokens": 4}
ABORT_WITHIN_S = 0.1


async def raw(mesh, data):
    """The answer to bytes, as (status, JSON)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", mesh.client._base_url.port)
    try:
        writer.write(data)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        return int(head.split()[1]), msgspec.json.decode(await reader.readexactly(length))
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("data", "status", "code", "limit"),
    [
        (b"nonsense\r\n\r\n", 400, "invalid_http", ""),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "invalid_http", ""),
        (b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9_000 + b"\r\n\r\n", 431, "headers_too_large", "8190"),
        (b"GET /" + b"y" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, "headers_too_large", "8190"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 140 + b"\r\n", 431, "headers_too_large", "128"),
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"X: " + b"y" * 6_000 + b"\r\n") * 6 + b"\r\n",
            431,
            "headers_too_large",
            "32768",
        ),
        (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: tea\r\n\r\n", 417, "expectation_failed", "tea"),
        (b"CONNECT /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found", ""),
    ],
)
async def test_what_the_http_server_refuses_by_itself_has_the_apis_shape_and_names_the_limit(
    mesh, data, status, code, limit
):
    with structlog.testing.capture_logs() as logged:
        got, told = await raw(mesh, data)
    assert (got, told["error"]["code"]) == (status, code)
    assert limit in told["error"]["message"]
    assert [line for line in logged if line["log_level"] == "error"] == []


async def test_what_a_client_sent_is_not_sent_back_at_length(mesh):
    response = await mesh.ask({**COMPLETION, "model": "x" * 70_000})
    assert response.status == 404
    assert len(await response.read()) < 1_000
    deep = b'{"model":"tiny","messages":[{"role":"user","content":' + b'[{"content":' * 400 + b"1"
    response = await mesh.ask(deep + b"}]" * 400 + b"}]}", "chat")
    assert response.status == 400
    assert len(await response.read()) < 1_000


async def test_bodies_to_be_counted_are_valid_utf8_and_within_the_budget_too(start):
    mesh = await start(waiting_body_bytes=1_000)
    body = b'{"model":"tiny","messages":[],"x":"\xff"}'
    response = await mesh.client.post("/v1/messages/count_tokens", data=body)
    assert (response.status, (await response.json())["error"]["code"]) == (400, "invalid_json")
    response = await mesh.client.post("/v1/messages/count_tokens", data=b'{"model":"tiny","x":"' + b"y" * 2_000 + b'"}')
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (503, "overloaded")
    assert "1000" in error["message"]
    assert mesh.server.waiting_bytes == 0


async def test_a_field_without_a_name_holds_no_messages(mesh):
    for number in range(2):
        body = {**COMPLETION, "": [{"role": "user", "content": f"{number}"}] * (1 + number)}
        assert (await mesh.ask(body)).status == 200


async def test_a_client_that_goes_before_its_answer_leaves_no_error_in_the_log(mesh):
    mesh.leaders.paused = True
    with structlog.testing.capture_logs() as logged:
        asking = asyncio.ensure_future(mesh.ask(COMPLETION))
        await mesh.until(lambda: mesh.leaders.steps)
        asking.cancel()
        await mesh.until(lambda: mesh.server.in_flight == 0)
    assert [line["outcome"] for line in logged if line["event"] == "request"] == ["client_gone"]
    assert [line for line in logged if line["log_level"] == "error"] == []


async def test_a_body_that_trickles_is_refused_in_time_and_gives_its_bytes_back(start):
    mesh = await start(body_within_s=0.2)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    status, told = await raw(mesh, head)
    assert (status, told["error"]["code"]) == (408, "body_too_slow")
    assert "0.2 s" in told["error"]["message"]
    assert mesh.server.waiting_bytes == 0


async def test_a_step_is_aborted_at_its_engine_within_a_tenth_of_a_second_of_the_client_leaving(mesh):
    engine = mesh.engines[0]
    engine.hang_after = 3
    response = await mesh.ask({**COMPLETION, "stream": True, "max_tokens": 12})
    await engine.hanging.wait()
    response.close()
    left_s = unhindered_s()
    while not engine.aborted:
        await asyncio.sleep(0.001)
    assert unhindered_s() - left_s < ABORT_WITHIN_S


async def test_a_client_that_takes_nothing_is_let_go_and_so_is_its_engine(start):
    mesh = await start(engines=1, stalled_s=0.3)
    engine = mesh.engines[0]
    engine.flood = 6_000
    response = await mesh.ask({**COMPLETION, "stream": True})
    await mesh.until(lambda: engine.aborted)
    assert engine.flooded < engine.flood
    await mesh.until(lambda: mesh.server.in_flight == 0)
    assert (await mesh.leaders.cancelled()).failed is False
    response.close()


async def test_noise_at_the_head_of_prompts_is_told_to_who_asks_and_taken_out_for_who_wants_it(start):
    def body(number):
        system = f"x-anthropic-billing-header: cch={number};\n" + "You are careful. " * 20
        return {
            "model": "tiny",
            "max_tokens": 2,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": "Hi"}],
        }

    for clean in ("", "default"):
        mesh = await start(engines=1, clean_prefix=clean)
        with structlog.testing.capture_logs() as logged:
            answers = [await mesh.ask(body(number), "chat", X_Saga_Explain="1") for number in range(3)]
        told = [answer.headers.get("X-Saga-Prefix-Noise", "") for answer in answers]
        noisy = [line for line in logged if line["event"] == "prefix.noise"]
        sent = [asked["messages"][0]["content"][:9] for asked in mesh.engines[0].bodies]
        assert len({step.agent_class for step in mesh.leaders.steps}) == 1
        if clean:
            assert (told, noisy, set(sent)) == ([""] * 3, [], {"You are c"})
        else:
            assert [line["steps"] for line in noisy] == [1, 2]
            assert told[0] == ""
            assert told[1].startswith("billing; tokens=3")
            assert set(sent) == {"x-anthrop"}
