"""Real SGLang servers for a benchmark: started once, the same for each system in turn, emptied in between.

They are supervised as `saga up --engine sglang` does it; each system's mesh attaches to them. Called by bench_live.
"""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp
import msgspec
from msgspec import Struct

from saga.cli.child import Child
from saga.cli.sglang import SglangSettings, healthy, ports_for, server
from saga.cli.sglang_options import READY_WITHIN_S
from saga.contract.errors import StartError
from saga.load.mesh_target import Engines

POLL_S = 0.2
ANSWER_WITHIN_S = 60.0  # an emptied server first ends what it runs


class _ServerInfo(Struct):
    page_size: int
    max_total_num_tokens: int
    served_model_name: str | None = None
    context_length: int | None = None
    version: str = "unknown"


class _Model(Struct):
    max_model_len: int | None = None


class _Models(Struct):
    data: list[_Model]


class SglangServers:
    """Entering returns when all of them serve; leaving ends exactly what was started."""

    def __init__(self, settings: SglangSettings, servers: int) -> None:
        """Raises StartError when there are too few free ports."""
        self._folder = Path(tempfile.mkdtemp(prefix="saga-sglang-"))
        self._ports = ports_for(servers)
        if settings.retention_dir is not None:
            settings = msgspec.structs.replace(settings, retention_dir=self._folder)
        self._children = [
            Child(server(f"sglang-{number}", settings, at, number), self._folder / f"sglang-{number}.log", os.environ)
            for number, at in enumerate(self._ports)
        ]
        self._supervision: list[asyncio.Task[None]] = []

    @property
    def urls(self) -> tuple[str, ...]:
        """Where they serve."""
        return tuple(at.url for at in self._ports)

    async def __aenter__(self) -> Self:
        """Raises StartError with a server's last word when one dies, or is not there in time."""
        try:
            for child in self._children:
                await child.start()
                self._supervision.append(asyncio.create_task(child.supervise(), name=f"supervise {child.spec.name}"))
            await self._ready()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def engines(self, shrink: int) -> Engines:
        """What they are, by their own word; lengths as before shrinking. Raises StartError if they say too little."""
        (info, *others) = [await self._info(url) for url in self.urls]
        if any(other.page_size != info.page_size for other in others):
            raise StartError("the servers differ in page size: --sglang-args must not change it for one of them")
        context_tokens = info.context_length or await self._context(self.urls[0]) or info.max_total_num_tokens
        return Engines(
            profile=f"SGLang {info.version} with {info.served_model_name or 'its model'}",
            speed=1.0,
            shrink=shrink,
            context_tokens=context_tokens * shrink,
            kv_tokens=min(each.max_total_num_tokens for each in (info, *others)) * shrink,
            page_tokens=info.page_size,
            workers=len(self._ports),
        )

    async def forget(self) -> None:
        """Empty their caches, session tags included. Raises StartError when a server does not."""
        for url in self.urls:
            await self._ask("POST", f"{url}/flush_cache?timeout={ANSWER_WITHIN_S / 2:.0f}")

    async def _ready(self) -> None:
        for child, at in zip(self._children, self._ports, strict=True):
            try:
                async with asyncio.timeout(READY_WITHIN_S):
                    while not await healthy(at):
                        for dead in (each for each in self._children if each.exits):
                            raise StartError(f"{dead.spec.name} died: {dead.last_words()}{self._kept(dead)}")
                        await asyncio.sleep(POLL_S)
            except TimeoutError as error:
                raise StartError(f"{child.spec.name} does not serve after {READY_WITHIN_S:g} s") from error

    def _kept(self, child: Child) -> str:
        """Its log outlives us: that is where the reason is."""
        handle, path = tempfile.mkstemp(prefix=f"{child.spec.name}-", suffix=".log")
        with os.fdopen(handle, "wb") as copy:
            copy.write(child.log_file.read_bytes() if child.log_file is not None else b"")
        return f" (log: {path})"

    async def _stop(self) -> None:
        try:
            await asyncio.gather(*(child.stop() for child in self._children[: len(self._supervision)]))
        finally:
            for child in self._children:
                child.abandon()
            for task in self._supervision:
                task.cancel()
            await asyncio.gather(*self._supervision, return_exceptions=True)
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _info(self, url: str) -> _ServerInfo:
        try:
            return msgspec.json.decode(await self._ask("GET", f"{url}/server_info"), type=_ServerInfo)
        except msgspec.MsgspecError as error:
            raise StartError(f"{url}/server_info: {error}") from error

    async def _context(self, url: str) -> int:
        try:
            models = msgspec.json.decode(await self._ask("GET", f"{url}/v1/models"), type=_Models).data
        except msgspec.MsgspecError as error:
            raise StartError(f"{url}/v1/models: {error}") from error
        return (models[0].max_model_len or 0) if models else 0

    async def _ask(self, method: str, url: str) -> bytes:
        timeout = aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as http,
                http.request(method, url) as response,
            ):
                body = await response.read()
                if response.status != 200:
                    raise StartError(f"{url} answered {response.status}: {body[:200].decode(errors='replace')}")
                return body
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StartError(f"{url}: {error}") from error
