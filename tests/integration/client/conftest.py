"""One whole mesh for all tests with real clients."""

import anthropic
import openai
import pytest_asyncio

from saga.cli.mesh import Mesh, MeshSettings


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
