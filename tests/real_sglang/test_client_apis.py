"""The Messages and Responses APIs over a real server, with both official clients: prompts are what we take them for."""

import anthropic
import msgspec
import openai
import pytest
import pytest_asyncio
from sglang_server import MODEL, settings

from saga.cli.mesh import Mesh, MeshSettings
from saga.cli.plan import plan
from saga.cli.sglang import on_sglang, ports_for
from saga.kv.chat_forms import Block, Item, Message, of_messages, of_responses
from saga.kv.tokens import encode_text, render_chat, token_count

pytestmark = pytest.mark.asyncio(loop_scope="module")
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")
SYSTEM = [
    {"type": "text", "text": "You read files."},
    {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
]
TOOLS = [{"name": "look", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}]
TALK = [
    {"role": "user", "content": "What is in README.md?"},
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"path": "README.md"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Here:"},
            {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "# SAGA"}]},
            {"type": "text", "text": "Now?"},
        ],
    },
    {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_2", "name": "look", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_2", "content": "nothing"}]},
]
ITEMS = [
    {"role": "developer", "content": "No lists."},
    {"role": "user", "content": [{"type": "input_text", "text": "What is in README.md?"}]},
    {
        "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
    },
    {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "call_1", "output": "# SAGA"},
    {"role": "user", "content": "Now?"},
]  # fmt: skip


@module_fixture
async def mesh(tmp_path_factory):
    wanted = MeshSettings(workers=1, state_dir=tmp_path_factory.mktemp("mesh"), ready_within_s=600.0)
    extra = ("--load-format", "dummy", "--tool-call-parser", "qwen25")
    real = on_sglang(plan(wanted), settings(kv_tokens=16_384, extra=extra), ports_for(1))
    async with Mesh(wanted, processes=real) as mesh:
        yield mesh


@module_fixture
async def anthropic_client(mesh):
    async with anthropic.AsyncAnthropic(base_url=mesh.gateway_url, api_key="x", max_retries=0) as client:
        yield client


@module_fixture
async def openai_client(mesh):
    async with openai.AsyncOpenAI(base_url=f"{mesh.gateway_url}/v1", api_key="x", max_retries=0) as client:
        yield client


def tokens_of(chat):
    return token_count(encode_text(render_chat(chat)))


@pytest.mark.parametrize("count", [1, 3, 5])
async def test_a_messages_prompt_is_what_we_take_it_for(anthropic_client, count):
    messages = TALK[:count]
    counted = await anthropic_client.messages.count_tokens(
        model=MODEL.name, system=SYSTEM, messages=messages, tools=TOOLS
    )
    answer = await anthropic_client.messages.create(
        model=MODEL.name, max_tokens=8, system=SYSTEM, messages=messages, tools=TOOLS
    )

    ours = tokens_of(of_messages(msgspec.convert(SYSTEM, list[Block]), msgspec.convert(messages, list[Message])))
    assert counted.input_tokens == ours
    assert answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0) == ours


async def test_a_message_streams(anthropic_client):
    async with anthropic_client.messages.stream(
        model=MODEL.name, max_tokens=12, system=SYSTEM, messages=TALK[:1]
    ) as stream:
        message = await stream.get_final_message()
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert 0 < message.usage.output_tokens <= 12


@pytest.mark.parametrize("count", [2, 5, 6])
async def test_a_responses_prompt_is_what_we_take_it_for(openai_client, count):
    answer = await openai_client.responses.create(
        model=MODEL.name, instructions="Be brief.", input=ITEMS[:count], max_output_tokens=10, store=False
    )
    assert answer.usage.input_tokens == tokens_of(of_responses("Be brief.", msgspec.convert(ITEMS[:count], list[Item])))
    assert answer.usage.output_tokens <= 8, "SGLang keeps two tokens back"


async def test_a_response_streams(openai_client):
    async with openai_client.responses.stream(
        model=MODEL.name, input="Say something.", max_output_tokens=14, store=False
    ) as stream:
        events = [event async for event in stream]
    assert events[0].type == "response.created"
    assert events[-1].type in ("response.completed", "response.incomplete")
    assert events[-1].response.usage.output_tokens > 0


async def test_refusals_keep_their_shape(anthropic_client, openai_client):
    with pytest.raises(anthropic.BadRequestError) as refused:
        await anthropic_client.messages.create(
            model=MODEL.name, max_tokens=8, messages=TALK[:1], thinking={"type": "enabled", "budget_tokens": 5}
        )
    assert refused.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(openai.BadRequestError):
        await openai_client.responses.create(model=MODEL.name, input="Hi", tool_choice="required")
