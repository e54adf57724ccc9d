"""A real SGLang server on the CPU for tests, as `saga up --engine sglang` would start it, and the events it tells."""

import asyncio
import contextlib
import os
from pathlib import Path

import aiohttp

from saga.cli.child import Child
from saga.cli.sglang import STARTS_WITHIN_S, SglangPorts, SglangSettings, healthy, server

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-sglang"
MODEL = ENVIRONMENT / "tiny-model"
POLL_S = 0.1


def settings(**changes) -> SglangSettings:
    """The tiny model with small pages and a small KV pool, so that a test can fill it."""
    given = {"page_tokens": 16, "kv_tokens": 4_096, "extra": ("--load-format", "dummy")}
    return SglangSettings(model=str(MODEL), python=ENVIRONMENT / "bin" / "python", cpu=True, **(given | changes))


class SglangServer:
    """One server, started again when it dies. `async with` waits until it serves and ends exactly what was started."""

    def __init__(self, of: SglangSettings, ports: SglangPorts, folder: Path, name: str = "sglang") -> None:
        self.ports = ports
        self.url = ports.url
        self.child = Child(server(name, of, ports), folder / f"{name}.log", os.environ)
        self._supervision: asyncio.Task[None] | None = None
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self):
        await self.child.start()
        self._supervision = asyncio.create_task(self.child.supervise())
        self._http = aiohttp.ClientSession()
        try:
            await self.ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_) -> None:
        if self._http is not None:
            await self._http.close()
        await self.child.stop()
        await self._supervision

    async def ready(self, lives: int = 0) -> None:
        """Returns when it serves. AssertionError with its last word when it died more than `lives` times."""
        async with asyncio.timeout(STARTS_WITHIN_S):
            while not await healthy(self.ports):
                assert len(self.child.exits) <= lives, f"{self.child.last_words()} (log: {self.child.log_file})"
                await asyncio.sleep(POLL_S)

    async def get(self, path: str):
        """JSON of a GET."""
        async with self._http.get(self.url + path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def post(self, path: str, body: dict):
        """(status, JSON or text) of a POST."""
        async with self._http.post(self.url + path, json=body) as answer:
            text = await answer.text()
            with contextlib.suppress(ValueError, aiohttp.ContentTypeError):
                return answer.status, await answer.json()
            return answer.status, text

    async def generate(self, ids: list[int], new_tokens: int = 4, **fields) -> dict:
        """One request of token ids that says exactly `new_tokens` tokens; the whole answer."""
        sampling = {"max_new_tokens": new_tokens, "ignore_eos": True, "temperature": 0.0}
        status, said = await self.post("/generate", {"input_ids": ids, "sampling_params": sampling, **fields})
        assert status == 200, said
        return said

    async def flush(self) -> None:
        """Empty its cache."""
        status, said = await self.post("/flush_cache?timeout=10", {})
        assert status == 200, said
