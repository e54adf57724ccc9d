"""A real nats-server for tests that ask for it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from saga.runtime.nats_server import NatsServer


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server with JetStream on a free port; may be killed and started again."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def nats_url(nats_server: NatsServer) -> str:
    """Where it listens."""
    return nats_server.url


@pytest.fixture
def until():
    """Waits for something outside this process that nobody tells us about: `await until(condition)`."""

    async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
        async with asyncio.timeout(within_s):
            while not condition():
                await asyncio.sleep(0.02)

    return until
