"""`python -m saga.worker`: one agent beside one engine rank."""

from saga.runtime.app import App, run
from saga.runtime.config import load
from saga.worker.config import PREFIX, WorkerConfig
from saga.worker.service import serve


async def _serve(app: App) -> None:
    config = load(WorkerConfig, PREFIX)
    bus = await app.connect()
    await serve(app, config, bus)
    await bus.drain()


if __name__ == "__main__":
    run(_serve, name="worker")
