"""What is done to a mesh: one entry a fault. What must hold meanwhile and afterwards is `invariants.py`'s.

Entering a fault does it, leaving it undoes it where it does not end by itself.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal

from msgspec import Struct

from saga.chaos.stage import NATS, Stage

Scene = Literal["plain"]
Pick = Callable[[Stage], Awaitable[list[str]]]
FAILOVER_S: Final = 2.0  # that clients may be kept waiting by any one of the middle services
PAUSE_S: Final = 10.0  # of a process that is stopped


class Blow(Struct, frozen=True):
    """What was hit."""

    processes: tuple[str, ...]
    gateways: frozenset[int] = frozenset()  # of these, clients may see connections break


class Fault(Struct, frozen=True, kw_only=True):
    """One fault. `hold_s`: from its beginning to its end; `pause_limit_s`: what clients may be kept waiting, P99; None:
    nothing is required, it is measured."""

    name: str
    what: str
    play: Callable[[Stage], AbstractAsyncContextManager[Blow]]
    scene: Scene = "plain"
    hold_s: float = 0.0
    pause_limit_s: float | None = None
    short: bool = False  # part of the short version


def processes(*names: str) -> Pick:
    """These."""

    async def pick(_stage: Stage) -> list[str]:
        await asyncio.sleep(0)
        return list(names)

    return pick


def leader(service: str) -> Pick:
    """Whoever leads the service."""

    async def pick(stage: Stage) -> list[str]:
        return [await stage.leader_of(service)]

    return pick


def standby(service: str) -> Pick:
    """One who could lead it."""

    async def pick(stage: Stage) -> list[str]:
        return [await stage.standby_of(service)]

    return pick


async def middle(stage: Stage) -> list[str]:
    """All that stands between gateways and workers, but NATS."""
    await asyncio.sleep(0)
    return [name for service in ("graph", "admission", "placement") for name in stage.named(service)]


def blow(names: list[str]) -> Blow:
    """On these processes."""
    gateways = frozenset(int(name.removeprefix("gateway-")) for name in names if name.startswith("gateway-"))
    return Blow(tuple(names), gateways)


def killed(pick: Pick) -> Callable[[Stage], AbstractAsyncContextManager[Blow]]:
    """SIGKILL; the supervisor starts them again."""

    @contextlib.asynccontextmanager
    async def play(stage: Stage) -> AsyncIterator[Blow]:
        names = await pick(stage)
        stage.kill(*names)
        yield blow(names)

    return play


def stopped(pick: Pick) -> Callable[[Stage], AbstractAsyncContextManager[Blow]]:
    """SIGSTOP, and at the end SIGCONT."""

    @contextlib.asynccontextmanager
    async def play(stage: Stage) -> AsyncIterator[Blow]:
        names = await pick(stage)
        pids = [stage.stop(name) for name in names]
        try:
            yield blow(names)
        finally:
            for pid in pids:
                stage.go_on(pid)

    return play


def _kill(name: str, what: str, pick: Pick, limit_s: float | None = None, *, short: bool = False) -> Fault:
    return Fault(name=f"kill-{name}", what=f"SIGKILL {what}", play=killed(pick), pause_limit_s=limit_s, short=short)


def _stop(name: str, what: str, pick: Pick, limit_s: float | None = None, *, short: bool = False) -> Fault:
    return Fault(
        name=f"stop-{name}",
        what=f"SIGSTOP {what} for {PAUSE_S:g} s",
        play=stopped(pick),
        hold_s=PAUSE_S,
        pause_limit_s=limit_s,
        short=short,
    )


FAULTS: Final = (
    _kill("graph", "graph", processes("graph"), FAILOVER_S),
    _kill("admission-leader", "the leading admission", leader("admission"), FAILOVER_S),
    _kill("admission-standby", "the standby of admission", standby("admission"), FAILOVER_S),
    _kill("placement-leader", "the leading placement", leader("placement"), FAILOVER_S, short=True),
    _kill("placement-standby", "the standby of placement", standby("placement"), FAILOVER_S),
    _kill("middle", "graph, both admissions, both placements at once", middle),
    _kill("gateway", "one of two gateways", processes("gateway-0"), short=True),
    _kill("worker", "a worker agent", processes("worker-0"), FAILOVER_S),
    _kill("engine", "an engine", processes("engine-0"), short=True),
    _kill("nats", "NATS", processes(NATS), short=True),
    _stop("graph", "graph", processes("graph"), FAILOVER_S),
    _stop("admission-leader", "the leading admission", leader("admission"), FAILOVER_S, short=True),
    _stop("admission-standby", "the standby of admission", standby("admission"), FAILOVER_S),
    _stop("placement-leader", "the leading placement", leader("placement"), FAILOVER_S),
    _stop("placement-standby", "the standby of placement", standby("placement"), FAILOVER_S),
    _stop("gateway", "one of two gateways", processes("gateway-0")),
    _stop("worker", "a worker agent", processes("worker-0"), FAILOVER_S),
    _stop("engine", "an engine", processes("engine-0")),
    _stop("nats", "NATS", processes(NATS)),
)
