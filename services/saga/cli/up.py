"""`saga up`: a whole mesh on this machine until Ctrl-C."""

import argparse
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from saga.cli import sglang_options
from saga.cli.mesh import Mesh
from saga.cli.plan import SYSTEMS, MeshSettings, Plan, free_or_any, plan
from saga.cli.probe import models
from saga.cli.sglang import SglangSettings, on_sglang, ports_for
from saga.runtime.app import App, run
from saga.runtime.bus_nats import NatsBus
from saga.runtime.config import load_shared
from saga.runtime.errors import StartError
from saga.runtime.nats_access import access_of

DEFAULTS = MeshSettings()
DEFAULT_PORT = 8080
CONSOLE_PORT = 8090


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The flags of `saga up`."""
    parser = commands.add_parser(
        "up",
        help="start a whole mesh on this machine",
        description="Starts NATS (unless SAGA_NATS_URL is set), engines (simulated, or real SGLang servers) and all "
        "services, and keeps them running until SIGINT or SIGTERM.",
    )
    parser.add_argument("--workers", type=int, default=DEFAULTS.workers, metavar="N", help="engines (default 4)")
    parser.add_argument("--profile", default=DEFAULTS.profile, metavar="P", help="engine profile (default %(default)s)")
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="engine seconds per real second")
    parser.add_argument("--shrink", type=int, default=1, metavar="K", help="divide lengths, KV and rates by K")
    parser.add_argument("--page-tokens", type=int, default=0, metavar="N", help="KV page (default the profile's)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="of the gateway (default %(default)s)")
    parser.add_argument(
        "--console-port", type=int, metavar="P", help=f"of the console (default {CONSOLE_PORT}, or any free one)"
    )
    parser.add_argument("--no-console", action="store_true", help="without the web page that shows what happens")
    parser.add_argument("--state-dir", type=Path, default=DEFAULTS.state_dir, metavar="DIR", help="default .saga")
    parser.add_argument("--system", default=DEFAULTS.system, metavar="S", help=f"{' or '.join(SYSTEMS)}")
    for point in ("admission", "placement", "retention"):
        parser.add_argument(f"--{point}-policy", default="", metavar="P", help="instead of the system's")
    parser.add_argument("--compat", action="store_true", help="engines also answer what other routers ask of a worker")
    parser.add_argument("--tenants", type=Path, metavar="FILE", help="TOML of API keys")
    parser.add_argument(
        "--live-keys", action="store_true", help="ask for keys of `saga keys`; without this and --tenants: open to all"
    )
    sglang_options.add_arguments(parser)
    parser.set_defaults(act=act)


def settings_from(flags: argparse.Namespace, environ: Mapping[str, str]) -> MeshSettings:
    """Flags and SAGA_NATS_URL, SAGA_CELL to the settings of a mesh."""
    real = flags.engine == sglang_options.SGLANG
    return MeshSettings(
        ready_within_s=sglang_options.READY_WITHIN_S if real else DEFAULTS.ready_within_s,
        workers=flags.workers,
        profile=flags.profile,
        speed=flags.speed,
        shrink=flags.shrink,
        page_tokens=flags.page_tokens,
        system=flags.system,
        admission_policy=flags.admission_policy,
        placement_policy=flags.placement_policy,
        # The plugin has nothing to order by unless values are told.
        retention_policy=flags.retention_policy or ("values" if flags.sglang_plugin else ""),
        tenants=flags.tenants,
        live_keys=flags.live_keys,
        gateway_port=flags.port,
        console_port=_console_port(flags),
        state_dir=flags.state_dir,
        nats_url=environ.get("SAGA_NATS_URL", ""),
        cell=environ.get("SAGA_CELL", DEFAULTS.cell),
        env={"engine": {"SAGA_ENGINE_COMPAT": "true"}} if flags.compat else {},
    )


def _console_port(flags: argparse.Namespace) -> int | None:
    if flags.no_console:
        return None
    return flags.console_port if flags.console_port is not None else free_or_any(CONSOLE_PORT)


def servers_from(flags: argparse.Namespace, environ: Mapping[str, str]) -> SglangSettings | None:
    """The real servers asked for, if any. Raises StartError for what cannot work, and for flags of the other kind."""
    if flags.engine != sglang_options.SGLANG:
        sglang_options.refuse_without_sglang(flags)
        return None
    if flags.compat:
        raise StartError("--compat is of simulated engines: real ones answer what they answer")
    for name in ("profile", "speed", "shrink"):
        if getattr(flags, name) != getattr(DEFAULTS, name):
            raise StartError(f"--{name} is of simulated engines: real ones are as they are")
    return sglang_options.sglang_settings(flags, environ, flags.state_dir)


def act(flags: argparse.Namespace) -> NoReturn:
    """Runs the mesh until a signal."""

    async def serve(app: App) -> None:
        servers = servers_from(flags, os.environ)
        settings = settings_from(flags, os.environ)
        if settings.nats_url:  # say so at once, not from the log of the first child that misses it
            await (
                await NatsBus.connect(settings.nats_url, name="up", cell=settings.cell, access=access_of(load_shared()))
            ).close()
        await _run(app, settings, servers)

    run(serve, name="up")


async def _run(app: App, settings: MeshSettings, servers: SglangSettings | None) -> None:
    out = Console()
    engine = settings.profile if servers is None else f"SGLang of {servers.model}"
    out.print(f"Starting {settings.workers} x {engine} with system [bold]{settings.system}[/bold] ...")
    processes: Plan | None = None
    if servers is not None:
        settings.state_dir.mkdir(parents=True, exist_ok=True)  # the plugin's channels go there
        processes = on_sglang(plan(settings), servers, ports_for(settings.workers))
        out.print(f"A server takes from 20 s to minutes to start; it writes to {settings.state_dir / 'logs'}.")
    async with AsyncExitStack() as stack:
        mesh = await app.stop_or(stack.enter_async_context(Mesh(settings, processes=processes)))
        if mesh is None:  # told to stop while starting
            return
        show(mesh, [model.id for model in await models(mesh.gateway_url)], out)
        await app.stopping.wait()
        out.print("Stopping: requests in flight are finished first; once more Ctrl-C to hurry.")


def show(mesh: Mesh, names: Sequence[str], out: Console) -> None:
    """Where everything is, and a first request."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("gateway", f"{mesh.gateway_url}/v1")
    if mesh.console_url:
        table.add_row("console", f"{mesh.console_url}  (what happens, live)")
    table.add_row("models", ", ".join(names) or "asked for with an API key")
    table.add_row("engines", ", ".join(mesh.engine_urls))
    table.add_row("NATS", mesh.nats_url)
    table.add_row("logs", str(mesh.log_dir))
    table.add_row("processes", str(len(mesh.processes)))
    out.print(table)
    if not (asks_for_keys := mesh.settings.tenants is not None or mesh.settings.live_keys):
        out.print("\n[bold red]OPEN[/]: whoever reaches the gateway may ask, as tenant `default`, without a key.")
        out.print("For keys: --live-keys and `saga keys create TENANT`, or --tenants FILE.")
    elif mesh.settings.live_keys:
        out.print("\nAPI keys are asked for: `saga keys create TENANT` makes one.")
    body = f'{{"model": "{names[0] if names else "MODEL"}", "max_tokens": 32, "stream": true, "messages": '
    body += '[{"role": "user", "content": "Hello"}]}'
    out.print("\nTry it:\n", highlight=False)
    key = "-H 'Authorization: Bearer KEY' " * asks_for_keys
    curl = f"curl -N {mesh.gateway_url}/v1/chat/completions {key}-H 'Content-Type: application/json' -d '{body}'\n"
    out.print(curl, highlight=False, markup=False, soft_wrap=True)
