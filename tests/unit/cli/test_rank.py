"""One worker in one container: what engine and agent are told, and how long the engine is waited for."""

import asyncio
import json
import socket

import pytest

from saga.cli.rank import RankSettings, specs, until_idle


def test_the_agent_tells_gateways_where_this_machine_is_and_is_named_after_it():
    engine, agent = specs(RankSettings(), machine="0f3a.example", address="198.18.0.7", metrics_port="9464")

    assert engine.argv[1:] == ("-m", "saga.engine")
    assert engine.env == {"SAGA_ENGINE_HOST": "0.0.0.0", "SAGA_ENGINE_PORT": "30000"}
    assert agent.argv[1:] == ("-m", "saga.worker")
    assert agent.env == {
        "SAGA_WORKER_ENGINE_URL": "http://198.18.0.7:30000",
        "SAGA_WORKER_ID": "0f3a",
        "SAGA_METRICS_PORT": "9464",
    }


def test_what_is_set_beats_what_the_machine_says():
    settings = RankSettings(host="gpu-7.rack", port=30_100, id="w7")
    _engine, agent = specs(settings, machine="gpu-7", address="198.18.0.7", metrics_port="")

    assert agent.env == {"SAGA_WORKER_ENGINE_URL": "http://gpu-7.rack:30100", "SAGA_WORKER_ID": "w7"}


@pytest.mark.parametrize(("running_looks", "within_s", "idle"), [(2, 10.0, True), (10_000, 0.6, False)])
async def test_an_engine_is_waited_for_until_it_has_nothing_left(running_looks, within_s, idle):
    """A server that says so many times that a request runs."""
    looks = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal looks
        await reader.readuntil(b"\r\n\r\n")
        looks += 1
        body = json.dumps({"loads": [{"num_running_reqs": int(looks <= running_looks), "num_waiting_reqs": 0}]})
        writer.write(f"HTTP/1.0 200 OK\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await until_idle(f"http://127.0.0.1:{port}", within_s) is idle


async def test_an_engine_that_has_died_is_not_waited_for(unused_port: int):
    assert await until_idle(f"http://127.0.0.1:{unused_port}", 10.0)


@pytest.fixture
def unused_port() -> int:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
