"""`saga.client` with the official clients, sync and async, against the whole mesh."""

import asyncio

import pytest

from saga.client import GatewayError, workflow

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(150)]
TELL = {"X-Saga-Identity": "1"}
ASK = [{"role": "user", "content": "Say something."}]
CHAIN = {"nodes": [{"id": "plan"}, {"id": "answer", "tool": ""}], "edges": [{"from": "plan", "to": "answer"}]}


def told(raw) -> dict[str, str]:
    return dict(part.split("=", 1) for part in raw.headers["x-saga-identity"].split("; "))


async def until(question, within_s: float = 15.0):
    async with asyncio.timeout(within_s):
        while not (found := await asyncio.to_thread(question)):
            await asyncio.sleep(0.05)
    return found


def steps_of(wf) -> int:
    try:
        return wf.show()["steps"]
    except GatewayError as error:
        assert error.status == 404  # noqa: PT017 - anything else is a failure of the test
        return 0


async def test_a_workflow_with_both_clients_and_a_sub_agent(mesh, model):
    def run():
        with workflow("sdk-sync", deadline_s=600, base_url=mesh.gateway_url) as wf:
            main = wf.openai.chat.completions.with_raw_response.create(
                model=model, messages=ASK, max_tokens=4, extra_headers=TELL
            )
            with wf.agent("reviewer") as reviewer:
                sub = reviewer.anthropic.messages.with_raw_response.create(
                    model=model, messages=ASK, max_tokens=4, extra_headers=TELL
                )
            return told(main), told(sub), wf.openai.chat.completions.create(model=model, messages=ASK, max_tokens=2)

    main, sub, answer = await asyncio.to_thread(run)

    assert (main["source"], main["workflow"], main["session"]) == ("saga", "default/sdk-sync", "default/sdk-sync")
    assert (sub["workflow"], sub["session"], sub["parent"]) == (
        "default/sdk-sync",
        "default/sdk-sync/reviewer",
        "default/sdk-sync",
    )
    assert answer.choices[0].message.content


async def test_the_same_with_await(mesh, model):
    async with workflow("sdk-async", base_url=mesh.gateway_url) as wf:
        raw = await wf.async_openai.chat.completions.with_raw_response.create(
            model=model, messages=ASK, max_tokens=4, extra_headers=TELL
        )
        async with wf.agent("reviewer") as reviewer:
            message = await reviewer.async_anthropic.messages.create(model=model, messages=ASK, max_tokens=4)
        stream = await wf.async_openai.chat.completions.create(model=model, messages=ASK, max_tokens=4, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    assert told(raw)["workflow"] == "default/sdk-async"
    assert message.content[0].text
    assert text


async def test_a_declared_workflow_is_followed_node_by_node_and_gone_at_its_end(mesh, model):
    async with workflow("sdk-declared", deadline_s=60, base_url=mesh.gateway_url) as wf:
        said = await asyncio.to_thread(wf.declare, CHAIN["nodes"], CHAIN["edges"], agent_class="releaser")
        assert (said["id"], said["class"], said["remaining_steps"]) == ("sdk-declared", "releaser", 2)
        await wf.async_openai.chat.completions.create(
            model=model, messages=ASK, max_tokens=4, extra_headers=wf.node("plan")
        )
        await until(lambda: steps_of(wf) == 1)
        seen = await asyncio.to_thread(wf.show)
        assert (seen["follows"], seen["done"]) == ("yes", ["plan"])

    await until(lambda: steps_of(wf) == 0)


async def test_the_last_request_may_say_that_it_is_the_last(mesh, model):
    async with workflow(base_url=mesh.gateway_url) as wf:
        raw = await wf.async_openai.chat.completions.with_raw_response.create(
            model=model, messages=ASK, max_tokens=4, extra_headers={**TELL, **wf.final}
        )

        assert told(raw)["final"] == "true"
        await until(lambda: steps_of(wf) == 0)


async def test_each_end_lets_the_kv_of_what_is_over_go(mesh, model, releases):
    """A sub-agent's with its block, the rest with the workflow's; and by a Dynamo client's word."""
    async with workflow("sdk-ends", base_url=mesh.gateway_url) as wf:
        await wf.async_openai.chat.completions.create(model=model, messages=ASK, max_tokens=4)
        async with wf.agent("helper") as helper:
            await helper.async_openai.chat.completions.create(model=model, messages=ASK, max_tokens=4)
        await until(lambda: ("closed", "default/sdk-ends/helper") in releases)
        assert ("closed", "default/sdk-ends") not in releases
        child = {"X-Dynamo-Session-ID": "dynamo:child", "X-Dynamo-Parent-Session-ID": "sdk-ends"}
        await wf.async_openai.with_options(set_default_headers=child).chat.completions.create(
            model=model, messages=ASK, max_tokens=4, extra_headers={"X-Dynamo-Session-Final": "true"}
        )
        await until(lambda: ("closed", "default/dynamo:child") in releases)
        assert ("closed", "default/sdk-ends") not in releases

    await until(lambda: ("closed", "default/sdk-ends") in releases)


async def test_an_end_that_nobody_hears_is_no_error(mesh, caplog):
    with workflow("sdk-nobody", base_url="http://127.0.0.1:9") as wf:
        with pytest.raises(GatewayError, match="does not answer") as refused:
            wf.declare(["a"])
        assert refused.value.status == 0

    assert "could not end sdk-nobody" in caplog.text


async def test_a_wrong_declaration_says_what_is_wrong(mesh):
    wf = workflow("sdk-wrong", base_url=mesh.gateway_url)

    with pytest.raises(GatewayError, match="no node is called 'b'") as refused:
        await asyncio.to_thread(wf.declare, ["a"], [{"from": "a", "to": "b"}])

    assert (refused.value.status, refused.value.code, refused.value.param) == (422, "unknown_node", "edges[0].to")
