"""`python -m saga.cli.rank`: one worker as one container, a simulated engine and its agent under one small supervisor.

Whichever of the two dies is started again beside the other: an agent's death costs no KV. Told to stop, the agent says
goodbye first and the engine finishes what it has. Not for real engines: `saga worker --engine URL` attaches to those.
"""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from typing import Annotated, Final, NoReturn

import msgspec

from saga.cli.child import Child, ProcessSpec
from saga.cli.probe import text_of
from saga.runtime.app import SUPERVISED, App, run
from saga.runtime.config import load
from saga.runtime.errors import StartError
from saga.runtime.log import get_logger

PREFIX: Final = "SAGA_RANK_"
METRICS_PORT: Final = "SAGA_METRICS_PORT"
LOADS_PATH: Final = "/v1/loads"
LOOK_EVERY_S: Final = 0.25
IDLE_LOOKS: Final = 4  # in a row: a step granted just before the goodbye may still be on its way
log = get_logger()


class RankSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the engine listens, and who the worker is."""

    host: str = ""  # where gateways reach the engine; empty: the address of this machine's own name
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 30_000  # of the engine's HTTP
    id: str = ""  # of the worker, unique in its cell; empty: this machine's name
    drain_s: Annotated[float, msgspec.Meta(ge=0)] = 20.0  # for requests in flight when told to stop


class _Load(msgspec.Struct):
    num_running_reqs: int = 0
    num_waiting_reqs: int = 0


class _Loads(msgspec.Struct):
    loads: list[_Load] = []


def specs(settings: RankSettings, *, machine: str, address: str, metrics_port: str) -> tuple[ProcessSpec, ProcessSpec]:
    """Engine and agent. `machine` names this one, `address` is where others reach it; no `metrics_port`: no metrics."""
    host = settings.host or address
    agent_env = {
        "SAGA_WORKER_ENGINE_URL": f"http://{host}:{settings.port}",
        "SAGA_WORKER_ID": settings.id or machine.partition(".")[0],
    }
    if metrics_port:
        agent_env[METRICS_PORT] = metrics_port
    engine_env = {"SAGA_ENGINE_HOST": "0.0.0.0", "SAGA_ENGINE_PORT": str(settings.port)}  # noqa: S104 - for gateways
    return (
        ProcessSpec(name="engine", argv=(sys.executable, "-m", "saga.engine"), env=engine_env),
        ProcessSpec(name="agent", argv=(sys.executable, "-m", "saga.worker"), env=agent_env),
    )


async def until_idle(url: str, within_s: float) -> bool:
    """Waits for the engine to have nothing left to do; False when it still has after that long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            idle = 0
            while idle < IDLE_LOOKS:
                idle = 0 if await _busy(url) else idle + 1
                await asyncio.sleep(LOOK_EVERY_S)
            return True
    return False


async def _busy(url: str) -> bool:
    """Whether requests run or wait; an engine that does not answer has none."""
    try:
        loads = msgspec.json.decode(await text_of(url, LOADS_PATH), type=_Loads).loads
    except (OSError, msgspec.DecodeError):
        return False
    return any(load.num_running_reqs + load.num_waiting_reqs > 0 for load in loads)


def children(settings: RankSettings, environ: Mapping[str, str], metrics_port: str) -> tuple[Child, Child]:
    """Engine and agent, not started yet. Raises StartError when this machine's own name has no address."""
    machine = socket.gethostname()
    try:
        address = settings.host or socket.gethostbyname(machine)
    except OSError as error:
        raise StartError(f"{machine} has no address: set {PREFIX}HOST to where gateways reach this worker") from error
    engine, agent = specs(settings, machine=machine, address=address, metrics_port=metrics_port)
    tied = {**environ, SUPERVISED: "1"}
    return Child(engine, None, tied), Child(agent, None, tied)


async def serve(app: App, settings: RankSettings, metrics_port: str) -> None:
    """Both, until told to stop."""
    engine, agent = both = children(settings, os.environ, metrics_port)
    try:
        for child in both:
            await child.start()
            app.spawn(child.supervise(), name=f"supervise {child.spec.name}")
        await app.stopping.wait()
        await agent.stop()  # nothing new comes from now on
        if not await until_idle(f"http://127.0.0.1:{settings.port}", settings.drain_s):
            log.warning("rank.cut_short", drain_s=settings.drain_s, detail="steps in flight go on on other workers")
        await engine.stop()
    finally:
        for child in both:
            child.abandon()


def main() -> NoReturn:
    """Runs both; see above."""
    metrics_port = os.environ.pop(METRICS_PORT, "")  # the agent's: one port cannot be everybody's

    async def _serve(app: App) -> None:
        await serve(app, load(RankSettings, PREFIX), metrics_port)

    run(_serve, name="rank")


if __name__ == "__main__":
    main()
