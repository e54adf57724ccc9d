"""The whole mesh as a client sees it, through the official OpenAI client."""

import asyncio

import aiohttp
import openai
import pytest
import pytest_asyncio
from mesh_replay import leader_of, metric_of

from saga.cli.mesh import Mesh, MeshSettings

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]
METRICS = {"SAGA_METRICS_PORT": "0"}
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory):
    settings = MeshSettings(
        workers=3, profile="h100x1-llama3-8b", page_tokens=16, state_dir=tmp_path_factory.mktemp("mesh"),
        env={"placement": METRICS},
    )  # fmt: skip
    async with Mesh(settings) as mesh:
        yield mesh


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(mesh):
    async with openai.AsyncOpenAI(base_url=f"{mesh.gateway_url}/v1", api_key="anything", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model(client):
    return (await client.models.list()).data[0].id


def question(topic: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": f"You are an expert in {topic}. " + "Be thorough. " * 60},
        {"role": "user", "content": f"Tell me about {topic}."},
    ]


async def ask(client, model, workflow, messages, **fields):
    """One streamed step: its text, its usage, the worker that ran it."""
    raw = await client.chat.completions.with_raw_response.create(
        model=model, messages=messages, max_tokens=24, stream=True, stream_options={"include_usage": True},
        extra_headers={"X-Saga-Workflow": workflow}, **fields,
    )  # fmt: skip
    text, usage = "", None
    async for chunk in raw.parse():
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    return text, usage, raw.headers["x-saga-worker"]


async def test_two_interleaved_workflows_return_to_their_homes_and_hit_their_prefix(client, model):
    first = await asyncio.gather(*(ask(client, model, t, question(t)) for t in ("geology", "botany")))
    await asyncio.sleep(1.0)  # residency travels
    follow_ups = [
        [*question(topic), {"role": "assistant", "content": text}, {"role": "user", "content": "Go on."}]
        for topic, (text, _, _) in zip(("geology", "botany"), first, strict=True)
    ]

    second = await asyncio.gather(
        *(ask(client, model, t, m) for t, m in zip(("geology", "botany"), follow_ups, strict=True))
    )

    for (_, usage_1, home), (text, usage_2, worker) in zip(first, second, strict=True):
        assert worker == home
        assert usage_2.prompt_tokens_details.cached_tokens >= usage_1.prompt_tokens // 16 * 16
        assert usage_2.completion_tokens <= 24
        assert text


async def test_tools_are_passed_through_and_called(client, model):
    answer = await client.chat.completions.create(
        model=model, messages=question("files"), tools=TOOLS, tool_choice="required", max_tokens=200
    )

    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "read_file"
    assert '"path"' in call.function.arguments
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_a_stream_that_its_client_leaves_is_aborted_on_the_engine(mesh, client, model):
    stream = await client.chat.completions.create(
        model=model, messages=question("patience"), max_tokens=20_000, stream=True, extra_body={"ignore_eos": True}
    )
    async for _ in stream:
        break
    await stream.close()

    async with asyncio.timeout(5):
        while await running_requests(mesh) > 0:
            await asyncio.sleep(0.05)
    async with asyncio.timeout(5):
        while await metric_of(mesh, await leader_of(mesh, "placement"), "saga_placement_leases") > 0:
            await asyncio.sleep(0.1)


async def running_requests(mesh: Mesh) -> int:
    """On all engines together, as they say."""
    total = 0
    async with aiohttp.ClientSession() as http:
        for url in mesh.engine_urls:
            async with http.get(f"{url}/v1/loads") as response:
                total += (await response.json())["loads"][0]["num_running_reqs"]
    return total


async def test_an_unknown_model_is_named_with_those_that_are_there(client, model):
    with pytest.raises(openai.NotFoundError, match=model):
        await client.chat.completions.create(model="gpt-9", messages=question("nothing"))


async def test_a_prompt_over_the_context_says_so_with_numbers(client, model):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x" * 200_000}])

    assert caught.value.code == "context_length_exceeded"
    assert "131072" in str(caught.value)


async def test_plain_completions_work_too(client, model):
    answer = await client.completions.create(model=model, prompt="Once upon a time", max_tokens=8)

    assert answer.usage.completion_tokens <= 8
    assert answer.choices[0].text
