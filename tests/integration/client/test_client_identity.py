"""Whose step it is, found out from what real clients send, over the whole mesh."""

import anthropic
import pytest

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(150)]
TELL = {"X-Saga-Identity": "1"}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]


def told(raw) -> dict[str, str]:
    return dict(part.split("=", 1) for part in raw.headers["x-saga-identity"].split("; "))


async def chat(client, model, messages, **headers):
    """One step: (what was told of its identity, the answer's message)."""
    raw = await client.chat.completions.with_raw_response.create(
        model=model, messages=messages, tools=TOOLS, max_tokens=12, extra_headers=TELL | headers
    )
    return told(raw), raw.parse().choices[0].message


async def test_a_conversation_that_nobody_names_is_one_session(openai_client, model):
    messages = [{"role": "user", "content": "Look around."}]
    other = [{"role": "user", "content": "Look away."}]
    first, answer = await chat(openai_client, model, messages)
    elsewhere, _ = await chat(openai_client, model, other)
    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": "And now?"}]
    second, _ = await chat(openai_client, model, messages)

    assert (first["source"], second["source"]) == ("none", "prefix")
    assert second["workflow"] == first["workflow"]
    assert second["session"] == first["session"]
    assert elsewhere["workflow"] != first["workflow"]


async def test_two_that_ask_the_same_at_once_are_two(openai_client, model):
    """Their answers differ, as those of a model that samples do; that is how they are told apart."""
    ask = [{"role": "user", "content": "Take a number."}]
    talks = []
    for seed in (1, 2):
        raw = await openai_client.chat.completions.with_raw_response.create(
            model=model, messages=ask, tools=TOOLS, max_tokens=30, seed=seed, extra_headers=TELL,
            extra_body={"ignore_eos": True}, stream=True,
        )  # fmt: skip
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in raw.parse() if chunk.choices])
        talks.append((told(raw), [*ask, {"role": "assistant", "content": text}, {"role": "user", "content": "Next."}]))

    for first, messages in reversed(talks):
        second, _ = await chat(openai_client, model, messages)
        assert second["workflow"] == first["workflow"]


async def test_claude_code_and_its_sub_agent_are_one_workflow(anthropic_client, model):
    async def step(text, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        raw = await anthropic_client.messages.with_raw_response.create(
            model=model, max_tokens=8, messages=[{"role": "user", "content": text}], extra_headers=TELL | headers
        )
        return told(raw)

    main = await step("Fix it.", X_Claude_Code_Session_Id="cc-1")
    child = await step("Search.", X_Claude_Code_Session_Id="cc-1", X_Claude_Code_Agent_Id="a1")

    assert main["source"] == child["source"] == "claude-code"
    assert main["workflow"] == child["workflow"] == "default/cc-1"
    assert child["parent"] == main["session"]


async def test_codex_threads_share_their_root(openai_client, model):
    for thread, parent in (("root", {}), ("thread-2", {"x-codex-parent-thread-id": "root"})):
        raw = await openai_client.responses.with_raw_response.create(
            model=model, input="Hi", max_output_tokens=8, prompt_cache_key="root",
            extra_headers=TELL | {"session-id": "root", "thread-id": thread} | parent,
        )  # fmt: skip
        whose = told(raw)
        assert (whose["source"], whose["workflow"], whose["session"]) == ("codex", "default/root", f"default/{thread}")


async def test_an_id_over_the_limit_is_refused_in_the_apis_own_shape(anthropic_client, model):
    with pytest.raises(anthropic.BadRequestError, match="at most 128") as refused:
        await anthropic_client.messages.create(
            model=model, max_tokens=8, messages=[{"role": "user", "content": "Hi"}],
            extra_headers={"X-Claude-Code-Session-Id": "x" * 129},
        )  # fmt: skip
    assert refused.value.body["error"]["type"] == "invalid_request_error"
