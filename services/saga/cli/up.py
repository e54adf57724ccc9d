"""`saga up`: a whole mesh on this machine until Ctrl-C."""

import argparse
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from saga.cli.mesh import Mesh
from saga.cli.plan import SYSTEMS, MeshSettings
from saga.cli.probe import models
from saga.runtime.app import App, run
from saga.runtime.bus_nats import NatsBus

DEFAULTS = MeshSettings()
DEFAULT_PORT = 8080


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The flags of `saga up`."""
    parser = commands.add_parser(
        "up",
        help="start a whole mesh on this machine",
        description="Starts NATS (unless SAGA_NATS_URL is set), simulated engines and all services, "
        "and keeps them running until SIGINT or SIGTERM.",
    )
    parser.add_argument("--workers", type=int, default=DEFAULTS.workers, metavar="N", help="engines (default 4)")
    parser.add_argument("--profile", default=DEFAULTS.profile, metavar="P", help="engine profile (default %(default)s)")
    parser.add_argument("--speed", type=float, default=1.0, metavar="X", help="engine seconds per real second")
    parser.add_argument("--shrink", type=int, default=1, metavar="K", help="divide lengths, KV and rates by K")
    parser.add_argument("--page-tokens", type=int, default=0, metavar="N", help="KV page (default the profile's)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="of the gateway (default %(default)s)")
    parser.add_argument("--state-dir", type=Path, default=DEFAULTS.state_dir, metavar="DIR", help="default .saga")
    parser.add_argument("--system", default=DEFAULTS.system, metavar="S", help=f"{' or '.join(SYSTEMS)}")
    for point in ("admission", "placement", "retention"):
        parser.add_argument(f"--{point}-policy", default="", metavar="P", help="instead of the system's")
    parser.add_argument("--tenants", type=Path, metavar="FILE", help="TOML of API keys; none: all are `default`")
    parser.set_defaults(act=act)


def settings_from(flags: argparse.Namespace, environ: Mapping[str, str]) -> MeshSettings:
    """Flags and SAGA_NATS_URL, SAGA_CELL to the settings of a mesh."""
    return MeshSettings(
        workers=flags.workers,
        profile=flags.profile,
        speed=flags.speed,
        shrink=flags.shrink,
        page_tokens=flags.page_tokens,
        system=flags.system,
        admission_policy=flags.admission_policy,
        placement_policy=flags.placement_policy,
        retention_policy=flags.retention_policy,
        tenants=flags.tenants,
        gateway_port=flags.port,
        state_dir=flags.state_dir,
        nats_url=environ.get("SAGA_NATS_URL", ""),
        cell=environ.get("SAGA_CELL", DEFAULTS.cell),
    )


def act(flags: argparse.Namespace) -> NoReturn:
    """Runs the mesh until a signal."""

    async def serve(app: App) -> None:
        settings = settings_from(flags, os.environ)
        if settings.nats_url:  # say so at once, not from the log of the first child that misses it
            await (await NatsBus.connect(settings.nats_url, name="up", cell=settings.cell)).close()
        await _run(app, settings)

    run(serve, name="up")


async def _run(app: App, settings: MeshSettings) -> None:
    out = Console()
    out.print(f"Starting {settings.workers} x {settings.profile} with system [bold]{settings.system}[/bold] ...")
    async with AsyncExitStack() as stack:
        mesh = await app.stop_or(stack.enter_async_context(Mesh(settings)))
        if mesh is None:  # told to stop while starting
            return
        show(mesh, [model.id for model in await models(mesh.gateway_url)], out)
        await app.stopping.wait()
        out.print("Stopping: requests in flight are finished first; once more Ctrl-C to hurry.")


def show(mesh: Mesh, names: Sequence[str], out: Console) -> None:
    """Where everything is, and a first request."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("gateway", f"{mesh.gateway_url}/v1")
    table.add_row("models", ", ".join(names))
    table.add_row("engines", ", ".join(mesh.engine_urls))
    table.add_row("NATS", mesh.nats_url)
    table.add_row("logs", str(mesh.log_dir))
    table.add_row("processes", str(len(mesh.processes)))
    out.print(table)
    body = f'{{"model": "{names[0] if names else "MODEL"}", "max_tokens": 32, "stream": true, "messages": '
    body += '[{"role": "user", "content": "Hello"}]}'
    out.print("\nTry it:\n", highlight=False)
    curl = f"curl -N {mesh.gateway_url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n"
    out.print(curl, highlight=False, markup=False, soft_wrap=True)
