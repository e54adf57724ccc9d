"""The meshes that faults are played on: a plain one, and ones that are rigged so that more can go wrong."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import Random

import msgspec
from msgspec import Struct

from saga.chaos import machines, small_store
from saga.chaos.clocks import Clocks
from saga.chaos.machines import Machines
from saga.chaos.nats_link import NatsLink, Weather
from saga.chaos.small_store import SmallStore
from saga.chaos.stage import NatsUrl, Size, Stage, staged
from saga.cli.plan import Plan
from saga.runtime.errors import StartError


def _nothing() -> str:
    return ""


class Scene(Struct, frozen=True, kw_only=True):
    """A kind of mesh. `why_not`: why it cannot be had on this machine; empty: it can."""

    name: str
    open: Callable[[Size, Path], AbstractAsyncContextManager[Stage]]
    why_not: Callable[[], str] = _nothing


class Links:
    """Between NATS and every process."""

    def __init__(self, links: dict[str, NatsLink]) -> None:
        self._links = links

    def turn(self, weather: Weather) -> None:
        """All of them are like that from now on."""
        for link in self._links.values():
            link.weather = weather

    @property
    def touched(self) -> dict[str, int]:
        """Messages so far, by what was done to them."""
        total: dict[str, int] = {}
        for link in self._links.values():
            for kind, count in link.touched.items():
                total[kind] = total.get(kind, 0) + count
        return total


@contextlib.asynccontextmanager
async def _with_clocks(size: Size, folder: Path) -> AsyncIterator[Stage]:
    clocks = Clocks(folder)
    async with staged(size, folder, clocks.rewritten) as stage:
        stage.put(clocks)
        yield stage


@contextlib.asynccontextmanager
async def _on_a_small_disk(size: Size, folder: Path) -> AsyncIterator[Stage]:
    store = SmallStore(folder / "nats")
    with store.mounted():
        async with staged(size, folder) as stage:
            stage.put(store)
            yield stage


def _on_machines(*groups: tuple[str, ...]) -> Callable[[Size, Path], AbstractAsyncContextManager[Stage]]:
    @contextlib.asynccontextmanager
    async def opened(size: Size, folder: Path) -> AsyncIterator[Stage]:
        nats_url = NatsUrl()
        made = Machines(groups, nats_url)
        try:
            await made.open()
            async with staged(size, folder, made.rewritten, nats_url) as stage:
                stage.put(made)
                for name in stage.mesh.processes:
                    if (machine := made.of(name)) is not None:
                        stage.moved(name, machine.there("front"))
                yield stage
        except OSError as error:
            raise StartError(f"no machines: {error}") from error
        finally:
            await made.close()

    return opened


@contextlib.asynccontextmanager
async def _over_links(size: Size, folder: Path) -> AsyncIterator[Stage]:
    nats_url, links, urls = NatsUrl(), {}, {}
    names = ["graph", "admission-0", "admission-1", "placement-0", "placement-1"]
    names += [f"gateway-{number}" for number in range(size.gateways)]
    names += [f"worker-{number}" for number in range(size.workers)]
    for name in names:
        links[name] = NatsLink(nats_url, Random(name))
        urls[name] = {"SAGA_NATS_URL": await links[name].open()}

    def rewritten(planned: Plan) -> Plan:
        specs = (msgspec.structs.replace(spec, env=spec.env | urls.get(spec.name, {})) for spec in planned.specs)
        return msgspec.structs.replace(planned, specs=tuple(specs))

    try:
        async with staged(size, folder, rewritten, nats_url) as stage:
            stage.put(Links(links))
            yield stage
    finally:
        for link in links.values():
            await link.close()


PLAIN = Scene(name="plain", open=staged)
SETTABLE_CLOCKS = Scene(name="clocks", open=_with_clocks)
SMALL_STORE = Scene(name="store", open=_on_a_small_disk, why_not=small_store.why_not)
MACHINES = Scene(
    name="machines",
    open=_on_machines(("placement-0",), ("placement-1",), ("worker-0", "engine-0")),
    why_not=machines.why_not,
)
EDGE = Scene(name="edge", open=_on_machines(("gateway-1",)), why_not=machines.why_not)
LOSSY = Scene(name="links", open=_over_links)
