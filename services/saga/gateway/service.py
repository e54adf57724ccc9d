"""The life of a gateway process: subscribe, listen, say so; stop saying so, finish what is in flight, leave."""

import asyncio
import contextlib
import os
import ssl
from pathlib import Path

from saga.contract.ids import GatewayId
from saga.contract.subjects import kv_bucket
from saga.contract.tenants import KEYS_BUCKET, BadRowError, read_key
from saga.gateway.chat_template import BadTemplateError
from saga.gateway.config import PREFIX, GatewaySettings
from saga.gateway.http_desk import Desk
from saga.gateway.http_engine import EngineClient
from saga.gateway.http_server import HttpServer
from saga.gateway.http_traces import open_traces
from saga.gateway.prompt_tokens import Tokenizer, model_tokenizer
from saga.gateway.tenants import Tenants
from saga.gateway.vocabulary import BadVocabularyError
from saga.runtime import app as runtime_app
from saga.runtime.app import App
from saga.runtime.bus import Bus, Entry
from saga.runtime.clock import MonotonicClock
from saga.runtime.config import load
from saga.runtime.errors import StartError
from saga.runtime.log import get_logger
from saga.runtime.rows import follow

log = get_logger()


async def serve(app: App) -> None:
    """One gateway, until it is told to stop."""
    settings = load(GatewaySettings, PREFIX)
    tenants = _tenants(settings.tenants, live=settings.live_keys)
    tokenizers = await asyncio.to_thread(_tokenizers, settings)
    traces = await asyncio.to_thread(open_traces, settings)  # its library takes a while to import
    gateway_id = GatewayId(settings.id or f"gw-{os.urandom(4).hex()}")
    bus = await app.connect()
    desk = Desk(bus, gateway_id, settings.cell, record=app.shared.record)
    app.spawn(desk.watch(), name="desk")
    engines = EngineClient(settings.connect_s)
    server = HttpServer(settings, desk, engines, tenants, tokenizers, traces)
    try:
        await desk.open()
        if settings.live_keys:
            await _follow_keys(bus, settings.cell, tenants, app.stopping)
        port = await _listen(server, settings)
        _say_who_may_ask(tenants, settings)
        log.info("gateway.listening", gateway=gateway_id, host=settings.host, port=port)
        await app.stopping.wait()
        log.info("gateway.stopping", in_flight=server.in_flight)
        await server.drain(settings.drain_s)
    finally:
        await server.close()
        await engines.close()
        await desk.close()
        await bus.drain()
        if traces is not None:
            await asyncio.to_thread(traces.close)


async def _listen(server: HttpServer, settings: GatewaySettings) -> int:
    tls = _tls(settings)
    try:
        port = await server.listen(tls)
    except OSError as error:
        raise StartError(f"{PREFIX}HOST/PORT={settings.host}:{settings.port}: {error.strerror or error}") from error
    if settings.port_file is not None:
        await asyncio.to_thread(_write_port, settings.port_file, port)
    return port


def _tls(settings: GatewaySettings) -> ssl.SSLContext | None:
    """Of HTTPS. Raises StartError naming the files."""
    if settings.tls_cert_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    except (OSError, ssl.SSLError) as error:
        files = f"{settings.tls_cert_file}, {settings.tls_key_file}"
        raise StartError(f"{PREFIX}TLS_CERT_FILE, {PREFIX}TLS_KEY_FILE: {files}: {error}") from error
    return context


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


def _say_who_may_ask(tenants: Tenants, settings: GatewaySettings) -> None:
    if tenants.open:
        log.warning(
            "gateway.open",
            tenant="default",
            detail=f"ANYBODY who reaches {settings.host} may ask, as tenant `default`, with any key or none: "
            f"for development only. Set {PREFIX}LIVE_KEYS=true (`saga keys create`) or {PREFIX}TENANTS=FILE",
        )
        return
    if tenants.plain_keys:
        detail = "API keys in plain text in the file; `saga keys create NAME --hash-only` makes one that is not"
        log.warning("gateway.plain_keys", keys=tenants.plain_keys, file=str(settings.tenants), detail=detail)
    if not tenants.keys:
        log.warning("gateway.no_keys", detail="nobody may ask yet: `saga keys create TENANT` lets somebody in, at once")


async def _follow_keys(bus: Bus, cell: str, tenants: Tenants, stopping: asyncio.Event) -> None:
    """Returns when all keys there are have been learnt: before, nobody could be let in."""

    def changed(key_id: str, entry: Entry | None) -> None:
        try:
            tenants.learn(key_id, None if entry is None else read_key(entry.value))
        except BadRowError as error:
            tenants.learn(key_id, None)  # nobody is let in by what cannot be read
            log.error("key.bad_row", key=key_id, error=str(error))  # noqa: TRY400 - no bug of ours
        else:
            log.info("key.changed", key=key_id, known=entry is not None)

    await follow(bus, kv_bucket(cell, KEYS_BUCKET), changed, stopping)


def _tenants(path: Path | None, *, live: bool) -> Tenants:
    if path is None:
        return Tenants(live=live)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{PREFIX}TENANTS={path}: {error}") from error
    return Tenants.parse(text, str(path), live=live)


def _tokenizers(settings: GatewaySettings) -> dict[str, Tokenizer]:
    """Of the models that have one, by name."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # one prompt at a time: its threads would only cost
    clock = MonotonicClock()
    known: dict[str, Tokenizer] = {}
    for model, folder in settings.tokenizer_folders().items():
        try:
            vocabulary = (folder / "tokenizer.json").read_text(encoding="utf-8")
            config = _text_if_there(folder / "tokenizer_config.json")
            template = _text_if_there(folder / "chat_template.jinja")
            known[model] = model_tokenizer(vocabulary, config or "", template, clock.wall_s)
        except (OSError, UnicodeDecodeError, BadVocabularyError, BadTemplateError) as error:
            raise StartError(f"{PREFIX}TOKENIZERS: {model}={folder}: {error}") from error
        log.info("gateway.tokenizer", model=model, folder=str(folder), mode=settings.tokenization)
    return known


def _text_if_there(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main() -> int:
    """`python -m saga.gateway`."""
    runtime_app.run(serve, name="gateway")
