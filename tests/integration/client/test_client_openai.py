"""OpenAI's own client against the whole mesh: what test_mesh.py leaves out, text completions and responses."""

import asyncio

import openai
import pytest

pytestmark = [pytest.mark.asyncio(loop_scope="package"), pytest.mark.timeout(150)]
INSTRUCTIONS = "You read files. " * 40
TOOLS = [
    {
        "type": "function",
        "name": "read_file",
        "description": "Reads a file.",
        "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        "strict": False,
    }
]


async def test_a_streamed_completion_says_what_the_whole_one_says(openai_client, model):
    whole = await openai_client.completions.create(model=model, prompt="Once upon a time", max_tokens=12)
    stream = await openai_client.completions.create(
        model=model, prompt="Once upon a time", max_tokens=12, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


async def test_a_response(openai_client, model):
    answer = await openai_client.responses.create(
        model=model, instructions=INSTRUCTIONS, input="What is in README.md?", max_output_tokens=24
    )

    assert answer.output_text
    assert answer.status in ("completed", "incomplete")
    assert 0 < answer.usage.output_tokens <= 24
    assert answer.usage.input_tokens > len(INSTRUCTIONS)


async def test_a_streamed_response_is_put_together_by_the_client(openai_client, model):
    asked = {"model": model, "instructions": INSTRUCTIONS, "input": "Say it twice.", "max_output_tokens": 24}
    async with openai_client.responses.stream(**asked) as stream:
        events = [event async for event in stream]
    whole = await openai_client.responses.create(**asked)

    ended = events[-1]
    assert ended.type in ("response.completed", "response.incomplete")
    assert ended.response.output_text == whole.output_text
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(numbers)


async def test_a_function_is_called_and_its_output_goes_on_from_the_cache(openai_client, model):
    asked = [{"role": "user", "content": "What is in README.md?"}]
    async with openai_client.responses.stream(
        model=model, instructions=INSTRUCTIONS, input=asked, tools=TOOLS, tool_choice="required", store=False
    ) as stream:
        first = await stream.get_final_response()
    (call,) = first.output
    assert (call.type, call.name, call.status) == ("function_call", "read_file", "completed")
    assert '"path"' in call.arguments

    await asyncio.sleep(1.0)  # residency travels
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "# SAGA"}
    second = await openai_client.responses.create(
        model=model, instructions=INSTRUCTIONS, tools=TOOLS, store=False, max_output_tokens=8,
        input=[*asked, call.model_dump(exclude={"parsed_arguments"}), output],
    )  # fmt: skip

    assert second.usage.input_tokens_details.cached_tokens >= 500


async def test_what_only_one_engine_would_remember_is_refused(openai_client, model):
    with pytest.raises(openai.BadRequestError) as refused:
        await openai_client.responses.create(model=model, input="And then?", previous_response_id="resp_1")
    assert (refused.value.param, refused.value.code) == ("previous_response_id", "unsupported_parameter")


async def test_errors_are_the_clients_own(openai_client, model):
    with pytest.raises(openai.NotFoundError, match=model):
        await openai_client.responses.create(model="gpt-9", input="Hi")
    with pytest.raises(openai.BadRequestError) as long:
        await openai_client.responses.create(model=model, input="x" * 200_000)
    assert (long.value.param, long.value.code) == ("input", "context_length_exceeded")
    with pytest.raises(openai.BadRequestError, match="text"):
        await openai_client.responses.create(model=model, input="Hi", text={"format": {"type": "json_object"}})
