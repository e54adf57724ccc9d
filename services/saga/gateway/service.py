"""The life of a gateway process: subscribe, listen, say so; stop saying so, finish what is in flight, leave."""

import asyncio
import contextlib
import os
from pathlib import Path

from saga.contract.ids import GatewayId
from saga.gateway.config import PREFIX, GatewaySettings
from saga.gateway.http_desk import Desk
from saga.gateway.http_engine import EngineClient
from saga.gateway.http_server import HttpServer
from saga.gateway.tenants import Tenants
from saga.runtime import app as runtime_app
from saga.runtime.app import App
from saga.runtime.config import load
from saga.runtime.errors import StartError
from saga.runtime.log import get_logger

log = get_logger()


async def serve(app: App) -> None:
    """One gateway, until it is told to stop."""
    settings = load(GatewaySettings, PREFIX)
    tenants = _tenants(settings.tenants)
    gateway_id = GatewayId(settings.id or f"gw-{os.urandom(4).hex()}")
    bus = await app.connect()
    desk = Desk(bus, gateway_id, settings.cell, record=app.shared.record)
    app.spawn(desk.watch(), name="desk")
    engines = EngineClient(settings.connect_s)
    server = HttpServer(settings, desk, engines, tenants)
    try:
        await desk.open()
        port = await _listen(server, settings)
        if tenants.open:
            log.warning(
                "tenants.none", tenant="default", detail="no SAGA_GATEWAY_TENANTS: anybody may ask, as `default`"
            )
        log.info("gateway.listening", gateway=gateway_id, host=settings.host, port=port)
        await app.stopping.wait()
        log.info("gateway.stopping", in_flight=server.in_flight)
        await server.drain(settings.drain_s)
    finally:
        await server.close()
        await engines.close()
        await desk.close()
        await bus.drain()


async def _listen(server: HttpServer, settings: GatewaySettings) -> int:
    try:
        port = await server.listen()
    except OSError as error:
        raise StartError(f"{PREFIX}HOST/PORT={settings.host}:{settings.port}: {error.strerror or error}") from error
    if settings.port_file is not None:
        await asyncio.to_thread(_write_port, settings.port_file, port)
    return port


def _write_port(path: Path, port: int) -> None:
    """In one step, so that a reader never sees half of it."""
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_text(f"{port}\n")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StartError(f"{PREFIX}PORT_FILE={path}: {error.strerror}") from error


def _tenants(path: Path | None) -> Tenants:
    if path is None:
        return Tenants()
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{PREFIX}TENANTS={path}: {error}") from error
    return Tenants.parse(text, str(path))


def main() -> int:
    """`python -m saga.gateway`."""
    runtime_app.run(serve, name="gateway")
