"""One whole mesh for all tests with real clients."""

import anthropic
import openai
import pytest_asyncio

from saga.cli.mesh import Mesh, MeshSettings
from saga.contract.subjects import Subjects
from saga.runtime.bus_nats import NatsBus


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def mesh(tmp_path_factory):
    """Two simulated engines with small pages."""
    settings = MeshSettings(
        workers=2, profile="h100x1-llama3-8b", page_tokens=16, state_dir=tmp_path_factory.mktemp("mesh")
    )
    async with Mesh(settings) as mesh:
        yield mesh


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def openai_client(mesh):
    """OpenAI's."""
    async with openai.AsyncOpenAI(base_url=f"{mesh.gateway_url}/v1", api_key="anything", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def anthropic_client(mesh):
    """Anthropic's, which sends its key as x-api-key."""
    async with anthropic.AsyncAnthropic(base_url=mesh.gateway_url, api_key="anything", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def model(openai_client):
    """The one that the mesh serves."""
    return (await openai_client.models.list()).data[0].id


@pytest_asyncio.fixture(loop_scope="package")
async def releases(mesh):
    """(reason, session) of each session whose KV may go, as workers' agents are told."""
    heard: list[tuple[str, str]] = []
    bus = await NatsBus.connect(mesh.nats_url, name="test", cell=mesh.settings.cell)
    subject = Subjects(mesh.settings.cell).every_sessions_released()
    await bus.subscribe(
        subject, lambda incoming: heard.extend((incoming.message.reason, one) for one in incoming.message.sessions)
    )
    await bus.barrier()
    yield heard
    await bus.close()
