"""How a process is hit: killed, stopped, cut off, its clock set, its disk filled. `catalogue.py` says which are.

Entering a fault does it, leaving it undoes it where it does not end by itself. What must hold meanwhile and afterwards
is `invariants.py`'s.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager

from msgspec import Struct

from saga.chaos.clocks import Clocks
from saga.chaos.machines import Machines, Wire
from saga.chaos.nats_link import CALM, Weather
from saga.chaos.scenes import PLAIN, Links, Scene
from saga.chaos.small_store import SmallStore, filled
from saga.chaos.stage import LED, Stage
from saga.cli.mesh import NATS

Pick = Callable[[Stage], Awaitable[list[str]]]


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
    scene: Scene = PLAIN
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


def cut_off(pick: Pick, wire: Wire) -> Callable[[Stage], AbstractAsyncContextManager[Blow]]:
    """One wire of the process's machine loses every packet, then none any more."""

    @contextlib.asynccontextmanager
    async def play(stage: Stage) -> AsyncIterator[Blow]:
        names = await pick(stage)
        machine = stage.prop(Machines).of(names[0])
        assert machine is not None, f"{names[0]} runs here"
        await machine.cut(wire)
        try:
            yield blow(names)
        finally:
            await machine.mend(wire)

    return play


def clocks_set(
    ahead_s: Mapping[str, float], then_kill: Pick | None = None
) -> Callable[[Stage], AbstractAsyncContextManager[Blow]]:
    """Of each process, or the leader where a service is named that has standbys, the time of day jumps. Then these are
    killed. At the end the clocks jump back."""

    @contextlib.asynccontextmanager
    async def play(stage: Stage) -> AsyncIterator[Blow]:
        clocks = stage.prop(Clocks)
        names = {name if name not in LED else await stage.leader_of(name): s for name, s in ahead_s.items()}
        for name, seconds in names.items():
            clocks.set(name, stage.mesh.processes[name], seconds)
        victims = [] if then_kill is None else await then_kill(stage)
        stage.kill(*victims)
        try:
            yield blow([*names, *victims])
        finally:
            for name in names:
                clocks.set(name, stage.mesh.processes[name], 0.0)

    return play


@contextlib.asynccontextmanager
async def store_full(stage: Stage) -> AsyncIterator[Blow]:
    """NATS cannot write. At the end there is room again, and its operator restarts it: once it has met a full disk,
    JetStream stays off until then."""
    store = stage.prop(SmallStore)
    await filled(store)
    try:
        yield blow([NATS])
    finally:
        store.free()
        stage.kill(NATS)


def stormy(weather: Weather) -> Callable[[Stage], AbstractAsyncContextManager[Blow]]:
    """Every process hears NATS over a bad link."""

    @contextlib.asynccontextmanager
    async def play(stage: Stage) -> AsyncIterator[Blow]:
        links = stage.prop(Links)
        links.turn(weather)
        try:
            yield blow([])
        finally:
            links.turn(CALM)

    return play
