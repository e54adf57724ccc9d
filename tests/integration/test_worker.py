"""A worker agent beside a simulated engine: what the index believes is what the engine holds, through every death."""

import asyncio
import contextlib
import os
import signal
import sys

import aiohttp
import pytest
from worker_listener import SUBJECTS, Listener, finished, taken

from saga.contract.ids import GatewayId, LeaseId, StepId, WorkerId, rid
from saga.contract.messages import LeasesRenewed
from saga.engine.config import EngineConfig
from saga.engine.http_server import serving
from saga.kv.pages import HASH_BYTES, hash_pages
from saga.kv.tokens import encode_text
from saga.runtime.app import App
from saga.runtime.bus_memory import MemoryBus
from saga.runtime.bus_nats import NatsBus
from saga.runtime.config import Shared
from saga.runtime.memory_broker import MemoryBroker
from saga.worker.config import WorkerConfig
from saga.worker.service import serve

W = WorkerId("w1")
PAGE_TOKENS = 16


def pages_of(text):
    return hash_pages(encode_text(text), PAGE_TOKENS)


async def complete(url, prompt, *, session="", request="", max_tokens=16):
    body = {
        "model": "m",
        "prompt": prompt,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "session_id": session or None,
        "rid": request or None,
    }
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/completions", json=body) as answer:
        return await answer.json()


def cached_pages(engine):
    hashes = b"".join(node.hashes for node in engine.core.pool.tree.nodes())
    return {hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)}


def holds(listener, text):
    """Pages of a prompt that the index sees on the worker."""
    return listener.claimed_pages(pages_of(text))


@contextlib.asynccontextmanager
async def agent(engine_url, broker, tmp_path, **settings):
    """An agent in this process, on a memory bus."""
    config = WorkerConfig(
        engine_url=engine_url, id=W, journal=tmp_path / "journal", poll_s=0.1, resync_jitter_s=0.01, **settings
    )
    async with asyncio.TaskGroup() as group:
        app = App("worker", Shared(), group)
        bus = MemoryBus(broker)
        app.attach(bus)
        serving_agent = group.create_task(serve(app, config, bus))
        try:
            yield app
        finally:
            app.stopping.set()
            await serving_agent
            await bus.close()
            app.cancel_all()


@pytest.fixture
async def broker():
    return MemoryBroker()


@pytest.fixture
async def listener(broker):
    made = Listener(MemoryBus(broker), W)
    await made.listen()
    yield made
    await made.bus.close()
    made.index.check()


def settings(**changes):
    return EngineConfig(page_tokens=PAGE_TOKENS, model_name="m", **{"speed": 50.0, **changes})


async def test_claims_equal_the_cache_under_pressure(broker, listener, tmp_path, until):
    async with serving(settings(kv_tokens=4_096)) as running, agent(running.url, broker, tmp_path):
        await until(lambda: listener.hellos)
        hello = listener.hellos[0]
        assert (hello.page_tokens, hello.kv_tokens, hello.pool) == (PAGE_TOKENS, 4_096, "m")
        assert hello.session_tags
        assert hello.speed == 50.0
        assert hello.cost.prompt_s_per_token > 0
        for number in range(12):
            await complete(running.url, f"{number}" * 700)
        await until(lambda: listener.claims() == cached_pages(running.engine))
        for node in running.engine.core.pool.tree.nodes():
            assert listener.index.match(node.hashes) == ({W: node.pages} if node.pages else {})
        assert holds(listener, "11" * 350) == 43
        assert holds(listener, "0" * 700) == 0
        assert listener.resyncs == 0


