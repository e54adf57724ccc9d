"""`python -m saga.graph`: learns from steps and forecasts what follows."""

from saga.graph.config import PREFIX, GraphConfig
from saga.graph.service import serve
from saga.runtime.app import App, run
from saga.runtime.config import load


async def _serve(app: App) -> None:
    config = load(GraphConfig, PREFIX)
    bus = await app.connect()
    await serve(app, config, bus)
    await bus.drain()


if __name__ == "__main__":
    run(_serve, name="graph")
