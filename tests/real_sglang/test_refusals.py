"""What cannot be a worker is refused when the agent attaches, with the flag to set. The agent ends, nobody else."""

import asyncio
import contextlib
import os
import sys

import pytest
from aiohttp import web
from sglang_server import SglangServer, settings

from saga.cli.child import Child, ProcessSpec
from saga.cli.sglang import ports_for
from saga.runtime.app import EXIT_START
from saga.runtime.nats_server import NatsServer


@contextlib.asynccontextmanager
async def nats_at(folder):
    server = NatsServer(folder / "nats")
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


async def refusal(engine_url, folder) -> str:
    """What `saga worker --engine URL` says before it gives up."""
    async with nats_at(folder) as nats_url:
        argv = (sys.executable, "-m", "saga.cli.main", "worker", "--engine", engine_url, "--id", "w")
        env = {"SAGA_NATS_URL": nats_url, "SAGA_WORKER_JOURNAL": str(folder / "journal")}
        child = Child(ProcessSpec(name="worker", argv=argv, env=env), folder / "worker.log", os.environ)
        await child.start()
        supervision = asyncio.create_task(child.supervise())
        async with asyncio.timeout(60):
            while not child.exits:
                await asyncio.sleep(0.05)
        await child.stop()
        await supervision
        assert child.exits[0] == EXIT_START
        return child.last_words()


@pytest.mark.parametrize(
    ("unfit", "flag"),
    [({"kv_events": False}, "--kv-events-config"), ({"page_tokens": 1}, "--page-size 16")],
    ids=["no KV events", "pages too small"],
)
async def test_a_server_that_lacks_something_is_refused(unfit, flag, tmp_path):
    async with SglangServer(settings(**unfit), ports_for(1)[0], tmp_path) as server:
        said = await refusal(server.url, tmp_path)

    assert server.url in said
    assert flag in said


async def test_something_else_is_refused(tmp_path):
    async def models(_):
        return web.json_response({"data": [{"id": "m"}]})

    app = web.Application()
    app.router.add_get("/v1/models", models)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    said = await refusal(f"http://127.0.0.1:{runner.addresses[0][1]}", tmp_path)

    await runner.cleanup()
    assert "is no SGLang server" in said