async def test_an_agent_that_comes_later_learns_everything(broker, listener, tmp_path, until):
    async with serving(settings()) as running:
        await complete(running.url, "a" * 320)
        await complete(running.url, "b" * 320)
        async with agent(running.url, broker, tmp_path):
            await until(lambda: holds(listener, "a" * 320) == 20)
            assert holds(listener, "b" * 320) == 20
        await until(lambda: listener.leavings)
        assert not listener.leavings[0].engine_died
        first = listener.hellos[0].epoch
        async with agent(running.url, broker, tmp_path):
            await until(lambda: len(listener.hellos) == 2 and holds(listener, "a" * 320) == 20)
        assert listener.hellos[1].epoch > first


async def test_lost_deltas_are_mended_by_a_snapshot(broker, listener, tmp_path, until):
    async with serving(settings()) as running, agent(running.url, broker, tmp_path):
        await until(lambda: listener.beats)
        listener.lose = 1
        await complete(running.url, "a" * 320)
        await until(lambda: not listener.lose)
        await complete(running.url, "b" * 320)
        # Until the snapshot is in, what came since the gap is only a guess, though it may be right already.
        await until(lambda: listener.resyncs and not listener.index.stale(W))
        assert holds(listener, "a" * 320) == holds(listener, "b" * 320) == 20
        listener.lose = 1
        await complete(running.url, "c" * 320)  # nothing follows: the heartbeat tells
        await until(lambda: holds(listener, "c" * 320) == 20)


async def test_expired_leases_are_aborted_and_tags_closed(broker, listener, tmp_path, until):
    async with (
        serving(settings(speed=4.0)) as running,
        agent(running.url, broker, tmp_path, retention="tags", tag_ttl_s=2.0),
    ):
        await until(lambda: listener.hellos)
        bus = listener.bus
        endless = {
            name: asyncio.create_task(
                complete(
                    running.url, name * 64, session=f"tag-{name}", request=rid(StepId(name * 32), 0), max_tokens=5_000
                )
            )
            for name in "ab"
        }
        await until(lambda: running.engine.core.running == 2)
        for name in "ab":
            await bus.publish(SUBJECTS.lease(W), taken(name, W, f"tag-{name}"))
        for _ in range(5):
            await asyncio.sleep(0.4)
            renewed = LeasesRenewed(gateway_id=GatewayId("g"), worker_id=W, lease_ids=(LeaseId("lease-b"),))
            await bus.publish(SUBJECTS.lease(W), renewed)
        answer = await endless["a"]
        assert answer["choices"][0]["finish_reason"] == "abort"
        assert [m.lease_id for m in listener.released] == ["lease-a"]
        assert "tag-b" in running.engine.core.open_sessions
        await bus.publish(SUBJECTS.step_finished(W), finished("b", W))
        endless["b"].cancel()
        await until(lambda: not running.engine.core.open_sessions)
        await until(lambda: listener.beats[-1].open_session_tags == 0)
        assert listener.beats[-1].leases == 0
        assert [m.lease_id for m in listener.released] == ["lease-a"]


async def test_a_restarted_agent_closes_the_tags_of_its_journal(broker, listener, tmp_path, until, monkeypatch):
    monkeypatch.setattr("saga.worker.state.UNCLAIMED_S", 1.0)
    async with serving(settings()) as running:
        await complete(running.url, "a" * 64, session="tag-a")
        async with agent(running.url, broker, tmp_path, retention="tags", tag_ttl_s=5_000.0):
            await until(lambda: listener.hellos)
            await listener.bus.publish(SUBJECTS.lease(W), taken("a", W, "tag-a"))
            await listener.bus.publish(SUBJECTS.step_finished(W), finished("a", W))
            await until(lambda: listener.beats[-1].open_session_tags == 1)
        assert running.engine.core.open_sessions == ["tag-a"]
        async with agent(running.url, broker, tmp_path, retention="tags", tag_ttl_s=5_000.0):
            await until(lambda: not running.engine.core.open_sessions)
        assert "tag-a" not in (tmp_path / "journal").read_text().splitlines()[-1].removeprefix("-tag-a")


