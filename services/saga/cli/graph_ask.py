"""Asks all graph processes of a running mesh and gathers what they say, within a deadline. Used by `saga graph`.

Partitions have one owner each, and each process answers for its own: who has heard of all of them has heard it all.
"""

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from saga.contract.messages import GraphAnswer, GraphAsk, GraphReset
from saga.contract.subjects import Subjects
from saga.runtime.bus import Bus, Incoming
from saga.runtime.bus_nats import NatsBus
from saga.runtime.config import DEFAULT_NATS_URL, load_shared
from saga.runtime.errors import BusUnavailable, StartError
from saga.runtime.nats_access import access_of
from saga.runtime.nats_server import HOST, read_port

ANSWER_WITHIN_S: Final = 2.0
RESET_WITHIN_S: Final = 4.0  # storage included
PARTITIONS: Final = 64
_PORTS_FILE = re.compile(r"nats-server_(\d+)\.ports")


class NobodyError(Exception):
    """No graph process, or not all of them, answered. The text says what to do."""


def nats_url(environ: Mapping[str, str], state_dir: Path) -> str:
    """SAGA_NATS_URL; else the NATS of the `saga up` that runs in this state directory; else the usual address."""
    if url := environ.get("SAGA_NATS_URL"):
        return url
    for file in sorted((state_dir / "nats").glob("nats-server_*.ports")):
        found = _PORTS_FILE.fullmatch(file.name)
        if found and _runs(int(found[1])) and (port := read_port(file.parent, int(found[1]))) is not None:
            return f"nats://{HOST}:{port}"
    return DEFAULT_NATS_URL


class GraphService:
    """The graph processes of one cell, as one."""

    def __init__(self, bus: Bus, cell: str) -> None:
        self._bus = bus
        self._subjects = Subjects(cell)

    @classmethod
    @contextlib.asynccontextmanager
    async def reached(cls, url: str, cell: str) -> "AsyncIterator[GraphService]":
        """Connects. Raises StartError within 3 s where no mesh is."""
        bus = await NatsBus.connect(url, name="graph-cli", cell=cell, access=access_of(load_shared()))
        try:
            yield cls(bus, cell)
        finally:
            await bus.close()

    async def ask(self, ask: GraphAsk) -> list[GraphAnswer]:
        """What all of them know. Raises NobodyError."""
        return await self._gather(ask, ANSWER_WITHIN_S)

    async def reset(self, name: str) -> list[GraphAnswer]:
        """Forget a model by its full name, or all with an empty one. Raises NobodyError."""
        return await self._gather(GraphReset(name=name), RESET_WITHIN_S)

    async def _gather(self, ask: GraphAsk | GraphReset, within_s: float) -> list[GraphAnswer]:
        asker = secrets.token_hex(8)
        answers: dict[tuple[str, int], GraphAnswer] = {}
        complete = asyncio.Event()

        def hear(incoming: Incoming) -> None:
            answer = incoming.message
            if isinstance(answer, GraphAnswer):
                answers[answer.member, answer.part] = answer
                if _whole(answers):
                    complete.set()

        subscription = await self._bus.subscribe(self._subjects.graph_answer(asker), hear)
        try:
            await self._bus.barrier()
            await self._bus.publish(self._subjects.graph_ask(), msgspec.structs.replace(ask, asker=asker))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await complete.wait()
        except BusUnavailable as error:
            raise NobodyError(f"NATS does not answer any more: {error}") from error
        finally:
            await subscription.drain()
        if not answers:
            raise NobodyError(
                f"no graph process answers within {within_s:g} s: is the mesh of this cell up, with its graph service?"
            )
        if not complete.is_set():
            missing = PARTITIONS - len({p for answer in answers.values() for p in answer.partitions})
            raise NobodyError(
                f"only a part of the graph service answers ({missing} of {PARTITIONS} partitions missing): "
                "a process has just come or gone; try again in a few seconds"
            )
        return [answers[key] for key in sorted(answers)]


def _whole(answers: Mapping[tuple[str, int], GraphAnswer]) -> bool:
    """Whether every partition has spoken, and each process has said all its parts."""
    spoken = {partition for answer in answers.values() for partition in answer.partitions}
    return len(spoken) == PARTITIONS and all(
        (member, part) in answers for (member, _), answer in answers.items() for part in range(answer.parts)
    )


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


__all__ = ["GraphService", "NobodyError", "StartError", "nats_url"]
