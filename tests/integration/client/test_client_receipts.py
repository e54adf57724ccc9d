"""Receipts: real clients get them or pass over them, and their causes are right, over the whole mesh."""

import asyncio
import json

import aiohttp
import pytest

from saga.client import GatewayError, Receipt, workflow

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(150)]
LONG = "You read files. " * 40
ASK = [{"role": "system", "content": LONG}, {"role": "user", "content": "Say something."}]
PAGE = 16


def receipt_of(raw) -> Receipt:
    return Receipt.of(json.loads(raw.headers["x-saga-receipt"]))


def fields(header: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in header.split("; "))


async def test_a_whole_answer_has_it_in_its_headers(mesh, model):
    async with workflow("receipt-whole", base_url=mesh.gateway_url, explain=True) as wf:
        create = wf.async_openai.chat.completions.with_raw_response.create
        messages = [{"role": "system", "content": f"Whole. {LONG}"}, *ASK[1:]]
        first = await create(model=model, messages=messages, max_tokens=8)
        await asyncio.sleep(1.0)  # residency travels
        said = first.parse().choices[0].message.content
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "And now?"}]
        second = await create(model=model, messages=messages, max_tokens=8)
        kept = await asyncio.to_thread(wf.receipt, second.headers["x-saga-step"])

    cold, hit = receipt_of(first), receipt_of(second)
    assert (cold.miss, set(cold.missed_tokens), cold.cached_tokens) == ("cold", {"cold"}, 0)
    assert cold.prompt_tokens - PAGE <= cold.missed_tokens["cold"] < cold.prompt_tokens
    assert (hit.miss, hit.missed_tokens) == (None, {})
    assert hit.cached_tokens >= len(LONG) // PAGE * PAGE
    assert (hit.worker, hit.pool, hit.reason, hit.attempts, hit.moved_from) == (cold.worker, model, "home", 1, "")
    assert kept == hit
    route, wait = fields(second.headers["x-saga-route"]), fields(second.headers["x-saga-wait"])
    assert (route["worker"], route["reason"], route["attempts"]) == (hit.worker, "home", "1")
    assert (float(wait["seconds"]), wait["cause"]) == (hit.wait_s, hit.wait_cause) == (hit.wait_s, "none")
    assert second.parse().usage.prompt_tokens_details.cached_tokens == hit.cached_tokens


async def test_a_stream_has_it_as_a_comment_before_its_end(mesh, model):
    body = {"model": model, "messages": ASK, "max_tokens": 4, "stream": True}
    async with aiohttp.ClientSession() as http:
        asked = http.post(f"{mesh.gateway_url}/v1/chat/completions", json=body, headers={"X-Saga-Explain": "1"})
        async with asked as response:
            route, wait = response.headers["X-Saga-Route"], response.headers["X-Saga-Wait"]
            events = (await response.text()).strip().split("\n\n")

    assert events[-1] == "data: [DONE]"
    (told,) = [event for event in events if event.startswith(":")]
    receipt = Receipt.of(json.loads(told.removeprefix(": saga ")))
    assert events.index(told) == len(events) - 2 or "data: {" in events[events.index(told) + 1]
    assert (fields(route)["worker"], fields(wait)["cause"]) == (receipt.worker, receipt.wait_cause)
    assert receipt.output_tokens == 4


async def test_openais_client_passes_over_it(mesh, model):
    async with workflow("receipt-openai", base_url=mesh.gateway_url, explain=True) as wf:
        client = wf.async_openai
        whole = await client.chat.completions.create(model=model, messages=ASK, max_tokens=8)
        stream = await client.chat.completions.with_raw_response.create(
            model=model, messages=ASK, max_tokens=8, stream=True
        )
        said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream.parse()])
        kept = await asyncio.to_thread(wf.receipt, stream.headers["x-saga-step"])
        completion = await client.completions.create(model=model, prompt=LONG, max_tokens=8, stream=True)
        text = "".join([chunk.choices[0].text async for chunk in completion])
        async with client.responses.stream(model=model, input="Say.", max_output_tokens=16) as events:
            last = [event async for event in events][-1]

    assert said == whole.choices[0].message.content
    assert whole.model_extra == {} or "saga" not in whole.model_extra
    assert kept.output_tokens == 8
    assert len(text) > 0
    assert last.type in ("response.completed", "response.incomplete")


async def test_so_does_anthropics(mesh, model):
    async with workflow("receipt-anthropic", base_url=mesh.gateway_url, explain=True) as wf:
        client, asked = wf.async_anthropic, {"model": model, "max_tokens": 8, "messages": ASK[1:], "system": LONG}
        whole = await client.messages.with_raw_response.create(**asked)
        async with client.messages.stream(**asked) as stream:
            said = "".join([piece async for piece in stream.text_stream])
            message = await stream.get_final_message()

    assert said == message.content[0].text == (await whole.parse()).content[0].text
    assert receipt_of(whole).worker in ("w0", "w1")


async def test_the_blocking_clients_do_too(mesh, model):
    def run():
        with workflow("receipt-sync", base_url=mesh.gateway_url, explain=True) as wf:
            chunks = wf.openai.chat.completions.create(model=model, messages=ASK, max_tokens=4, stream=True)
            said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            with wf.anthropic.messages.stream(model=model, max_tokens=4, messages=ASK[1:]) as stream:
                return said, "".join(stream.text_stream)

    assert all(await asyncio.to_thread(run))


async def test_a_prompt_that_its_client_changed_says_so(mesh, model):
    async with workflow("receipt-changed", base_url=mesh.gateway_url, explain=True) as wf:
        create = wf.async_openai.chat.completions.with_raw_response.create
        for date in ("Monday", "Tuesday"):
            messages = [{"role": "system", "content": f"Today is {date}. {LONG}"}, *ASK[1:]]
            raw = await create(model=model, messages=messages, max_tokens=4)

    receipt = receipt_of(raw)
    assert receipt.miss == "prefix_changed"
    assert receipt.missed_tokens["prefix_changed"] >= len(LONG) // PAGE * PAGE - PAGE


async def test_every_answer_names_its_step_errors_too(mesh, model, openai_client):
    ids = set()
    async with aiohttp.ClientSession() as http:
        for path, body in (
            ("chat/completions", {"model": model, "messages": ASK, "max_tokens": 1}),
            ("completions", {"model": model, "prompt": LONG, "max_tokens": 1, "stream": True}),
            ("messages", {"model": model, "messages": ASK[1:], "max_tokens": 1}),
            ("responses", {"model": model, "input": "Say.", "max_output_tokens": 16}),
            ("chat/completions", {"model": "none", "messages": ASK}),
            ("chat/completions", {"model": model, "messages": []}),
        ):
            async with http.post(f"{mesh.gateway_url}/v1/{path}", json=body) as response:
                ids.add(response.headers["X-Saga-Step"])
                assert "X-Saga-Receipt" not in response.headers

    assert len(ids) == 6
    assert all(len(one) == 32 for one in ids)


async def test_a_receipt_that_nobody_asked_for_is_not_kept(mesh, model):
    async with workflow("receipt-none", base_url=mesh.gateway_url) as wf:
        raw = await wf.async_openai.chat.completions.with_raw_response.create(model=model, messages=ASK, max_tokens=4)
        with pytest.raises(GatewayError, match="X-Saga-Explain") as refused:
            await asyncio.to_thread(wf.receipt, raw.headers["x-saga-step"])

    assert (refused.value.status, refused.value.code) == (404, "step_not_found")