class Process:
    """A service as `python -m saga.<service>`, killed and started again at will."""

    def __init__(self, service, environ, log_path):
        self.service, self.environ, self.log_path = service, environ, log_path
        self.child: asyncio.subprocess.Process | None = None

    async def start(self):
        with self.log_path.open("ab") as log:
            self.child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"saga.{self.service}",
                env={**os.environ, **self.environ},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def stop(self, number=signal.SIGTERM):
        if self.child is not None and self.child.returncode is None:
            self.child.send_signal(number)
            await asyncio.wait_for(self.child.wait(), 15)
        return self.child.returncode


@contextlib.asynccontextmanager
async def process(service, environ, log_path):
    made = Process(service, environ, log_path)
    await made.start()
    try:
        yield made
    finally:
        await made.stop(signal.SIGKILL)


async def test_processes_die_and_claims_are_right_again(nats_server, tmp_path, until):
    port_file = tmp_path / "port"
    engine_env = {
        "SAGA_ENGINE_PORT_FILE": str(port_file),
        "SAGA_ENGINE_PAGE_TOKENS": str(PAGE_TOKENS),
        "SAGA_ENGINE_SPEED": "50",
    }
    bus = await NatsBus.connect(nats_server.url, name="test", cell="main")
    listener = Listener(bus, W)
    await listener.listen()
    async with process("engine", engine_env, tmp_path / "engine.log") as engine:
        await until(lambda: port_file.exists() and port_file.read_text().endswith("\n"))
        url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        engine.environ |= {"SAGA_ENGINE_PORT": port_file.read_text().strip()}
        worker_env = {
            "SAGA_NATS_URL": nats_server.url,
            "SAGA_WORKER_ID": W,
            "SAGA_WORKER_ENGINE_URL": url,
            "SAGA_WORKER_JOURNAL": str(tmp_path / "journal"),
        }
        async with process("worker", worker_env, tmp_path / "worker.log") as worker:
            await until(lambda: listener.hellos)
            await complete(url, "a" * 320)
            await until(lambda: holds(listener, "a" * 320) == 20)

            await engine.stop(signal.SIGKILL)
            await until(lambda: listener.leavings)
            assert listener.leavings[0].engine_died
            await engine.start()
            await until(lambda: len(listener.hellos) == 2)
            await complete(url, "b" * 320)
            await until(lambda: holds(listener, "b" * 320) == 20)
            assert holds(listener, "a" * 320) == 0

            await worker.stop(signal.SIGKILL)
            await complete(url, "c" * 320)
            await worker.start()
            await until(lambda: holds(listener, "c" * 320) == 20)
            assert holds(listener, "b" * 320) == 20
            assert [h.epoch for h in listener.hellos] == sorted({h.epoch for h in listener.hellos})

            assert await worker.stop() == 0
            await until(lambda: len(listener.leavings) == 2)
            assert not listener.leavings[1].engine_died
    await bus.close()
    listener.index.check()


async def test_an_unfit_engine_stops_the_start(nats_server, tmp_path):
    async def server_info(_):
        return aiohttp.web.json_response({"page_size": 64, "max_total_num_tokens": 100})

    app = aiohttp.web.Application()
    app.router.add_get("/server_info", server_info)
    runner = aiohttp.web.AppRunner(app)
    await runner.setup()
    await aiohttp.web.TCPSite(runner, "127.0.0.1", 0).start()
    environ = {
        "SAGA_NATS_URL": nats_server.url,
        "SAGA_WORKER_ENGINE_URL": f"http://127.0.0.1:{runner.addresses[0][1]}",
        "SAGA_WORKER_JOURNAL": str(tmp_path / "journal"),
    }
    async with process("worker", environ, tmp_path / "worker.log") as worker:
        assert await asyncio.wait_for(worker.child.wait(), 15) == 2
    await runner.cleanup()
    assert "--kv-events-config" in (tmp_path / "worker.log").read_text()
