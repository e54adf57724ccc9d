"""Over a whole mesh, what one tenant learns of another's prompts from everything that it is told: nothing.

Told are: usage, receipts, the headers of `X-Saga-Explain`. What takes how long is not compared but what makes it so:
the tokens that the engine found in its cache.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from saga.cli.mesh import Mesh, MeshSettings

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]
KEYS = '[tenants.red]\nkeys = ["red-key"]\n[tenants.blue]\nkeys = ["blue-key"]\n'
PAGE = 16


def words(about: str) -> str:
    """About 1,500 tokens. Prompts about names of equal length are equally long."""
    return f"[{about}] " + f"a fact about {about}, " * 60


async def settings_of(folder: Path, **more: Any) -> MeshSettings:
    return MeshSettings(workers=2, page_tokens=PAGE, state_dir=folder / "state", **more)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    """Two engines, two tenants with keys."""
    folder = tmp_path_factory.mktemp("apart")
    (folder / "tenants.toml").write_text(KEYS)
    async with Mesh(await settings_of(folder, tenants=folder / "tenants.toml")) as mesh:
        yield mesh


class Asker:
    """Whoever has a key, or none."""

    def __init__(self, mesh: Mesh, key: str) -> None:
        self._url = mesh.gateway_url
        self.headers = {"Authorization": f"Bearer {key}", "X-Saga-Explain": "1"}

    async def ask(self, path: str, about: str, **headers: str) -> dict[str, Any]:
        """The receipt of a step with that prompt, and what the answer's usage says of cached tokens."""
        async with aiohttp.ClientSession(self._url, headers=self.headers) as http:
            async with http.get("/v1/models") as response:
                model = (await response.json())["data"][0]["id"]
            body = {"model": model} | {
                "/v1/chat/completions": {"messages": [{"role": "user", "content": words(about)}], "max_tokens": 4},
                "/v1/completions": {"prompt": words(about), "max_tokens": 4},
                "/v1/responses": {"input": words(about), "max_output_tokens": 16},
            }[path]
            async with http.post(path, json=body, headers=headers) as response:
                assert response.status == 200, await response.text()
                usage = (await response.json())["usage"]
                receipt = json.loads(response.headers["X-Saga-Receipt"])
        await asyncio.sleep(0.5)  # residency travels
        details = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
        return receipt | {"usage_cached_tokens": details["cached_tokens"]}

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession(self._url, headers=self.headers) as http, http.get(path) as response:
            return response.status, await response.text()


def learnt(receipt: dict[str, Any]) -> dict[str, Any]:
    """All that a receipt tells but for the step's name, the clock, and which of the idle workers it was."""
    route = {name: value for name, value in receipt["route"].items() if name != "worker"}
    return receipt | {"step": "", "wait": receipt["wait"]["cause"], "route": route}


PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/responses")


@pytest.mark.parametrize("path", PATHS)
async def test_a_prompt_that_another_tenant_has_just_sent_is_as_new_as_one_that_nobody_has(mesh: Mesh, path: str):
    red, blue = Asker(mesh, "red-key"), Asker(mesh, "blue-key")
    secret, unheard = (f"{PATHS.index(path)} {about}" for about in ("secret", "unsaid"))
    first = await red.ask(path, secret)
    again = await red.ask(path, secret)

    probed = await blue.ask(path, secret)
    control = await blue.ask(path, unheard)

    assert first["cached_tokens"] == 0
    assert again["cached_tokens"] > 1_000, "or else this test could not see a shared cache"
    assert again["usage_cached_tokens"] == again["cached_tokens"]
    assert (probed["cached_tokens"], probed["usage_cached_tokens"]) == (0, 0)
    assert learnt(probed) == learnt(control)


async def test_nor_does_a_workflow_or_session_of_the_same_name_lead_there(mesh: Mesh):
    red, blue = Asker(mesh, "red-key"), Asker(mesh, "blue-key")
    names = {"X-Saga-Workflow": "nightly", "X-Saga-Session": "main"}
    other = {"X-Saga-Workflow": "unsaidy", "X-Saga-Session": "niam"}
    await red.ask("/v1/completions", "the plan", **names)
    again = await red.ask("/v1/completions", "the plan", **names)

    probed = await blue.ask("/v1/completions", "the plan", **names)
    control = await blue.ask("/v1/completions", "no plans", **other)

    assert (again["cached_tokens"] > 1_000, again["route"]["reason"]) == (True, "home")
    assert probed["cached_tokens"] == 0
    assert learnt(probed) == learnt(control)


async def test_what_a_tenant_has_asked_is_read_by_nobody_else(mesh: Mesh):
    red, blue = Asker(mesh, "red-key"), Asker(mesh, "blue-key")
    receipt = await red.ask("/v1/completions", "my own", **{"X-Saga-Workflow": "mine"})
    place = f"/v1/saga/steps/{receipt['step']}"

    assert (await red.get(place))[0] == 200
    assert (await blue.get(place))[0] == 404
    status, said = await blue.get(place)
    assert (status, said) == (404, said.replace("red", "")), "and it does not say whose it is"
    assert (await red.get("/v1/saga/workflows/mine"))[0] == 200
    for name in ("mine", "red/mine", "red%2Fmine", "../red/mine"):
        assert (await blue.get(f"/v1/saga/workflows/{name}"))[0] == 404
    assert (await Asker(mesh, "no-key").get(place))[0] == 401


async def test_without_keys_all_are_one_tenant_and_share_what_it_has_cached(tmp_path: Path):
    async with Mesh(await settings_of(tmp_path)) as open_mesh:
        one, other = Asker(open_mesh, "one"), Asker(open_mesh, "other")
        await one.ask("/v1/completions", "in common")

        assert (await other.ask("/v1/completions", "in common"))["cached_tokens"] > 1_000
