"""Anthropic's own client against the whole mesh."""

import asyncio

import anthropic
import pytest

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(150)]
SYSTEM = [{"type": "text", "text": "You read files. " * 40, "cache_control": {"type": "ephemeral"}}]
TOOLS = [
    {
        "name": "read_file",
        "description": "Reads a file.",
        "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
    }
]


def question(text: str = "What is in README.md?") -> list:
    return [{"role": "user", "content": text}]


async def test_a_message(anthropic_client, model):
    answer = await anthropic_client.messages.create(model=model, max_tokens=24, system=SYSTEM, messages=question())

    assert answer.type == "message"
    assert answer.role == "assistant"
    assert answer.content[0].text
    assert answer.stop_reason in ("end_turn", "max_tokens")
    assert 0 < answer.usage.output_tokens <= 24


async def test_a_streamed_message_is_put_together_by_the_client(anthropic_client, model):
    async with anthropic_client.messages.stream(
        model=model, max_tokens=24, system=SYSTEM, messages=question()
    ) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        message = await stream.get_final_message()

    whole = await anthropic_client.messages.create(model=model, max_tokens=24, system=SYSTEM, messages=question())
    assert message.content[0].text == text == whole.content[0].text
    assert message.stop_reason == whole.stop_reason
    assert message.usage.output_tokens == whole.usage.output_tokens


async def test_a_tool_is_called_and_its_result_goes_on_from_the_cache(anthropic_client, model):
    async with anthropic_client.messages.stream(
        model=model, max_tokens=200, system=SYSTEM, messages=question(), tools=TOOLS, tool_choice={"type": "any"},
    ) as stream:  # fmt: skip
        first = await stream.get_final_message()
    (call,) = first.content
    assert first.stop_reason == "tool_use"
    assert (call.type, call.name) == ("tool_use", "read_file")
    assert call.input["path"]

    await asyncio.sleep(1.0)  # residency travels
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "# SAGA"}]}
    conversation = [*question(), {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = await anthropic_client.messages.create(
        model=model, max_tokens=16, system=SYSTEM, messages=conversation, tools=TOOLS
    )

    assert second.usage.cache_read_input_tokens >= 500


async def test_tokens_are_counted_as_they_are_used(anthropic_client, model):
    counted = await anthropic_client.messages.count_tokens(model=model, system=SYSTEM, messages=question("Count me."))
    answer = await anthropic_client.messages.create(
        model=model, max_tokens=1, system=SYSTEM, messages=question("Count me.")
    )

    used = answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)
    assert counted.input_tokens == used


async def test_models_are_listed(anthropic_client, model):
    assert [one.id async for one in anthropic_client.models.list()] == [model]


async def test_errors_are_the_clients_own(anthropic_client, model):
    with pytest.raises(anthropic.NotFoundError, match=model) as unknown:
        await anthropic_client.messages.create(model="claude-9", max_tokens=8, messages=question())
    assert unknown.value.body["error"]["type"] == "not_found_error"

    with pytest.raises(anthropic.BadRequestError) as long:
        await anthropic_client.messages.create(model=model, max_tokens=8, messages=question("x" * 200_000))
    assert long.value.body["type"] == "error"
    assert long.value.body["error"]["type"] == "invalid_request_error"
    assert "131072" in long.value.body["error"]["message"]

    with pytest.raises(anthropic.BadRequestError, match="messages"):
        await anthropic_client.messages.create(model=model, max_tokens=8, messages=[])


async def test_what_an_engine_refuses_reads_like_anthropics_refusal(anthropic_client, model):
    with pytest.raises(anthropic.BadRequestError, match="stop_sequences"):
        await anthropic_client.messages.create(model=model, max_tokens=8, messages=question(), stop_sequences=["never"])
