"""Keys and quotas of a running mesh, changed by the commands that operators use: `saga keys`, `saga tenants`."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from mesh_replay import opening

from saga.cli.mesh import Mesh, MeshSettings

pytestmark = pytest.mark.timeout(180)
WITHIN_S = 40.0  # until a change has reached a gateway and admission, on a machine that has much else to do


class Operator:
    """Who types commands."""

    def __init__(self, mesh: Mesh) -> None:
        self._environ = os.environ | {"SAGA_NATS_URL": mesh.nats_url}

    async def saga(self, *words: str) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "saga.cli.main",
            *words,
            env=self._environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def done(self, *words: str) -> str:
        code, out, err = await self.saga(*words)
        assert code == 0, err
        return out.strip()

    async def usage(self, tenant: str) -> dict[str, object]:
        (use,) = json.loads(await self.done("tenants", "usage", tenant, "--json"))
        return dict(use)


class Client:
    """Who asks, with a key or without."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url
        self._model = ""

    async def ask(self, key: str, *, workflow: str = "", max_tokens: int = 4) -> tuple[int, dict, dict]:
        async with self.begin(key, workflow=workflow, max_tokens=max_tokens) as response:
            return response.status, await response.json(), dict(response.headers)

    def begin(self, key: str, *, workflow: str = "", max_tokens: int = 4, stream: bool = False):
        body = {"model": self._model, "prompt": opening(3), "max_tokens": max_tokens, "stream": stream}
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if workflow:
            headers["X-Saga-Workflow"] = workflow
        return self._http.post(f"{self._url}/v1/completions", json=body | {"ignore_eos": True}, headers=headers)

    async def learn_model(self, key: str) -> None:
        async with self._http.get(f"{self._url}/v1/models", headers={"Authorization": f"Bearer {key}"}) as response:
            self._model = (await response.json())["data"][0]["id"]

    async def until(self, status: int, key: str) -> tuple[int, dict, dict]:
        async with asyncio.timeout(WITHIN_S):
            while (answer := await self.ask(key))[0] != status:
                await asyncio.sleep(0.05)
        return answer


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with Mesh(MeshSettings(workers=1, page_tokens=16, live_keys=True, state_dir=tmp_path / "state")) as up:
        yield up


async def test_keys_let_in_and_quotas_hold_from_the_moment_they_are_said(mesh: Mesh):
    operator = Operator(mesh)
    async with aiohttp.ClientSession() as http:
        client = Client(http, mesh.gateway_url)
        assert (await client.ask("anything"))[0] == 401, "live keys without a key: nobody"

        key = await operator.done("keys", "create", "red", "--note", "for the test")
        assert (await client.until(404, key))[1]["error"]["code"] == "model_not_found"
        await client.learn_model(key)
        assert (await client.ask(key))[0] == 200
        assert "for the test" in await operator.done("keys", "list")
        assert key not in await operator.done("keys", "list", "--json")

        assert await operator.done("tenants", "set", "red", "running_steps=0") == "red: running_steps=0"
        _, answer, headers = await client.until(429, key)
        assert answer["error"]["code"] == "quota_exceeded"
        assert "running_steps=0" in answer["error"]["message"]
        assert int(headers["Retry-After"]) >= 1

        await operator.done("tenants", "set", "red", "running_steps=1", "waiting_steps=1", "weight=2.5")
        await client.until(200, key)
        async with client.begin(key, workflow="long", max_tokens=6_000, stream=True) as running:
            assert running.status == 200
            await running.content.readany()
            waiting = asyncio.create_task(client.ask(key, workflow="second"))
            async with asyncio.timeout(WITHIN_S):
                while (await operator.usage("red"))["waiting_steps"] != 1:
                    await asyncio.sleep(0.05)
            status, answer, _ = await client.ask(key, workflow="third")
            assert (status, answer["error"]["code"]) == (429, "quota_exceeded")
            assert "waiting_steps=1" in answer["error"]["message"]
            use = await operator.usage("red")
            assert (use["running_steps"], use["weight"], use["held_for"]) == (1, 2.5, "running_steps")
            assert use["terms"]["running_steps"] == 1
            assert "1 / 1" in await operator.done("tenants", "usage")

            await operator.done("tenants", "set", "red", "running_steps=2")
            status, _, headers = await waiting
            assert (status, headers["X-Saga-Waited"]) == (200, "quota")
            await operator.done("tenants", "set", "red", "running_steps=0")
            assert await running.content.readany(), "what runs is never cut"

        (row,) = json.loads(await operator.done("keys", "list", "--json"))
        await operator.done("keys", "revoke", row["id"])
        await client.until(401, key)
        assert "weight and quotas forgotten" in await operator.done("tenants", "remove", "red")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("tenants", "set", "red", "weight=-1"), 2, "weight=-1 must be positive"),
        (("tenants", "set", "red", "weight=0"), 2, "weight=0 must be positive"),
        (("tenants", "set", "red", "weight=nan"), 2, "must be positive"),
        (("tenants", "set", "red", "running_steps=-1"), 2, "running_steps=-1 must be 0 or more"),
        (("tenants", "set", "red", "running_steps=many"), 2, "running_steps='many' must be a whole number"),
        (("tenants", "set", "red", "shoe_size=43"), 2, "names are weight, active_workflows"),
        (("tenants", "set", "r d", "running_steps=1"), 2, "letters, digits"),
        (("tenants", "remove", "nobody"), 1, "nothing is set for nobody"),
        (("tenants", "usage"), 1, "no admission leads this cell"),
        (("keys", "create", "r d"), 2, "letters, digits"),
        (("keys", "revoke", "0123456789ab"), 1, "no live key 0123456789ab"),
    ],
)
async def test_bad_words_are_refused_with_a_line_that_says_why(nats_url, words, code, told):
    environ = os.environ | {"SAGA_NATS_URL": nats_url}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "saga.cli.main", *words, env=environ, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()

    assert process.returncode == code
    assert told in err.decode()
    assert err.decode().count("\n") == 1
