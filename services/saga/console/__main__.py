"""`python -m saga.console`: a web page that shows a cell at work."""

from saga.console.config import PREFIX, ConsoleSettings
from saga.console.service import serve
from saga.runtime.app import App, run
from saga.runtime.config import load


async def _serve(app: App) -> None:
    settings = load(ConsoleSettings, PREFIX)
    bus = await app.connect()
    await serve(app, settings, bus)
    await bus.drain()


if __name__ == "__main__":
    run(_serve, name="console")
