"""The whole mesh over two real servers, as a client of the official OpenAI library sees it."""

import asyncio

import aiohttp
import openai
import pytest
import pytest_asyncio
from sglang_server import MODEL, settings

from saga.cli.mesh import Mesh, MeshSettings
from saga.cli.plan import plan
from saga.cli.sglang import on_sglang, ports_for

pytestmark = pytest.mark.asyncio(loop_scope="module")
PAGE_TOKENS = 16
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "read_file",
            "description": "Reads a file.",
            "parameters": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
        },
    }
]
module_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")


@module_fixture
async def mesh(tmp_path_factory):
    wanted = MeshSettings(workers=2, state_dir=tmp_path_factory.mktemp("mesh"), ready_within_s=400.0)
    extra = ("--load-format", "dummy", "--tool-call-parser", "qwen25")
    real = on_sglang(plan(wanted), settings(kv_tokens=16_384, extra=extra), ports_for(2))
    async with Mesh(wanted, processes=real) as mesh:
        yield mesh


@module_fixture
async def client(mesh):
    async with openai.AsyncOpenAI(base_url=f"{mesh.gateway_url}/v1", api_key="anything", max_retries=0) as client:
        yield client


def question(topic: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": f"You are an expert in {topic}. " + "Be thorough. " * 60},
        {"role": "user", "content": f"Tell me about {topic}."},
    ]


async def ask(client, workflow, messages, **fields):
    """One streamed step: its text, its usage, the worker that ran it."""
    raw = await client.chat.completions.with_raw_response.create(
        model=MODEL.name, messages=messages, max_tokens=24, stream=True, stream_options={"include_usage": True},
        extra_headers={"X-Saga-Workflow": workflow}, extra_body={"ignore_eos": True}, **fields,
    )  # fmt: skip
    text, usage = "", None
    async for chunk in raw.parse():
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    return text, usage, raw.headers["x-saga-worker"]


async def test_the_model_and_its_workers_are_listed(client):
    (model,) = (await client.models.list()).data
    assert model.id == MODEL.name
    assert model.saga["workers"] == 2


async def test_interleaved_workflows_go_home_and_hit_their_prefix(client):
    topics = ("geology", "botany", "heraldry")
    talks = {topic: question(topic) for topic in topics}
    homes: dict[str, set[str]] = {topic: set() for topic in topics}
    prompts: dict[str, int] = {}
    for step in range(4):
        said = await asyncio.gather(*(ask(client, topic, talks[topic]) for topic in topics))
        for topic, (text, usage, worker) in zip(topics, said, strict=True):
            homes[topic].add(worker)
            assert usage.completion_tokens == 24
            if step:
                # All of the last prompt is there; what was said to it may read otherwise when it comes back as text.
                assert usage.prompt_tokens_details.cached_tokens >= prompts[topic] // PAGE_TOKENS * PAGE_TOKENS
            prompts[topic] = usage.prompt_tokens
            talks[topic] += [{"role": "assistant", "content": text}, {"role": "user", "content": "Go on."}]
        await asyncio.sleep(0.2)  # residency travels
    assert all(len(workers) == 1 for workers in homes.values()), homes
    assert len(set.union(*homes.values())) == 2, "one worker did all the work"


async def test_tools_travel_and_what_is_called_is_what_the_server_says(mesh, client):
    """The model is random: what it calls a tool with makes no sense, and is the same each time all the same."""

    async def called(client, workflow: str):
        answer = await client.chat.completions.create(
            model=MODEL.name, messages=question("files"), tools=TOOLS, tool_choice="required", max_tokens=400,
            temperature=0.0, extra_headers={"X-Saga-Workflow": workflow},
        )  # fmt: skip
        (choice,) = answer.choices
        calls = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
        return choice.finish_reason, choice.message.content, calls

    through_mesh = await called(client, "tools")
    async with openai.AsyncOpenAI(base_url=f"{mesh.engine_urls[0]}/v1", api_key="anything") as direct:
        assert through_mesh == await called(direct, "direct")

    finish_reason, _, calls = through_mesh
    assert finish_reason in {"tool_calls", "length"}  # it may never close its string
    assert [name for name, _ in calls] == ["read_file"] * (finish_reason == "tool_calls")


async def test_a_client_that_leaves_frees_the_engine(mesh, client):
    stream = await client.chat.completions.create(
        model=MODEL.name, messages=question("patience"), max_tokens=8_000, stream=True, extra_body={"ignore_eos": True}
    )
    async for _ in stream:
        break
    await stream.close()

    async with asyncio.timeout(10):
        while await running_requests(mesh):
            await asyncio.sleep(0.05)


async def running_requests(mesh: Mesh) -> int:
    """On all engines together, as they say."""
    total = 0
    async with aiohttp.ClientSession() as http:
        for url in mesh.engine_urls:
            async with http.get(f"{url}/v1/loads") as response:
                total += (await response.json())["loads"][0]["num_running_reqs"]
    return total


async def test_an_engine_that_dies_costs_nobody_an_answer(mesh, client):
    talk = question("endurance")
    _text, _usage, home = await ask(client, "endurance", talk)
    going_on = asyncio.create_task(
        client.chat.completions.create(
            model=MODEL.name, messages=talk, max_tokens=1_500, extra_headers={"X-Saga-Workflow": "endurance"},
            extra_body={"ignore_eos": True},
        )
    )  # fmt: skip
    async with asyncio.timeout(10):
        while not await running_requests(mesh):
            await asyncio.sleep(0.02)

    mesh.kill(f"engine-{home.removeprefix('w')}")

    answer = await asyncio.wait_for(going_on, 60)
    assert answer.usage.completion_tokens == 1_500
